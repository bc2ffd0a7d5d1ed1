import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { serverAddon } from '../../../src/core/native.js';
import { ContentFiles, seededBytes } from '../../support/native-content.js';
import { tinyElf, type TinyMachine } from '../../support/tiny-elf.js';

let files: ContentFiles;
beforeAll(() => {
  files = new ContentFiles();
});
afterAll(async () => {
  await files.close();
});

async function match(old: Buffer, target: Buffer, labelPasses: number, threads = 1): Promise<number[]> {
  return [...await serverAddon().matchFile({ sources: [await files.make(old)], target: await files.make(target), memoryLimitBytes: 1 << 28, threads, labelPasses })];
}

/** A program whose functions differ in more than what they refer to. */
function program(machine: TinyMachine, functionSizes: readonly number[]): Buffer {
  const file = tinyElf(machine, functionSizes);
  let at = 0x1000;
  for (const [index, size] of functionSizes.entries()) {
    for (let within = 0; within < size; within += 16) file.writeUInt32LE((0x8b000000 | ((Math.imul(index * 64 + within / 16 + 1, 0x9e3779b1) >>> 12) & 0xffff1f)) >>> 0, at + within + 12);
    at += size;
  }
  return file;
}

const sizes = Array.from({ length: 1000 }, (_, index) => 48 + (index % 11) * 16);
/** Functions that grew here and there, so that every call and address between them changed. */
const grownSizes = sizes.map((size, index) => (index % 3 === 1 ? size + 16 : size));

/** Bytes of the target that some copy covers. */
const covered = (ops: readonly number[]): number => ops.reduce((sum, value, index) => (index % 3 === 2 ? sum + value : sum), 0);

function isLegal(ops: readonly number[], oldSize: number, newSize: number): boolean {
  let end = 0;
  for (let at = 0; at < ops.length; at += 3) {
    const [newPos = -1, oldPos = -1, length = -1] = ops.slice(at, at + 3);
    if (newPos < end || length <= 0 || oldPos < 0 || oldPos + length > oldSize || newPos + length > newSize) return false;
    end = newPos + length;
  }
  return true;
}

for (const machine of ['x86-64', 'aarch64'] as const) {
  test(`${machine}: functions whose references all changed are found by what those lead to`, async () => {
    const old = program(machine, sizes);
    const target = program(machine, grownSizes);
    const [plain, labelled] = [await match(old, target, 0), await match(old, target, 1)];
    expect(isLegal(labelled, old.length, target.length)).toBe(true);
    expect((target.length - covered(labelled)) * 4).toBeLessThan(target.length - covered(plain));
    expect(await match(old, target, 1, 3)).toEqual(labelled);
  });

  test(`${machine}: headers with any bytes give legal copies`, async () => {
    const short = sizes.slice(0, 60);
    const [old, target] = [program(machine, short), program(machine, grownSizes.slice(0, 60))];
    const change = fc.tuple(fc.integer({ min: 4, max: 175 }), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff));
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 12 }), fc.array(change, { maxLength: 12 }), fc.nat(1000), async (oldChanges, newChanges, seed) => {
        const [from, to] = [Buffer.from(old), Buffer.concat([target, seededBytes(seed, seed)])];
        for (const [at, value] of oldChanges) from[at] = value;
        for (const [at, value] of newChanges) to[at] = value;
        expect(isLegal(await match(from, to, 3), from.length, to.length)).toBe(true);
      }),
      { numRuns: 30 },
    );
  });
}

test('what is no executable is matched once', async () => {
  const old = seededBytes(50_000, 3);
  const target = Buffer.concat([old.subarray(20_000), old.subarray(0, 20_000)]);
  expect(await match(old, target, 8)).toEqual(await match(old, target, 0));
});
