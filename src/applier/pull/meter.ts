import { isWhittleError, WhittleError } from '../../core/errors.js';
import type { DownloadedBytes, PullListener } from './events.js';
import type { TransferEvents } from './transfer.js';

/** What bytes are downloaded for. */
export type ByteKind = Exclude<keyof DownloadedBytes, 'other' | 'total'>;

/** How much of a delta the decoder takes from one progress event to the next. */
const applyStepBytes = 32 * 1024;

/** Counts what a pull receives, keeps it under the budget, and turns it into progress. */
export class Meter {
  readonly #bytes: Record<ByteKind, number> = { manifest: 0, config: 0, referrers: 0, index: 0, data: 0, layers: 0 };
  /** As far as it was known when nothing was under way. */
  #other = 0;
  #refetched = 0;
  #doneBytes = 0;
  #totalBytes = 0;

  /** `maxBytes` null: no budget. `received` tells the bytes of all answers, whatever they were for. */
  constructor(private readonly maxBytes: number | null, private readonly onEvent: PullListener, private readonly received: () => number = () => 0) {}

  /** Ask while nothing is under way. */
  get downloaded(): DownloadedBytes {
    this.#settle();
    return { ...this.#bytes, other: this.#other, total: this.#total };
  }

  #settle(): void {
    this.#other = Math.max(0, this.received() - this.#counted);
  }

  /** Received bytes that had been received before. */
  get refetchedBytes(): number {
    return this.#refetched;
  }

  get #counted(): number {
    return Object.values(this.#bytes).reduce((sum, count) => sum + count, 0);
  }

  get #total(): number {
    return this.#counted + this.#other;
  }

  /** Begins the part that progress is shown for: so much in all, so much of it held already. */
  begin(totalBytes: number, heldBytes: number): void {
    this.#settle();
    this.#totalBytes = totalBytes;
    this.#doneBytes = heldBytes;
  }

  /** Counts bytes outside a transfer (manifests, lists). Throws BUDGET_EXCEEDED. */
  add(kind: ByteKind, count: number): void {
    this.#bytes[kind] += count;
    if (this.maxBytes !== null && this.#total > this.maxBytes) throw this.#overBudget(this.#total);
  }

  /** Bytes that the budget still allows; Infinity without one. */
  get remainingBytes(): number {
    return this.maxBytes === null ? Infinity : Math.max(0, this.maxBytes - this.#total);
  }

  /**
   * Reads something small and counts it. `read` is told how many bytes it may take, and throws LIMIT_EXCEEDED rather than
   * take more; where it was the budget that allowed too few, that becomes BUDGET_EXCEEDED.
   */
  async affordable<T>(kind: ByteKind, allowedBytes: number, read: (allowedBytes: number) => Promise<{ readonly value: T; readonly sizeBytes: number }>): Promise<T> {
    const remaining = this.remainingBytes;
    try {
      const { value, sizeBytes } = await read(Math.min(allowedBytes, remaining));
      this.add(kind, sizeBytes);
      this.#settle();
      return value;
    } catch (error) {
      if (remaining < allowedBytes && isWhittleError(error) && error.code === 'LIMIT_EXCEEDED') throw this.#overBudget(this.#total + remaining + 1);
      throw error;
    }
  }

  /** Throws BUDGET_EXCEEDED when so many bytes more would not fit the budget. */
  requireBudget(count: number): void {
    if (this.maxBytes !== null && this.#total + count > this.maxBytes) throw this.#overBudget(this.#total + count);
  }

  #overBudget(neededBytes: number): WhittleError {
    return new WhittleError('BUDGET_EXCEEDED', `the pull needs ${String(neededBytes)} bytes, and --max-bytes allows ${String(this.maxBytes)}`, {
      data: { neededBytes, maxBytes: this.maxBytes },
    });
  }

  /** A delta's data on its way to the decoder, in pieces: once the download is done, what the decoder has taken is the progress. */
  async *applied(data: AsyncIterable<Buffer>, totalBytes: number): AsyncGenerator<Buffer, void, void> {
    let doneBytes = 0;
    for await (const chunk of data) {
      for (let at = 0; at < chunk.length; at += applyStepBytes) {
        const piece = chunk.subarray(at, at + applyStepBytes);
        yield piece;
        doneBytes += piece.length;
        if (this.#doneBytes >= this.#totalBytes) this.onEvent({ event: 'progress', phase: 'apply', doneBytes, totalBytes });
      }
    }
  }

  /** Counts a transfer's bytes as `kind`. `shown`: they are part of the progress. */
  transfer(kind: ByteKind, shown: boolean): TransferEvents {
    return {
      allow: (count) => { this.requireBudget(count); },
      received: (count, refetched) => {
        this.#refetched += refetched;
        if (shown) {
          this.#doneBytes += count - refetched;
          this.onEvent({ event: 'progress', phase: 'download', doneBytes: this.#doneBytes, totalBytes: Math.max(this.#totalBytes, this.#doneBytes) });
        }
        this.add(kind, count);
      },
      retry: (reason, pauseMs, fruitless) => { this.onEvent({ event: 'retry', reason, pauseMs, attempt: fruitless }); },
    };
  }
}

/** Time spent on one side of an iteration: what its reader does between chunks, without waiting for them. */
export class WorkTimer {
  #workMs = 0;
  #resumedMs: number | null = null;

  /** What was measured up to the last `stop`. */
  get workMs(): number {
    return this.#workMs;
  }

  /** Begins to measure, or goes on. */
  start(): void {
    this.#resumedMs = performance.now();
  }

  /** Stands still. Idempotent. */
  stop(): void {
    if (this.#resumedMs !== null) this.#workMs += performance.now() - this.#resumedMs;
    this.#resumedMs = null;
  }

  /** The same chunks; the timer stands still while one is awaited. */
  async *watch<T>(chunks: AsyncIterable<T>): AsyncGenerator<T, void, void> {
    const iterator = chunks[Symbol.asyncIterator]();
    try {
      for (;;) {
        this.stop();
        const next = await iterator.next();
        this.start();
        if (next.done === true) return;
        yield next.value;
      }
    } finally {
      await iterator.return?.();
    }
  }
}
