import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { decodeSegments, encodeSegments, fileOfEachTest, roundTrip, type OpTriple, type PatchCase } from '../../support/patch-codec.js';
import { tinyObject, type ObjectMachine } from '../../support/tiny-object.js';

const file = fileOfEachTest();

/** Between what is left when all is known of them, and what each of places, symbols and addends alone would cost: measured. */
const mostBytes = 300;

const oldSizes = Array.from({ length: 200 }, (_, index) => 64 + (index % 9) * 16);

/** An object file in which some functions grew and two symbols came before theirs. Each function is copied from where it was. */
function grown(machine: ObjectMachine): PatchCase {
  const newSizes = oldSizes.map((size, index) => (index % 3 === 1 ? size + 16 * (1 + ((index * 7) % 11)) : size));
  const old = tinyObject(machine, oldSizes);
  const target = tinyObject(machine, newSizes, 3);
  const ops: OpTriple[] = [[0, 0, old.parts.text]];
  for (const [index, size] of oldSizes.entries()) ops.push([target.parts.text + (target.starts[index] ?? 0), old.parts.text + (old.starts[index] ?? 0), size]);
  ops.push([target.parts.relocations, old.parts.relocations, old.parts.functions - old.parts.relocations]);
  ops.push([target.parts.functions, old.parts.functions, old.file.length - old.parts.functions]);
  return { sources: [old.file], target: target.file, ops };
}

/** The same bytes said to be for a machine that the codec does not know. */
function foreign({ sources, target, ops }: PatchCase): PatchCase {
  const [old, fresh] = [...sources, target].map((bytes) => {
    const copy = Buffer.from(bytes);
    copy.writeUInt16LE(8, 18);
    return copy;
  });
  if (old === undefined || fresh === undefined) throw new Error('a case has one source');
  return { sources: [old], target: fresh, ops };
}

for (const machine of ['x86-64', 'aarch64', 'i386', 'arm'] as const) {
  test(`${machine}: relocations and symbols of an object file whose functions moved cost next to nothing`, async () => {
    const known = await roundTrip(file(), grown(machine));
    const unknown = await roundTrip(file(), foreign(grown(machine)));
    expect(known.length).toBeLessThan(mostBytes);
    expect(mostBytes * 2).toBeLessThan(unknown.length);
  });

  test(`${machine}: an object file with any header, sections or symbols comes back the same on both sides`, async () => {
    const one = grown(machine);
    const old = one.sources[0] ?? one.target;
    const place = fc.oneof(fc.integer({ min: 4, max: 63 }), fc.integer({ min: old.length - 6 * 64, max: old.length - 1 }), fc.integer({ min: 0, max: old.length - 1 }));
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(place, fc.constantFrom(0, 1, 0x7f, 0x80, 0xff)), { minLength: 1, maxLength: 16 }), fc.integer({ min: 20, max: 200_000 }), async (changes, keptBytes) => {
        const broken = Buffer.from(old.subarray(0, keptBytes));
        for (const [at, value] of changes) if (at < broken.length && at !== 18) broken[at] = value;
        const ops = one.ops.filter(([, from, length]) => from + length <= broken.length);
        const streams = await encodeSegments(file(), [[{ ...one, sources: [broken], ops }]], { profile: 'fast' });
        const [decoded] = await decodeSegments(file(), streams, [[{ ...one, sources: [broken], ops }]], { profile: 'fast' });
        expect(decoded?.equals(one.target)).toBe(true);
      }),
      { numRuns: 60 },
    );
  });
}
