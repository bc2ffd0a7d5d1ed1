import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { fileOfEachTest, movedFunctions, roundTrip, type PatchCase } from '../../support/patch-codec.js';
import { tinyRiscv, type RiscvReference, type TinyRiscv } from '../../support/tiny-riscv.js';

const file = fileOfEachTest();

const sizes = Array.from({ length: 400 }, (_, index) => 64 + (index % 5) * 16);
const grownSizes = sizes.map((size, index) => size + (index % 3 === 1 ? 16 * (1 + ((index * 7) % 5)) : 0));

/** Functions, some of which grew before their last 16 bytes, each copied from where it was; and data. */
function moved(program: Omit<TinyRiscv, 'sizes'>): PatchCase {
  return movedFunctions({ old: tinyRiscv({ ...program, sizes }), target: tinyRiscv({ ...program, sizes: grownSizes }), sizes, grownSizes });
}

/** Of a machine that the codec does not know. */
const foreign = 8;

const cases = (['jal', 'call', 'address', 'load', 'store', 'branch', 'short jump'] as const).flatMap((reference) => [true, false].map((is64) => [reference, is64] as const));
test.each(cases)('%s, 64 bits %s: what it leads to is found where it moved to', async (reference: RiscvReference, is64: boolean) => {
  const none = await roundTrip(file(), moved({ references: [], is64 }));
  const known = await roundTrip(file(), moved({ references: [reference], is64 }));
  const unknown = await roundTrip(file(), moved({ references: [reference], is64, machine: foreign }));
  expect(known.length - none.length).toBeLessThan((unknown.length - none.length) * 0.3);
});

test('code of any content comes back the same', async () => {
  const references: RiscvReference[] = ['jal', 'call', 'address', 'store', 'branch', 'short jump'];
  const places = fc.tuple(fc.integer({ min: 0x1000, max: 50_000 }), fc.constantFrom(0, 1, 0x03, 0x17, 0x67, 0x6f, 0x80, 0x97, 0xa0, 0xe7, 0xff));
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(places, { minLength: 1, maxLength: 300 }), fc.array(places, { maxLength: 300 }), fc.constantFrom<'fast' | 'small'>('fast', 'small'), async (is64, oldChanges, newChanges, profile) => {
      const one = moved({ references, is64 });
      for (const [bytes, changes] of [[one.sources[0], oldChanges], [one.target, newChanges]] as const) {
        for (const [at, value] of changes) if (bytes !== undefined && at < bytes.length) bytes[at] = value;
      }
      await roundTrip(file(), one, profile);
    }),
    { numRuns: 30 },
  );
});
