import { WhittleError } from '../core/errors.js';
import { tarLimits, type TarLimits } from '../core/limits.js';
import { blockBytes, fieldPlaces, isZero, noBytes, paddingBytes, tarCorrupt, typeflags } from './block.js';
import { splitParsed } from './header.js';
import { checkChecksum, isGnuBlock, isMetaType, metaDataBytes, parseHeader, type PaxGlobals } from './parse.js';
import type { TarHeader } from './types.js';

/** Receives a tar piece by piece, in order. Calls are synchronous, from within `write` and `end`. */
export interface TarHandler {
  /** A new entry; `index` counts from 0. Called for every entry, also those without content. */
  entry(header: TarHeader, index: number): void;
  /** The next bytes of the entry's data section. A view into the chunk that was written: copy what is kept. */
  content(chunk: Buffer): void;
  /** The data section is whole (called for every entry). `padding` is what follows it when that is not zeros up to a multiple of 512 (a copy), else null. */
  endContent(padding: Buffer | null): void;
  /** All after the last entry: `zeroBytes` zero bytes, or `bytes` (then `zeroBytes` is 0). Called once, from `end`. */
  trailer(zeroBytes: number, bytes: Buffer | null): void;
}

type State = 'header' | 'meta' | 'sparse' | 'content' | 'padding' | 'zeroBlock' | 'trailer' | 'failed';

/** Offset of the byte that says that a sparse extension block follows: in the entry's own header, and in such a block. */
const sparseMore = { inHeader: 482, inExtension: 504 } as const;

/**
 * A push scanner of an uncompressed tar. What it hands over is exact: headers (joinHeader), contents, paddings and
 * trailer in order are the bytes written. It ends where Go's reader does: at two zero blocks, or at the end of the
 * bytes on a block boundary, or within the padding of the last entry. Everything after that is trailer.
 * `write` and `end` throw `TAR_CORRUPT` (wrong checksum, malformed numbers or PAX records, truncated, a lone zero
 * block before more headers) and `LIMIT_EXCEEDED`; what the handler throws passes through. After an error the scanner is dead.
 */
export class TarScanner {
  readonly #handler: TarHandler;
  readonly #limits: TarLimits;
  #state: State = 'header';
  /** Bytes still needed to leave the state; in 'header', 'meta', 'sparse', 'zeroBlock' and 'padding' they are collected first. */
  #need = blockBytes;
  #held: Buffer | null = null;
  #heldBytes = 0;
  /** Raw header bytes of the entry so far: PAX and long-name headers, and with sparse extensions the own header. */
  #raw: Buffer[] = [];
  #rawBytes = 0;
  #headerBytes = 0;
  #entries = 0;
  #previous: TarHeader | undefined;
  #globals: PaxGlobals = new Map();
  #trailerZeroBytes = 0;
  #trailerParts: Buffer[] | null = null;
  #trailerBytes = 0;

  constructor(handler: TarHandler, limits: Partial<TarLimits> = {}) {
    this.#handler = handler;
    this.#limits = { ...tarLimits, ...limits };
  }

  /** Bytes of the current entry's content that are still to come; 0 outside of contents. */
  get contentLeft(): number {
    return this.#state === 'content' ? this.#need : 0;
  }

  /** Passes over the rest of the current entry's content, which is not at hand: the handler sees no bytes of it. */
  skipContent(): void {
    if (this.#state !== 'content') return;
    this.#need = 0;
    this.#endContent();
  }

  /** Scans the next bytes. `chunk` may be reused once this returns. */
  write(chunk: Buffer): void {
    if (this.#state === 'failed') throw tarCorrupt('scanner was used after an error');
    try {
      let at = 0;
      while (at < chunk.length) at += this.#take(chunk, at);
    } catch (error) {
      this.#state = 'failed';
      throw error;
    }
  }

  /** Says that the tar is whole. */
  end(): void {
    const state = this.#state;
    this.#state = 'failed';
    if (state === 'failed') throw tarCorrupt('scanner was used after an error');
    if (state === 'padding') this.#handler.endContent(this.#held === null ? noBytes : Buffer.from(this.#held.subarray(0, this.#heldBytes)));
    else if (state === 'content') throw tarCorrupt(`ends within the content of entry ${String(this.#entries - 1)}`, { entry: this.#entries - 1 });
    else if (state === 'meta' || state === 'sparse' || this.#heldBytes > 0) throw tarCorrupt('ends within a header');
    else if (state !== 'trailer') this.#startTrailer(state === 'zeroBlock' ? blockBytes : 0);
    this.#handler.trailer(this.#trailerZeroBytes, this.#trailerParts === null ? null : Buffer.concat(this.#trailerParts));
  }

  /** Consumes some of `chunk` from `at`; returns how much. */
  #take(chunk: Buffer, at: number): number {
    const count = Math.min(this.#need, chunk.length - at);
    switch (this.#state) {
      case 'content': {
        this.#handler.content(at === 0 && count === chunk.length ? chunk : chunk.subarray(at, at + count));
        this.#need -= count;
        if (this.#need === 0) this.#endContent();
        return count;
      }
      case 'trailer':
        this.#addTrailer(chunk.subarray(at));
        return chunk.length - at;
      default:
        return this.#collect(chunk, at, count);
    }
  }

  #collect(chunk: Buffer, at: number, count: number): number {
    if (this.#held === null && count === this.#need) {
      this.#collected(chunk.subarray(at, at + count));
      return count;
    }
    // Every state that collects needs at most maxEntryHeaderBytes, checked before it begins.
    this.#held ??= Buffer.allocUnsafe(this.#need);
    chunk.copy(this.#held, this.#heldBytes, at, at + count);
    this.#heldBytes += count;
    this.#need -= count;
    if (this.#need > 0) return count;
    const whole = this.#held;
    this.#held = null;
    this.#heldBytes = 0;
    this.#collected(whole);
    return count;
  }

  #collected(bytes: Buffer): void {
    switch (this.#state) {
      case 'header':
        this.#header(bytes);
        return;
      case 'meta':
        this.#keepRaw(bytes);
        this.#next('header', blockBytes);
        return;
      case 'sparse':
        this.#keepRaw(bytes);
        if (bytes[sparseMore.inExtension] === 0) this.#entry(Buffer.concat(this.#raw));
        else this.#next('sparse', blockBytes);
        return;
      case 'zeroBlock':
        if (!isZero(bytes)) throw tarCorrupt('a lone zero block stands before more data');
        this.#startTrailer(2 * blockBytes);
        return;
      default:
        this.#handler.endContent(isZero(bytes) ? null : Buffer.from(bytes));
        this.#next('header', blockBytes);
    }
  }

  #next(state: State, need: number): void {
    this.#state = state;
    this.#need = need;
  }

  #keepRaw(bytes: Buffer): void {
    this.#rawBytes += bytes.length;
    if (this.#rawBytes > this.#limits.maxEntryHeaderBytes + blockBytes) this.#exceeded('maxEntryHeaderBytes', this.#limits.maxEntryHeaderBytes);
    this.#raw.push(Buffer.from(bytes));
  }

  #exceeded(limit: keyof TarLimits, value: number): never {
    throw new WhittleError('LIMIT_EXCEEDED', `tar: entry ${String(this.#entries)} is above ${limit} ${String(value)}`, { data: { limit, value, entry: this.#entries } });
  }

  #header(block: Buffer): void {
    if (block[0] === 0 && isZero(block)) {
      this.#next('zeroBlock', blockBytes);
      return;
    }
    checkChecksum(block, 0);
    const typeflag = block[fieldPlaces.typeflag.offset] ?? 0;
    if (isMetaType(typeflag)) {
      this.#keepRaw(block);
      const dataBytes = metaDataBytes(block, 0);
      if (this.#rawBytes + dataBytes > this.#limits.maxEntryHeaderBytes) this.#exceeded('maxEntryHeaderBytes', this.#limits.maxEntryHeaderBytes);
      if (dataBytes > 0) this.#next('meta', dataBytes + paddingBytes(dataBytes));
      else this.#next('header', blockBytes);
      return;
    }
    if (typeflag === typeflags.gnuSparse) {
      if (!isGnuBlock(block, 0)) throw tarCorrupt('a GNU sparse entry has no GNU header');
      if (block[sparseMore.inHeader] !== 0) {
        this.#keepRaw(block);
        this.#next('sparse', blockBytes);
        return;
      }
    }
    this.#entry(this.#rawBytes === 0 ? block : Buffer.concat([...this.#raw, block]));
  }

  #entry(raw: Buffer): void {
    this.#headerBytes += raw.length;
    if (this.#entries >= this.#limits.maxEntries) this.#exceeded('maxEntries', this.#limits.maxEntries);
    if (this.#headerBytes > this.#limits.maxHeaderBytes) this.#exceeded('maxHeaderBytes', this.#limits.maxHeaderBytes);
    const parsed = parseHeader(raw, this.#globals);
    this.#setGlobals(parsed.globals);
    const { path, linkPath } = parsed.fields;
    if (path.length > this.#limits.maxPathBytes || linkPath.length > this.#limits.maxPathBytes) this.#exceeded('maxPathBytes', this.#limits.maxPathBytes);
    const header = splitParsed(raw, parsed, this.#previous);
    this.#previous = header;
    this.#raw = [];
    this.#rawBytes = 0;
    this.#handler.entry(header, this.#entries++);
    if (header.sizeBytes === 0) this.#endContent();
    else this.#next('content', header.sizeBytes);
  }

  #setGlobals(globals: PaxGlobals): void {
    if (globals === this.#globals) return;
    let total = 0;
    for (const [key, value] of globals) total += key.length + value.length;
    if (total > this.#limits.maxEntryHeaderBytes) this.#exceeded('maxEntryHeaderBytes', this.#limits.maxEntryHeaderBytes);
    this.#globals = globals;
  }

  #endContent(): void {
    const padding = paddingBytes(this.#previous?.sizeBytes ?? 0);
    if (padding > 0) {
      this.#next('padding', padding);
      return;
    }
    this.#handler.endContent(null);
    this.#next('header', blockBytes);
  }

  /** Headers that no entry followed are trailer too. */
  #startTrailer(zeroBytes: number): void {
    this.#next('trailer', Number.MAX_SAFE_INTEGER);
    for (const bytes of this.#raw) this.#addTrailer(bytes);
    this.#raw = [];
    if (this.#trailerParts === null) this.#trailerZeroBytes = zeroBytes;
    else this.#addTrailer(Buffer.alloc(zeroBytes));
  }

  #addTrailer(bytes: Buffer): void {
    if (bytes.length === 0) return;
    if (this.#trailerParts === null) {
      if (isZero(bytes)) {
        this.#trailerZeroBytes += bytes.length;
        return;
      }
      this.#boundTrailer(this.#trailerZeroBytes);
      this.#trailerParts = [this.#trailerZeroBytes === 0 ? noBytes : Buffer.alloc(this.#trailerZeroBytes)];
      this.#trailerZeroBytes = 0;
    }
    this.#boundTrailer(bytes.length);
    this.#trailerParts.push(Buffer.from(bytes));
  }

  #boundTrailer(bytes: number): void {
    this.#trailerBytes += bytes;
    if (this.#trailerBytes > this.#limits.maxTrailerBytes) this.#exceeded('maxTrailerBytes', this.#limits.maxTrailerBytes);
  }
}
