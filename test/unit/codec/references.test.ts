import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { decodeSegments, encodeSegments, fileOfEachTest, roundTrip, type OpTriple, type PatchCase } from '../../support/patch-codec.js';
import { tinyElf, type TinyMachine } from '../../support/tiny-elf.js';

const file = fileOfEachTest();

const oldSizes = Array.from({ length: 200 }, (_, index) => 64 + (index % 9) * 16);

/** Between what it costs to learn where each function went, and what each call of one costs without: measured. */
const mostLearnedBytes = { 'x86-64': 1290, aarch64: 965, riscv64: 1085 } as const;

/** Between what it costs to learn where a few of the functions in a row went, and where each of them did: measured. */
const mostNeighbourBytes = { 'x86-64': 1460, aarch64: 934, riscv64: 995 } as const;

/** An executable in which some functions grew, each function that `isCopied` copied from where it was. */
function grown(machine: TinyMachine, grows = (index: number): boolean => index % 40 === 11, isCopied = (_: number): boolean => true): PatchCase {
  const newSizes = oldSizes.map((size, index) => (grows(index) ? size + 32 : size));
  const old = tinyElf(machine, oldSizes);
  const target = tinyElf(machine, newSizes);
  const ops: OpTriple[] = [[0, 0, 0x1000]];
  let from = 0x1000;
  let to = 0x1000;
  for (const [index, size] of oldSizes.entries()) {
    if (isCopied(index)) ops.push([to, from, size]);
    from += size;
    to += newSizes[index] ?? 0;
  }
  ops.push([target.length - oldSizes.length * 8, old.length - oldSizes.length * 8, oldSizes.length * 8]);
  return { sources: [old], target, ops };
}

for (const machine of ['x86-64', 'aarch64', 'riscv64'] as const) {
  test(`${machine}: references through moved code cost next to nothing`, async () => {
    const one = grown(machine);
    const streams = await roundTrip(file(), one);
    // The same bytes said to be for a machine that the codec does not know.
    const foreign = [...one.sources, one.target].map((bytes) => Buffer.from(bytes));
    for (const bytes of foreign) bytes.writeUInt16LE(8, 18);
    const [unknown] = await encodeSegments(file(), [[{ ...one, sources: foreign.slice(0, 1), target: foreign[1] ?? one.target }]], { profile: 'small' });
    expect(streams.length * 2).toBeLessThan(unknown?.length ?? 0);
  });

  test(`${machine}: where code leads that no copy tells of is learned once`, async () => {
    // A fifth of the functions moved by other code than the copies before them, and are not copied themselves.
    const one = grown(machine, (index) => index % 5 === 1, (index) => index % 5 !== 2);
    const streams = await roundTrip(file(), one);
    expect(streams.length).toBeLessThan(mostLearnedBytes[machine]);
  });

  test(`${machine}: what moved with its neighbours is found where they are`, async () => {
    // Many functions in a row that nothing tells of, all moved by as much.
    const one = grown(machine, (index) => index < 49, (index) => index < 49 || index > 150);
    const streams = await roundTrip(file(), one);
    expect(streams.length).toBeLessThan(mostNeighbourBytes[machine]);
  });

  test(`${machine}: an old file with any header comes back the same on both sides`, async () => {
    const one = grown(machine);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.integer({ min: 4, max: 175 }), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff)), { minLength: 1, maxLength: 12 }),
        fc.integer({ min: 20, max: 80_000 }),
        async (changes, keptBytes) => {
          const old = Buffer.from((one.sources[0] ?? one.target).subarray(0, keptBytes));
          for (const [at, value] of changes) if (at < old.length && at !== 18) old[at] = value;
          const ops = one.ops.filter(([, oldPos, length]) => oldPos + length <= old.length);
          const broken = { sources: [old], target: one.target, ops };
          const streams = await encodeSegments(file(), [[broken]], { profile: 'fast' });
          const [decoded] = await decodeSegments(file(), streams, [[broken]], { profile: 'fast' });
          expect(decoded?.equals(one.target)).toBe(true);
        },
      ),
      { numRuns: 60 },
    );
  });
}

test('references of an old file that changed since give other bytes or an error, never a crash', async () => {
  const one = grown('aarch64');
  const [streams] = await encodeSegments(file(), [[one]], { profile: 'fast' });
  for (let at = 4; at < 176; at++) {
    const old = Buffer.from(one.sources[0] ?? one.target);
    old[at] = (old[at] ?? 0) ^ 0xff;
    try {
      const [decoded] = await decodeSegments(file(), streams === undefined ? [] : [streams], [[{ ...one, sources: [old] }]], { profile: 'fast' });
      expect(decoded?.length).toBe(one.target.length);
    } catch (error) {
      expect((error as { code?: unknown }).code).toBe('DELTA_CORRUPT');
    }
  }
});
