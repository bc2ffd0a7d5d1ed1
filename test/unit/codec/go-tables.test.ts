import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { serverAddon, type CodecProfile } from '../../../src/core/native.js';
import { decodeSegments, encodeSegments, fileOfEachTest, type OpTriple, type PatchCase } from '../../support/patch-codec.js';
import { tinyGo, type TinyFunction, type TinyGoLayout } from '../../support/tiny-go.js';

const file = fileOfEachTest();

const functions: TinyFunction[] = Array.from({ length: 400 }, (_, index) => ({ codeBytes: 32 + (index % 7) * 16, nameBytes: 12 + (index % 9), valueBytes: 3 + (index % 5) }));

/** Some functions grew, with their names and tables of values. */
const grownFunctions = functions.map((one, index) => (index % 50 === 13 ? { codeBytes: one.codeBytes + 48, nameBytes: one.nameBytes + 5, valueBytes: one.valueBytes + 2 } : one));

async function grown(): Promise<{ readonly one: PatchCase; readonly old: TinyGoLayout }> {
  const { file: source, layout: old } = tinyGo(functions);
  const { file: target } = tinyGo(grownFunctions);
  const [from, to] = [file().content(source), file().content(target)];
  await file().write();
  const found = await serverAddon().matchFile({ sources: [from], target: to, memoryLimitBytes: 1 << 28, labelPasses: 1 });
  const ops = Array.from({ length: found.length / 3 }, (_, index): OpTriple => [found[index * 3] ?? 0, found[index * 3 + 1] ?? 0, found[index * 3 + 2] ?? 0]);
  return { one: { sources: [source], target, ops }, old };
}

async function roundTrip(one: PatchCase, profile: CodecProfile): Promise<number> {
  const streams = await encodeSegments(file(), [[one]], { profile });
  const [decoded] = await decodeSegments(file(), streams, [[one]], { profile });
  expect(decoded?.equals(one.target)).toBe(true);
  return streams[0]?.length ?? 0;
}

test('tables of functions and types through moved code cost next to nothing', async () => {
  const { one, old } = await grown();
  const known = await roundTrip(one, 'small');
  // The same program with tables of a version that the codec does not know.
  const sources = one.sources.map((bytes) => Buffer.from(bytes));
  sources[0]?.writeUInt32LE(0xfffffffb, old.table);
  expect(known * 3).toBeLessThan(2 * (await roundTrip({ ...one, sources }, 'small')));
});

test('old tables with any bytes come back the same on both sides', async () => {
  const { one, old } = await grown();
  const places = fc.oneof(
    fc.integer({ min: old.table, max: old.table + 71 }), fc.integer({ min: old.functions, max: old.functions + 400 }), fc.integer({ min: old.records[0] ?? 0, max: (old.records[0] ?? 0) + 4000 }),
    fc.integer({ min: old.module, max: old.end - 1 }), fc.integer({ min: old.types, max: old.types + 2000 }), fc.integer({ min: old.end, max: (one.sources[0]?.length ?? 1) - 1 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(places, fc.constantFrom(0, 1, 0x7f, 0x80, 0xfe, 0xff)), { minLength: 1, maxLength: 10 }), async (changes) => {
      const source = Buffer.from(one.sources[0] ?? one.target);
      for (const [at, value] of changes) source[at] = value;
      await roundTrip({ ...one, sources: [source] }, 'fast');
    }),
    { numRuns: 25 },
  );
});
