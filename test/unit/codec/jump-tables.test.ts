import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { fileOfEachTest, roundTrip, type OpTriple, type PatchCase } from '../../support/patch-codec.js';
import { tinySwitches, type SwitchMachine } from '../../support/tiny-switch.js';

const file = fileOfEachTest();

const sizes = Array.from({ length: 300 }, (_, index) => 64 + (index % 9) * 16);

/** Functions, some of which moved further apart, each copied from where it was, and their tables. */
function moved(machine: SwitchMachine, data: string): PatchCase {
  const grown = sizes.map((size, index) => size + (index % 3 === 1 ? 16 * (1 + ((index * 7) % 11)) : 0));
  const old = tinySwitches(machine, sizes, data);
  const target = tinySwitches(machine, grown, data);
  const ops: OpTriple[] = [[0, 0, 0x1000]];
  let from = 0x1000;
  let to = 0x1000;
  for (const [index, size] of sizes.entries()) {
    ops.push([to, from, size]);
    from += size;
    to += grown[index] ?? 0;
  }
  const rest = old.length - from;
  ops.push([target.length - rest, from, rest]);
  return { sources: [old], target, ops };
}

const machines = ['x86-64', 'riscv64'] as const;

test.each(machines)('%s: where the cases of a switch are costs little once the code is known', async (machine) => {
  const known = await roundTrip(file(), moved(machine, '.rodata'));
  const unknown = await roundTrip(file(), moved(machine, '.radota'));
  expect(known.length).toBeLessThan(unknown.length * 0.75);
});

test('tables that lead anywhere come back the same', async () => {
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...machines), fc.array(fc.tuple(fc.integer({ min: 64, max: 50_000 }), fc.constantFrom(0, 0x7f, 0x80, 0xff)), { minLength: 1, maxLength: 300 }), async (machine, changes) => {
      const one = moved(machine, '.rodata');
      for (const [at, value] of changes) {
        for (const bytes of [...one.sources, one.target]) if (at < bytes.length) bytes[bytes.length - at] = value;
      }
      await roundTrip(file(), one);
    }),
    { numRuns: 30 },
  );
});
