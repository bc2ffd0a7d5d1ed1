import { type WhittleError } from './errors.js';

/** Appends bytes, varints and fixed-width integers to a growing buffer. All multi-byte integers are little-endian. */
export class ByteWriter {
  #buffer = Buffer.allocUnsafe(1024);
  #length = 0;

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + count));
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#buffer = grown;
  }

  /** One byte. */
  u8(value: number): this {
    this.#reserve(1);
    this.#buffer[this.#length++] = value;
    return this;
  }

  /** Unsigned LEB128 of a safe integer. */
  varint(value: number): this {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`varint: ${String(value)} is not an unsigned safe integer`);
    this.#reserve(8);
    let rest = value;
    while (rest >= 0x80) {
      this.#buffer[this.#length++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#buffer[this.#length++] = rest;
    return this;
  }

  /** The bytes as they are, without their number. */
  bytes(value: Uint8Array): this {
    this.#reserve(value.length);
    this.#buffer.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  /** A varint length, then the bytes. */
  blob(value: Uint8Array): this {
    return this.varint(value.length).bytes(value);
  }

  /** Forgets what was written, and keeps the room. */
  clear(): this {
    this.#length = 0;
    return this;
  }

  /** Copies what was written into `target` at `offset`. */
  copyTo(target: Buffer, offset: number): void {
    this.#buffer.copy(target, offset, 0, this.#length);
  }

  /** A copy of what was written. */
  finish(): Buffer {
    return Buffer.from(this.#buffer.subarray(0, this.#length));
  }
}

/** Reads what ByteWriter wrote from untrusted bytes; every read is bounds-checked and throws what `onError` makes. */
export class ByteReader {
  #offset = 0;

  constructor(
    private readonly buffer: Buffer,
    private readonly onError: (what: string) => WhittleError,
  ) {}

  /** Bytes that were not read yet. */
  get remaining(): number {
    return this.buffer.length - this.#offset;
  }

  /** Throws the error for a problem at this place. */
  fail(what: string): never {
    throw this.onError(`${what} at byte ${String(this.#offset)}`);
  }

  /** One byte. */
  u8(): number {
    const value = this.buffer[this.#offset];
    if (value === undefined) this.fail('ends too early');
    this.#offset++;
    return value;
  }

  /** Four bytes. */
  u32(): number {
    if (this.remaining < 4) this.fail('ends too early');
    const value = this.buffer.readUInt32LE(this.#offset);
    this.#offset += 4;
    return value;
  }

  /** Unsigned LEB128, at most `max` (default: the largest safe integer). */
  varint(max = Number.MAX_SAFE_INTEGER): number {
    let value = 0;
    let scale = 1;
    for (let count = 0; count < 8; count++) {
      const byte = this.u8();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (value > max) this.fail(`number ${String(value)} above its limit ${String(max)}`);
        return value;
      }
      scale *= 0x80;
    }
    return this.fail('number too long');
  }

  /** A view of the next `count` bytes, not a copy. */
  bytes(count: number): Buffer {
    if (count > this.remaining) this.fail('ends too early');
    const value = this.buffer.subarray(this.#offset, this.#offset + count);
    this.#offset += count;
    return value;
  }

  /** A varint length of at most `max`, then that many bytes (a view). */
  blob(max: number): Buffer {
    return this.bytes(this.varint(max));
  }

  /** Throws unless everything was read. */
  end(): void {
    if (this.remaining !== 0) this.fail('has bytes after its end');
  }
}
