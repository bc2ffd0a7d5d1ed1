import { isDeepStrictEqual } from 'node:util';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import tarStream from 'tar-stream';
import { decodeLayerMeta, encodeLayerMeta, joinHeader, LayerMetaBuilder, sparseMap, splitHeader, type TarHeader } from '../../src/tar/index.js';
import { isWhittleError } from '../../src/core/errors.js';
import { endOfTar, goPax, member, scan, seal, unscan } from '../support/tars.js';

const name = fc.array(fc.constantFrom('a', 'b/', 'caf\u00e9', 'x'.repeat(40), '..', '/', '\u0001'), { minLength: 1, maxLength: 6 }).map((parts) => parts.join(''));
const key = fc.constantFrom('path', 'linkpath', 'size', 'mtime', 'uid', 'gid', 'uname', 'gname', 'atime', 'SCHILY.xattr.user.a', 'GNU.sparse.name', 'comment');
const value = fc.oneof(fc.integer({ min: -5, max: 2 ** 40 }).map(String), fc.double({ min: -10, max: 2e9, noNaN: true }).map((number) => number.toFixed(5)), name, fc.constant(''));
const entry = fc.record({
  name, data: fc.uint8Array({ maxLength: 1500 }).map((bytes) => Buffer.from(bytes)), mode: fc.nat(0o7777), uid: fc.nat(0o7777777), mtime: fc.nat(2 ** 32),
  type: fc.constantFrom('0', '\0', '1', '2', '3', '5', '6', '7', 'V'), magic: fc.constantFrom('ustar\x0000', 'ustar  \0', '\0\0\0\0\0\0\0\0'), link: name,
  pax: fc.option(fc.dictionary(key, value, { maxKeys: 4 }), { nil: undefined }),
  long: fc.constantFrom('', '', 'L', 'K', 'g'),
}).map(({ pax, long, data, ...rest }) => {
  const hasData = !'123456'.includes(rest.type) && !(rest.type === '\0' && rest.name.endsWith('/'));
  const parts = [member({ ...rest, data: hasData ? data : Buffer.alloc(0) })];
  if (long === 'L' || long === 'K') parts.unshift(member({ name: '././@LongLink', type: long, magic: 'ustar  \0', data: Buffer.from(`${rest.name}\0`) }));
  if (pax !== undefined) parts.unshift(goPax(rest.name, pax));
  if (long === 'g') parts.unshift(goPax('global', { comment: rest.name }, 'g'));
  return Buffer.concat(parts);
});
const tar = fc.tuple(fc.array(entry, { maxLength: 6 }), fc.constantFrom(0, 512, 1024, 9000)).map(([entries, end]) => Buffer.concat([...entries, Buffer.alloc(end)]));
const pieces = fc.array(fc.integer({ min: 1, max: 2000 }), { minLength: 1, maxLength: 5 });

/** The result, or undefined when it was refused in a proper way; any other error is a failure. */
function refusedOr<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    if (!isWhittleError(error) || error.code === 'INTERNAL') throw error;
    return undefined;
  }
}

test('any tar comes back exactly however it is cut into chunks, or is refused however it is cut', () => {
  fc.assert(fc.property(tar, pieces, (bytes, sizes) => {
    const whole = refusedOr(() => scan(bytes));
    const cut = refusedOr(() => scan(bytes, sizes));
    expect(isDeepStrictEqual(cut, whole)).toBe(true);
    if (whole !== undefined) expect(unscan(whole).equals(bytes)).toBe(true);
  }), { numRuns: 400 });
});

test('a tar with changed bytes comes back exactly or is refused', () => {
  const change = fc.record({ at: fc.nat(6000), byte: fc.nat(255), reseal: fc.boolean() });
  fc.assert(fc.property(tar, fc.array(change, { minLength: 1, maxLength: 4 }), (original, changes) => {
    const bytes = Buffer.from(original);
    for (const { at, byte, reseal } of changes) {
      if (at >= bytes.length) continue;
      bytes[at] = byte;
      const block = at - (at % 512);
      if (reseal && block + 512 <= bytes.length) seal(bytes.subarray(block, block + 512));
    }
    const seen = refusedOr(() => scan(bytes, [1000]));
    if (seen !== undefined) expect(unscan(seen).equals(bytes)).toBe(true);
  }), { numRuns: 1000 });
});

test('a header of random fields comes back exactly or is refused', () => {
  const block = fc.tuple(fc.uint8Array({ minLength: 512, maxLength: 512 }), fc.constantFrom('ustar\x0000', 'ustar  \0', ''), fc.array(fc.tuple(fc.constantFrom(100, 108, 116, 124, 136, 329, 337), fc.constantFrom('0000644\0', '   644 \0', '644\0\0\0\0\0', '000644 \0', '\0\0\0\0\0\0\0\0', '77777777', ' 0644\0  ')), { maxLength: 9 }), fc.constantFrom(0, 0x30, 0x35, 0x53, 0xff));
  fc.assert(fc.property(block, fc.boolean(), ([random, magic, numbers, type], sparse) => {
    const raw = Buffer.from(random);
    raw.fill(0, 100, 156);
    if (!sparse) raw.fill(0, 329);
    raw[156] = type;
    raw.write(magic, 257, 'latin1');
    for (const [at, text] of numbers) raw.write(text, at, 'latin1');
    seal(raw);
    const header = refusedOr(() => splitHeader(raw));
    if (header !== undefined) expect(joinHeader(header).equals(raw)).toBe(true);
  }), { numRuns: 1000 });
});

test('hostile style and residue are refused or give some bytes, quickly', () => {
  const header = splitHeader(Buffer.concat([goPax('a/b', { mtime: '1.5' }), member({ name: 'a/b' })]));
  const mutate = (bytes: Buffer, edits: readonly (readonly [number, number])[]): Buffer => {
    const copy = Buffer.from(bytes);
    for (const [at, byte] of edits) if (copy.length > 0) copy[at % copy.length] = byte;
    return copy;
  };
  const edits = fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 5 });
  fc.assert(fc.property(edits, fc.uint8Array({ maxLength: 40 }), fc.boolean(), name, (changes, residue, odd, path) => {
    const hostile: TarHeader = { ...header, path: Buffer.from(path.repeat(3)), style: mutate(header.style, changes), residue: odd ? Buffer.from(residue) : header.residue };
    const bytes = refusedOr(() => joinHeader(hostile));
    if (bytes !== undefined) expect(bytes.length).toBeLessThan(4096);
  }), { numRuns: 2000 });
});

test('encoded metadata decodes to the same, and changed bytes are refused or give some metadata', () => {
  fc.assert(fc.property(tar, fc.array(fc.tuple(fc.nat(5000), fc.nat(255)), { maxLength: 4 }), (bytes, changes) => {
    const meta = refusedOr(() => {
      const builder = new LayerMetaBuilder();
      builder.write(bytes);
      return builder.finish();
    });
    if (meta === undefined) return;
    const encoded = encodeLayerMeta(meta);
    expect(isDeepStrictEqual(decodeLayerMeta(encoded), meta)).toBe(true);
    for (const [at, byte] of changes) encoded[at % encoded.length] = byte;
    const changed = refusedOr(() => decodeLayerMeta(encoded));
    for (const found of changed?.entries ?? []) refusedOr(() => joinHeader(found.header));
  }), { numRuns: 500 });
});

test('random sparse maps are refused or fit their data', async () => {
  const number = fc.oneof(fc.nat(100).map(String), fc.constantFrom('9007199254740991', '-1', 'x', '', '1e3'));
  await fc.assert(fc.asyncProperty(fc.array(number, { maxLength: 8 }), fc.constantFrom('0.1', '1.0'), fc.nat(60), async (numbers, version, dataBytes) => {
    const body = Buffer.alloc(512);
    body.write(numbers.join('\n'), 'latin1');
    const records = version === '1.0'
      ? { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.realsize': '200', 'GNU.sparse.name': 'r' }
      : { 'GNU.sparse.map': numbers.join(','), 'GNU.sparse.size': '200' };
    const data = version === '1.0' ? Buffer.concat([body, Buffer.alloc(dataBytes)]) : Buffer.alloc(dataBytes);
    const header = scan(Buffer.concat([goPax('s', records), member({ name: 's', data }), endOfTar])).headers[0];
    if (header === undefined) throw new Error('no entry');
    try {
      const map = await sparseMap(header, (count) => Promise.resolve(data.subarray(0, count)));
      const total = (map?.extents ?? []).reduce((sum, { lengthBytes }) => sum + lengthBytes, map?.dataPrefixBytes ?? 0);
      if (map !== null) expect(total).toBe(header.sizeBytes);
    } catch (error) {
      if (!isWhittleError(error)) throw error;
      expect(error.code).toBe('TAR_CORRUPT');
    }
  }), { numRuns: 300 });
});

test('tar-stream sees the same names, sizes and contents in what it packs itself', async () => {
  const file = fc.record({ name: fc.string({ minLength: 1, maxLength: 200, unit: fc.constantFrom('a', 'b', '/', '\u00e9') }).filter((text) => !/^\/+$/.test(text) && !text.endsWith('/')), data: fc.uint8Array({ maxLength: 2000 }), mode: fc.nat(0o777), mtime: fc.nat(2 ** 31) });
  await fc.assert(fc.asyncProperty(fc.array(file, { maxLength: 5 }), async (files) => {
    const pack = tarStream.pack();
    for (const { name: path, data, mode, mtime } of files) pack.entry({ name: path, mode, mtime: new Date(mtime * 1000) }, Buffer.from(data));
    pack.finalize();
    const chunks: Buffer[] = [];
    for await (const chunk of pack) chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    const theirs: unknown[] = [];
    const extract = tarStream.extract();
    extract.end(bytes);
    for await (const found of extract) {
      const parts: Buffer[] = [];
      for await (const part of found) parts.push(part);
      const { header } = found;
      theirs.push([header.name, header.size, header.mode, header.mtime?.getTime(), Buffer.concat(parts).toString('hex')]);
    }
    const seen = scan(bytes, [300]);
    expect(unscan(seen).equals(bytes)).toBe(true);
    expect(seen.headers.map((header, index) => [header.path.toString(), header.sizeBytes, header.mode, header.mtimeSec * 1000, seen.contents[index]?.toString('hex')])).toEqual(theirs);
  }), { numRuns: 60 });
});
