import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { fileOfEachTest, roundTrip, type PatchCase } from '../../support/patch-codec.js';
import { movedWasm, tinyWasm, type WasmReference } from '../../support/tiny-wasm.js';

const file = fileOfEachTest();

const references: readonly WasmReference[] = ['call', 'indirect call', 'global', 'constant', 'offset', 'element', 'signature', 'word'];

const functions = Array.from({ length: 400 }, (_, name) => name);
/** Every forty-third function is new. */
const grown = functions.flatMap((name) => (name % 43 === 11 ? [1000 + name, name] : [name]));

function moved(used: readonly WasmReference[], isKnown = true): PatchCase {
  return movedWasm({ functions, references: used, isKnown }, { functions: grown, references: used, more: 3, isKnown });
}

test.each(references)('%s: what it names is found where it moved to', async (reference) => {
  const none = await roundTrip(file(), moved([]));
  const known = await roundTrip(file(), moved([reference]));
  const unknown = await roundTrip(file(), moved([reference], false));
  const noneUnknown = await roundTrip(file(), moved([], false));
  expect(known.length - none.length).toBeLessThan((unknown.length - noneUnknown.length) * 0.5);
});

test('a module in which nothing moved costs the same with references as without', async () => {
  const still = (used: readonly WasmReference[]): PatchCase => movedWasm({ functions, references: used }, { functions, references: used });
  const [none, all] = [await roundTrip(file(), still([])), await roundTrip(file(), still(references))];
  expect(all.length).toBe(none.length);
});

test('modules of any content come back the same', async () => {
  const places = fc.tuple(fc.integer({ min: 8, max: 50_000 }), fc.constantFrom(0, 1, 3, 9, 0x0a, 0x0b, 0x0e, 0x10, 0x1f, 0x41, 0x7f, 0x80, 0xfc, 0xfd, 0xff));
  await fc.assert(
    fc.asyncProperty(fc.array(places, { minLength: 1, maxLength: 300 }), fc.array(places, { maxLength: 300 }), fc.constantFrom<'fast' | 'small'>('fast', 'small'), async (oldChanges, newChanges, profile) => {
      const one = moved(references);
      for (const [bytes, changes] of [[one.sources[0], oldChanges], [one.target, newChanges]] as const) {
        for (const [at, value] of changes) if (bytes !== undefined && at < bytes.length) bytes[at] = value;
      }
      await roundTrip(file(), one, profile);
    }),
    { numRuns: 30 },
  );
});

test('modules that end anywhere come back the same, and so does what is copied from places of other kinds', async () => {
  const [old, target] = [tinyWasm({ functions, references }), tinyWasm({ functions: grown, references })];
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 9, max: old.length }),
      fc.integer({ min: 9, max: target.length }),
      fc.array(fc.tuple(fc.nat(20_000), fc.nat(40_000), fc.integer({ min: 1, max: 5000 })), { maxLength: 20 }),
      async (oldSize, size, copies) => {
        let position = 0;
        const ops: [number, number, number][] = [];
        for (const [gap, from, length] of copies) {
          const at = position + (gap % 300);
          const bytes = Math.min(length, size - at, oldSize - (from % oldSize));
          if (bytes <= 0) break;
          ops.push([at, from % oldSize, bytes]);
          position = at + bytes;
        }
        await roundTrip(file(), { sources: [old.subarray(0, oldSize)], target: target.subarray(0, size), ops });
      },
    ),
    { numRuns: 60 },
  );
});
