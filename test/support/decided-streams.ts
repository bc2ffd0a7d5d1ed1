import { expect } from '@jest/globals';
import { deviceAddon, serverAddon } from '../../src/core/native.js';
import type { DecidedFormat } from '../../src/delta/expansion.js';
import { noise } from './delta-images.js';

/** The decisions of the encoder that made `stream` of `text`; none where it is no stream of that. */
export function decisionsOf(format: DecidedFormat, stream: Buffer, text: Buffer): Promise<Buffer> {
  return format === 'brotli' ? serverAddon().brotliDecisions(stream, text) : serverAddon().deflateDecisions(stream, text);
}

/** The stream of so many bytes that text and decisions give. */
export async function rebuilt(format: DecidedFormat, text: Buffer, decisions: Buffer, bytes: number): Promise<Buffer> {
  const out = Buffer.alloc(bytes);
  if (format === 'brotli') await deviceAddon().rebuildBrotli(text, decisions, out);
  else await deviceAddon().rebuildDeflate(text, decisions, out);
  return out;
}

/** Takes a stream apart and makes it again; gives the size of its decisions. */
export async function roundTripStream(format: DecidedFormat, stream: Buffer, text: Buffer): Promise<number> {
  const decisions = await decisionsOf(format, stream, text);
  expect(decisions.length).toBeGreaterThan(0);
  expect((await rebuilt(format, text, decisions, stream.length)).equals(stream)).toBe(true);
  return decisions.length;
}

/** Stretches of so many bytes of several kinds, so that a stream has blocks of all kinds: 0 words, 1 noise, 2 one byte, else what repeats. */
export function mixture(words: (seed: number, count: number) => Buffer, seed: number, kinds: readonly (readonly [kind: number, bytes: number])[]): Buffer {
  return Buffer.concat(kinds.map(([kind, bytes], index) => {
    if (kind === 0) return words(seed + index, Math.ceil(bytes / 4)).subarray(0, bytes);
    if (kind === 1) return noise(seed + index, bytes);
    if (kind === 2) return Buffer.alloc(bytes, seed & 255);
    return Buffer.alloc(bytes, noise(seed, 1 + (seed % 300)));
  }));
}

const keywords = 'function return const value length window module exports require default index this undefined string number object create prototype assign'.split(' ');

/** What looks like a script: words of a few, numbers between them. */
export function script(seed: number, words: number): Buffer {
  const picks = noise(seed, words * 2);
  return Buffer.from(Array.from({ length: words }, (_, at) => `${keywords[picks[2 * at]! % keywords.length]!}${['(', ').', ' = ', `_${String(picks[2 * at + 1]!)};\n`][picks[2 * at + 1]! % 4]!}`).join(''));
}
