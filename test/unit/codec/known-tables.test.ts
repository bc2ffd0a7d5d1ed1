import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { fileOfEachTest, roundTrip, type PatchCase } from '../../support/patch-codec.js';
import { tinyTables } from '../../support/tiny-tables.js';

const file = fileOfEachTest();

const count = 600;
const inOrder = Array.from({ length: count }, (_, index) => index);
/** A number that looks like chance. */
function scrambled(place: number): number {
  const mixed = Math.imul(place + 1, 0x9e3779b1);
  const twice = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b);
  return (twice ^ (twice >>> 13)) >>> 0;
}

/** Between what it costs to say once how far the words moved, and for each of them: measured. */
const mostMovedBytes = 257;

/** An order that no copy tells of. */
const shuffled = inOrder.map((place) => ({ place, key: scrambled(place) })).sort((a, b) => a.key - b.key).map(({ place }) => place);

/** The whole file copied from where it was: that the functions changed places is for the differences to say. */
function reordered(tableFirst: boolean, usual: boolean, machine: 'x86-64' | 'riscv64' = 'x86-64'): PatchCase {
  const old = tinyTables({ functions: inOrder, base: 0x400000, tableFirst, blurred: true, usual, machine });
  const target = tinyTables({ functions: shuffled, base: 0x512000, tableFirst, blurred: false, usual, machine });
  return { sources: [old], target, ops: [[0, 0, target.length]] };
}

for (const tableFirst of [true, false]) {
  test(`with the table of frames ${tableFirst ? 'before' : 'after'} them: what one table says the next does not cost again`, async () => {
    const known = await roundTrip(file(), reordered(tableFirst, true));
    const unknown = await roundTrip(file(), reordered(tableFirst, false));
    expect(known.length).toBeLessThan(unknown.length * 0.78);
  });
}

test('riscv64: what one table says the next does not cost again', async () => {
  const known = await roundTrip(file(), reordered(true, true, 'riscv64'));
  const unknown = await roundTrip(file(), reordered(true, false, 'riscv64'));
  expect(known.length).toBeLessThan(unknown.length * 0.78);
});

test('places of relocations that moved together cost once', async () => {
  // The words moved on, and no copy tells of it.
  const of = (base: number, beforeWords: number): Buffer => tinyTables({ functions: inOrder, base, tableFirst: true, blurred: true, usual: true, beforeWords });
  const [old, target] = [of(0x400000, 0), of(0x512000, 0x1230)];
  const data = old.length - 6 * 64 - 64 - count * 8;
  const streams = await roundTrip(file(), { sources: [old], target, ops: [[0, 0, data], [target.length - 448, old.length - 448, 448]] });
  expect(streams.length).toBeLessThan(mostMovedBytes);
});

test('tables of any content come back the same', async () => {
  const one = reordered(true, true);
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(fc.tuple(fc.integer({ min: 64, max: one.target.length - 1 }), fc.constantFrom(0, 1, 0x7f, 0xff)), { minLength: 1, maxLength: 200 }), fc.array(fc.tuple(fc.integer({ min: 24, max: one.target.length - 1 }), fc.constantFrom(0, 1, 0x7f, 0xff)), { maxLength: 4 }), async (tableFirst, newChanges, oldChanges) => {
      const { sources, target, ops } = reordered(tableFirst, true);
      for (const [at, value] of newChanges) target[at] = value;
      for (const [at, value] of oldChanges) if (sources[0] !== undefined) sources[0][at] = value;
      await roundTrip(file(), { sources, target, ops });
    }),
    { numRuns: 40 },
  );
});
