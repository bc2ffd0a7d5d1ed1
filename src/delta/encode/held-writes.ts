/** Bytes that wait at most. */
const mostHeldBytes = 32 * 2 ** 20;

/**
 * Writes that wait for what stands before them in the file: a layer's segments are coded while the plan, which its metadata
 * needs, is still being made. One write at a time is put.
 */
export class HeldWrites {
  #held: (() => Promise<void>)[] | null = [];
  #heldBytes = 0;
  #settle: { resolve: () => void; reject: (error: unknown) => void } | null = null;
  readonly #released = new Promise<void>((resolve, reject) => { this.#settle = { resolve, reject }; });

  constructor() {
    // Whoever waits for it hears of a failure; nobody may be waiting.
    this.#released.catch(() => undefined);
  }

  /** Runs `write` behind all that were put before. Until `release()` it is only noted; when too many bytes wait, this waits too. */
  async put(bytes: number, write: () => Promise<void>): Promise<void> {
    if (this.#held === null) return write();
    this.#held.push(write);
    this.#heldBytes += bytes;
    if (this.#heldBytes > mostHeldBytes) await this.#released;
  }

  /** Runs what waits, and lets all others run at once from then on. */
  async release(): Promise<void> {
    for (let write = this.#held?.shift(); write !== undefined; write = this.#held?.shift()) await write();
    this.#held = null;
    this.#settle?.resolve();
  }

  /** Ends waiting with `error`: nothing will be released. */
  fail(error: unknown): void {
    this.#settle?.reject(error);
  }
}
