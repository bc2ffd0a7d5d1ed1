import { setTimeout as sleep } from 'node:timers/promises';
import { isWhittleError, WhittleError } from './errors.js';

/** The error for a signal that has aborted: the WhittleError that it was aborted with, which says who stopped what, or else INTERRUPTED. */
export function interruption(signal: AbortSignal): WhittleError {
  const reason: unknown = signal.reason;
  return isWhittleError(reason) ? reason : new WhittleError('INTERRUPTED', 'stopped', { cause: reason });
}

/** Throws the signal's `interruption` once it has aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw interruption(signal);
}

/** Waits `pauseMs`. Throws the signal's `interruption` as soon as it aborts. */
export async function pause(pauseMs: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(pauseMs, undefined, { signal });
  } catch (error) {
    throwIfAborted(signal);
    throw error;
  }
}
