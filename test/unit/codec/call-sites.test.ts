import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { fileOfEachTest, roundTrip, type OpTriple, type PatchCase } from '../../support/patch-codec.js';
import { tinyExceptions, type TinyThrower } from '../../support/tiny-exceptions.js';

const file = fileOfEachTest();

// Calls so far into their functions that no number gets longer when the functions grow.
const before = Array.from({ length: 200 }, (_, index): TinyThrower => ({ calls: 24 + (index % 9), gapBytes: 256 }));

/** Functions that grew in their middle, each half copied from where it was, and the tables of their calls. */
function grown(section?: string): PatchCase {
  const after = before.map(({ calls, gapBytes }, index) => ({ calls, gapBytes: gapBytes + (index % 3 === 1 ? 0 : 16 * (1 + ((index * 7) % 11))) }));
  const old = tinyExceptions(before, section);
  const target = tinyExceptions(after, section);
  const ops: OpTriple[] = [[0, 0, 0x1000]];
  for (const [index, from] of old.places.entries()) {
    const to = target.places[index] ?? from;
    ops.push([to.start, from.start, from.halfBytes + 256], [to.start + to.bytes - (from.bytes - from.halfBytes - 256), from.start + from.halfBytes + 256, from.bytes - from.halfBytes - 256]);
  }
  const ends = [old, target].map(({ places }) => places.reduce((end, { start, bytes }) => Math.max(end, start + bytes), 0));
  const rest = old.file.length - (ends[0] ?? 0);
  ops.push([target.file.length - rest, ends[0] ?? 0, rest]);
  return { sources: [old.file], target: target.file, ops };
}

for (const profile of ['small', 'fast'] as const) {
  test(`${profile}: where calls are that may throw costs little once the code is known`, async () => {
    const known = await roundTrip(file(), grown(), profile);
    const unknown = await roundTrip(file(), grown('.gcc_xecept_table'), profile);
    expect(known.length).toBeLessThan(unknown.length * 0.7);
  });
}

test('tables of calls and frames of any content come back the same', async () => {
  const places = fc.tuple(fc.integer({ min: 1, max: 26_000 }), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff));
  await fc.assert(
    fc.asyncProperty(fc.array(places, { minLength: 1, maxLength: 300 }), fc.array(places, { maxLength: 300 }), fc.constantFrom<'fast' | 'small'>('fast', 'small'), async (oldChanges, newChanges, profile) => {
      const one = grown();
      for (const [bytes, changes] of [[one.sources[0], oldChanges], [one.target, newChanges]] as const) {
        // Counted from the end, where the tables are.
        for (const [at, value] of changes) if (bytes !== undefined && at + 400 < bytes.length) bytes[bytes.length - 400 - at] = value;
      }
      await roundTrip(file(), one, profile);
    }),
    { numRuns: 30 },
  );
});
