import { describe, expect, test } from '@jest/globals';
import { isSparse, sparseMap, type SparseMap } from '../../../src/tar/index.js';
import { endOfTar, goPax, member, paxData, scan } from '../../support/tars.js';

/** The map of the only entry of a tar; the prefix is read from its content. */
async function mapOf(tar: Buffer): Promise<SparseMap | null> {
  const { headers, contents } = scan(Buffer.concat([tar, endOfTar]), [100]);
  const header = headers[0];
  if (header === undefined) throw new Error('no entry');
  return sparseMap(header, (count) => Promise.resolve((contents[0] ?? Buffer.alloc(0)).subarray(0, count)));
}

function never(): never {
  throw new Error('no entry');
}

const oldNumber = (value: number): string => `${value.toString(8).padStart(11, '0')}\0`;

function oldSparse(extents: readonly (readonly [number, number])[], realSize: number): Buffer {
  const text = (list: readonly (readonly [number, number])[]): string => list.map(([at, length]) => oldNumber(at) + oldNumber(length)).join('');
  const total = extents.reduce((sum, [, length]) => sum + length, 0);
  const header = member({
    name: 's', type: 'S', magic: 'ustar  \0', size: total,
    edit: (block) => {
      block.write(text(extents.slice(0, 4)), 386, 'latin1');
      block[482] = extents.length > 4 ? 1 : 0;
      block.write(oldNumber(realSize), 483, 'latin1');
    },
  });
  const blocks: Buffer[] = [];
  for (let at = 4; at < extents.length; at += 21) {
    const block = Buffer.alloc(512);
    block.write(text(extents.slice(at, at + 21)), 0, 'latin1');
    block[504] = at + 21 < extents.length ? 1 : 0;
    blocks.push(block);
  }
  return Buffer.concat([header, ...blocks, Buffer.alloc(total, 'd'), Buffer.alloc((512 - (total % 512)) % 512)]);
}

const paxZero = (records: Record<string, string>, dataBytes: number): Buffer =>
  Buffer.concat([goPax('s', records), member({ name: 'GNUSparseFile.0/s', data: Buffer.alloc(dataBytes, 'd') })]);

function paxOne(map: string, dataBytes: number, realSize = '1000'): Buffer {
  const prefix = Buffer.alloc(Math.ceil(map.length / 512) * 512);
  prefix.write(map, 'latin1');
  const records = { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 'dir/s', 'GNU.sparse.realsize': realSize };
  return Buffer.concat([goPax('s', records), member({ name: 'GNUSparseFile.0/s', data: Buffer.concat([prefix, Buffer.alloc(dataBytes, 'd')]) })]);
}

test('an ordinary entry is not sparse', async () => {
  expect(await mapOf(member({ name: 'a', data: Buffer.from('x') }))).toBeNull();
  expect(isSparse(scan(Buffer.concat([oldSparse([[0, 1]], 5), endOfTar])).headers[0] ?? never())).toBe(true);
});

test('the old GNU format, with and without extension blocks', async () => {
  expect(await mapOf(oldSparse([[10, 2], [100, 5]], 200))).toEqual({
    realSizeBytes: 200, realPath: Buffer.from('s'), dataPrefixBytes: 0, extents: [{ offset: 10, lengthBytes: 2 }, { offset: 100, lengthBytes: 5 }],
  });
  const many = Array.from({ length: 60 }, (_, index) => [index * 1000, 7] as const);
  expect((await mapOf(oldSparse(many, 60_000)))?.extents).toEqual(many.map(([offset, lengthBytes]) => ({ offset, lengthBytes })));
});

test('PAX 0.0: repeated records', async () => {
  const records = [{ 'GNU.sparse.size': '500', 'GNU.sparse.numblocks': '2' }, { 'GNU.sparse.offset': '3' }, { 'GNU.sparse.numbytes': '4' }, { 'GNU.sparse.offset': '100' }, { 'GNU.sparse.numbytes': '0' }];
  const data = Buffer.concat(records.map((record) => paxData(record)));
  const map = await mapOf(Buffer.concat([member({ name: 'x', type: 'x', data }), member({ name: 's', data: Buffer.alloc(4) })]));
  expect(map).toMatchObject({ realSizeBytes: 500, extents: [{ offset: 3, lengthBytes: 4 }, { offset: 100, lengthBytes: 0 }] });
});

test('PAX 0.1: one list', async () => {
  const map = await mapOf(paxZero({ 'GNU.sparse.size': '500', 'GNU.sparse.numblocks': '2', 'GNU.sparse.map': '3,4,100,6', 'GNU.sparse.name': 'real' }, 10));
  expect(map).toEqual({ realSizeBytes: 500, realPath: Buffer.from('real'), dataPrefixBytes: 0, extents: [{ offset: 3, lengthBytes: 4 }, { offset: 100, lengthBytes: 6 }] });
});

test('PAX 1.0: the map in front of the data', async () => {
  expect(await mapOf(paxOne('1\n7\n9\n', 9))).toEqual({ realSizeBytes: 1000, realPath: Buffer.from('dir/s'), dataPrefixBytes: 512, extents: [{ offset: 7, lengthBytes: 9 }] });
  const lines = Array.from({ length: 400 }, (_, index) => `${String(1_000_000 + index * 10)}\n3\n`).join('');
  const map = await mapOf(paxOne(`400\n${lines}`, 1200, '2000000'));
  expect(map?.extents).toHaveLength(400);
  expect(map?.dataPrefixBytes).toBe(Math.ceil((4 + lines.length) / 512) * 512);
});

describe('a map is refused', () => {
  const cases: Record<string, Buffer> = {
    'that overlaps': oldSparse([[0, 10], [5, 10]], 100),
    'that goes back': oldSparse([[50, 1], [5, 1]], 100),
    'beyond the file': oldSparse([[95, 10]], 100),
    'that does not sum up': paxZero({ 'GNU.sparse.size': '500', 'GNU.sparse.map': '3,4' }, 5),
    'with another count': paxZero({ 'GNU.sparse.size': '500', 'GNU.sparse.map': '3,4', 'GNU.sparse.numblocks': '2' }, 4),
    'with an offset alone': paxZero({ 'GNU.sparse.size': '500', 'GNU.sparse.map': '3,4,5' }, 4),
    'of words': paxZero({ 'GNU.sparse.size': '500', 'GNU.sparse.map': 'a,b' }, 4),
    'without a real size': paxZero({ 'GNU.sparse.map': '3,4' }, 4),
    'of negative numbers': paxZero({ 'GNU.sparse.size': '500', 'GNU.sparse.map': '-3,4' }, 4),
    'beyond 2^53': paxZero({ 'GNU.sparse.size': '500', 'GNU.sparse.map': '9999999999999999,4' }, 4),
    '1.0 that is cut': paxOne('9\n7\n9\n', 9),
    '1.0 of far too many extents': paxOne('999999999\n7\n9\n', 9),
    '1.0 of words': paxOne('one\n', 9),
    '1.0 without a newline': paxOne('1', 0),
  };
  test.each(Object.entries(cases))('%s', async (_, tar) => {
    await expect(mapOf(tar)).rejects.toMatchObject({ code: 'TAR_CORRUPT' });
  });
});
