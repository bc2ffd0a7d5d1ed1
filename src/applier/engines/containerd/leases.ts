import { createHash, randomBytes } from 'node:crypto';
import type { DurableFs, FsLock } from '../../../atomic/index.js';
import { WhittleError } from '../../../core/errors.js';
import { hexOf, stageLockPath, stagePath } from '../../store/layout.js';
import type { ContainerdApi } from './api.js';
import { containerdLimits } from './limits.js';

const lockDirectory = 'engines';
const lockName = /^containerd-([0-9a-f]{16})\.lock$/;

/**
 * The leases by which a device's pulls hold things against containerd's garbage collector. Their names tell whose they are:
 * those of a target stay from one interrupted pull to the next, those of a basis end with the process. What a killed process
 * left is found by its name, and told from a living one's by a lock in the device's root.
 */
export class Leases {
  readonly #prefix: string;
  readonly #process = randomBytes(8).toString('hex');
  #lock: FsLock | undefined;
  #count = 0;

  constructor(private readonly api: ContainerdApi, private readonly fs: DurableFs) {
    this.#prefix = `whittle-${createHash('sha256').update(fs.root).digest('hex').slice(0, 12)}-`;
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
    this.#lock ??= await this.#lockFor(this.#process);
    if (this.#lock === undefined) throw new WhittleError('INTERNAL', 'another process has the name of this one');
    const id = `${this.#prefix}basis-${this.#process}-${String(++this.#count)}`;
    await this.take(id);
    return id;
  }

  /** Deletes the leases of this device's root that nobody will come back for. `mine` stays. */
  async clear(mine: string): Promise<void> {
    const living = await this.#dropDead();
    for (const { id } of await this.api.leases()) {
      if (!id.startsWith(this.#prefix) || id === mine) continue;
      const [kind, name = ''] = id.slice(this.#prefix.length).split('-');
      if (kind === 'basis' ? !living.has(name) : kind === 'pull' && (await this.#isGivenUp(name))) await this.api.deleteLease(id, false);
    }
  }

  /** Removes the locks of processes that are no more; those that still are. A process has its lock before its first lease. */
  async #dropDead(): Promise<Set<string>> {
    const living = new Set([this.#process]);
    if ((await this.fs.stat(lockDirectory)) === undefined) return living;
    for (const entry of await this.fs.readdir(lockDirectory)) {
      const name = lockName.exec(entry.name.toString('latin1'))?.[1];
      if (name === undefined || name === this.#process) continue;
      const lock = await this.fs.tryLock(lockPath(name), 'exclusive');
      if (lock === undefined) living.add(name);
      else await this.#drop(name, lock);
    }
    return living;
  }

  /** A pull that was interrupted goes on from its stage; without one, nobody goes on. */
  async #isGivenUp(hex: string): Promise<boolean> {
    if (!/^[0-9a-f]{64}$/.test(hex)) return false;
    const digest = `sha256:${hex}`;
    const lock = await this.fs.tryLock(stageLockPath(digest), 'exclusive');
    if (lock === undefined) return false;
    try {
      return (await this.fs.stat(stagePath(digest))) === undefined;
    } finally {
      await lock.release();
    }
  }

  async #lockFor(name: string): Promise<FsLock | undefined> {
    await this.fs.batch([{ op: 'mkdir', path: lockDirectory, mode: 0o700, existOk: true }]);
    return this.fs.tryLock(lockPath(name), 'exclusive');
  }

  async #drop(name: string, lock: FsLock): Promise<void> {
    await this.fs.unlink(lockPath(name)).catch(() => undefined);
    await lock.release();
  }

  /** Lets go of this process's lock. */
  async close(): Promise<void> {
    const lock = this.#lock;
    this.#lock = undefined;
    if (lock !== undefined) await this.#drop(this.#process, lock);
  }
}

function lockPath(name: string): string {
  return `${lockDirectory}/containerd-${name}.lock`;
}
