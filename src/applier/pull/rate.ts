import { setTimeout as sleep } from 'node:timers/promises';

/**
 * A token bucket for `--limit-rate`, shared by every transfer of a pull. It holds at most a quarter of a
 * second's worth, so that a pause is not followed by a burst that others on the link would feel.
 */
export class RateLimiter {
  /** Begins empty: a pull that is restarted again and again must not begin with a burst each time. */
  #tokens = 0;
  #filledMs: number;

  /** `bytesPerSecond` null means no limit. `now` is a monotonic clock in ms. */
  constructor(readonly bytesPerSecond: number | null, private readonly now: () => number = () => performance.now()) {
    this.#filledMs = now();
  }

  get #capacity(): number {
    return (this.bytesPerSecond ?? 0) / 4;
  }

  /** Waits until `count` bytes may have been received. Larger counts than the bucket run into debt and wait it off. Rejects when `signal` aborts. */
  async take(count: number, signal: AbortSignal): Promise<void> {
    const rate = this.bytesPerSecond;
    if (rate === null) return;
    const nowMs = this.now();
    this.#tokens = Math.min(this.#capacity, this.#tokens + ((nowMs - this.#filledMs) / 1000) * rate) - count;
    this.#filledMs = nowMs;
    if (this.#tokens < 0) await sleep((-this.#tokens / rate) * 1000, undefined, { signal });
  }
}
