import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';
import { crc32 } from '../../support/crc32.js';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { deflatePacking, findStreams, inflateStream } from '../../../src/delta/encode/streams.js';
import { deflaterFor } from '../../../src/delta/expansion.js';
import { GnuDeflate } from '../../../src/delta/gnu-deflate.js';
import { deltaLimits } from '../../../src/delta/limits.js';
import { noise } from '../../support/delta-images.js';
import { layerDeltaBytes, treeOf } from '../../support/image-delta.js';

let dir = '';
beforeAll(() => { dir = mkdtempSync(join(tmpdir(), 'expansion-')); });
afterAll(() => { rmSync(dir, { recursive: true, force: true }); });

function deflate(content: Buffer, level: number, memLevel = 8): Buffer {
  return Buffer.concat(deflaterFor({ kind: 'deflate', level, memLevel }).push(content, true));
}

/** A zip as archivers write it; level 0 stores. */
function zip(members: readonly { name: string; content: Buffer; level: number }[]): Buffer {
  const parts: Buffer[] = [];
  const central: Buffer[] = [];
  let at = 0;
  for (const { name, content, level } of members) {
    const bytes = level === 0 ? content : deflate(content, level);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(level === 0 ? 0 : 8, 4);
    common.writeUInt32LE(crc32(content), 10);
    common.writeUInt32LE(bytes.length, 14);
    common.writeUInt32LE(content.length, 18);
    common.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, Buffer.from(name)]);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(at, 10);
    central.push(Buffer.from('PK\x01\x02', 'latin1'), Buffer.from([20, 0]), common, tail, Buffer.from(name));
    parts.push(local, bytes);
    at += local.length + bytes.length;
  }
  const directory = Buffer.concat(central);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(members.length, 8);
  end.writeUInt16LE(members.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...parts, directory, end]);
}

const gzip = (content: Buffer, level: number, packed = deflate(content, level)): Buffer => {
  const tail = Buffer.alloc(8);
  tail.writeUInt32LE(crc32(content), 0);
  tail.writeUInt32LE(content.length, 4);
  return Buffer.concat([Buffer.from([0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3]), Buffer.from('name\0'), packed, tail]);
};

const brotli = (content: Buffer, quality: number): Buffer => brotliCompressSync(content, { params: { [constants.BROTLI_PARAM_QUALITY]: quality } });

const words = (seed: number, count: number): Buffer => Buffer.from(noise(seed, count).toString('hex').replaceAll(/[a-f]/g, ' word '));

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

test('parameters are found for what stock zlib wrote, and for nothing that is not given back', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 9 }), fc.constantFrom(8, 9), fc.integer({ min: 1, max: 40_000 }), (level, memLevel, length) => {
    const content = words(length, length).subarray(0, length);
    const bytes = deflate(content, level, memLevel);
    expect(inflateStream(bytes)?.equals(content)).toBe(true);
    const found = deflatePacking(bytes, content);
    if (found?.kind === 'gnu') expect(new GnuDeflate(found.level).push(content, true).equals(bytes)).toBe(true);
    if (found?.kind === 'deflate') expect(deflate(content, found.level, found.memLevel).equals(bytes)).toBe(true);
    if (memLevel === 8) expect(found).not.toBeNull();
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    expect(deflatePacking(bytes, content)).toBeNull();
  }), { numRuns: 20 });
});

test('no file makes the search for streams fail, and streams lie inside the file', () => {
  const whole = zip([{ name: 'abc', content: words(3, 2000), level: 6 }, { name: 'd', content: words(4, 20), level: 9 }]);
  fc.assert(fc.property(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 12 }), fc.nat(whole.length), (edits, length) => {
    const bytes = Buffer.from(whole);
    for (const [at, value] of edits) bytes[at] = value;
    let end = 0;
    for (const stream of findStreams(bytes.subarray(0, length))) {
      expect(stream.offset).toBeGreaterThanOrEqual(end);
      end = stream.offset + stream.lengthBytes;
      expect(end).toBeLessThanOrEqual(length);
    }
  }), { numRuns: 500 });
});
