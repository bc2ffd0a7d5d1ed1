import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { fileOfEachTest, movedFunctions, roundTrip, type PatchCase } from '../../support/patch-codec.js';
import { tinyArm, type TinyArm } from '../../support/tiny-arm.js';

const file = fileOfEachTest();

const sizes = Array.from({ length: 400 }, (_, index) => 64 + (index % 9) * 16);
const grownSizes = sizes.map((size, index) => size + (index % 3 === 1 ? 16 * (1 + ((index * 7) % 11)) : 0));

/** Functions, some of which moved further apart, each copied from where it was with the word at its end; their index, and data. */
function moved(program: Omit<TinyArm, 'sizes'>): PatchCase {
  return movedFunctions({ old: tinyArm({ ...program, sizes }), target: tinyArm({ ...program, sizes: grownSizes }), sizes, grownSizes });
}

const usual = { isThumb: false, addsDistances: true, hasIndex: true, hasSymbols: null };

for (const isThumb of [false, true]) {
  test(`${isThumb ? 'Thumb' : 'ARM'}: words that are added to the program counter cost little`, async () => {
    const known = await roundTrip(file(), moved({ ...usual, isThumb }));
    const unknown = await roundTrip(file(), moved({ ...usual, isThumb, addsDistances: false }));
    expect(known.length).toBeLessThan(unknown.length * 0.8);
  });
}

test('the index of functions costs little once the code is known', async () => {
  const known = await roundTrip(file(), moved(usual));
  const unknown = await roundTrip(file(), moved({ ...usual, hasIndex: false }));
  expect(known.length).toBeLessThan(unknown.length * 0.8);
});

test('symbols of 32-bit files cost little once the code is known', async () => {
  const none = await roundTrip(file(), moved(usual));
  const known = await roundTrip(file(), moved({ ...usual, hasSymbols: true }));
  const unknown = await roundTrip(file(), moved({ ...usual, hasSymbols: false }));
  expect(known.length - none.length).toBeLessThan((unknown.length - none.length) * 0.2);
});

test('code, index and symbols of any content come back the same', async () => {
  const places = fc.tuple(fc.integer({ min: 0x1000, max: 50_000 }), fc.constantFrom(0, 1, 0x44, 0x48, 0x78, 0x7f, 0x80, 0x8f, 0x9f, 0xe0, 0xe5, 0xfa, 0xff));
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.constantFrom(null, true), fc.array(places, { minLength: 1, maxLength: 300 }), fc.array(places, { maxLength: 300 }), fc.constantFrom<'fast' | 'small'>('fast', 'small'), async (isThumb, hasSymbols, oldChanges, newChanges, profile) => {
      const one = moved({ ...usual, isThumb, hasSymbols });
      for (const [bytes, changes] of [[one.sources[0], oldChanges], [one.target, newChanges]] as const) {
        for (const [at, value] of changes) if (bytes !== undefined && at < bytes.length) bytes[at] = value;
      }
      await roundTrip(file(), one, profile);
    }),
    { numRuns: 30 },
  );
});
