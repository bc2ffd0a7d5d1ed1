import { WhittleError } from '../core/errors.js';
import { adler32, crc32 } from './checks.js';

/**
 * How a zlib stream (RFC 1950) stands in a PNG: in IDAT chunks one behind the other (PNG specification, sections 5.3 and 11.2.3), of which all but
 * the last hold `chunkBytes` of it and the last holds no more.
 */
export interface PictureFrame {
  readonly chunkBytes: number;
  /** The stream's first two bytes, big-endian. */
  readonly zlibHeader: number;
}

/** Fewer bytes of data in a chunk are no frame: it bounds how many stretches a stream is read in. */
export const leastChunkBytes = 256;

/** How a chunk of image data is written: length and type, the data, its CRC-32 (PNG, section 5.3). */
export const chunk = { type: Buffer.from('IDAT'), headerBytes: 8, checkBytes: 4 } as const;
const aroundBytes = chunk.headerBytes + chunk.checkBytes;
const zlib = { headerBytes: 2, checkBytes: 4 } as const;

/** A stretch of bytes. */
export interface Stretch {
  readonly offset: number;
  readonly lengthBytes: number;
}

/** Size of the raw deflate stream in `lengthBytes` of whole chunks; 0 when chunks of that size cannot be as long together. */
export function framedStreamBytes(lengthBytes: number, chunkBytes: number): number {
  if (chunkBytes < leastChunkBytes) return 0;
  const chunks = Math.ceil(lengthBytes / (chunkBytes + aroundBytes));
  const zlibBytes = lengthBytes - chunks * aroundBytes;
  return zlibBytes > (chunks - 1) * chunkBytes ? Math.max(0, zlibBytes - zlib.headerBytes - zlib.checkBytes) : 0;
}

/** Where the raw deflate stream stands in `lengthBytes` of whole chunks, counted from where the first chunk begins. */
export function* framedStretches(lengthBytes: number, chunkBytes: number): Generator<Stretch> {
  const end = zlib.headerBytes + framedStreamBytes(lengthBytes, chunkBytes);
  for (let from = 0; from < end; from += chunkBytes) {
    const skipped = Math.max(0, zlib.headerBytes - from);
    const to = Math.min(from + chunkBytes, end);
    const before = (from / chunkBytes) * aroundBytes + chunk.headerBytes;
    yield { offset: before + from + skipped, lengthBytes: to - from - skipped };
  }
}

/** Makes the chunks around a stream, as its bytes come. */
export class PictureFramer {
  /** Of the zlib stream. */
  readonly #sizeBytes: number;
  #at = 0;
  #crc = 0;
  #adler = 1;

  /** The chunks are `lengthBytes` long together, for which framedStreamBytes() is not 0. */
  constructor(private readonly frame: PictureFrame, lengthBytes: number) {
    this.#sizeBytes = framedStreamBytes(lengthBytes, frame.chunkBytes) + zlib.headerBytes + zlib.checkBytes;
  }

  /** Takes what the stream holds, in order: the stream ends with its checksum. */
  holds(text: Buffer): void {
    this.#adler = adler32(text, this.#adler);
  }

  /** Takes the next bytes of the raw deflate stream and gives those of the file. Throws DELTA_CORRUPT when they are too many. */
  push(bytes: Buffer): Buffer[] {
    const out = this.#at === 0 ? this.#put(word(this.frame.zlibHeader).subarray(-zlib.headerBytes)) : [];
    if (this.#at + bytes.length > this.#sizeBytes - zlib.checkBytes) throw new WhittleError('DELTA_CORRUPT', 'a compressed stream comes out too long');
    return [...out, ...this.#put(bytes)];
  }

  /** The end of the file's bytes, when all of the stream was pushed and told what it holds; where the stream is too short, so are they. */
  end(): Buffer[] {
    return this.#put(word(this.#adler));
  }

  #put(bytes: Buffer): Buffer[] {
    const { chunkBytes } = this.frame;
    const out: Buffer[] = [];
    for (let rest = bytes; rest.length > 0;) {
      const inChunk = this.#at % chunkBytes;
      const dataBytes = Math.min(chunkBytes, this.#sizeBytes - this.#at + inChunk);
      if (inChunk === 0) {
        out.push(word(dataBytes), chunk.type);
        this.#crc = crc32(chunk.type);
      }
      const part = rest.subarray(0, dataBytes - inChunk);
      rest = rest.subarray(part.length);
      this.#crc = crc32(part, this.#crc);
      this.#at += part.length;
      out.push(part);
      if (inChunk + part.length === dataBytes) out.push(word(this.#crc));
    }
    return out;
  }
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}
