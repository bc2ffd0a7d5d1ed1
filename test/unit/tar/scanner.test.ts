import { describe, expect, test } from '@jest/globals';
import { TarScanner, type TarHandler } from '../../../src/tar/index.js';
import { endOfTar, goPax, member, paxData, scan, unscan } from '../../support/tars.js';

const corrupt = expect.objectContaining({ code: 'TAR_CORRUPT' });
const exceeded = expect.objectContaining({ code: 'LIMIT_EXCEEDED' });
const silent: TarHandler = { entry: () => undefined, content: () => undefined, endContent: () => undefined, trailer: () => undefined };
const file = (name: string, bytes: number): Buffer => member({ name, data: Buffer.alloc(bytes, name) });

describe('the end of a tar', () => {
  const cases: Record<string, { tar: Buffer; entries: number; zero: number; trailer?: Buffer }> = {
    'nothing at all': { tar: Buffer.alloc(0), entries: 0, zero: 0 },
    'zero blocks only': { tar: Buffer.alloc(10_240), entries: 0, zero: 10_240 },
    'two zero blocks': { tar: Buffer.concat([file('a', 5), endOfTar]), entries: 1, zero: 1024 },
    'no zero block': { tar: file('a', 5), entries: 1, zero: 0 },
    'one zero block': { tar: Buffer.concat([file('a', 5), Buffer.alloc(512)]), entries: 1, zero: 512 },
    'zeros up to no block boundary': { tar: Buffer.concat([file('a', 5), Buffer.alloc(1500)]), entries: 1, zero: 1500 },
    'another tar behind': { tar: Buffer.concat([file('a', 5), endOfTar, file('b', 5)]), entries: 1, zero: 0, trailer: Buffer.concat([endOfTar, file('b', 5)]) },
    'a byte far behind': { tar: Buffer.concat([endOfTar, Buffer.alloc(100_000), Buffer.of(1)]), entries: 0, zero: 0, trailer: Buffer.concat([Buffer.alloc(101_024), Buffer.of(1)]) },
    'a PAX header for nobody': { tar: Buffer.concat([goPax('a', { path: 'b' }), endOfTar]), entries: 0, zero: 0, trailer: Buffer.concat([goPax('a', { path: 'b' }), endOfTar]) },
  };
  test.each(Object.entries(cases))('%s', (_, { tar, entries, zero, trailer }) => {
    for (const pieces of [[], [1], [511, 3], [512]]) {
      const seen = scan(tar, pieces);
      expect(seen.headers).toHaveLength(entries);
      expect(seen.trailerZeroBytes).toBe(zero);
      expect(seen.trailer).toEqual(trailer ?? null);
      expect(unscan(seen)).toEqual(tar);
    }
  });

  test('the last padding may be missing or cut, as Go reads it', () => {
    const whole = file('a', 5);
    for (const count of [517, 518, 1000]) {
      const seen = scan(whole.subarray(0, count), [100]);
      expect(seen.paddings).toEqual([Buffer.alloc(count - 517)]);
      expect(unscan(seen)).toEqual(whole.subarray(0, count));
    }
  });

  test('padding that is not zeros is kept', () => {
    const tar = Buffer.concat([file('a', 5), file('b', 5), endOfTar]);
    tar[700] = 1;
    const seen = scan(tar, [7]);
    expect(seen.paddings[0]).toHaveLength(507);
    expect(seen.paddings[1]).toBeNull();
    expect(unscan(seen)).toEqual(tar);
  });
});

describe('what is not a tar is refused', () => {
  const flipped = Buffer.from(file('a', 5));
  flipped[10] = 1;
  const cases: Record<string, Buffer> = {
    'a wrong checksum': flipped,
    'text': Buffer.alloc(2000, 'text'),
    'a cut header': file('a', 5).subarray(0, 511),
    'a cut content': file('a', 2000).subarray(0, 2000),
    'a cut PAX header': goPax('a', { path: 'b' }).subarray(0, 600),
    'a header behind a lone zero block': Buffer.concat([file('a', 5), Buffer.alloc(512), file('b', 5)]),
    'a cut second zero block': Buffer.concat([file('a', 5), Buffer.alloc(700)]),
    'a cut sparse extension': member({ name: 'a', type: 'S', magic: 'ustar  \0', edit: (block) => { block[482] = 1; } }),
    'GNU sparse without GNU magic': member({ name: 'a', type: 'S' }),
  };
  test.each(Object.entries(cases))('%s', (_, tar) => {
    expect(() => scan(tar)).toThrow(corrupt);
    expect(() => scan(tar, [100])).toThrow(corrupt);
  });

  test('and the scanner stays refused', () => {
    const scanner = new TarScanner(silent);
    expect(() => { scanner.write(Buffer.alloc(512, 1)); }).toThrow(corrupt);
    expect(() => { scanner.write(endOfTar); }).toThrow(corrupt);
    expect(() => { scanner.end(); }).toThrow(corrupt);
  });
});

describe('limits', () => {
  test.each<[string, Buffer, Parameters<typeof scan>[2]]>([
    ['PAX bytes', goPax('a', { comment: 'x'.repeat(5000) }), { maxEntryHeaderBytes: 4096 }],
    ['many PAX headers', Buffer.concat(Array.from({ length: 10 }, () => goPax('a', { a: 'b' }))), { maxEntryHeaderBytes: 4096 }],
    ['a long name', member({ name: '././@LongLink', type: 'L', magic: 'ustar  \0', data: Buffer.alloc(5000, 'x') }), { maxEntryHeaderBytes: 4096 }],
    ['sparse extensions', Buffer.concat([member({ name: 'a', type: 'S', magic: 'ustar  \0', edit: (block) => { block[482] = 1; } }), ...Array.from({ length: 20 }, () => { const block = Buffer.alloc(512); block[504] = 1; return block; })]), { maxEntryHeaderBytes: 4096 }],
    ['path length', Buffer.concat([goPax('a', { path: 'x'.repeat(300) }), member({ name: 'a' })]), { maxPathBytes: 255 }],
    ['link length', Buffer.concat([goPax('a', { linkpath: 'x'.repeat(300) }), member({ name: 'a', type: '2' })]), { maxPathBytes: 255 }],
    ['entries', Buffer.concat([file('a', 0), file('b', 0), file('c', 0)]), { maxEntries: 2 }],
    ['header bytes', Buffer.concat([file('a', 0), file('b', 0), file('c', 0)]), { maxHeaderBytes: 1024 }],
    ['global PAX bytes', Buffer.concat([goPax('a', { a: 'x'.repeat(3000) }, 'g'), file('a', 0), goPax('a', { b: 'x'.repeat(3000) }, 'g'), file('b', 0)]), { maxEntryHeaderBytes: 5000 }],
    ['a trailer of something', Buffer.concat([endOfTar, Buffer.alloc(5000, 1)]), { maxTrailerBytes: 4096 }],
    ['zeros before a trailer of something', Buffer.concat([endOfTar, Buffer.alloc(5000), Buffer.of(1)]), { maxTrailerBytes: 4096 }],
  ])('%s', (_, tar, limits) => {
    expect(() => scan(tar, [], limits)).toThrow(exceeded);
    expect(() => scan(tar, [333], limits)).toThrow(exceeded);
  });

  test('are not for zeros at the end', () => {
    expect(scan(Buffer.alloc(10_000), [], { maxTrailerBytes: 10 }).trailerZeroBytes).toBe(10_000);
  });
});

describe('large sizes', () => {
  const sizes: [string, number, (bytes: number) => Buffer][] = [
    ['base-256', 2 ** 33 + 7, (bytes) => member({ name: 'a', edit: (block) => { block.fill(0, 124, 136); block[124] = 0x80; block.writeBigUInt64BE(BigInt(bytes), 128); } })],
    ['PAX', 2 ** 33 + 513, (bytes) => Buffer.concat([goPax('a', { size: String(bytes) }), member({ name: 'a' })])],
  ];
  test.each(sizes)('above 8 GiB by %s', (_, sizeBytes, header) => {
    let contentBytes = 0;
    let entries = 0;
    const scanner = new TarScanner({ ...silent, entry: () => { entries++; }, content: (chunk) => { contentBytes += chunk.length; } });
    scanner.write(header(sizeBytes));
    const chunk = Buffer.alloc(16 * 1024 * 1024);
    let left = sizeBytes;
    for (; left > chunk.length; left -= chunk.length) scanner.write(chunk);
    scanner.write(Buffer.alloc(left + ((512 - (sizeBytes % 512)) % 512)));
    scanner.write(Buffer.concat([file('b', 5), endOfTar]));
    scanner.end();
    expect([contentBytes, entries]).toEqual([sizeBytes + 5, 2]);
  });

  test('the largest number that is safe', () => {
    const seen: number[] = [];
    const scanner = new TarScanner({ ...silent, entry: (header) => { seen.push(header.sizeBytes); } });
    scanner.write(Buffer.concat([goPax('a', { size: String(Number.MAX_SAFE_INTEGER) }), member({ name: 'a' })]));
    expect(seen).toEqual([Number.MAX_SAFE_INTEGER]);
    expect(() => { scanner.end(); }).toThrow(corrupt);
  });
});

test('global PAX records stay in force until replaced, and never change a size', () => {
  const seen = scan(Buffer.concat([
    goPax('g', { uid: '7', comment: 'c', size: '99' }, 'g'), file('a', 3), file('b', 0),
    goPax('g', { uid: '8' }, 'g'), goPax('c', { uid: '9' }), file('c', 0), file('d', 0),
    goPax('g', { uid: '' }, 'g'), file('e', 0), endOfTar,
  ]), [100]);
  expect(seen.headers.map(({ uid }) => uid)).toEqual([7, 7, 9, 8, 0]);
  expect(seen.headers[0]?.sizeBytes).toBe(3);
  expect(seen.headers[2]?.pax.map(({ key }) => key.toString())).toEqual(['uid']);
});

test('old GNU sparse extension blocks belong to the header', () => {
  const extension = Buffer.alloc(512);
  extension.write('00000001000\x0000000000001\0', 0, 'latin1');
  const sparse = member({ name: 's', type: 'S', magic: 'ustar  \0', data: Buffer.alloc(0), size: 1, edit: (block) => { block[482] = 1; } });
  const tar = Buffer.concat([sparse, extension, Buffer.alloc(512, 0), endOfTar]);
  tar[1024] = 0x78;
  const seen = scan(tar, [13]);
  expect(seen.contents).toEqual([Buffer.from('x')]);
  expect(unscan(seen)).toEqual(tar);
});

test('the handler sees each entry in order, with empty contents ended too', () => {
  const calls: string[] = [];
  const scanner = new TarScanner({
    entry: (header, index) => { calls.push(`entry ${String(index)} ${header.path.toString()}`); },
    content: (chunk) => { calls.push(`content ${String(chunk.length)}`); },
    endContent: (padding) => { calls.push(`end ${String(padding)}`); },
    trailer: (zeroBytes) => { calls.push(`trailer ${String(zeroBytes)}`); },
  });
  scanner.write(Buffer.concat([file('a', 0), member({ name: 'd/', type: '5' }), file('b', 512), endOfTar]));
  scanner.end();
  expect(calls).toEqual(['entry 0 a', 'end null', 'entry 1 d/', 'end null', 'entry 2 b', 'content 512', 'end null', 'trailer 1024']);
  expect(paxData({ a: 'b' }).toString()).toBe('6 a=b\n');
});
