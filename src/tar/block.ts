import { WhittleError, type ErrorData } from '../core/errors.js';

/** Size of a tar block in bytes: headers, and the grid that contents are padded to. */
export const blockBytes = 512;

/** Byte offset and width of a field of a 512-byte header block. */
export interface FieldPlace {
  readonly offset: number;
  readonly widthBytes: number;
}

/** Where the fields of a header block are. `prefix` is ustar's; GNU keeps times and sparse maps in the same bytes. */
export const fieldPlaces = {
  name: { offset: 0, widthBytes: 100 },
  mode: { offset: 100, widthBytes: 8 },
  uid: { offset: 108, widthBytes: 8 },
  gid: { offset: 116, widthBytes: 8 },
  size: { offset: 124, widthBytes: 12 },
  mtime: { offset: 136, widthBytes: 12 },
  checksum: { offset: 148, widthBytes: 8 },
  typeflag: { offset: 156, widthBytes: 1 },
  linkname: { offset: 157, widthBytes: 100 },
  magic: { offset: 257, widthBytes: 8 },
  uname: { offset: 265, widthBytes: 32 },
  gname: { offset: 297, widthBytes: 32 },
  devMajor: { offset: 329, widthBytes: 8 },
  devMinor: { offset: 337, widthBytes: 8 },
  prefix: { offset: 345, widthBytes: 155 },
} as const satisfies Record<string, FieldPlace>;

/** Type flags that this room treats specially, as byte values. */
export const typeflags = {
  regularOld: 0, regular: 0x30, hardLink: 0x31, symlink: 0x32, characterDevice: 0x33, blockDevice: 0x34, directory: 0x35, fifo: 0x36,
  paxEntry: 0x78, paxGlobal: 0x67, gnuLongName: 0x4c, gnuLongLink: 0x4b, gnuSparse: 0x53,
} as const;

/** A `TAR_CORRUPT` error. */
export function tarCorrupt(message: string, data: ErrorData = {}): WhittleError {
  return new WhittleError('TAR_CORRUPT', `tar: ${message}`, { data });
}

/** A shared buffer of no bytes. */
export const noBytes: Buffer = Buffer.alloc(0);

const zeros = Buffer.alloc(64 * 1024);

/** Whether every byte of `bytes` is zero. */
export function isZero(bytes: Buffer): boolean {
  if (bytes.length <= 64) {
    for (const byte of bytes) if (byte !== 0) return false;
    return true;
  }
  for (let at = 0; at < bytes.length; at += zeros.length) {
    const count = Math.min(zeros.length, bytes.length - at);
    if (bytes.compare(zeros, 0, count, at, at + count) !== 0) return false;
  }
  return true;
}

/** A view of `count` (at most 65,536) shared zero bytes; never write into it. */
export function zeroView(count: number): Buffer {
  return zeros.subarray(0, count);
}

/** Bytes that fill a data section of `sizeBytes` up to a multiple of 512. Exact for every safe integer. */
export function paddingBytes(sizeBytes: number): number {
  const over = sizeBytes % blockBytes;
  return over === 0 ? 0 : blockBytes - over;
}

const { offset: checksumAt, widthBytes: checksumBytes } = fieldPlaces.checksum;
/** A block in words: there is one sum to make for every header of every layer. */
const words = new Uint32Array(blockBytes / 4);
const wordBytes = Buffer.from(words.buffer);

/** The checksum of the header block at `offset`, its own field counted as spaces; `signed` sums bytes as -128..127, as some old writers did. */
export function blockChecksum(bytes: Buffer, offset: number, signed = false): number {
  bytes.copy(wordBytes, 0, offset, offset + blockBytes);
  for (let at = 0; at < checksumBytes; at++) wordBytes[checksumAt + at] = 0x20;
  if (signed) return wordBytes.reduce((sum, byte) => sum + (byte >= 0x80 ? byte - 0x100 : byte), 0);
  // Two sums of 16 bits at once: 512 bytes are at most 130,560 in all, 65,280 in each half.
  let pairs = 0;
  for (let at = 0; at < blockBytes / 4; at++) {
    const word = words[at] ?? 0;
    pairs += (word & 0xff00ff) + ((word >>> 8) & 0xff00ff);
  }
  return (pairs & 0xffff) + (pairs >>> 16);
}
