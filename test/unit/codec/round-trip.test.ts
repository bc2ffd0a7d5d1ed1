import { afterEach, beforeEach, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { CodecProfile } from '../../../src/core/native.js';
import { ContentFile, decodeSegments, encodeSegments, type OpTriple, type PatchCase } from '../../support/patch-codec.js';

let file: ContentFile;
beforeEach(async () => {
  file = await ContentFile.create();
});
afterEach(async () => {
  await file.close();
});

const bytes = (maxLength: number): fc.Arbitrary<Uint8Array> =>
  fc.oneof(fc.uint8Array({ maxLength }), fc.string({ maxLength }).map((text) => Buffer.from(text.repeat(7))));

/** A target made of literals and of copies with some bytes changed. */
const patchCase: fc.Arbitrary<PatchCase> = fc
  .tuple(
    fc.array(bytes(300), { maxLength: 3 }),
    fc.array(fc.tuple(bytes(40), fc.nat(), fc.nat(), fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 255 })), { maxLength: 4 })), { maxLength: 6 }),
    bytes(20),
  )
  .map(([sources, pieces, tail]) => {
    const old = Buffer.concat(sources);
    const parts: Buffer[] = [];
    const ops: OpTriple[] = [];
    let position = 0;
    for (const [literal, start, count, changes] of pieces) {
      parts.push(Buffer.from(literal));
      position += literal.length;
      if (old.length === 0) continue;
      const oldPos = start % old.length;
      const copy = Buffer.from(old.subarray(oldPos, oldPos + 1 + (count % 200)));
      for (const [at, by] of changes) copy[at % copy.length] = (copy[at % copy.length] ?? 0) + by;
      ops.push([position, oldPos, copy.length]);
      parts.push(copy);
      position += copy.length;
    }
    parts.push(Buffer.from(tail));
    return { sources, target: Buffer.concat(parts), ops };
  });

for (const profile of ['small', 'fast'] as const satisfies CodecProfile[]) {
  test(`${profile}: any files come back from any segments, extents and chunk sizes`, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(patchCase, { maxLength: 4 }), { minLength: 1, maxLength: 3 }),
        fc.constantFrom(1, 7, 100, Infinity),
        fc.constantFrom(1, 13, 4096, 65_536),
        async (segments, pieceBytes, chunkBytes) => {
          const streams = await encodeSegments(file, segments, { profile, pieceBytes });
          const targets = await decodeSegments(file, streams, segments, { profile, pieceBytes, chunkBytes });
          expect(targets).toEqual(segments.flat().map(({ target }) => Buffer.from(target)));
        },
      ),
      { numRuns: 40 },
    );
  });

  test(`${profile}: threads change nothing`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(patchCase, { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 2 }), async (segments) => {
        const one = await encodeSegments(file, segments, { profile, threads: 1 });
        const two = await encodeSegments(file, segments, { profile, threads: 2 });
        expect(two).toEqual(one);
      }),
      { numRuns: 15 },
    );
  });

  test(`${profile}: large files across page boundaries, and a second segment that profits from the first`, async () => {
    const old = Buffer.alloc(200_000);
    for (let at = 0; at < old.length; at++) old[at] = ((at * 2654435761) >>> 13) & 0xff;
    const target = Buffer.from(old.subarray(100, 190_100));
    for (let at = 1000; at < target.length; at += 997) target.writeUInt32LE((target.readUInt32LE(at - 4) + at) >>> 0, at - 4);
    const literal = Buffer.from('the quick brown fox jumps over the lazy dog; '.repeat(1000));
    const one: PatchCase = { sources: [old], target: Buffer.concat([target, literal]), ops: [[0, 100, target.length]] };
    const streams = await encodeSegments(file, [[one], [one]], { profile });
    expect(streams[0]?.length).toBeLessThan(2200);
    expect(streams[1]?.length).toBeLessThan((streams[0]?.length ?? 0) * 0.8);
    const targets = await decodeSegments(file, streams, [[one], [one]], { profile });
    expect(targets.every((decoded) => decoded.equals(one.target))).toBe(true);
  });
}

test('an unchanged file costs a handful of bytes', async () => {
  const old = Buffer.alloc(5_000_000, 'unchanged ');
  const streams = await encodeSegments(file, [[{ sources: [old], target: old, ops: [[0, 0, old.length]] }]], { profile: 'small' });
  expect(streams[0]?.length).toBeLessThan(32);
});
