import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { deflateBytes, findStreams } from '../../../src/delta/encode/find-streams.js';
import { type DeflatedRange, type Expansion } from '../../../src/delta/expansion.js';
import { framedStreamBytes, framedStretches, leastChunkBytes, PictureFramer } from '../../../src/delta/picture.js';
import { png, pngChunk, words, zlib } from '../../support/compressed.js';
import { noise } from '../../support/delta-images.js';
import { coded, collapsed } from '../../support/expansions.js';
import { layerDeltaBytes, treeOf } from '../../support/image-delta.js';

let dir = '';
beforeAll(() => { dir = mkdtempSync(join(tmpdir(), 'picture-')); });
afterAll(() => { rmSync(dir, { recursive: true, force: true }); });

const deltaBytes = (old: Buffer, now: Buffer): Promise<number> => layerDeltaBytes(dir, treeOf({ 'a.png': old }), treeOf({ 'a.png': now }), { profile: 'small', threads: 2 });

/** Where the data of the first chunk begins, and the size of its header. */
const firstChunk = 8 + 25;

/** A file like a picture, and the same with another stretch. */
function twoVersions(seed: number): [before: Buffer, after: Buffer] {
  const pixels = words(seed, 40_000);
  const after = Buffer.from(pixels);
  words(seed + 1, 60).copy(after, 30_000);
  return [pixels, after];
}

test('the image data of a picture is found as one stream, whatever the size of its chunks', () => {
  fc.assert(fc.property(fc.integer({ min: leastChunkBytes, max: 9000 }), fc.integer({ min: 2000, max: 20_000 }), fc.constantFrom(1, 6, 9), (chunkBytes, length, level) => {
    const content = words(length, length);
    const stream = zlib(content, level);
    const file = png(stream, chunkBytes);
    const found = findStreams(file);
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({ offset: firstChunk, lengthBytes: file.length - firstChunk - 12, picture: { chunkBytes: Math.min(chunkBytes, stream.length), zlibHeader: stream.readUInt16BE(0) } });
    expect(deflateBytes(file, found[0]!).equals(stream.subarray(2, -4))).toBe(true);
  }), { numRuns: 60 });
});

test('chunks of other sizes, or whose checksums are wrong, or that are cut short are no frame', () => {
  const content = words(1, 20_000);
  const stream = zlib(content, 6);
  const chunks = (...sizes: number[]): Buffer => {
    let at = 0;
    return Buffer.concat([...sizes, stream.length].map((size) => pngChunk('IDAT', stream.subarray(at, at += size))));
  };
  expect(findStreams(chunks(1000, 1000))).toEqual([]);
  expect(findStreams(chunks(1000, 900))).toEqual([]);
  const good = png(stream, 1000);
  expect(findStreams(good)).toHaveLength(1);
  for (const at of [firstChunk + 3, firstChunk + 8, firstChunk + 1008, firstChunk + 1012, good.length - 14]) {
    const bad = Buffer.from(good);
    bad[at] = bad[at]! ^ 1;
    expect(findStreams(bad)).toEqual([]);
  }
  for (const lengthBytes of [good.length - 13, firstChunk + 1020, firstChunk + 9, firstChunk + 4]) expect(findStreams(good.subarray(0, lengthBytes))).toEqual([]);
});

test('a picture that changed a little costs what changed in it, by zlib or by decisions, from chunks of one size to another', async () => {
  const [before, after] = twoVersions(3);
  expect(await deltaBytes(png(zlib(before, 6), 8192), png(zlib(after, 6), 8192))).toBeLessThan(450);
  expect(await deltaBytes(png(zlib(before, 9), 32_768), png(zlib(after, 9), 1000))).toBeLessThan(450);
  const odd = (content: Buffer): Buffer => deflateSync(content, { level: 6, windowBits: 13, memLevel: 7 });
  expect(await deltaBytes(png(odd(before), 8192), png(odd(after), 8192))).toBeLessThan(900);
});

test('chunks come out the same in pieces of any size, and a stream that is too long or too short is refused', async () => {
  const text = words(5, 3000);
  const stream = zlib(text, 6);
  const chunks = png(stream, 300).subarray(firstChunk, -12);
  const range: DeflatedRange = { offset: 2, lengthBytes: chunks.length, sizeBytes: text.length, packing: { kind: 'deflate', level: 6, memLevel: 8 }, picture: { chunkBytes: 300, zlibHeader: stream.readUInt16BE(0) } };
  const expanded = Buffer.concat([Buffer.from('ab'), text, Buffer.from('z')]);
  for (const pieceBytes of [1, 999, 1 << 20]) expect((await collapsed([range], expanded, pieceBytes)).equals(Buffer.concat([Buffer.from('ab'), chunks, Buffer.from('z')]))).toBe(true);
  for (const lengthBytes of [chunks.length - 1, chunks.length + 1]) await expect(collapsed([{ ...range, lengthBytes }], expanded, 999)).rejects.toMatchObject({ code: 'DELTA_CORRUPT' });
});

test('stretches of a stream lie within its chunks and sum up to it; sizes that do not fit have none', () => {
  fc.assert(fc.property(fc.nat(20_000), fc.nat(3000), (lengthBytes, chunkBytes) => {
    const streamBytes = framedStreamBytes(lengthBytes, chunkBytes);
    if (streamBytes === 0) return;
    let [end, sum] = [0, 0];
    for (const part of framedStretches(lengthBytes, chunkBytes)) {
      expect(part.offset).toBeGreaterThanOrEqual(end + 8);
      expect(part.lengthBytes).toBeLessThanOrEqual(chunkBytes);
      end = part.offset + part.lengthBytes;
      sum += part.lengthBytes;
    }
    expect(end).toBeLessThanOrEqual(lengthBytes);
    expect(sum).toBe(streamBytes);
    const framer = new PictureFramer({ chunkBytes, zlibHeader: 0x789c }, lengthBytes);
    expect(Buffer.concat([...framer.push(noise(1, streamBytes)), ...framer.end()])).toHaveLength(lengthBytes);
  }), { numRuns: 2000 });
});

test('a delta tells the frames of both sides, and none that do not fit', () => {
  const of = (chunkBytes: number, zlibHeader: number): Expansion => ({
    inflated: [{ source: 0, offset: 3, lengthBytes: 900, sizeBytes: 4000, chunkBytes }],
    deflated: [{ offset: 5, lengthBytes: 900, sizeBytes: 4000, packing: { kind: 'deflate', level: 6, memLevel: 8 }, picture: chunkBytes === 0 ? null : { chunkBytes, zlibHeader } }],
  });
  for (const right of [of(0, 0), of(888, 0x789c), of(500, 0xffff), of(30_000, 0)]) expect(coded(right, 1000, [1000])).toEqual(right);
  for (const wrong of [of(1, 0), of(leastChunkBytes - 1, 0), of(887, 0), of(500, 0x10000)]) expect(() => coded(wrong, 1000, [1000])).toThrow(expect.objectContaining({ code: 'DELTA_CORRUPT' }));
});
