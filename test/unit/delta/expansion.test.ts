import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, constants, deflateSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { deflatePacking, inflateStream } from '../../../src/delta/encode/streams.js';
import { GnuDeflate } from '../../../src/delta/gnu-deflate.js';
import { deltaLimits } from '../../../src/delta/limits.js';
import { deflate, gzip, words, zip, zlib } from '../../support/compressed.js';
import { noise } from '../../support/delta-images.js';
import { layerDeltaBytes, treeOf } from '../../support/image-delta.js';

let dir = '';
beforeAll(() => { dir = mkdtempSync(join(tmpdir(), 'expansion-')); });
afterAll(() => { rmSync(dir, { recursive: true, force: true }); });

const brotli = (content: Buffer, quality: number): Buffer => brotliCompressSync(content, { params: { [constants.BROTLI_PARAM_QUALITY]: quality } });

/** Size of the delta from one version of a file to another, which is applied and compared by its layer's digest. */
function deltaBytes(old: Buffer | null, now: Buffer): Promise<number> {
  return treeDeltaBytes(old === null ? null : { 'app.jar': old }, { 'app.jar': now });
}

/** The same for several files, in the order of their names. */
function treeDeltaBytes(old: Record<string, Buffer> | null, now: Record<string, Buffer>, profile: 'small' | 'fast' = 'small', threads = 2): Promise<number> {
  return layerDeltaBytes(dir, old === null ? null : treeOf(old), treeOf(now), { profile, threads });
}

test('a changed member of a zip costs what changed in it, at every level', async () => {
  for (const level of [1, 6, 9]) {
    const members = Array.from({ length: 6 }, (_, index) => ({ name: `m${String(index)}`, content: words(index, 6000), level }));
    const changed = members.map((member, index) => (index === 3 ? { ...member, content: Buffer.concat([member.content.subarray(0, 9000), Buffer.from('HELLO'), member.content.subarray(9000)]) } : member));
    expect(await deltaBytes(zip(members), zip(changed))).toBeLessThan(300);
  }
});

test('a gzip file costs what changed in what it holds', async () => {
  const content = words(7, 20_000);
  const now = Buffer.concat([content.subarray(0, 100), Buffer.from('!'), content.subarray(100)]);
  expect(await deltaBytes(gzip(content, 9), gzip(now, 9))).toBeLessThan(200);
});

test('nor does it when GNU gzip wrote it', async () => {
  const content = words(7, 40_000);
  const now = Buffer.concat([content.subarray(0, 100), Buffer.from('!'), content.subarray(100)]);
  for (const level of [1, 6, 9]) {
    const [before, after] = [content, now].map((plain) => gzip(plain, level, new GnuDeflate(level).push(plain, true)));
    expect(after!.length).toBeGreaterThan(20_000);
    expect(await deltaBytes(before!, after!)).toBeLessThan(200);
  }
});

test('a compressed file beside the file that it holds costs next to nothing, new or not', async () => {
  const page = words(11, 10_000);
  const script = words(12, 5000);
  const packed = { 'a.js': page, 'a.js.br': brotli(page, 11), 'a.js.gz': gzip(page, 9), 'b.js': script, 'b.js.br': brotli(script, 6), 'b.js.gz': gzip(script, 6) };
  const alone = await treeDeltaBytes(null, { 'a.js': page, 'b.js': script });
  expect(await treeDeltaBytes(null, packed)).toBeLessThan(alone + 300);
  // What the basis has serves as well, under whatever name.
  expect(await treeDeltaBytes({ 'old.js': page }, { 'new.js.br': brotli(page, 11) })).toBeLessThan(120);
  // Running brotli takes its time: those who asked for speed get its decisions.
  // Not where a device is to be done soon.
  expect(await treeDeltaBytes({ 'old.js': page }, { 'new.js.br': brotli(page, 11) }, 'fast')).toBeGreaterThan(brotli(page, 11).length);
});

test('more brotli files than are looked at ahead, twice the same, and beside nothing that they hold, for any number of threads', async () => {
  const pages = Array.from({ length: 80 }, (_, at) => words(100 + at, 60));
  const tree = Object.fromEntries(pages.flatMap((page, at) => [[`${String(at)}.js`, page], [`${String(at)}.js.br`, brotli(pages[at % 7 === 3 ? at - 1 : at] ?? page, 11)]]));
  const others = { 'a.br': brotli(words(1, 60), 11), 'b.br': brotli(pages[5] ?? Buffer.of(), 9), 'c.br': Buffer.of() };
  const plain = await treeDeltaBytes(null, Object.fromEntries(pages.map((page, at) => [`${String(at)}.js`, page])));
  const sizes = [];
  for (const threads of [1, 3, 8]) sizes.push(await treeDeltaBytes({ '9.js': pages[9] ?? Buffer.of(), '20.js.br': brotli(pages[20] ?? Buffer.of(), 11) }, { ...tree, ...others }, 'small', threads));
  expect(new Set(sizes).size).toBe(1);
  expect(sizes[0]).toBeLessThan(plain + 80 * 30);
});

test('brotli that holds much or has another window is made of its decisions', async () => {
  const large = Buffer.concat([words(3, 30_000), words(4, 30_000)]);
  const narrow = brotliCompressSync(words(4, 10_000), { params: { [constants.BROTLI_PARAM_LGWIN]: 12 } });
  const tree = { 'a.js': large, 'b.js': words(4, 10_000) };
  const alone = await treeDeltaBytes(null, tree);
  const packed = brotli(large, 4);
  expect(large.length).toBeGreaterThan(2 ** 16);
  expect(await treeDeltaBytes(null, { ...tree, 'a.js.br': packed, 'b.js.br': narrow })).toBeLessThan(alone + (packed.length + narrow.length) / 2);
});

test('brotli that holds too much, has a large window or is none is left as it is, and comes back', async () => {
  const large = Buffer.alloc(deltaLimits.decidedBytes + 1, words(3, 500));
  const wide = brotliCompressSync(words(4, 10_000), { params: { [constants.BROTLI_PARAM_LARGE_WINDOW]: 1, [constants.BROTLI_PARAM_LGWIN]: 26 } });
  const tree = { 'a.js': large, 'a.js.br': brotli(large, 1), 'b.js': words(4, 10_000), 'b.js.br': wide, 'c.br': noise(5, 3000), 'd.br': brotli(Buffer.alloc(0), 11) };
  expect(await treeDeltaBytes(null, tree)).toBeGreaterThan(wide.length + 3000);
});

test('a new zip without a predecessor, stored members, and streams of other compressors come back too', async () => {
  await deltaBytes(null, zip([{ name: 'a', content: words(1, 500), level: 6 }, { name: 'b', content: noise(1, 300), level: 0 }]));
  const strange = zip([{ name: 'a', content: words(1, 500), level: 6 }]);
  strange[60] = (strange[60] ?? 0) ^ 255;
  await deltaBytes(zip([{ name: 'a', content: words(1, 500), level: 6 }]), strange);
  await deltaBytes(null, Buffer.concat([zip([{ name: 'a', content: words(1, 500), level: 6 }]), Buffer.from('more')]));
});

test('parameters are found for what stock zlib wrote, and for nothing that is not given back', async () => {
  await fc.assert(fc.asyncProperty(fc.integer({ min: 1, max: 9 }), fc.constantFrom(8, 9), fc.integer({ min: 1, max: 40_000 }), async (level, memLevel, length) => {
    const content = words(length, length).subarray(0, length);
    const bytes = deflate(content, level, memLevel);
    expect(inflateStream(bytes)?.equals(content)).toBe(true);
    const found = await deflatePacking(bytes, content);
    if (found?.kind === 'gnu') expect(new GnuDeflate(found.level).push(content, true).equals(bytes)).toBe(true);
    if (found?.kind === 'deflate') expect(deflate(content, found.level, found.memLevel).equals(bytes)).toBe(true);
    if (memLevel === 8) expect(found).not.toBeNull();
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    expect(await deflatePacking(bytes, content)).toBeNull();
  }), { numRuns: 20 });
});

/** A file of its own kind that holds streams: what stands before each says how long it is, as formats do. */
function holding(streams: readonly Buffer[]): Buffer {
  return Buffer.concat(streams.flatMap((stream, at) => [Buffer.from(`part ${String(at)} of ${String(stream.length)} bytes\n`), stream]));
}

test('streams of whatever encoder, among some that cannot be told, give the same delta for any number of threads', async () => {
  const version = (word: string): Buffer => holding(Array.from({ length: 60 }, (_, at) => {
    const content = Buffer.concat([words(500 + at, 400), Buffer.from(at % 2 === 0 ? word : ''), words(600 + at, 400)]);
    if (at % 5 === 3) return zlib(content, 6);
    if (at % 7 === 5) return zip([{ name: `m${String(at)}`, content, level: 6 }]);
    return deflateSync(content, { strategy: constants.Z_FILTERED, memLevel: 7 });
  }));
  const sizes = [];
  for (const threads of [1, 3, 8]) sizes.push(await treeDeltaBytes({ 'a.bin': version('BEFORE') }, { 'a.bin': version('AFTERWARDS') }, 'small', threads));
  expect(new Set(sizes).size).toBe(1);
  expect(sizes[0]).toBeLessThan(3000);
});

test('what changed in streams amid other content costs what it does in them, wherever they stand and in whatever order', async () => {
  const contents = Array.from({ length: 9 }, (_, at) => words(50 + at, 3000));
  const changed = contents.map((content, at) => (at % 4 === 2 ? Buffer.concat([content.subarray(0, 500), Buffer.from('HELLO'), content.subarray(500)]) : content));
  for (const pack of [(content: Buffer): Buffer => zlib(content, 9), (content: Buffer): Buffer => gzip(content, 6), (content: Buffer): Buffer => zip([{ name: 'same name', content, level: 6 }])]) {
    const before = holding(contents.map(pack));
    expect(await deltaBytes(before, holding(changed.map(pack)))).toBeLessThan(400);
    expect(await deltaBytes(before, holding([...changed].reverse().map(pack)))).toBeLessThan(600);
  }
});

test('a zip behind a prefix costs what changed in it', async () => {
  const members = Array.from({ length: 6 }, (_, index) => ({ name: `m${String(index)}`, content: words(index, 3000), level: 6 }));
  const changed = members.map((member, index) => (index === 3 ? { ...member, content: Buffer.concat([member.content, Buffer.from('HELLO')]) } : member));
  const start = Buffer.from('#!/usr/bin/env python3\n');
  expect(await deltaBytes(Buffer.concat([start, zip(members)]), Buffer.concat([start, zip(changed)]))).toBeLessThan(300);
});

test('what is in the second source counts too: a stream that stands there, and one that was changed', async () => {
  const [first, second, third] = [1, 2, 3].map((seed) => words(60 + seed, 8000)) as [Buffer, Buffer, Buffer];
  const own = noise(7, 4000);
  const edited = Buffer.concat([third.subarray(0, 500), Buffer.from('HELLO'), third.subarray(500)]);
  const now = holding([own, zlib(first, 6), zlib(second, 6), zlib(edited, 6)]);
  const other = holding([zlib(first, 6), zlib(second, 6), zlib(third, 6)]);
  expect(await treeDeltaBytes({ 'app.bin': own, 'other.dat': other }, { 'app.bin': now })).toBeLessThan(1000);
});

test('streams whose content is all new stay as they are, though there were others: what comes again in it costs the codec more than deflate', async () => {
  const repeated = (seed: number): Buffer => Buffer.concat(Array.from({ length: 300 }, (_, at) => noise(seed + at, 30)).flatMap((stretch) => [stretch, stretch, stretch]));
  const of = (seed: number): Buffer => holding([0, 1, 2].map((at) => zlib(repeated(seed + at * 1000), 9)));
  const now = of(10_000);
  for (const before of [of(20_000), holding([noise(1, 9000)]), Buffer.of()]) expect(await deltaBytes(before, now)).toBeLessThan(now.length * 1.01);
});
