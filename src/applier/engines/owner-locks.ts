import { createHash, randomBytes } from 'node:crypto';
import type { DurableFs, FsLock } from '../../atomic/index.js';
import { WhittleError } from '../../core/errors.js';
import type { EngineName } from './types.js';

const directory = 'engines';

/** Twelve hex digits that tell what belongs to a device's root from what belongs to another. */
export function rootMark(fs: DurableFs): string {
  return createHash('sha256').update(fs.root).digest('hex').slice(0, 12);
}

/**
 * Names for processes that keep something outside of the device's root. What a killed one left is found by its name, and told from a living one's
 * by a lock in the root, which the kernel lets go with the process.
 */
export class OwnerLocks {
  /** This process: sixteen hex digits. */
  readonly name = randomBytes(8).toString('hex');
  readonly #form: RegExp;
  #lock: FsLock | undefined;

  constructor(private readonly fs: DurableFs, private readonly engine: EngineName) {
    this.#form = new RegExp(`^${engine}-([0-9a-f]{16})\\.lock$`);
  }

  /** Takes the lock, unless it is taken. To be called before anything is made under the name. */
  async take(): Promise<void> {
    if (this.#lock !== undefined) return;
    await this.fs.batch([{ op: 'mkdir', path: directory, mode: 0o700, existOk: true }]);
    this.#lock = await this.fs.tryLock(this.#path(this.name), 'exclusive');
    if (this.#lock === undefined) throw new WhittleError('INTERNAL', 'another process has the name of this one');
  }

  /** The names of processes that are, this one's too. Locks of those that are no more are removed. */
  async living(): Promise<Set<string>> {
    const living = new Set([this.name]);
    if ((await this.fs.stat(directory)) === undefined) return living;
    for (const entry of await this.fs.readdir(directory)) {
      const name = this.#form.exec(entry.name.toString('latin1'))?.[1];
      if (name === undefined || name === this.name) continue;
      const lock = await this.fs.tryLock(this.#path(name), 'exclusive');
      if (lock === undefined) living.add(name);
      else await this.#drop(name, lock);
    }
    return living;
  }

  #path(name: string): string {
    return `${directory}/${this.engine}-${name}.lock`;
  }

  async #drop(name: string, lock: FsLock): Promise<void> {
    await this.fs.unlink(this.#path(name)).catch(() => undefined);
    await lock.release();
  }

  /** Lets go of this process's lock. Idempotent. */
  async close(): Promise<void> {
    const lock = this.#lock;
    this.#lock = undefined;
    if (lock !== undefined) await this.#drop(this.name, lock);
  }
}
