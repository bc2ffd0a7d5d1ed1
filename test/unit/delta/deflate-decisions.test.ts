import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { constants, deflateRawSync, gzipSync, inflateRawSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Deflate } from 'pako';
import { serverAddon } from '../../../src/core/native.js';
import { GnuDeflate } from '../../../src/delta/gnu-deflate.js';
import { deltaLimits } from '../../../src/delta/limits.js';
import { decisionsOf, mixture, rebuilt, roundTripStream, script } from '../../support/decided-streams.js';
import { noise } from '../../support/delta-images.js';
import { layerDeltaBytes, treeOf } from '../../support/image-delta.js';

let dir = '';
beforeAll(() => { dir = mkdtempSync(join(tmpdir(), 'deflate-decisions-')); });
afterAll(() => { rmSync(dir, { recursive: true, force: true }); });

function stock(text: Buffer, options: { level?: number; windowBits?: number; memLevel?: number; strategy?: 0 | 1 | 2 | 3 | 4 }): Buffer {
  const deflate = new Deflate({ raw: true, legacyHash: true, ...options });
  deflate.push(text, true);
  return Buffer.from(deflate.result as Uint8Array);
}

test('streams of other zlibs, windows, strategies and of GNU gzip are told in next to nothing', async () => {
  const text = Buffer.concat([script(1, 20_000), noise(2, 3000), script(3, 5000)]);
  for (let level = 1; level <= 9; level++) {
    expect(await roundTripStream('deflate', deflateRawSync(text, { level }), text)).toBeLessThan(700);
    expect(await roundTripStream('deflate', stock(text, { level }), text)).toBeLessThan(60);
    expect(await roundTripStream('deflate', new GnuDeflate(level).push(text, true), text)).toBeLessThan(200);
  }
  for (const strategy of [1, 2, 3, 4] as const) expect(await roundTripStream('deflate', stock(text, { strategy }), text)).toBeLessThan(300);
  for (let windowBits = 9; windowBits <= 14; windowBits++) expect(await roundTripStream('deflate', stock(text, { windowBits }), text)).toBeLessThan(300);
  for (let memLevel = 1; memLevel <= 9; memLevel++) expect(await roundTripStream('deflate', stock(text, { memLevel }), text)).toBeLessThan(1500);
});

const stretch = fc.tuple(fc.nat(3), fc.oneof(fc.integer({ min: 1, max: 60_000 }), fc.constantFrom(1, 2, 3, 4, 257, 258, 259, 32_767, 32_768, 65_535, 65_536, 70_000)));
const parameters = fc.record({ level: fc.nat(9), windowBits: fc.integer({ min: 9, max: 15 }), memLevel: fc.integer({ min: 1, max: 9 }), strategy: fc.nat(4), isStock: fc.boolean() });

test('whatever the text and the parameters', async () => {
  await fc.assert(fc.asyncProperty(fc.nat(10_000), fc.array(stretch, { minLength: 0, maxLength: 4 }), parameters, async (seed, kinds, { isStock, ...options }) => {
    const text = mixture(script, seed, kinds);
    const stream = isStock ? stock(text, options as Parameters<typeof stock>[1]) : deflateRawSync(text, options);
    await roundTripStream('deflate', stream, text);
  }), { numRuns: 150 });
});

/** Who may have made a stream, as `deflateMakers` names them. */
async function makersOf(stream: Buffer, text: Buffer): Promise<number[]> {
  return [...(await serverAddon().deflateMakers(stream, text))];
}

test('who made a stream is among those that may have, whatever the text', async () => {
  await fc.assert(fc.asyncProperty(fc.nat(10_000), fc.array(stretch, { minLength: 1, maxLength: 4 }), fc.integer({ min: 1, max: 9 }), async (seed, kinds, level) => {
    const text = mixture(script, seed, kinds);
    expect(await makersOf(stock(text, { level }), text)).toContain(level);
    expect(await makersOf(stock(text, { level, memLevel: 9 }), text)).toContain(16 + level);
    expect(await makersOf(new GnuDeflate(level).push(text, true), text)).toContain(32 + level);
  }), { numRuns: 60 });
});

test('of who can not have made a stream few are named', async () => {
  const text = Buffer.concat([script(1, 20_000), noise(2, 3000), script(3, 5000)]);
  for (const strategy of [1, 2, 3] as const) expect(await makersOf(stock(text, { strategy }), text)).toEqual([]);
  expect(await makersOf(new Lots(3).stream(text.subarray(0, 3000)), text.subarray(0, 3000))).toEqual([]);
  // Those of other sizes of blocks are not.
  for (const [memLevel, first] of [[8, 0], [9, 16]] as const) {
    for (const maker of await makersOf(stock(text, { level: 6, memLevel }), text)) expect(maker >> 4 << 4).toBe(first);
  }
  // What cannot be read may be anybody's.
  expect(await makersOf(noise(1, 100), text)).toHaveLength(27);
});

/** An encoder that chooses by lot: any copy that there is, blocks of any kind and size, odd codes. */
class Lots {
  readonly #bits: number[] = [];
  #state: number;

  constructor(seed: number) { this.#state = seed; }

  next(limit: number): number {
    this.#state = Math.imul(this.#state ^ (this.#state >>> 15), 0x2c1b3c6d) + 0x9e3779b9 | 0;
    return ((this.#state ^ (this.#state >>> 13)) >>> 8) % limit;
  }
  put(value: number, count: number): void { for (let bit = 0; bit < count; bit++) this.#bits.push((value >> bit) & 1); }
  /** A symbol of the fixed code. */
  symbol(symbol: number): void {
    const [code, length] = symbol < 144 ? [0x30 + symbol, 8] : symbol < 256 ? [0x190 + symbol - 144, 9] : symbol < 280 ? [symbol - 256, 7] : [0xc0 + symbol - 280, 8];
    for (let bit = length - 1; bit >= 0; bit--) this.put((code >> bit) & 1, 1);
  }
  /** A copy of three to ten bytes from one to four bytes back. */
  copy(length: number, distance: number): void {
    this.symbol(254 + length);
    for (let bit = 4; bit >= 0; bit--) this.put(((distance - 1) >> bit) & 1, 1);
  }
  fill(): void { while (this.#bits.length % 8 !== 0) this.put(this.next(2), 1); }

  /** A stream of this text. */
  stream(text: Buffer): Buffer {
    let at = 0;
    for (let isLast = false; !isLast;) {
      const end = Math.min(text.length, at + this.next(300));
      isLast = end === text.length && this.next(2) === 0;
      this.put(isLast ? 1 : 0, 1);
      if (this.next(4) === 0) {
        this.put(0, 2);
        this.fill();
        this.put(end - at, 16);
        this.put(~(end - at) & 0xffff, 16);
        for (const byte of text.subarray(at, end)) this.put(byte, 8);
      } else {
        this.put(1, 2);
        for (let place = at; place < end;) {
          const [length, distance] = [3 + this.next(8), 1 + this.next(4)];
          const isThere = distance <= place && place + length <= end && Array.from({ length }, (_, index) => text[place + index] === text[place + index - distance]).every(Boolean);
          const isCopied = isThere && this.next(3) > 0;
          if (isCopied) this.copy(length, distance); else this.symbol(text[place]!);
          place += isCopied ? length : 1;
        }
        this.symbol(256);
      }
      at = end;
    }
    this.fill();
    return Buffer.from(Array.from({ length: this.#bits.length / 8 }, (_, byte) => this.#bits.slice(8 * byte, 8 * byte + 8).reduce((sum, bit, bitAt) => sum | (bit << bitAt), 0)));
  }
}

test('what no encoder writes comes back too: empty blocks, copies by lot, bits that fill', async () => {
  for (let seed = 1; seed < 60; seed++) {
    const text = Buffer.from(noise(seed, 40 * (seed % 30)).map((byte) => 97 + (byte & 1)));
    const stream = new Lots(seed).stream(text);
    expect(inflateRawSync(stream).equals(text)).toBe(true);
    await roundTripStream('deflate', stream, text);
  }
  // Flushes leave empty blocks within.
  const flushed = new Deflate({ raw: true });
  const text = script(4, 3000);
  flushed.push(text.subarray(0, 7000), 2);
  flushed.push(text.subarray(7000, 9000), 3);
  flushed.push(text.subarray(9000), 4);
  await roundTripStream('deflate', Buffer.from(flushed.result as Uint8Array), text);
  await roundTripStream('deflate', deflateRawSync(Buffer.alloc(0)), Buffer.alloc(0));
});

test('spoilt decisions give an error or a stream of the size that was asked for', async () => {
  const text = script(11, 5000);
  for (const stream of [deflateRawSync(text, { level: 1 }), stock(text, { level: 9 }), stock(text, { strategy: 2 }), new Lots(5).stream(text)]) {
    const decisions = await decisionsOf('deflate', stream, text);
    for (let seed = 0; seed < 300; seed++) {
      const [a = 0, b = 0, c = 0] = noise(seed, 3);
      const spoilt = Buffer.from(decisions);
      spoilt[((a << 8) | b) % spoilt.length]! ^= 1 << (c & 7);
      await rebuilt('deflate', text, spoilt, stream.length).catch((error: unknown) => { expect(error).toMatchObject({ code: 'DELTA_CORRUPT' }); });
    }
  }
});

test('what there is most to look at in does not take a device long', async () => {
  // Of two bytes by lot every place has matches without end: zlib itself looks at thousands for each.
  const text = Buffer.from(noise(1, 2 ** 20).map((byte) => byte & 1));
  const stream = deflateRawSync(text, { level: 9 });
  const decisions = await decisionsOf('deflate', stream, text);
  const began = process.cpuUsage();
  expect((await rebuilt('deflate', text, decisions, stream.length)).equals(stream)).toBe(true);
  expect(process.cpuUsage(began).user).toBeLessThan(2_500_000);
});

const deltaBytes = (old: Buffer | null, now: Buffer, profile: 'small' | 'fast' = 'small'): Promise<number> => layerDeltaBytes(dir, old === null ? null : treeOf({ 'a.js.gz': old }), treeOf({ 'a.js.gz': now }), { profile });

test('a gzip file of any encoder costs what changed in what it holds', async () => {
  const text = script(17, 30_000);
  const now = Buffer.concat([text.subarray(0, 5000), Buffer.from('/* changed */'), text.subarray(5000)]);
  for (const level of [1, 6, 9]) {
    for (const profile of ['small', 'fast'] as const) {
      const [before, after] = [gzipSync(text, { level }), gzipSync(now, { level })];
      expect(after.length).toBeGreaterThan(40_000);
      expect(await deltaBytes(before, after, profile)).toBeLessThan(1200);
    }
  }
});

test('a gzip file of any encoder beside the file that it holds costs its decisions', async () => {
  const text = script(19, 30_000);
  const both = layerDeltaBytes(dir, treeOf({ 'a.js': text }), treeOf({ 'a.js': text, 'a.js.gz': gzipSync(text, { level: 9, strategy: constants.Z_RLE }) }));
  expect(await both).toBeLessThan(1000);
});

test('a stream that is new, or changed all over, costs no more than it has', async () => {
  const text = script(23, 20_000);
  const now = gzipSync(text, { level: 9 });
  expect(await deltaBytes(null, now)).toBeLessThan(now.length * 1.02 + 200);
  expect(await deltaBytes(gzipSync(script(29, 20_000)), now)).toBeLessThan(now.length * 1.02 + 200);
  // All but its beginning is there as it is.
  const grown = gzipSync(Buffer.concat([text, script(31, 100)]), { level: 9 });
  expect(await deltaBytes(now, grown)).toBeLessThan(1500);
});

test('no more than the limits allow is told by decisions', async () => {
  const large = Buffer.alloc(deltaLimits.decidedBytes + 1, script(37, 5000));
  const now = Buffer.concat([large, Buffer.from('!')]);
  expect(await deltaBytes(gzipSync(large, { level: 1 }), gzipSync(now, { level: 1 }))).toBeLessThan(gzipSync(now, { level: 1 }).length);
});
