import { WhittleError } from '../core/errors.js';

/** Reads the data blob of a delta in order, from chunks of any size. Throws DELTA_CORRUPT when it ends too early. */
export class DataReader {
  readonly #chunks: AsyncIterator<Buffer>;
  #chunk: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(data: AsyncIterable<Buffer>) {
    this.#chunks = data[Symbol.asyncIterator]();
  }

  /** Makes the chunk hold an unread byte; false at the end. */
  async #fill(): Promise<boolean> {
    while (this.#at === this.#chunk.length) {
      const next = await this.#chunks.next();
      if (next.done === true) return false;
      this.#chunk = next.value;
      this.#at = 0;
    }
    return true;
  }

  async #byte(): Promise<number> {
    if (!(await this.#fill())) throw tooShort();
    return this.#chunk[this.#at++] ?? 0;
  }

  /** An unsigned LEB128 number of at most `max`, called `what` in the error. */
  async varint(max: number, what: string): Promise<number> {
    let value = 0;
    let scale = 1;
    for (let count = 0; count < 8; count++) {
      const byte = await this.#byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (value > max) throw new WhittleError('DELTA_CORRUPT', `the delta's ${what} is ${String(value)}, more than ${String(max)}`);
        return value;
      }
      scale *= 0x80;
    }
    throw new WhittleError('DELTA_CORRUPT', `the delta's ${what} is no number`);
  }

  /** The next `count` bytes, copied. */
  async bytes(count: number): Promise<Buffer> {
    const out = Buffer.allocUnsafeSlow(count);
    for (let done = 0; done < count; ) {
      if (!(await this.#fill())) throw tooShort();
      const copied = this.#chunk.copy(out, done, this.#at);
      done += copied;
      this.#at += copied;
    }
    return out;
  }

  /** Whether no byte is left. */
  async atEnd(): Promise<boolean> {
    return !(await this.#fill());
  }

  /** Throws DELTA_CORRUPT when bytes remain, and lets the source finish. */
  async end(): Promise<void> {
    if (await this.#fill()) throw new WhittleError('DELTA_CORRUPT', 'the delta has data after its end');
  }

  /** Releases the source after an error. */
  async close(): Promise<void> {
    await this.#chunks.return?.();
  }
}

function tooShort(): WhittleError {
  return new WhittleError('DELTA_CORRUPT', 'the delta ends too early');
}
