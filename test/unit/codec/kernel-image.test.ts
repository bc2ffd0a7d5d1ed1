import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { decodeSegments, encodeSegments, fileOfEachTest, roundTrip, type OpTriple, type PatchCase } from '../../support/patch-codec.js';
import { behindCode, kernelCode, tinyKernel } from '../../support/tiny-kernel.js';

const file = fileOfEachTest();

const oldSizes = Array.from({ length: 200 }, (_, index) => 64 + (index % 9) * 16);
const newSizes = oldSizes.map((size, index) => (index % 3 === 1 ? size + 16 * (1 + ((index * 7) % 11)) : size));

/** Between what is left when all references are known, and what those of the code or the relocations alone would cost: measured. */
const mostBytes = 1300;

/** A kernel in which some functions grew, each copied from where it was, and all behind the code as one. */
function grown(isSaid = true): PatchCase {
  const old = tinyKernel(oldSizes, isSaid);
  const target = tinyKernel(newSizes, isSaid);
  const ops: OpTriple[] = [[0, 0, kernelCode]];
  let [from, to] = [kernelCode, kernelCode];
  for (const [index, size] of oldSizes.entries()) {
    ops.push([to, from, size]);
    from += size;
    to += newSizes[index] ?? 0;
  }
  const behind = behindCode(oldSizes.length);
  ops.push([target.length - behind, old.length - behind, behind]);
  return { sources: [old], target, ops };
}

test('references of a kernel image whose functions moved cost next to nothing', async () => {
  const known = await roundTrip(file(), grown());
  const unknown = await roundTrip(file(), grown(false));
  expect(known.length).toBeLessThan(mostBytes);
  expect(mostBytes * 2).toBeLessThan(unknown.length);
});

test('a kernel image of any content comes back the same on both sides', async () => {
  const one = grown();
  const old = one.sources[0] ?? one.target;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.oneof(fc.integer({ min: 0, max: 55 }), fc.integer({ min: 60, max: old.length - 1 })), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff)), { minLength: 1, maxLength: 16 }),
      fc.integer({ min: 20, max: 2 * old.length }),
      async (changes, keptBytes) => {
        const broken = Buffer.from(old.subarray(0, keptBytes));
        for (const [at, value] of changes) if (at < broken.length) broken[at] = value;
        const ops = one.ops.filter(([, from, length]) => from + length <= broken.length);
        const streams = await encodeSegments(file(), [[{ ...one, sources: [broken], ops }]], { profile: 'fast' });
        const [decoded] = await decodeSegments(file(), streams, [[{ ...one, sources: [broken], ops }]], { profile: 'fast' });
        expect(decoded?.equals(one.target)).toBe(true);
      },
    ),
    { numRuns: 60 },
  );
});
