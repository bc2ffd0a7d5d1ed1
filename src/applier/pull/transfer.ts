import { isWhittleError, WhittleError } from '../../core/errors.js';
import { pause, throwIfAborted } from '../../core/interruption.js';
import { retryAfterOf } from '../../registry/index.js';
import type { RateLimiter } from './rate.js';
import { judgeReply, type ReplyUse } from './reply.js';
import type { BlobReply, BlobSource } from './source.js';
import type { Spool } from './spool.js';

/** How patient a transfer is. Times in ms. */
export interface Patience {
  /** No byte for this long ends an attempt. */
  readonly stallMs: number;
  /** Fewer bytes per second than this, on average over `slowWindowMs` of waiting, end an attempt. 0: never. */
  readonly minBytesPerSecond: number;
  readonly slowWindowMs: number;
  /** Attempts in a row that bring nothing new before the transfer fails. */
  readonly maxFruitless: number;
  /** Times that one frame may arrive with wrong bytes. */
  readonly maxWrongFrames: number;
  /** First pause between attempts; it doubles to `maxPauseMs` while nothing new comes. Jittered. */
  readonly pauseMs: number;
  readonly maxPauseMs: number;
  /** The longest pause that a server's Retry-After can order. */
  readonly maxRetryAfterMs: number;
}

/** For a mobile link that drops for a minute and comes back. */
export const defaultPatience: Patience = {
  stallMs: 30_000, minBytesPerSecond: 64, slowWindowMs: 60_000, maxFruitless: 8, maxWrongFrames: 3,
  pauseMs: 500, maxPauseMs: 30_000, maxRetryAfterMs: 300_000,
};

/** Fewer new bytes than this in an attempt are no progress, lest a server that gives one byte at a time is asked for ever. */
const leastProgressBytes = 4096;

/** What a transfer tells while it runs. */
export interface TransferEvents {
  /** So many bytes would be received next; throws (an error that is not `retryable`) when they must not be. */
  allow?(count: number): void;
  /** Bytes came in. `refetched` of them had been received before. */
  received?(count: number, refetched: number): void;
  /** An attempt failed; the next starts in `pauseMs`. `fruitless` of `maxFruitless` in a row brought nothing. */
  retry?(reason: string, pauseMs: number, fruitless: number): void;
}

/** Everything that one transfer works with. */
export interface TransferOptions {
  readonly source: BlobSource;
  readonly spool: Spool;
  readonly limiter: RateLimiter;
  readonly patience: Patience;
  readonly events?: TransferEvents;
  readonly signal: AbortSignal;
  /** Called after each append, when there may be more verified frames. */
  readonly onAppend: () => void;
}

/** How one attempt ended without completing the spool. */
interface AttemptFault {
  readonly reason: string;
  readonly retryAfterMs: number | null;
  readonly cause?: unknown;
  readonly wrongFrame?: boolean;
  /** The server sent exactly what it promised, only less than all: ask on at once. */
  readonly immediate?: boolean;
}

/**
 * Fills a spool from a source, over as many requests as it takes. Resolves when every frame is verified and
 * durable. Throws FETCH_FAILED when attempts bring nothing new, FETCH_CORRUPT when a frame keeps arriving with
 * wrong bytes, what the source throws for good, STORAGE_* from the spool, INTERRUPTED on abort. What is verified
 * stays in the spool whatever happens.
 */
export async function transfer(options: TransferOptions): Promise<void> {
  const { spool, patience, signal } = options;
  const run = new TransferRun(options);
  let fruitless = 0;
  let wrongFrames = 0;
  let wrongFrame = -1;
  while (!spool.complete) {
    throwIfAborted(signal);
    const fault = await run.attempt();
    if (fault === null) continue;
    if (run.tookProgress()) fruitless = 0;
    else fruitless++;
    if (fault.wrongFrame === true) {
      wrongFrames = wrongFrame === spool.verifiedFrames ? wrongFrames + 1 : 1;
      wrongFrame = spool.verifiedFrames;
      if (wrongFrames >= patience.maxWrongFrames) throw new WhittleError('FETCH_CORRUPT', `${options.source.name}: ${fault.reason}, ${String(wrongFrames)} times`);
    }
    if (fruitless >= patience.maxFruitless) {
      throw new WhittleError('FETCH_FAILED', `${options.source.name}: ${fault.reason} (${String(fruitless)} attempts without progress)`, { cause: fault.cause });
    }
    if (fault.immediate === true && fruitless === 0) continue;
    const pauseMs = pauseBefore(patience, fruitless, fault.retryAfterMs);
    options.events?.retry?.(fault.reason, pauseMs, fruitless);
    await pause(pauseMs, signal);
  }
}

function pauseBefore(patience: Patience, fruitless: number, retryAfterMs: number | null): number {
  const ceiling = Math.min(patience.maxPauseMs, patience.pauseMs * 2 ** Math.max(0, fruitless - 1));
  const jittered = ceiling / 2 + Math.random() * (ceiling / 2);
  return Math.round(Math.max(jittered, Math.min(retryAfterMs ?? 0, patience.maxRetryAfterMs)));
}

class TransferRun {
  #tag: string | null = null;
  /** The furthest byte ever reached: only what lies beyond is progress, so wrong bytes fetched again are none. */
  #reached: number;
  #progressFrom: number;

  constructor(private readonly o: TransferOptions) {
    this.#reached = o.spool.position;
    this.#progressFrom = o.spool.position;
  }

  /** Whether enough new bytes came since it was last asked. */
  tookProgress(): boolean {
    const due = Math.min(leastProgressBytes, this.o.spool.sizeBytes - this.#progressFrom);
    if (due === 0 || this.#reached - this.#progressFrom < due) return false;
    this.#progressFrom = this.#reached;
    return true;
  }

  /** One request. Null when the spool is complete. */
  async attempt(): Promise<AttemptFault | null> {
    const controller = new AbortController();
    const onAbort = (): void => { controller.abort(this.o.signal.reason); };
    this.o.signal.addEventListener('abort', onAbort);
    const guard = new StallGuard(this.o.patience, this.o.limiter.bytesPerSecond, (reason) => { controller.abort(reason); });
    try {
      return await this.#attempt(controller.signal, guard);
    } catch (error) {
      throwIfAborted(this.o.signal);
      if (isWhittleError(error) && error.code === 'FETCH_CORRUPT') return { reason: error.message, retryAfterMs: null, wrongFrame: true, cause: error };
      // Also what the disk refuses: it refuses that whatever the network brings next.
      if (isWhittleError(error) && !error.retryable) throw error;
      return { reason: guard.reason ?? messageOf(error), retryAfterMs: isWhittleError(error) ? retryAfterOf(error) ?? null : null, cause: error };
    } finally {
      guard.stop();
      this.o.signal.removeEventListener('abort', onAbort);
      // Whatever of the body was not read is given up with its connection.
      controller.abort();
    }
  }

  async #attempt(signal: AbortSignal, guard: StallGuard): Promise<AttemptFault | null> {
    const { source, spool } = this.o;
    const from = spool.position;
    const ifRange = from > 0 ? this.#tag : null;
    this.o.events?.allow?.(spool.sizeBytes - from);
    const reply = await guard.wait(source.open(from, ifRange, signal));
    reply.body.on('error', ignoreLateError);
    const verdict = judgeReply(reply, { from, totalBytes: spool.sizeBytes, ifRange });
    if (verdict.kind === 'fault') {
      reply.body.destroy();
      if (verdict.rewind) spool.dropPartial();
      if (verdict.forgetTag) this.#tag = null;
      return { reason: verdict.reason, retryAfterMs: verdict.retryAfterMs };
    }
    this.#tag = verdict.tag;
    // The whole where a part was asked for may be more than there is to spend.
    this.o.events?.allow?.(verdict.bodyBytes);
    return this.#read(reply, verdict, signal, guard);
  }

  async #read(reply: BlobReply, use: ReplyUse, signal: AbortSignal, guard: StallGuard): Promise<AttemptFault | null> {
    const { spool, limiter } = this.o;
    const body = reply.body[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    let skip = use.skipBytes;
    let left = use.bodyBytes;
    try {
      for (;;) {
        const next = await guard.wait(body.next());
        if (next.done === true) {
          if (left > 0) return { reason: `the body ended ${String(left)} bytes early`, retryAfterMs: null };
          return spool.complete ? null : { reason: 'the server sent only a part', retryAfterMs: null, immediate: true };
        }
        const chunk = next.value;
        if (chunk.length > left) return { reason: 'the body is longer than it was declared', retryAfterMs: null };
        guard.count(chunk.length);
        left -= chunk.length;
        const held = Math.min(skip, chunk.length);
        skip -= held;
        await this.#take(chunk.subarray(held), chunk.length);
        if (spool.complete) return null;
        await limiter.take(chunk.length, signal);
      }
    } finally {
      reply.body.destroy();
    }
  }

  async #take(fresh: Buffer, received: number): Promise<void> {
    const { spool, events, onAppend } = this.o;
    const again = received - fresh.length + Math.max(0, Math.min(fresh.length, this.#reached - spool.position));
    events?.received?.(received, again);
    this.#reached = Math.max(this.#reached, spool.position + fresh.length);
    try {
      await spool.append(fresh);
    } finally {
      onAppend();
    }
  }
}

function ignoreLateError(): void {
  // A body that was given up may still report its broken connection; whoever reads it gets the error by itself.
}

/** Ends an attempt that brings nothing for too long, or too little. Time spent on the disk or under the rate limit does not count. */
class StallGuard {
  #timer: NodeJS.Timeout | null = null;
  #waitedMs = 0;
  #bytes = 0;
  #reason: string | null = null;
  readonly #minBytesPerSecond: number;
  #reject: ((error: Error) => void) | null = null;

  constructor(private readonly patience: Patience, limitBytesPerSecond: number | null, private readonly onStall: (reason: Error) => void) {
    // Under a rate limit a slow minute may be the limit's doing: the kernel's buffers hide whose.
    this.#minBytesPerSecond = limitBytesPerSecond === null ? patience.minBytesPerSecond : 0;
  }

  /** Why the guard ended the attempt; null when it did not. */
  get reason(): string | null {
    return this.#reason;
  }

  /** Waits for the network, but not for ever. */
  async wait<T>(promise: Promise<T>): Promise<T> {
    const startedMs = performance.now();
    this.#timer = setTimeout(() => { this.#end(`nothing came for ${String(this.patience.stallMs / 1000)} s`); }, this.patience.stallMs);
    try {
      // The race is for a source that does not heed its signal; a heeding one rejects by itself.
      return await Promise.race([promise, new Promise<never>((_, reject) => { this.#reject = reject; })]);
    } finally {
      this.stop();
      this.#reject = null;
      this.#waitedMs += performance.now() - startedMs;
      promise.catch(ignoreLateError);
    }
  }

  /** Counts received bytes and ends an attempt that crawls. */
  count(bytes: number): void {
    this.#bytes += bytes;
    if (this.#waitedMs < this.patience.slowWindowMs) return;
    const rate = (this.#bytes * 1000) / this.#waitedMs;
    this.#waitedMs = 0;
    this.#bytes = 0;
    if (rate >= this.#minBytesPerSecond) return;
    this.#reason = `fewer than ${String(this.#minBytesPerSecond)} bytes a second`;
    throw new WhittleError('FETCH_FAILED', this.#reason);
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #end(reason: string): void {
    this.#reason = reason;
    const error = new WhittleError('FETCH_FAILED', reason);
    this.onStall(error);
    this.#reject?.(error);
  }
}

function messageOf(error: unknown): string {
  const cause = typeof error === 'object' && error !== null ? (error as { message?: unknown }).message : undefined;
  return typeof cause === 'string' && cause !== '' ? cause : String(error);
}
