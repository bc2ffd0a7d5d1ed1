import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { createHash } from 'node:crypto';
import type { CodecProfile } from '../../../src/core/native.js';
import { decodeSegments, encodeSegments, fileOfEachTest, type OpTriple, type PatchCase } from '../../support/patch-codec.js';

const file = fileOfEachTest();

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
          const streams = await encodeSegments(file(), segments, { profile, pieceBytes });
          const targets = await decodeSegments(file(), streams, segments, { profile, pieceBytes, chunkBytes });
          expect(targets).toEqual(segments.flat().map(({ target }) => Buffer.from(target)));
        },
      ),
      { numRuns: 40 },
    );
  });

  test(`${profile}: threads change nothing`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(patchCase, { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 2 }), async (segments) => {
        const one = await encodeSegments(file(), segments, { profile, threads: 1 });
        const two = await encodeSegments(file(), segments, { profile, threads: 2 });
        expect(two).toEqual(one);
      }),
      { numRuns: 15 },
    );
  });

  test(`${profile}: literals that repeat others with changes come back, and cost what the changes do`, async () => {
    const words = Array.from({ length: 300 }, (_, at) => ((at * 2654435761) >>> 7).toString(36).slice(0, 2 + (at % 5)));
    const line = (at: number): string => `${words[(at * at) % 300] ?? ''}(${words[(at * 7) % 300] ?? ''}, "${words[(at * 31) % 300] ?? ''}");\n`;
    const text = Buffer.from(Array.from({ length: 1500 }, (_, at) => line(at)).join(''));
    // Changes come apart and close together, so that what seems likely is wrong after long matches and short ones.
    const changed = Buffer.from(text);
    let changes = 0;
    for (let at = 100, step = 1; at < changed.length; at += step, step = 1 + ((step * 13) % 211)) {
      changed[at] = (changed[at] ?? 0) ^ 1;
      changes++;
    }
    const one: PatchCase = { sources: [text.subarray(0, 500)], target: Buffer.concat([text, changed, text]), ops: [[text.length, 0, 20]] };
    one.target.set(text.subarray(0, 20), text.length);
    const streams = await encodeSegments(file(), [[one]], { profile });
    const [decoded] = await decodeSegments(file(), streams, [[one]], { profile, chunkBytes: 1000 });
    expect(decoded?.equals(Buffer.from(one.target))).toBe(true);
    const alone = await encodeSegments(file(), [[{ ...one, target: text, ops: [] }]], { profile });
    expect(streams[0]?.length).toBeLessThan((alone[0]?.length ?? 0) + 5 * changes);
  });

  test(`${profile}: large files across page boundaries, and a second segment that profits from the first`, async () => {
    const old = Buffer.alloc(200_000);
    for (let at = 0; at < old.length; at++) old[at] = ((at * 2654435761) >>> 13) & 0xff;
    const target = Buffer.from(old.subarray(100, 190_100));
    for (let at = 1000; at < target.length; at += 997) target.writeUInt32LE((target.readUInt32LE(at - 4) + at) >>> 0, at - 4);
    const literal = Buffer.from('the quick brown fox jumps over the lazy dog; '.repeat(1000));
    const one: PatchCase = { sources: [old], target: Buffer.concat([target, literal]), ops: [[0, 100, target.length]] };
    const streams = await encodeSegments(file(), [[one], [one]], { profile });
    expect(streams[0]?.length).toBeLessThan(2200);
    expect(streams[1]?.length).toBeLessThan((streams[0]?.length ?? 0) * 0.8);
    const targets = await decodeSegments(file(), streams, [[one], [one]], { profile });
    expect(targets.every((decoded) => decoded.equals(one.target))).toBe(true);
  });

  test(`${profile}: what is compressed already costs its size and little more, and what follows is modelled again`, async () => {
    const noise = Buffer.concat(Array.from({ length: 1250 }, (_, at) => createHash('sha256').update(String(at)).digest()));
    const text = Buffer.from(Array.from({ length: 4000 }, (_, at) => `line ${String(at)} of ${String((at * at) % 977)};\n`).join(''));
    const alone = (target: Buffer): PatchCase => ({ sources: [], target, ops: [] });
    const cost = async (target: Buffer): Promise<number> => {
      const streams = await encodeSegments(file(), [[alone(target)]], { profile });
      const [decoded] = await decodeSegments(file(), streams, [[alone(target)]], { profile, chunkBytes: 1000 });
      expect(decoded?.equals(target)).toBe(true);
      return streams[0]?.length ?? 0;
    };
    const [ofNoise, ofText, ofBoth] = [await cost(noise), await cost(text), await cost(Buffer.concat([noise, text]))];
    expect(ofNoise - noise.length).toBeLessThan(32);
    // At most one raw run reaches into the text.
    expect(ofBoth).toBeLessThan(ofNoise + ofText + 32_768);
  });
}

test('an unchanged file costs a handful of bytes', async () => {
  const old = Buffer.alloc(5_000_000, 'unchanged ');
  const streams = await encodeSegments(file(), [[{ sources: [old], target: old, ops: [[0, 0, old.length]] }]], { profile: 'small' });
  expect(streams[0]?.length).toBeLessThan(32);
});
