import { expect, test } from '@jest/globals';
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib';
import fc from 'fast-check';
import { deltaLimits } from '../../../src/delta/limits.js';
import { decisionsOf, mixture, rebuilt, roundTripStream } from '../../support/decided-streams.js';
import { noise } from '../../support/delta-images.js';

const { BROTLI_PARAM_QUALITY: quality, BROTLI_PARAM_LGWIN: window, BROTLI_PARAM_MODE: mode, BROTLI_PARAM_NPOSTFIX: postfix, BROTLI_PARAM_NDIRECT: direct, BROTLI_PARAM_LARGE_WINDOW: largeWindow } = constants;

/** English that the static dictionary has words of, in three spellings: brotli makes copies of them, transformed. */
const vocabulary = 'time down life left back code data show only site city open just like free work text year over body love form book play live line help home side more word long them view find page days full head term each area from true mark able upon high date land news even next case both post used made hand here what name link blog size base held make main user that some This government information different available university management development'.split(' ');
function prose(seed: number, words: number): Buffer {
  const picks = noise(seed, words * 2);
  const parts = Array.from({ length: words }, (_, at) => {
    const word = vocabulary[(picks[2 * at] ?? 0) % vocabulary.length] ?? '';
    const kind = (picks[2 * at + 1] ?? 0) % 8;
    return kind === 0 ? `${word.toUpperCase()}, ` : kind === 1 ? `${word.charAt(0).toUpperCase()}${word.slice(1)}="` : kind === 2 ? ` ${word}ing the ` : kind === 3 ? `${word}\n` : `${word} `;
  });
  return Buffer.from(parts.join(''));
}

test('a stream of every quality and window comes back of its text and its decisions', async () => {
  const text = mixture(prose, 1, [[0, 60_000], [1, 5000], [0, 30_000], [2, 3000], [3, 20_000]]);
  for (let level = 0; level <= 11; level++) {
    for (const bits of [10, 16, 18, 22, 24]) {
      const stream = brotliCompressSync(text, { params: { [quality]: level, [window]: bits } });
      const plain = 5000 * (level < 2 ? 2 : 1);
      expect(await roundTripStream('brotli', stream, text)).toBeLessThan(plain + (stream.length - plain) * 0.7);
    }
  }
});

const stretch = fc.tuple(fc.nat(3), fc.oneof(fc.integer({ min: 1, max: 60_000 }), fc.constantFrom(1, 2, 3, 4, 1023, 1024, 1025, 4096, 70_000)));
const parameters = fc.record({ level: fc.nat(11), bits: fc.integer({ min: 10, max: 24 }), kind: fc.nat(2), low: fc.nat(3), near: fc.nat(15) });

test('whatever the text and the parameters', async () => {
  await fc.assert(fc.asyncProperty(fc.nat(10_000), fc.array(stretch, { minLength: 0, maxLength: 4 }), parameters, async (seed, kinds, { level, bits, kind, low, near }) => {
    const text = mixture(prose, seed, kinds);
    const stream = brotliCompressSync(text, { params: { [quality]: level, [window]: bits, [mode]: kind, [postfix]: low, [direct]: near << low } });
    await roundTripStream('brotli', stream, text);
  }), { numRuns: 150 });
});

/** Streams that no encoder of Node's makes, as bits, the lowest first. */
function bitsOf(...fields: readonly (readonly [value: number, count: number])[]): Buffer {
  const bits = fields.flatMap(([value, count]) => Array.from({ length: count }, (_, at) => (value >> at) & 1));
  return Buffer.from(Array.from({ length: Math.ceil(bits.length / 8) }, (_, byte) => bits.slice(8 * byte, 8 * byte + 8).reduce((sum, bit, at) => sum | (bit << at), 0)));
}

test('metadata, uncompressed and empty metablocks come back too', async () => {
  const head = [[0, 1], [0, 1], [3, 2], [0, 1], [1, 2], [4, 8], [0, 1]] as const;
  const skipped = Buffer.concat([bitsOf(...head), Buffer.from('12345'), bitsOf([0, 1], [0, 2], [3, 16], [1, 1], [0, 4]), Buffer.from('abcd'), bitsOf([3, 2])]);
  const text = brotliDecompressSync(skipped);
  expect(text.toString()).toBe('abcd');
  await roundTripStream('brotli', skipped, text);
  await roundTripStream('brotli', brotliCompressSync(Buffer.alloc(0)), Buffer.alloc(0));
});

test('words of the static dictionary are told without it', async () => {
  const text = prose(5, 1200);
  const stream = brotliCompressSync(text, { params: { [quality]: 11 } });
  expect(await roundTripStream('brotli', stream, text)).toBeLessThan(stream.length * 0.6);
});

/** A stream of one word of the static dictionary, transformed, and what it says; null when that is nothing. */
function word(length: number, transform: number): { stream: Buffer; text: Buffer } | null {
  const wordBits = [10, 10, 11, 11, 10, 10, 10, 10, 10, 9, 9, 8, 7, 7, 8, 7, 7, 6, 6, 5, 5][length - 4] ?? 0;
  const offset = ((transform << wordBits) | 3) + 4;
  const extra = 30 - Math.clz32(offset);
  const distance = 16 + 2 * (extra - 1) + ((offset >> extra) & 1);
  const [base, copyBits, copyCode] = length < 10 ? [length, 0, length - 2] : [[10, 1, 8], [12, 1, 9], [14, 2, 10], [18, 2, 11], [22, 3, 12]].filter(([from = 0]) => from <= length).at(-1) as [number, number, number];
  const command = copyCode < 8 ? 128 + copyCode : 192 + copyCode - 8;
  const only = (symbol: number, width: number): (readonly [number, number])[] => [[1, 2], [0, 2], [symbol, width]];
  // Only one length of the metablock is right.
  for (let bytes = 1; bytes < 48; bytes++) {
    const stream = bitsOf([0, 1], [1, 1], [0, 1], [0, 2], [bytes - 1, 16], [0, 13], ...only(0, 8), ...only(command, 10), ...only(distance, 6), [length - base, copyBits], [offset & ((1 << extra) - 1), extra]);
    try {
      return { stream, text: brotliDecompressSync(stream) };
    } catch {
      continue;
    }
  }
  return null;
}

test('every transform of the static dictionary, and every length of its words', async () => {
  const all = [...Array.from({ length: 121 }, (_, transform) => [[4, transform], [12, transform]]).flat(), ...Array.from({ length: 21 }, (_, at) => [at + 4, 0])];
  let told = 0;
  for (const [length = 0, transform = 0] of all) {
    const made = word(length, transform);
    if (made === null) continue;
    await roundTripStream('brotli', made.stream, made.text);
    told++;
  }
  // Some transforms leave nothing of a word of four letters.
  expect(told).toBeGreaterThan(240);
});

test('what has a larger window than brotli\'s own is not taken apart', async () => {
  const text = prose(7, 3000);
  expect(await decisionsOf('brotli', brotliCompressSync(text, { params: { [largeWindow]: 1, [window]: 28 } }), text)).toHaveLength(0);
});

test('spoilt decisions give an error or a stream of the size that was asked for, soon', async () => {
  const text = prose(11, 5000);
  const stream = brotliCompressSync(text);
  const decisions = await decisionsOf('brotli', stream, text);
  await expect(rebuilt('brotli', text, decisions.subarray(0, decisions.length >> 1), stream.length)).rejects.toMatchObject({ code: 'DELTA_CORRUPT' });
  for (let seed = 0; seed < 300; seed++) {
    const [a = 0, b = 0, c = 0] = noise(seed, 3);
    const spoilt = Buffer.from(decisions);
    spoilt[((a << 8) | b) % spoilt.length]! ^= 1 << (c & 7);
    await rebuilt('brotli', text, spoilt, stream.length).catch((error: unknown) => { expect(error).toMatchObject({ code: 'DELTA_CORRUPT' }); });
  }
  // The most that a device takes, of what there is most to look at in.
  const large = Buffer.alloc(deltaLimits.decidedBytes, 'ab');
  for (let seed = 0; seed < 3; seed++) {
    const began = process.cpuUsage();
    await rebuilt('brotli', large, noise(seed, 20_000), 1_000_000).catch(() => undefined);
    const { user } = process.cpuUsage(began);
    expect(user).toBeLessThan(20_000_000);
  }
});
