import { transfer, type Patience, type TransferEvents } from './transfer.js';
import type { RateLimiter } from './rate.js';
import type { BlobSource } from './source.js';
import type { Spool } from './spool.js';

/** What a fetch works with. */
export interface FetchOptions {
  readonly source: BlobSource;
  /** Where the bytes go, with the frames to expect. The caller opens it, and closes or discards it after the fetch. */
  readonly spool: Spool;
  readonly limiter: RateLimiter;
  readonly patience: Patience;
  readonly events?: TransferEvents;
  readonly signal: AbortSignal;
}

/**
 * Downloads a blob into its spool and yields its frames in order as they become whole, each read back from the
 * disk and verified. The download runs ahead of the reader into the spool, so memory holds one frame whatever
 * their speeds. Frames that an earlier run left are not fetched again. When the reader stops early the download
 * is stopped too. Throws what `transfer` throws, after the frames that were whole by then.
 */
export async function* fetchFrames(options: FetchOptions): AsyncGenerator<Buffer, void, void> {
  const { spool } = options;
  const stop = new AbortController();
  const bell = new Bell();
  const state: { ended: boolean; error: unknown } = { ended: false, error: undefined };
  const running = transfer({ ...options, signal: AbortSignal.any([options.signal, stop.signal]), onAppend: () => { bell.ring(); } })
    .catch((error: unknown) => { state.error = error; })
    .finally(() => { state.ended = true; bell.ring(); });
  try {
    for (let index = 0; index < spool.frames.length; index++) {
      while (index >= spool.verifiedFrames && !state.ended) await bell.wait();
      if (index >= spool.verifiedFrames) break;
      yield await spool.readFrame(index);
    }
  } finally {
    stop.abort();
    await running;
  }
  // Only now: an abort of our own after the last frame is no failure.
  if (!spool.complete) throw state.error;
}

/** Wakes one waiter; a ring while nobody waits is kept. */
class Bell {
  #wake: (() => void) | null = null;
  #rung = false;

  ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  async wait(): Promise<void> {
    if (!this.#rung) await new Promise<void>((resolve) => { this.#wake = resolve; });
    this.#rung = false;
    this.#wake = null;
  }
}
