import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { serverAddon, type BlockIndex } from '../../../src/core/native.js';
import { ContentFiles, seededBytes } from '../../support/native-content.js';

const memoryLimitBytes = 64 << 20;
let files: ContentFiles;

beforeAll(() => {
  files = new ContentFiles();
});
afterAll(async () => {
  await files.close();
});

async function indexOf(contents: readonly Uint8Array[], limit = memoryLimitBytes): Promise<BlockIndex> {
  const index = new (serverAddon().BlockIndex)({ memoryLimitBytes: limit });
  for (const [id, bytes] of contents.entries()) await index.add(id, await files.make(bytes));
  return index;
}

async function query(index: BlockIndex, bytes: Uint8Array): Promise<{ id: number; sharedBytes: number }[]> {
  const pairs = await index.query(await files.make(bytes));
  return Array.from({ length: pairs.length / 2 }, (_, at) => ({ id: pairs[2 * at] ?? -1, sharedBytes: pairs[2 * at + 1] ?? -1 }));
}

test('finds the file that content came from, however it is shifted, and about how much of it', async () => {
  const contents = Array.from({ length: 30 }, (_, seed) => seededBytes(100_000, seed + 1));
  const index = await indexOf(contents);
  const [a, b] = [contents[7], contents[21]] as [Buffer, Buffer];
  const found = await query(index, Buffer.concat([seededBytes(777, 99), a.subarray(1234, 91_234), seededBytes(50_000, 98), b.subarray(60_001)]));
  expect(found.slice(0, 2).map(({ id }) => id)).toEqual([7, 21]);
  expect(found[0]?.sharedBytes).toBeGreaterThan(70_000);
  expect(found[0]?.sharedBytes).toBeLessThan(110_000);
  expect(found[1]?.sharedBytes).toBeGreaterThan(25_000);
  expect(found[1]?.sharedBytes).toBeLessThan(55_000);
});

test('knows nothing of what came before it was cleared, and takes files again', async () => {
  const contents = Array.from({ length: 12 }, (_, seed) => seededBytes(50_000, seed + 1));
  const index = await indexOf(contents);
  expect((await query(index, contents[7] ?? Buffer.of())).map(({ id }) => id)).toEqual([7]);
  index.clear();
  expect(await query(index, contents[7] ?? Buffer.of())).toEqual([]);
  await index.add(3, await files.make(contents[9] ?? Buffer.of()));
  expect((await query(index, contents[9] ?? Buffer.of())).map(({ id }) => id)).toEqual([3]);
});

test('answers the same for files that it was told of before, and knows no others', async () => {
  const contents = Array.from({ length: 40 }, (_, at) => seededBytes(at % 2 === 0 ? 100_000 : 5000, at + 1));
  const [large, small] = [Buffer.concat([contents[4] ?? Buffer.of(), contents[7] ?? Buffer.of()]), Buffer.concat([contents[9] ?? Buffer.of(), (contents[12] ?? Buffer.of()).subarray(0, 9000)])];
  const told = new (serverAddon().BlockIndex)({ memoryLimitBytes, wantedBytes: large.length + small.length });
  for (const bytes of [large, small]) await told.want(await files.make(bytes));
  for (const [id, bytes] of contents.entries()) await told.add(id, await files.make(bytes));
  const all = await indexOf(contents);
  for (const bytes of [large, small]) expect(await query(told, bytes)).toEqual(await query(all, bytes));
  expect(await query(told, large)).not.toEqual([]);
  // One bit stands for many samples, so a little is kept of others.
  expect((await query(told, contents[20] ?? Buffer.of()))[0]?.sharedBytes ?? 0).toBeLessThan(20_000);
});

test('finds small files, in each other and in large ones', async () => {
  const large = seededBytes(200_000, 1);
  const small = seededBytes(1200, 2);
  const index = await indexOf([large, small]);
  expect((await query(index, Buffer.concat([seededBytes(50, 3), small])))[0]?.id).toBe(1);
  expect((await query(index, large.subarray(50_000, 60_000)))[0]?.id).toBe(0);
  expect((await query(index, Buffer.concat([large, small])))[0]?.id).toBe(0);
});

test('at most 16 candidates, best first, ties by id, and the same each time', async () => {
  const shared = seededBytes(40_000, 1);
  const contents = Array.from({ length: 7 }, (_, at) => Buffer.concat([seededBytes(40_000, at + 2), shared.subarray(at * 3000)]));
  const many = [...contents, ...Array.from({ length: 30 }, (_, at) => Buffer.concat([seededBytes(50_000, at + 50), seededBytes(3000, at + 500)]))];
  const target = Buffer.concat([shared, ...Array.from({ length: 30 }, (_, at) => seededBytes(3000, at + 500))]);
  const index = await indexOf(many);
  const found = await query(index, target);
  expect(found).toHaveLength(16);
  expect(found[0]?.id).toBe(0);
  expect(found).toEqual([...found].sort((a, b) => b.sharedBytes - a.sharedBytes || a.id - b.id));
  expect(await query(await indexOf(many), target)).toEqual(found);
});

test('what very many files share says nothing', async () => {
  const licence = seededBytes(30_000, 1);
  const index = await indexOf(Array.from({ length: 40 }, (_, at) => Buffer.concat([licence, seededBytes(30_000, at + 2)])));
  expect(await query(index, licence)).toEqual([]);
});

test('a table that fills up keeps fewer samples and still answers', async () => {
  const contents = Array.from({ length: 12 }, (_, seed) => seededBytes(1_000_000, seed + 1));
  const index = await indexOf(contents, 1 << 16);
  for (const [id, bytes] of contents.entries()) {
    const found = await query(index, bytes);
    expect(found[0]?.id).toBe(id);
    expect(found[0]?.sharedBytes).toBeGreaterThan(500_000);
  }
});

test('empty, tiny and constant content is harmless', async () => {
  const index = await indexOf([Buffer.alloc(0), Buffer.from('abc'), Buffer.alloc(5_000_000)]);
  expect(await query(index, Buffer.alloc(0))).toEqual([]);
  expect(await query(index, Buffer.from('abc'))).toEqual([]);
  expect((await query(index, Buffer.alloc(100_000))).every(({ id }) => id === 2)).toBe(true);
});

test('reading errors reject and leave the index usable', async () => {
  const bytes = seededBytes(100_000, 1);
  const index = await indexOf([bytes]);
  const short = await files.make(bytes.subarray(0, 10), [0, 100_000]);
  await expect(index.add(1, short)).rejects.toMatchObject({ code: 'CONTENT_SHORT' });
  await expect(index.query(short)).rejects.toMatchObject({ code: 'CONTENT_SHORT' });
  expect((await query(index, bytes))[0]?.id).toBe(0);
});

test('wrong arguments and foreign objects throw a TypeError', async () => {
  const { BlockIndex } = serverAddon();
  const failure = (action: () => unknown): unknown => {
    try {
      return action();
    } catch (error) {
      return error;
    }
  };
  const typeError = { name: 'TypeError' };
  for (const wrong of [undefined, null, 1, {}, { memoryLimitBytes: 0 }, { memoryLimitBytes: 1.5 }, { memoryLimitBytes: '9' }]) {
    expect(failure(() => new BlockIndex(wrong as never))).toMatchObject(typeError);
  }
  expect(failure(() => (BlockIndex as unknown as (o: object) => unknown)({ memoryLimitBytes }))).toMatchObject(typeError);
  const index = new BlockIndex({ memoryLimitBytes });
  const content = await files.make(Buffer.from('abc'));
  for (const id of [-1, 0.5, 2 ** 32 - 1, 2 ** 32, Number.NaN, '1', undefined]) {
    expect(failure(() => index.add(id as number, content))).toMatchObject(typeError);
  }
  expect(failure(() => index.query(undefined as never))).toMatchObject(typeError);
  const foreign: unknown[] = [{}, [], new Map(), Object.create(index) as object];
  const prototype = BlockIndex.prototype as unknown as { query: (this: unknown, content: unknown) => unknown };
  for (const self of foreign) expect(failure(() => prototype.query.call(self, content))).toMatchObject(typeError);
});
