import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { constants, deflateRawSync, gzipSync, inflateRawSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Deflate } from 'pako';
import { deviceAddon, serverAddon } from '../../../src/core/native.js';
import { BitDecoder } from '../../../src/delta/bits.js';
import { BitEncoder } from '../../../src/delta/encode/bit-encoder.js';
import { ExpansionCoder } from '../../../src/delta/expansion-coder.js';
import { collapseBytes, Collapser, type DeflatedRange, type Expansion } from '../../../src/delta/expansion.js';
import { GnuDeflate } from '../../../src/delta/gnu-deflate.js';
import { deltaLimits } from '../../../src/delta/limits.js';
import { MetaModels } from '../../../src/delta/meta-models.js';
import { noise } from '../../support/delta-images.js';
import { layerDeltaBytes, treeOf } from '../../support/image-delta.js';

let dir = '';
beforeAll(() => { dir = mkdtempSync(join(tmpdir(), 'deflate-decisions-')); });
afterAll(() => { rmSync(dir, { recursive: true, force: true }); });

async function rebuilt(text: Buffer, decisions: Buffer, bytes: number): Promise<Buffer> {
  const out = Buffer.alloc(bytes);
  await deviceAddon().rebuildDeflate(text, decisions, out);
  return out;
}

/** Takes a stream apart and makes it again; gives the size of its decisions. */
async function roundTrip(stream: Buffer, text: Buffer): Promise<number> {
  const decisions = await serverAddon().deflateDecisions(stream, text);
  expect(decisions.length).toBeGreaterThan(0);
  expect((await rebuilt(text, decisions, stream.length)).equals(stream)).toBe(true);
  return decisions.length;
}

const vocabulary = 'function return const value length window module exports require default index this undefined string number object create prototype assign'.split(' ');
/** What looks like a script: words of a few, numbers between them. */
function script(seed: number, words: number): Buffer {
  const picks = noise(seed, words * 2);
  return Buffer.from(Array.from({ length: words }, (_, at) => `${vocabulary[picks[2 * at]! % vocabulary.length]!}${['(', ').', ' = ', `_${String(picks[2 * at + 1]!)};\n`][picks[2 * at + 1]! % 4]!}`).join(''));
}

/** Stretches of several kinds, so that a stream has blocks of all kinds. */
function mixture(seed: number, kinds: readonly (readonly [kind: number, bytes: number])[]): Buffer {
  return Buffer.concat(kinds.map(([kind, bytes], index) => {
    if (kind === 0) return script(seed + index, Math.ceil(bytes / 4)).subarray(0, bytes);
    if (kind === 1) return noise(seed + index, bytes);
    if (kind === 2) return Buffer.alloc(bytes, seed & 255);
    return Buffer.alloc(bytes, noise(seed, 1 + (seed % 300)));
  }));
}

function stock(text: Buffer, options: { level?: number; windowBits?: number; memLevel?: number; strategy?: 0 | 1 | 2 | 3 | 4 }): Buffer {
  const deflate = new Deflate({ raw: true, legacyHash: true, ...options });
  deflate.push(text, true);
  return Buffer.from(deflate.result as Uint8Array);
}

test('streams of other zlibs, windows, strategies and of GNU gzip are told in next to nothing', async () => {
  const text = Buffer.concat([script(1, 20_000), noise(2, 3000), script(3, 5000)]);
  for (let level = 1; level <= 9; level++) {
    expect(await roundTrip(deflateRawSync(text, { level }), text)).toBeLessThan(700);
    expect(await roundTrip(stock(text, { level }), text)).toBeLessThan(60);
    expect(await roundTrip(new GnuDeflate(level).push(text, true), text)).toBeLessThan(200);
  }
  for (const strategy of [1, 2, 3, 4] as const) expect(await roundTrip(stock(text, { strategy }), text)).toBeLessThan(300);
  for (let windowBits = 9; windowBits <= 14; windowBits++) expect(await roundTrip(stock(text, { windowBits }), text)).toBeLessThan(300);
  for (let memLevel = 1; memLevel <= 9; memLevel++) expect(await roundTrip(stock(text, { memLevel }), text)).toBeLessThan(1500);
});

const stretch = fc.tuple(fc.nat(3), fc.oneof(fc.integer({ min: 1, max: 60_000 }), fc.constantFrom(1, 2, 3, 4, 257, 258, 259, 32_767, 32_768, 65_535, 65_536, 70_000)));
const parameters = fc.record({ level: fc.nat(9), windowBits: fc.integer({ min: 9, max: 15 }), memLevel: fc.integer({ min: 1, max: 9 }), strategy: fc.nat(4), isStock: fc.boolean() });

test('whatever the text and the parameters', async () => {
  await fc.assert(fc.asyncProperty(fc.nat(10_000), fc.array(stretch, { minLength: 0, maxLength: 4 }), parameters, async (seed, kinds, { isStock, ...options }) => {
    const text = mixture(seed, kinds);
    const stream = isStock ? stock(text, options as Parameters<typeof stock>[1]) : deflateRawSync(text, options);
    await roundTrip(stream, text);
  }), { numRuns: 150 });
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
    await roundTrip(stream, text);
  }
  // Flushes leave empty blocks within.
  const flushed = new Deflate({ raw: true });
  const text = script(4, 3000);
  flushed.push(text.subarray(0, 7000), 2);
  flushed.push(text.subarray(7000, 9000), 3);
  flushed.push(text.subarray(9000), 4);
  await roundTrip(Buffer.from(flushed.result as Uint8Array), text);
  await roundTrip(deflateRawSync(Buffer.alloc(0)), Buffer.alloc(0));
});

test('what is no stream of the text is not taken apart', async () => {
  const text = script(7, 3000);
  const stream = deflateRawSync(text);
  const none = async (bytes: Buffer, plain: Buffer): Promise<void> => { expect(await serverAddon().deflateDecisions(bytes, plain)).toHaveLength(0); };
  await none(stream, script(8, 3000));
  await none(stream, text.subarray(1));
  await none(stream.subarray(0, stream.length - 1), text);
  await none(Buffer.concat([stream, Buffer.from('x')]), text);
  await none(noise(3, 2000), text);
  await none(Buffer.alloc(0), text);
});

test('decisions are the same each time', async () => {
  const text = script(9, 4000);
  const stream = deflateRawSync(text, { level: 1 });
  const both = await Promise.all([1, 2].map(() => serverAddon().deflateDecisions(stream, text)));
  expect(both[0]!.equals(both[1]!)).toBe(true);
});

test('spoilt decisions give an error or a stream of the size that was asked for, soon', async () => {
  const text = script(11, 5000);
  const corrupt = async (plain: Buffer, bytes: Buffer, size: number): Promise<void> => { await expect(rebuilt(plain, bytes, size)).rejects.toMatchObject({ code: 'DELTA_CORRUPT' }); };
  for (const stream of [deflateRawSync(text, { level: 1 }), stock(text, { level: 9 }), stock(text, { strategy: 2 }), new Lots(5).stream(text)]) {
    const decisions = await serverAddon().deflateDecisions(stream, text);
    await corrupt(text, decisions, stream.length - 1);
    await corrupt(text, decisions, stream.length + 1);
    await corrupt(text, Buffer.alloc(0), stream.length);
    await corrupt(Buffer.alloc(0), decisions, stream.length);
    for (let seed = 0; seed < 300; seed++) {
      const [a = 0, b = 0, c = 0] = noise(seed, 3);
      const spoilt = Buffer.from(decisions);
      spoilt[((a << 8) | b) % spoilt.length]! ^= 1 << (c & 7);
      await rebuilt(text, spoilt, stream.length).catch((error: unknown) => { expect(error).toMatchObject({ code: 'DELTA_CORRUPT' }); });
    }
  }
});

test('what there is most to look at in does not take a device long', async () => {
  // Of two bytes by lot every place has matches without end: zlib itself looks at thousands for each.
  const text = Buffer.from(noise(1, 2 ** 20).map((byte) => byte & 1));
  const stream = deflateRawSync(text, { level: 9 });
  const decisions = await serverAddon().deflateDecisions(stream, text);
  const began = process.cpuUsage();
  expect((await rebuilt(text, decisions, stream.length)).equals(stream)).toBe(true);
  expect(process.cpuUsage(began).user).toBeLessThan(2_500_000);
});

/** The target that an expanded one gives. */
async function collapsed(ranges: readonly DeflatedRange[], expanded: Buffer, chunkBytes: number): Promise<Buffer> {
  const out: Buffer[] = [];
  const collapser = new Collapser(ranges, (bytes) => { out.push(Buffer.from(bytes)); return Promise.resolve(); });
  for (let at = 0; at < expanded.length; at += chunkBytes) await collapser.push(expanded.subarray(at, at + chunkBytes));
  return Buffer.concat(out);
}

test('text and decisions are taken in pieces of any size, with other bytes around', async () => {
  const text = script(13, 2000);
  const stream = deflateRawSync(text, { windowBits: 12 });
  const decisions = await serverAddon().deflateDecisions(stream, text);
  const range = { offset: 3, lengthBytes: stream.length, sizeBytes: text.length, packing: { kind: 'decisions', format: 'deflate', decisionBytes: decisions.length } } as const;
  const expanded = Buffer.concat([Buffer.from('abc'), text, decisions, Buffer.from('xyz')]);
  for (const chunkBytes of [1, 1000, expanded.length]) {
    expect((await collapsed([range], expanded, chunkBytes)).equals(Buffer.concat([Buffer.from('abc'), stream, Buffer.from('xyz')]))).toBe(true);
  }
  await expect(collapsed([{ ...range, lengthBytes: range.lengthBytes + 1 }], expanded, 1000)).rejects.toMatchObject({ code: 'DELTA_CORRUPT' });
});

function coded(expansion: Expansion, fileBytes: number): Expansion | null {
  const encoder = new BitEncoder();
  new ExpansionCoder(new MetaModels()).code(encoder, expansion, fileBytes, []);
  return new ExpansionCoder(new MetaModels()).code(new BitDecoder(encoder.finish()), null, fileBytes, []);
}

test('a delta tells the size of the decisions, no more than the limits allow, and what memory they take', () => {
  const one = (sizeBytes: number, decisionBytes: number): Expansion => ({ inflated: [], deflated: [{ offset: 0, lengthBytes: 1000, sizeBytes, packing: { kind: 'decisions', format: 'deflate', decisionBytes } }] });
  expect(coded(one(5000, 100), 1000)).toEqual(one(5000, 100));
  expect(coded(one(deltaLimits.decidedBytes, 1000), 1000)).toEqual(one(deltaLimits.decidedBytes, 1000));
  for (const wrong of [one(deltaLimits.decidedBytes + 1, 100), one(5000, 0), one(5000, 1001)]) {
    expect(() => coded(wrong, 1000)).toThrow(expect.objectContaining({ code: 'DELTA_CORRUPT' }));
  }
  expect(collapseBytes(one(deltaLimits.decidedBytes, 1000))).toBeLessThan(deltaLimits.decidedBytes + 2000 + 8 * 2 ** 20);
  expect(collapseBytes(one(deltaLimits.decidedBytes, 1000))).toBeGreaterThan(deltaLimits.decidedBytes + 2000 + deviceAddon().rebuildDeflateBytes(0));
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
