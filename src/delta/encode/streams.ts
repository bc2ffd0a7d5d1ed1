import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { brotliDecompress, inflateRawSync } from 'node:zlib';
import { serverAddon } from '../../core/native.js';
import { deflaterFor, packBrotli, type Deflater, type Packing } from '../expansion.js';
import { deltaLimits } from '../limits.js';

/** A stream is left as it is above this size, inflated; it bounds memory while its parameters are tried. */
export const largestStreamBytes = 64 * 2 ** 20;

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

/** How stock zlib or GNU gzip makes `bytes` of `inflated`, or null. Those are run whose choices the stream's beginning has. */
export async function deflatePacking(bytes: Buffer, inflated: Buffer): Promise<Packing | null> {
  const likely = new Set(await serverAddon().deflateMakers(bytes, inflated));
  for (const [level, memLevel] of parameters) {
    const packing = { kind: 'deflate', level, memLevel } as const;
    if (likely.has((memLevel - 8) * 16 + level) && givesBack(bytes, inflated, deflaterFor(packing))) return packing;
  }
  for (const level of gnuLevels) {
    const packing = { kind: 'gnu', level } as const;
    if (likely.has(32 + level) && givesBack(bytes, inflated, deflaterFor(packing))) return packing;
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
