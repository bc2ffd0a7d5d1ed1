import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { brotliDecompress, inflateRawSync } from 'node:zlib';
import { deflaterFor, packBrotli, type Deflater, type Packing } from '../expansion.js';
import { deltaLimits } from '../limits.js';

/** A raw deflate stream found in a file. `name` pairs it with the same member of another version of the file. */
export interface FoundStream {
  readonly name: string;
  readonly offset: number;
  readonly lengthBytes: number;
}

/** A stream is left as it is above this size, inflated; it bounds memory while its parameters are tried. */
const largestStreamBytes = 64 * 2 ** 20;

const zip = { endSignature: 0x06054b50, entrySignature: 0x02014b50, localSignature: 0x04034b50, endBytes: 22, entryBytes: 46, localBytes: 30, deflated: 8 } as const;

/** The deflate streams of a zip (jar, apk, whl …) or gzip file, ascending; none for anything else or malformed. */
export function findStreams(file: Buffer): FoundStream[] {
  if (file.length >= zip.localBytes && file.readUInt32LE(0) === zip.localSignature) return zipStreams(file);
  if (file.length > 18 && file[0] === 0x1f && file[1] === 0x8b && file[2] === zip.deflated) return gzipStream(file);
  return [];
}

/** True when the first bytes of a file say that it may hold streams. */
export function mayHoldStreams(start: Buffer): boolean {
  return start.length >= 4 && (start.readUInt32LE(0) === zip.localSignature || (start[0] === 0x1f && start[1] === 0x8b));
}

/** Members by the central directory (PKWARE APPNOTE 4.3.12); zip64 members are skipped. */
function zipStreams(file: Buffer): FoundStream[] {
  let end = file.length - zip.endBytes;
  const lowest = Math.max(0, end - 65_535);
  while (end >= lowest && file.readUInt32LE(end) !== zip.endSignature) end--;
  if (end < lowest) return [];
  const streams: FoundStream[] = [];
  let at = file.readUInt32LE(end + 16);
  for (let left = file.readUInt16LE(end + 10); left > 0 && at + zip.entryBytes <= end && file.readUInt32LE(at) === zip.entrySignature; left--) {
    const nameBytes = file.readUInt16LE(at + 28);
    const local = file.readUInt32LE(at + 42);
    const lengthBytes = file.readUInt32LE(at + 20);
    if (file.readUInt16LE(at + 10) === zip.deflated && local + zip.localBytes <= end && file.readUInt32LE(local) === zip.localSignature) {
      const offset = local + zip.localBytes + file.readUInt16LE(local + 26) + file.readUInt16LE(local + 28);
      const name = file.toString('latin1', at + zip.entryBytes, at + zip.entryBytes + nameBytes);
      if (offset + lengthBytes <= end && lengthBytes > 0) streams.push({ name, offset, lengthBytes });
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

/** The one stream of a gzip file of one member (RFC 1952): all between its header and its last eight bytes. */
function gzipStream(file: Buffer): FoundStream[] {
  const flags = file[3] ?? 0;
  let at = 10;
  if ((flags & 4) !== 0) at += 2 + (file[at] ?? 0) + 256 * (file[at + 1] ?? 0);
  for (const flag of [8, 16]) {
    if ((flags & flag) === 0) continue;
    const zero = file.indexOf(0, at);
    if (zero < 0) return [];
    at = zero + 1;
  }
  if ((flags & 2) !== 0) at += 2;
  return at + 8 < file.length ? [{ name: '', offset: at, lengthBytes: file.length - 8 - at }] : [];
}

/** What a stream holds, or null when it is no whole deflate stream or larger than `largestStreamBytes`. */
export function inflateStream(bytes: Buffer): Buffer | null {
  try {
    const { buffer, engine } = inflateRawSync(bytes, { info: true, maxOutputLength: largestStreamBytes }) as unknown as { buffer: Buffer; engine: { bytesWritten: number } };
    return engine.bytesWritten === bytes.length ? buffer : null;
  } catch {
    return null;
  }
}

/** zlib's parameters in the order in which programs use them. */
const parameters = [[6, 8], [9, 8], [1, 8], [6, 9], [9, 9], [1, 9], [5, 8], [4, 8], [3, 8], [7, 8], [8, 8], [2, 8]] as const;
/** GNU gzip's levels in the order in which it is used: packages' documents have 9. */
const gnuLevels = [9, 6, 1, 8, 7, 5, 4, 3, 2] as const;
const trialBytes = 64 * 1024;

/** How stock zlib or GNU gzip makes `bytes` of `inflated`, or null. */
export function deflatePacking(bytes: Buffer, inflated: Buffer): Packing | null {
  for (const [level, memLevel] of parameters) {
    const packing = { kind: 'deflate', level, memLevel } as const;
    if (givesBack(bytes, inflated, deflaterFor(packing))) return packing;
  }
  for (const level of gnuLevels) {
    const packing = { kind: 'gnu', level } as const;
    if (givesBack(bytes, inflated, deflaterFor(packing))) return packing;
  }
  return null;
}

const decompressBrotli = promisify(brotliDecompress);

/** What a brotli file holds; null when it is none, or holds more than deltaLimits.decidedBytes. */
export async function unpackBrotli(bytes: Buffer): Promise<Buffer | null> {
  try {
    return await decompressBrotli(bytes, { maxOutputLength: deltaLimits.decidedBytes });
  } catch {
    return null;
  }
}

/** Brotli's qualities in the order in which programs use them. */
const qualities = [11, 9, 6, 5, 4, 10] as const;

/** How brotli makes `bytes` of `plain`, when that is at most `mostBytes`; or null. */
export async function brotliPacking(bytes: Buffer, plain: Buffer, mostBytes: number): Promise<Packing | null> {
  if (plain.length > mostBytes) return null;
  for (const quality of qualities) if ((await packBrotli(plain, quality)).equals(bytes)) return { kind: 'brotli', quality };
  return null;
}

/** sha256 of what a compressed file holds, as the digests of tar entries are. */
export function digestOf(plain: Buffer): Buffer {
  return createHash('sha256').update(plain).digest();
}

function givesBack(bytes: Buffer, inflated: Buffer, deflater: Deflater): boolean {
  let at = 0;
  for (let from = 0; from < inflated.length; from += trialBytes) {
    for (const out of deflater.push(inflated.subarray(from, from + trialBytes), from + trialBytes >= inflated.length)) {
      if (!bytes.subarray(at, at + out.length).equals(out)) return false;
      at += out.length;
    }
  }
  return at === bytes.length;
}
