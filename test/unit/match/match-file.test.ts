import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createHash } from 'node:crypto';
import { existsSync, readlinkSync } from 'node:fs';
import { dirname } from 'node:path';
import fc from 'fast-check';
import { serverAddon, type MatchOptions } from '../../../src/core/native.js';
import { ContentFiles, seededBytes } from '../../support/native-content.js';

const matchFile = (options: MatchOptions): Promise<Float64Array> => serverAddon().matchFile(options);
const memoryLimitBytes = 1 << 30;
/** Below the least that the matcher works with: sources of a few megabytes are matched slice by slice. */
const tightLimitBytes = 1;
let files: ContentFiles;

beforeAll(() => {
  files = new ContentFiles();
});
afterAll(async () => {
  await files.close();
});

async function match(sources: readonly Uint8Array[], target: Uint8Array, limit = memoryLimitBytes): Promise<Float64Array> {
  const contents = await Promise.all(sources.map((source) => files.make(source)));
  return matchFile({ sources: contents, target: await files.make(target), memoryLimitBytes: limit });
}

interface Coverage {
  readonly opCount: number;
  readonly coveredBytes: number;
  readonly equalBytes: number;
}

/** Checks every law of a list of operations and counts what it covers. */
function check(ops: Float64Array, old: Uint8Array, target: Uint8Array): Coverage {
  expect(ops.length % 3).toBe(0);
  let end = 0;
  let coveredBytes = 0;
  let equalBytes = 0;
  for (let index = 0; index < ops.length; index += 3) {
    const [newPosition = -1, oldPosition = -1, length = -1] = ops.subarray(index, index + 3);
    const isLegal = [newPosition, oldPosition, length].every(Number.isSafeInteger) && newPosition >= end && oldPosition >= 0 && length > 0 &&
      newPosition + length <= target.length && oldPosition + length <= old.length;
    if (!isLegal) throw new Error(`illegal operation ${String(newPosition)}, ${String(oldPosition)}, ${String(length)} after ${String(end)}`);
    end = newPosition + length;
    coveredBytes += length;
    for (let at = 0; at < length; at++) if (old[oldPosition + at] === target[newPosition + at]) equalBytes++;
  }
  return { opCount: ops.length / 3, coveredBytes, equalBytes };
}

/** A target made of stretches of `old`, some changed, and of new bytes. */
const editArbitrary = fc.array(
  fc.record({ from: fc.nat(4000), length: fc.integer({ min: 1, max: 900 }), fresh: fc.boolean(), flips: fc.array(fc.nat(900), { maxLength: 5 }), seed: fc.nat(1000) }),
  { maxLength: 12 },
);

function edited(old: Buffer, edits: readonly { from: number; length: number; fresh: boolean; flips: number[]; seed: number }[]): Buffer {
  return Buffer.concat(edits.map((edit) => {
    const piece = edit.fresh ? seededBytes(edit.length, edit.seed) : Buffer.from(old.subarray(edit.from, edit.from + edit.length));
    for (const flip of edit.flips) if (flip < piece.length) piece[flip] = (piece[flip] ?? 0) ^ 0x55;
    return piece;
  }));
}

test('operations are legal for any edit of any content, in full memory or little, and the same each time', async () => {
  await fc.assert(fc.asyncProperty(fc.nat(1000), fc.constantFrom(2, 4, 20, 256), editArbitrary, async (seed, alphabet, edits) => {
    const old = seededBytes(4000, seed, alphabet);
    const target = edited(old, edits);
    const ops = await match([old.subarray(0, 1500), Buffer.alloc(0), old.subarray(1500)], target);
    check(ops, old, target);
    expect(await match([old], target)).toEqual(ops);
  }), { numRuns: 60 });
});

test('stretches of old content that are long enough are found wherever they moved', async () => {
  const old = seededBytes(200_000, 1);
  const target = Buffer.concat([old.subarray(150_000), seededBytes(500, 2), old.subarray(20_000, 60_000), old.subarray(0, 30_000)]);
  const coverage = check(await match([old], target), old, target);
  expect(coverage.opCount).toBe(3);
  expect(coverage.equalBytes).toBe(coverage.coveredBytes);
  expect(coverage.coveredBytes).toBe(target.length - 500);
});

test('a copy goes on through bytes that changed, as addresses in code do', async () => {
  const old = seededBytes(100_000, 3);
  const target = Buffer.from(old);
  for (let at = 5; at < target.length; at += 9) target[at] = (target[at] ?? 0) + 1;
  expect([...(await match([old], target))]).toEqual([0, 0, old.length]);
});

test('identical and appended files are one operation', async () => {
  const old = seededBytes(300_000, 4);
  expect([...(await match([old], old))]).toEqual([0, 0, old.length]);
  const appended = Buffer.concat([old, seededBytes(10_000, 5)]);
  expect([...(await match([old], appended))]).toEqual([0, 0, old.length]);
  expect([...(await match([old], old, tightLimitBytes))]).toEqual([0, 0, old.length]);
});

test('nothing in common, or nothing at all, gives no operations', async () => {
  const [empty, some] = [Buffer.alloc(0), seededBytes(50_000, 6)];
  for (const [old, target] of [[empty, some], [some, empty], [empty, empty], [some, seededBytes(50_000, 7)]] as const) {
    expect(await match([old], target)).toHaveLength(0);
  }
  expect(await match([], some)).toHaveLength(0);
});

test('little memory still finds what moved in a large file', async () => {
  const old = seededBytes(12_000_000, 8);
  const target = Buffer.concat([old.subarray(7_000_000), seededBytes(5_000, 9), old.subarray(0, 7_000_000)]);
  target[3_000_000] = (target[3_000_000] ?? 0) ^ 1;
  const coverage = check(await match([old.subarray(0, 5_000_000), old.subarray(5_000_000)], target, tightLimitBytes), old, target);
  expect(coverage.equalBytes).toBeGreaterThan(0.99 * old.length);
  expect(coverage.opCount).toBeLessThan(40);
});

function fibonacciBytes(sizeBytes: number): Buffer {
  let [previous, current] = [Buffer.from('a'), Buffer.from('ab')];
  while (current.length < sizeBytes) [previous, current] = [current, Buffer.concat([current, previous])];
  return current.subarray(0, sizeBytes);
}

const hugeRepetitions: readonly [string, () => Buffer][] = [
  ['zeros', () => Buffer.alloc(20_000_000)],
  ['abab', () => Buffer.alloc(8_000_000, 'ab')],
  ['a Fibonacci string', () => fibonacciBytes(6_000_000)],
  ['one block again and again', () => Buffer.alloc(8_000_000, seededBytes(1000, 10))],
];

test.each(hugeRepetitions)('%s with changes takes no quadratic time', async (_name, make) => {
  const old = make();
  const target = Buffer.concat([old.subarray(0, 1_000_001), seededBytes(3000, 11), old.subarray(3), seededBytes(3000, 12), old.subarray(5, 70_000)]);
  for (const limit of [memoryLimitBytes, tightLimitBytes]) {
    const startedMs = performance.now();
    const ops = await match([old], target, limit);
    expect(performance.now() - startedMs).toBeLessThan(20_000);
    expect(check(ops, old, target).equalBytes).toBeGreaterThan(target.length - 20_000);
  }
});

test('extents are read as one content', async () => {
  const bytes = seededBytes(100_000, 13);
  const source = await files.make(bytes, [50_000, 50_000, 0, 50_000]);
  const target = await files.make(bytes, [60_000, 40_000, 99_999, 0, 0, 10_000]);
  expect([...(await matchFile({ sources: [source], target, memoryLimitBytes }))]).toEqual([0, 10_000, 50_000]);
});

test('a file shorter than its extents, or not open for reading, rejects', async () => {
  const whole = await files.make(seededBytes(1000, 14));
  const short = await files.make(seededBytes(1000, 15), [500, 501]);
  await expect(matchFile({ sources: [short], target: whole, memoryLimitBytes })).rejects.toMatchObject({ code: 'CONTENT_SHORT' });
  await expect(matchFile({ sources: [whole], target: short, memoryLimitBytes })).rejects.toMatchObject({ code: 'CONTENT_SHORT' });
  await expect(matchFile({ sources: [{ ...whole, fd: 1_000_000 }], target: whole, memoryLimitBytes })).rejects.toMatchObject({ code: 'EBADF' });
});

test('arguments of a wrong type or out of range throw a TypeError', async () => {
  const content = await files.make(seededBytes(100, 16));
  const good: MatchOptions = { sources: [content], target: content, memoryLimitBytes };
  const wrong: unknown[] = [undefined, null, 1, {}, { ...good, sources: content }, { ...good, sources: [null] }, { ...good, sources: undefined },
    { ...good, memoryLimitBytes: -1 }, { ...good, memoryLimitBytes: '1' }, { ...good, memoryLimitBytes: 2 ** 53 }];
  const wrongContents: unknown[] = [{ ...content, fd: -1 }, { ...content, fd: 0.5 }, { ...content, fd: undefined }, { ...content, sizeBytes: 99 }, { ...content, sizeBytes: Number.NaN },
    { ...content, extents: [0, 100] }, { ...content, extents: new Float32Array([0, 100]) }, { ...content, extents: Float64Array.of(0, 100, 0) },
    { ...content, extents: Float64Array.of(-1, 100) }, { ...content, extents: Float64Array.of(0.5, 100) }, { ...content, extents: Float64Array.of(Infinity, 100) },
    { ...content, extents: Float64Array.of(Number.MAX_SAFE_INTEGER, 100) }];
  for (const target of wrongContents) wrong.push({ ...good, target }, { ...good, sources: [target] });
  for (const options of wrong) {
    let error: unknown;
    try {
      await matchFile(options as MatchOptions);
    } catch (caught) {
      error = caught;
    }
    expect(error).toMatchObject({ name: 'TypeError' });
  }
});

test('finds the same in a large target with any number of threads, and joins what goes on from one stretch to the next', async () => {
  const old = seededBytes(11 << 20, 71);
  const moved = [old.subarray(6 << 20), seededBytes(5000, 72), old.subarray(0, 6 << 20)];
  const target = Buffer.concat(moved);
  for (let at = 99_991; at < target.length; at += 99_991) target[at] = (target[at] ?? 0) ^ 1;
  const [source, fresh] = [await files.make(old), await files.make(target)];
  const found = await Promise.all([1, 2, 7].map((threads) => matchFile({ sources: [source], target: fresh, memoryLimitBytes, threads })));
  for (const ops of found) expect(Buffer.from(ops.buffer).equals(Buffer.from((found[0] ?? ops).buffer))).toBe(true);
  const coverage = check(found[0] ?? new Float64Array(0), old, target);
  expect(coverage.opCount).toBe(2);
  expect(coverage.coveredBytes).toBe(11 << 20);
});

test('finds what moved far among many places that start alike', async () => {
  const common = seededBytes(24, 81);
  const records = (from: number, count: number): Buffer => Buffer.concat(Array.from({ length: count }, (_, index) => Buffer.concat([common, seededBytes(40, 1000 + from + index)])));
  const old = records(0, 4000);
  const target = Buffer.concat([records(3900, 100), records(0, 100), records(2000, 100)]);
  const coverage = check(await match([old], target), old, target);
  expect(coverage).toMatchObject({ coveredBytes: target.length, equalBytes: target.length });
  expect(coverage.opCount).toBeLessThan(6);
});

/** Stretches of `old` from all over it, each with a byte in some hundreds changed. */
function shuffled(old: Buffer): Buffer {
  return Buffer.concat(Array.from({ length: 12 }, (_, index) => {
    const start = Math.floor(old.length * ((index * 7) % 12) / 13);
    const piece = Buffer.from(old.subarray(start, start + Math.floor(old.length / 15) + index * 131));
    for (let at = 17 * index; at < piece.length; at += 397 + 13 * index) piece[at] = (piece[at] ?? 0) ^ 0x55;
    return piece;
  }));
}

// The digests are those that a plain index, with a number for each hash, led to.
const crowdedTexts: readonly [string, string, () => Buffer][] = [
  ['of two symbols', 'b84071d20b676020', () => seededBytes(400_000, 5, 2)],
  ['mostly of one short word', '5e0da1a9f73a2065', () => Buffer.concat([seededBytes(600_000, 3), Buffer.alloc(4_500_000, 'abc'), seededBytes(600_000, 4)])],
];

test.each(crowdedTexts)('finds the same in a text %s, where a few seeds stand nearly everywhere, as ever, with any number of threads', async (_name, digest, make) => {
  const old = make();
  const options = { sources: [await files.make(old)], target: await files.make(shuffled(old)), memoryLimitBytes };
  for (const threads of [1, 3]) {
    const ops = await matchFile({ ...options, threads });
    expect(createHash('sha256').update(Buffer.from(ops.buffer)).digest('hex').slice(0, 16)).toBe(digest);
  }
});

test('files that are made at once lie in one folder, which goes with them', async () => {
  const own = new ContentFiles();
  const made = await Promise.all([1, 2, 3].map((seed) => own.make(seededBytes(10, seed))));
  const folders = new Set(made.map(({ fd }) => dirname(readlinkSync(`/proc/self/fd/${String(fd)}`))));
  await own.close();
  expect([folders.size, [...folders].filter((folder) => existsSync(folder))]).toEqual([1, []]);
});
