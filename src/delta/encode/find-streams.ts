import { inflateRawSync } from 'node:zlib';
import { adler32, crc32 } from '../checks.js';
import { chunk, framedStreamBytes, framedStretches, PictureFramer, type PictureFrame } from '../picture.js';
import { loadedBytes } from './loaded-bytes.js';
import { inflateStream, largestStreamBytes } from './streams.js';

/** A raw deflate stream found in a file. */
export interface FoundStream {
  /** Pairs it with the same member of another version of the file; '' when nothing names it. */
  readonly name: string;
  /** Whether it stands by itself amid other content; else the file is an archive of it. */
  readonly isEmbedded: boolean;
  readonly offset: number;
  readonly lengthBytes: number;
  /** The PNG chunks in which it stands, which the bytes at `offset` then are; null when they are the stream. */
  readonly picture: PictureFrame | null;
  /** What a file of one gzip member holds, which is wanted next. */
  readonly plain: Buffer | undefined;
}

const zip = { endSignature: 0x06054b50, entrySignature: 0x02014b50, localSignature: 0x04034b50, descriptorSignature: 0x08074b50, endBytes: 22, entryBytes: 46, localBytes: 30, deflated: 8 } as const;
const gzip = { headerBytes: 10, trailerBytes: 8, extra: 4, name: 8, comment: 16, headerCheck: 2, reserved: 0xe0 } as const;

/** A gzip header's name or comment is looked for no further: what begins like a header may be none. */
const longestNameBytes = 4096;

/** What a zlib stream must hold at least: below this it saves less than it costs to be told. */
const leastZlibBytes = 64;

/**
 * What inflating bytes that are no stream may give in one file before the search ends there: chance headers fail within
 * the first try, of which this allows 65,536; more are there only in a file made to take long.
 */
const wastedBytes = 2 ** 30;
const firstTryBytes = 2 ** 14;

/**
 * The deflate streams of a file, ascending: members of a zip by its directory, wherever in the file that begins; beside them zlib
 * streams, gzip members and members of zips within. Nothing but its name and place is known of a member by the directory, the
 * others have passed their checksum. Of a program only what lies behind all that is loaded is looked at: the codec
 * maps addresses by places in the file, which a stream that stands inflated would shift.
 */
export function findStreams(file: Buffer): FoundStream[] {
  const from = loadedBytes(file);
  const members = zipMembers(file).filter(({ offset }) => offset >= from);
  const search = new StreamSearch(file);
  let at = from;
  const found: FoundStream[] = [];
  for (const member of members) {
    found.push(...search.between(at, member.offset), member);
    at = member.offset + member.lengthBytes;
  }
  return found.concat(search.between(at, file.length));
}

/** Members by the central directory (PKWARE APPNOTE 4.3.12), whose places may count from where a prefix ends; none where it is of zip64. */
function zipMembers(file: Buffer): FoundStream[] {
  let end = file.length - zip.endBytes;
  const lowest = Math.max(0, end - 65_535);
  while (end >= lowest && file.readUInt32LE(end) !== zip.endSignature) end--;
  if (end < lowest) return [];
  const declared = file.readUInt32LE(end + 16);
  const beginsAt = (at: number): boolean => at >= 0 && at + zip.entryBytes <= end && file.readUInt32LE(at) === zip.entrySignature;
  const start = [declared, end - file.readUInt32LE(end + 12)].find(beginsAt);
  if (start === undefined) return [];
  const shift = start - declared;
  const streams: FoundStream[] = [];
  let at = start;
  for (let left = file.readUInt16LE(end + 10); left > 0 && beginsAt(at); left--) {
    const nameBytes = file.readUInt16LE(at + 28);
    const local = file.readUInt32LE(at + 42) + shift;
    const lengthBytes = file.readUInt32LE(at + 20);
    if (file.readUInt16LE(at + 10) === zip.deflated && local >= 0 && local + zip.localBytes <= end && file.readUInt32LE(local) === zip.localSignature) {
      const offset = local + zip.localBytes + file.readUInt16LE(local + 26) + file.readUInt16LE(local + 28);
      const name = file.toString('latin1', at + zip.entryBytes, at + zip.entryBytes + nameBytes);
      if (offset + lengthBytes <= end && lengthBytes > 0) streams.push({ name, isEmbedded: false, offset, lengthBytes, picture: null, plain: undefined });
    }
    at += zip.entryBytes + nameBytes + file.readUInt16LE(at + 30) + file.readUInt16LE(at + 32);
  }
  return ascending(streams);
}

/** Members in the order of their bytes; those that overlap others are left out. */
function ascending(streams: FoundStream[]): FoundStream[] {
  let end = 0;
  return streams.sort((a, b) => a.offset - b.offset).filter((stream) => {
    if (stream.offset < end) return false;
    end = stream.offset + stream.lengthBytes;
    return true;
  });
}

/** What a byte may begin: 1 a zlib stream with the usual window, 2 a gzip member, 3 a zip's member, 4 PNG's chunk of image data, where a stream may have another window. */
const headerKinds = new Uint8Array(256);
headerKinds[0x78] = 1;
headerKinds[0x1f] = 2;
headerKinds[0x50] = 3;
headerKinds[chunk.type[0]!] = 4;
const pictureData = chunk.type.readUInt32BE(0);

/** The next place from `at` on, before `to`, of a byte that may begin a header; else `to` or more. */
function nextHeader(file: Buffer, at: number, to: number): number {
  let place = at;
  while (place < to && headerKinds[file[place]!] === 0) place++;
  return place;
}

/** Looks for streams by the headers before them. */
class StreamSearch {
  #leftBytes = wastedBytes;
  /** How far the bytes go that are looked at. */
  #to = 0;
  /** Where the last stream ended. */
  #from = 0;

  constructor(private readonly file: Buffer) {}

  /** The streams that lie with their headers and checksums in [from, to). */
  between(from: number, to: number): FoundStream[] {
    const { file } = this;
    const found: FoundStream[] = [];
    this.#to = to;
    this.#from = from;
    // The end leaves room for the shortest header, so that its bytes need no check.
    const last = to - gzip.headerBytes;
    for (let at = nextHeader(file, from, last); at < last && this.#leftBytes > 0; at = nextHeader(file, at, last)) {
      const stream = this.#at(at);
      if (stream === null) {
        at++;
        continue;
      }
      this.#from = at = stream.offset + stream.lengthBytes;
      found.push(stream.isEmbedded ? { ...stream, plain: undefined } : stream);
    }
    return found;
  }

  #at(at: number): FoundStream | null {
    switch (headerKinds[this.file[at]!]) {
      case 1: return this.#zlib(at);
      case 2: return this.#gzip(at);
      case 3: return this.#member(at);
      default: return this.file.readUInt32BE(at) === pictureData ? this.#picture(at - 4) ?? this.#zlib(at + 4) : null;
    }
  }

  /** RFC 1950. */
  #zlib(at: number): FoundStream | null {
    const { file } = this;
    const flags = file[at + 1]!;
    if ((file[at]! & 0x8f) !== 8 || (flags & 0x20) !== 0 || (file[at]! * 256 + flags) % 31 !== 0) return null;
    const stream = this.#inflate(at + 2);
    if (stream === null || stream.plain.length < leastZlibBytes) return null;
    const end = stream.offset + stream.lengthBytes;
    return end + 4 <= this.#to && file.readUInt32BE(end) === adler32(stream.plain) ? stream : this.#failed(stream);
  }

  /** A member of a gzip file (RFC 1952). */
  #gzip(at: number): FoundStream | null {
    const { file } = this;
    if (file[at + 1] !== 0x8b || file[at + 2] !== zip.deflated) return null;
    const offset = gzipHeaderEnd(file, at);
    const stream = offset === null ? null : this.#inflate(offset);
    if (stream === null) return null;
    const end = stream.offset + stream.lengthBytes;
    const isWhole = end + gzip.trailerBytes <= this.#to && file.readUInt32LE(end + 4) === stream.plain.length && file.readUInt32LE(end) === crc32(stream.plain);
    if (!isWhole) return this.#failed(stream);
    return { ...stream, isEmbedded: at > 0 || end + gzip.trailerBytes < file.length };
  }

  /** A zip's member by the header before it: of a zip within another, or one whose directory is not understood. */
  #member(at: number): FoundStream | null {
    const { file } = this;
    if (at + zip.localBytes > this.#to || file.readUInt32LE(at) !== zip.localSignature || file.readUInt16LE(at + 8) !== zip.deflated) return null;
    const names = at + zip.localBytes;
    const nameBytes = file.readUInt16LE(at + 26);
    const stream = this.#inflate(names + nameBytes + file.readUInt16LE(at + 28));
    if (stream === null) return null;
    const end = stream.offset + stream.lengthBytes;
    const checks = (file.readUInt16LE(at + 6) & 8) === 0 ? at + 14 : end + (end + 4 <= this.#to && file.readUInt32LE(end) === zip.descriptorSignature ? 4 : 0);
    const isWhole = checks + 4 <= this.#to && file.readUInt32LE(checks) === crc32(stream.plain);
    return isWhole ? { ...stream, name: file.toString('latin1', names, names + nameBytes) } : this.#failed(stream);
  }

  /** A zlib stream in the PNG chunks that begin at `start`, all of one size but for the last. */
  #picture(start: number): FoundStream | null {
    const { file } = this;
    if (start < this.#from) return null;
    const chunkBytes = file.readUInt32BE(start);
    let end = start;
    for (let dataBytes = chunkBytes; dataBytes === chunkBytes && end + chunk.headerBytes <= this.#to && file.readUInt32BE(end + 4) === pictureData;) {
      dataBytes = file.readUInt32BE(end);
      end += chunk.headerBytes + dataBytes + chunk.checkBytes;
    }
    const lengthBytes = end - start;
    if (end > this.#to || framedStreamBytes(lengthBytes, chunkBytes) === 0) return null;
    const zlibHeader = file.readUInt16BE(start + chunk.headerBytes);
    const stream = { name: '', isEmbedded: true, offset: start, lengthBytes, picture: { chunkBytes, zlibHeader }, plain: undefined };
    const bytes = deflateBytes(file, stream);
    const plain = inflateStream(bytes);
    if (plain === null || plain.length < leastZlibBytes) {
      this.#leftBytes -= firstTryBytes + bytes.length;
      return null;
    }
    const framer = new PictureFramer(stream.picture, lengthBytes);
    framer.holds(plain);
    return Buffer.concat([...framer.push(bytes), ...framer.end()]).equals(file.subarray(start, end)) ? stream : this.#failed({ plain });
  }

  #failed({ plain }: { readonly plain: Buffer }): null {
    this.#leftBytes -= plain.length + firstTryBytes;
    return null;
  }

  /** The stream that begins at `offset`, and what it holds. Most that is no stream fails before it is tried, nearly all the rest at once. */
  #inflate(offset: number): (FoundStream & { readonly plain: Buffer }) | null {
    if (offset >= this.#to || !mayBeginDeflate(this.file, offset)) return null;
    const bytes = this.file.subarray(offset, this.#to);
    for (let limit = firstTryBytes; ; limit = Math.min(limit * 16, largestStreamBytes)) {
      try {
        const { buffer, engine } = inflateRawSync(bytes, { info: true, maxOutputLength: limit }) as unknown as { buffer: Buffer; engine: { bytesWritten: number } };
        return buffer.length === 0 ? null : { name: '', isEmbedded: true, offset, lengthBytes: engine.bytesWritten, picture: null, plain: buffer };
      } catch (error) {
        if ((error as { code?: unknown }).code === 'ERR_BUFFER_TOO_LARGE' && limit < largestStreamBytes) continue;
        this.#leftBytes -= limit;
        return null;
      }
    }
  }
}

/** The raw deflate stream of what was found in `file`. */
export function deflateBytes(file: Buffer, { offset, lengthBytes, picture }: Pick<FoundStream, 'offset' | 'lengthBytes' | 'picture'>): Buffer {
  const bytes = file.subarray(offset, offset + lengthBytes);
  if (picture === null) return bytes;
  return Buffer.concat([...framedStretches(lengthBytes, picture.chunkBytes)].map((part) => bytes.subarray(part.offset, part.offset + part.lengthBytes)));
}

/** Where the deflate stream of a gzip member begins, or null. */
function gzipHeaderEnd(file: Buffer, start: number): number | null {
  const flags = file[start + 3]!;
  if ((flags & gzip.reserved) !== 0) return null;
  let at = start + gzip.headerBytes;
  if ((flags & gzip.extra) !== 0) at += 2 + (file[at] ?? 0) + 256 * (file[at + 1] ?? 0);
  for (const flag of [gzip.name, gzip.comment]) {
    if ((flags & flag) === 0) continue;
    const zero = file.subarray(at, at + longestNameBytes).indexOf(0);
    if (zero < 0) return null;
    at += zero + 1;
  }
  return (flags & gzip.headerCheck) === 0 ? at : at + 2;
}

/** Whether zlib would take the first bytes of the first block (RFC 1951, section 3.2): so that most chance headers need not be tried. */
function mayBeginDeflate(file: Buffer, at: number): boolean {
  const first = file[at]!;
  const kind = (first >> 1) & 3;
  if (kind === 1) return true;
  if (kind === 3) return false;
  if (kind === 0) return at + 5 <= file.length && (file.readUInt16LE(at + 1) ^ file.readUInt16LE(at + 3)) === 0xffff;
  const second = file[at + 1] ?? 0;
  const lengths = (((file[at + 2] ?? 0) << 3 | second >> 5) & 15) + 4;
  if (first >> 3 > 29 || (second & 31) > 29) return false;
  // The code of code lengths must be complete: its words, in 128ths, are all.
  let sum = 0;
  for (let index = 0, bit = 17; index < lengths; index++, bit += 3) {
    const byte = at + (bit >> 3);
    const length = ((file[byte] ?? 0) | (file[byte + 1] ?? 0) << 8) >> (bit & 7) & 7;
    if (length > 0) sum += 128 >> length;
  }
  return sum === 128;
}
