import type { DurableFs } from '../../../atomic/index.js';
import { hexOf, stageLockPath, stagePath } from '../../store/layout.js';
import { forgetStageLock } from '../../store/stage-directory.js';
import { OwnerLocks, rootMark } from '../owner-locks.js';
import type { ContainerdApi } from './api.js';
import { containerdLimits } from './limits.js';

/**
 * The leases by which a device's pulls hold things against containerd's garbage collector. Their names tell whose they are:
 * those of a target stay from one interrupted pull to the next, those of a basis end with the process. What a killed process
 * left is found by its name, and told from a living one's by a lock in the device's root.
 */
export class Leases {
  readonly #prefix: string;
  readonly #owners: OwnerLocks;
  #count = 0;

  constructor(private readonly api: ContainerdApi, private readonly fs: DurableFs) {
    this.#prefix = `whittle-${rootMark(fs)}-`;
    this.#owners = new OwnerLocks(fs, 'containerd');
  }

  /** The name of the lease of a target; the lock of the target's stage is its lock. */
  targetId(manifestDigest: string): string {
    return `${this.#prefix}pull-${hexOf(manifestDigest)}`;
  }

  /** Makes the lease, unless it is there; whether it is new. */
  async take(id: string): Promise<boolean> {
    const expire = new Date(Date.now() + containerdLimits.leaseLifetimeMs).toISOString();
    await this.api.ensureNamespace();
    return this.api.ensureLease(id, new Map([['containerd.io/gc.expire', expire]]));
  }

  /** A new lease that ends with this process; the caller deletes it. */
  async takeForNow(): Promise<string> {
    await this.#owners.take();
    const id = `${this.#prefix}basis-${this.#owners.name}-${String(++this.#count)}`;
    await this.take(id);
    return id;
  }

  /** Deletes the leases of this device's root that nobody will come back for. `mine` stays. */
  async clear(mine: string): Promise<void> {
    const living = await this.#owners.living();
    for (const { id } of await this.api.leases()) {
      if (!id.startsWith(this.#prefix) || id === mine) continue;
      const [kind, name = ''] = id.slice(this.#prefix.length).split('-');
      if (kind === 'basis' ? !living.has(name) : kind === 'pull' && (await this.#isGivenUp(name))) await this.api.deleteLease(id, false);
    }
  }

  /** A pull that was interrupted goes on from its stage; without one, nobody goes on. */
  async #isGivenUp(hex: string): Promise<boolean> {
    if (!/^[0-9a-f]{64}$/.test(hex)) return false;
    const digest = `sha256:${hex}`;
    const lock = await this.fs.tryLock(stageLockPath(digest), 'exclusive');
    if (lock === undefined) return false;
    let gone = false;
    try {
      gone = (await this.fs.stat(stagePath(digest))) === undefined;
    } finally {
      await (gone ? forgetStageLock(this.fs, digest, lock) : lock.release());
    }
    return gone;
  }

  /** Lets go of this process's lock. */
  close(): Promise<void> {
    return this.#owners.close();
  }
}
