import pRetry from 'p-retry';
import { isWhittleError, type WhittleError } from '../core/errors.js';
import { pause, throwIfAborted } from '../core/interruption.js';
import type { RegistryLimits } from './limits.js';

/** Told of every failed try that will be followed by another. */
export type OnRetry = (error: WhittleError, attempt: number) => void;

/** How often and how long something is tried, and who is told. */
export interface RetryOptions {
  readonly limits: RegistryLimits;
  readonly signal?: AbortSignal | undefined;
  readonly onRetry?: OnRetry | undefined;
}

/** How long the server asked to wait, or undefined. */
export function retryAfterOf(error: WhittleError): number | undefined {
  const value = error.data['retryAfterMs'];
  return typeof value === 'number' ? value : undefined;
}

/**
 * Runs `operation` until it succeeds, fails for good (an error that is not `retryable`), or its limits are used up:
 * tries, total time, and a Retry-After longer than one that is waited for. Between tries it waits, longer each time
 * and at random, and at least as long as the server asked. Throws the last error, or INTERRUPTED.
 */
export async function withRetries<T>(operation: () => Promise<T>, { limits, signal, onRetry }: RetryOptions): Promise<T> {
  const startMs = performance.now();
  const worthwhile = (error: unknown): error is WhittleError => {
    if (!isWhittleError(error) || !error.retryable || error.code === 'INTERRUPTED') return false;
    const waitMs = retryAfterOf(error) ?? 0;
    return waitMs <= limits.retryAfterMaxMs && performance.now() - startMs + waitMs < limits.retryTimeMs;
  };
  try {
    return await pRetry(operation, {
      retries: limits.attempts - 1,
      minTimeout: limits.backoffMs,
      maxTimeout: limits.backoffMaxMs,
      randomize: true,
      maxRetryTime: limits.retryTimeMs,
      ...(signal === undefined ? {} : { signal }),
      shouldRetry: ({ error }) => worthwhile(error),
      onFailedAttempt: async ({ error, attemptNumber, retriesLeft }) => {
        if (retriesLeft === 0 || !worthwhile(error)) return;
        onRetry?.(error, attemptNumber);
        const waitMs = retryAfterOf(error) ?? 0;
        if (waitMs > 0) await pause(waitMs, signal);
      },
    });
  } catch (error) {
    throwIfAborted(signal);
    throw error;
  }
}

/** Waits before try number `failures` + 1, longer each time and at random, and at least `leastMs` (a Retry-After, up to its limit). Throws INTERRUPTED when the signal aborts. */
export async function backOff(failures: number, limits: RegistryLimits, signal: AbortSignal | undefined, leastMs = 0): Promise<void> {
  const waitMs = Math.max(Math.min(leastMs, limits.retryAfterMaxMs), Math.min(limits.backoffMs * 2 ** (failures - 1), limits.backoffMaxMs) * (1 + Math.random()));
  await pause(waitMs, signal);
}
