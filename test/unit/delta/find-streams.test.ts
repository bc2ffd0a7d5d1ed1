import { deflateRawSync } from 'node:zlib';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { adler32 } from '../../../src/delta/checks.js';
import { findStreams } from '../../../src/delta/encode/find-streams.js';
import { inflateStream } from '../../../src/delta/encode/streams.js';
import { gzip, words, zip, zlib } from '../../support/compressed.js';
import { noise } from '../../support/delta-images.js';

/** What the streams that are found hold. */
function contentsIn(file: Buffer): (Buffer | null)[] {
  return findStreams(file).map(({ offset, lengthBytes }) => inflateStream(file.subarray(offset, offset + lengthBytes)));
}

const packers = [
  (content: Buffer): Buffer => zlib(content, 1),
  (content: Buffer): Buffer => zlib(content, 6),
  (content: Buffer): Buffer => zlib(content, 9),
  (content: Buffer): Buffer => gzip(content, 6),
  (content: Buffer): Buffer => gzip(content, 0, deflateRawSync(content)),
  (content: Buffer): Buffer => zip([{ name: 'a', content, level: 6 }]),
  (content: Buffer): Buffer => withDescriptor(zip([{ name: 'a', content, level: 6 }])),
] as const;

/** The first member of a zip as streaming archivers write it: size and checksum stand behind it. */
function withDescriptor(archive: Buffer): Buffer {
  const header = Buffer.from(archive.subarray(0, 31));
  const descriptor = Buffer.concat([Buffer.from('PK\x07\x08', 'latin1'), header.subarray(14, 26)]);
  const packed = archive.subarray(31, 31 + header.readUInt32LE(18));
  header.fill(0, 14, 26);
  header[6] = 8;
  return Buffer.concat([header, packed, descriptor]);
}

test('streams are found at any place, each whole, and none where there are none', () => {
  const pieces = fc.array(fc.tuple(fc.nat(packers.length - 1), fc.integer({ min: 40, max: 3000 }), fc.nat(300), fc.nat(1000)), { maxLength: 6 });
  fc.assert(fc.property(pieces, (streams) => {
    const contents = streams.map(([, size, , seed]) => words(seed, size));
    const file = Buffer.concat([...streams.flatMap(([packer, , gap], at) => [noise(at + 1000, gap), packers[packer]!(contents[at]!)]), noise(5, 40)]);
    expect(contentsIn(file)).toEqual(contents);
  }), { numRuns: 60 });
});

test('a gzip file of several members has a stream for each, and is none of its own only when it has more than one', () => {
  const members = [1, 2, 3].map((seed) => words(seed, 500));
  const file = Buffer.concat(members.map((content) => gzip(content, 9)));
  expect(contentsIn(file)).toEqual(members);
  expect(findStreams(file).map(({ isEmbedded }) => isEmbedded)).toEqual([true, true, true]);
  expect(findStreams(gzip(words(1, 500), 9)).map(({ isEmbedded }) => isEmbedded)).toEqual([false]);
});

test('a zip is found behind a prefix, its places counted from either start, and without a directory that is understood', () => {
  const contents = [words(1, 300), words(2, 400)];
  const archive = zip(contents.map((content, at) => ({ name: `m${String(at)}`, content, level: 6 })));
  const prefix = Buffer.from('#!/bin/sh\n');
  const shifted = Buffer.concat([prefix, archive]);
  expect(contentsIn(shifted)).toEqual(contents);
  expect(findStreams(shifted).map(({ name, isEmbedded }) => ({ name, isEmbedded }))).toEqual([{ name: 'm0', isEmbedded: false }, { name: 'm1', isEmbedded: false }]);
  const counted = Buffer.from(shifted);
  const end = counted.length - 22;
  counted.writeUInt32LE(counted.readUInt32LE(end + 16) + prefix.length, end + 16);
  for (let at = counted.readUInt32LE(end + 16); at < end; at += 46 + counted.readUInt16LE(at + 28)) counted.writeUInt32LE(counted.readUInt32LE(at + 42) + prefix.length, at + 42);
  expect(contentsIn(counted)).toEqual(contents);
  const large = Buffer.from(archive);
  large.fill(0xff, large.length - 14, large.length - 2);
  expect(contentsIn(large)).toEqual(contents);
  expect(contentsIn(zip([{ name: 'inner.jar', content: archive, level: 0 }]))).toEqual(contents);
});

test('what does not pass its checksum, is cut short or holds next to nothing is no stream', () => {
  const content = words(3, 2000);
  for (const pack of packers.slice(0, 5)) {
    const whole = pack(content);
    const bad = Buffer.from(whole);
    const behind = pack === packers[3] || pack === packers[4] ? 8 : 4;
    bad[bad.length - behind] = bad[bad.length - behind]! ^ 1;
    expect(findStreams(Buffer.concat([noise(1, 20), bad, noise(2, 20)]))).toEqual([]);
    for (const lengthBytes of [whole.length - 1, whole.length - 9, whole.length >> 1, 20, 3]) expect(findStreams(whole.subarray(0, lengthBytes))).toEqual([]);
  }
  expect(findStreams(zlib(Buffer.from('few'), 6))).toEqual([]);
  expect(findStreams(gzip(Buffer.alloc(0), 6))).toEqual([]);
});

test('the checksum of zlib streams does not overflow', () => {
  const content = Buffer.alloc(100_000, 255);
  const stream = zlib(content, 6);
  expect(adler32(content)).toBe(stream.readUInt32BE(stream.length - 4));
});

test('a picture with a window of another size is found by the chunk that it stands in', () => {
  const content = words(4, 200);
  const stream = zlib(content, 6);
  stream[0] = 0x28;
  stream[1] = 31 - ((0x28 * 256) % 31);
  const chunk = Buffer.concat([noise(1, 33), Buffer.from('IDAT'), stream, noise(2, 20)]);
  expect(contentsIn(chunk)).toEqual([content]);
  expect(findStreams(chunk.subarray(37))).toEqual([]);
});

/** An ELF file of 64 bits, little or big, whose one segment is its first `loaded` bytes. */
function elf(loaded: number, rest: Buffer, isBig = false): Buffer {
  const file = Buffer.alloc(loaded);
  const view = new DataView(file.buffer, file.byteOffset);
  file.write('\x7fELF\x02', 'latin1');
  file[5] = isBig ? 2 : 1;
  view.setBigUint64(32, 64n, !isBig);
  view.setUint16(54, 56, !isBig);
  view.setUint16(56, 1, !isBig);
  view.setUint32(64, 1, !isBig);
  view.setBigUint64(64 + 32, BigInt(loaded), !isBig);
  return Buffer.concat([file, rest]);
}

test('of a program only what is behind its segments is looked at', () => {
  const content = words(5, 500);
  for (const isBig of [false, true]) {
    const file = elf(9000, zlib(content, 6), isBig);
    zlib(content, 6).copy(file, 1000);
    expect(findStreams(file).map(({ offset }) => offset)).toEqual([9002]);
    expect(contentsIn(elf(9000, zip([{ name: 'a', content, level: 6 }]), isBig))).toEqual([content]);
  }
  // An object, which has a section in place of a segment; one without bytes, and one that is not loaded, do not count.
  const object = elf(9000, zlib(content, 6));
  object.writeUInt16LE(0, 56);
  object.writeBigUInt64LE(200n, 40);
  object.writeUInt16LE(64, 58);
  object.writeUInt16LE(3, 60);
  for (const [at, type, flags] of [[200, 1, 2], [264, 8, 2], [328, 1, 0]] as const) {
    object.writeUInt32LE(type, at + 4);
    object.writeUInt32LE(flags, at + 8);
    object.writeUInt32LE(at === 200 ? 8000 : 9500, at + 32);
  }
  zlib(content, 6).copy(object, 1000);
  expect(findStreams(object).map(({ offset }) => offset)).toEqual([9002]);
  const kernel = Buffer.concat([Buffer.alloc(56), Buffer.from('ARMd'), zlib(content, 6), Buffer.alloc(20)]);
  expect(findStreams(kernel)).toEqual([]);
  kernel[56] = 0;
  expect(contentsIn(kernel)).toEqual([content]);
  const wild = elf(9000, zlib(content, 6));
  wild.fill(0xff, 64 + 8, 64 + 40);
  expect(findStreams(wild)).toEqual([]);
  wild.fill(0xff, 32, 64);
  expect(contentsIn(wild)).toEqual([content]);
});

test('headers everywhere, and what inflates to much and fails at last, end the search in time', () => {
  const headers = Buffer.alloc(2_000_000, Buffer.from([0x78, 0x9c]));
  expect(findStreams(headers)).toEqual([]);
  const bomb = Buffer.concat([Buffer.from([0x78, 0x9c]), deflateRawSync(Buffer.alloc(2 ** 25)), Buffer.alloc(4)]);
  const bombs = Buffer.concat(Array.from({ length: 200 }, () => bomb));
  const before = process.cpuUsage();
  expect(findStreams(bombs)).toEqual([]);
  const { user, system } = process.cpuUsage(before);
  // 7 GiB, were they all tried.
  expect(user + system).toBeLessThan(10e6);
  const tooMuch = Buffer.concat([Buffer.from([0x78, 0x9c]), deflateRawSync(Buffer.alloc(2 ** 26 + 1)), Buffer.alloc(4)]);
  const whole = zlib(words(1, 500), 6);
  expect(contentsIn(Buffer.concat([tooMuch, whole]))).toEqual([words(1, 500)]);
});

test('a stream that lies in another, or overlaps it, does not count', () => {
  const inner = zlib(words(1, 400), 6);
  const outer = gzip(inner, 0, Buffer.concat([Buffer.from([1, inner.length & 255, inner.length >> 8, ~inner.length & 255, (~inner.length >> 8) & 255]), inner]));
  expect(contentsIn(outer)).toEqual([inner]);
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
