import { WhittleError } from '../core/errors.js';
import { pause, throwIfAborted } from '../core/interruption.js';
import type { DurableFs, FsLock } from './durable-fs.js';

const pollMs = 50;

/** How a lock is taken. */
export interface LockOptions {
  readonly mode: 'shared' | 'exclusive';
  /** How long to try; 0 tries once. */
  readonly waitMs: number;
  readonly signal?: AbortSignal | undefined;
  /** What the lock guards, for the message. */
  readonly what: string;
}

/**
 * Takes the lock file `path`. The kernel drops the lock with the process, however that ends, so no lock is ever stale.
 * Throws STORE_BUSY when somebody else holds it for longer than `waitMs`, INTERRUPTED when `signal` aborts.
 */
export async function acquireLock(fs: DurableFs, path: string, options: LockOptions): Promise<FsLock> {
  const deadlineMs = performance.now() + options.waitMs;
  for (;;) {
    throwIfAborted(options.signal);
    const lock = await fs.tryLock(path, options.mode);
    if (lock !== undefined) return lock;
    if (performance.now() >= deadlineMs) throw new WhittleError('STORE_BUSY', `another process holds ${options.what}`, { data: { lock: path } });
    await pause(pollMs, options.signal);
  }
}
