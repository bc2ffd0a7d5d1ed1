import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { isWhittleError } from '../../../src/core/errors.js';
import { parseDeltaIndex } from '../../../src/delta/index.js';
import { imagePair, MemorySink, noise, packTar, type TestFile } from '../../support/delta-images.js';
import { ImageDelta } from '../../support/image-delta.js';
import { tarBasis } from '../../support/tar-basis.js';

let dir = '';
beforeAll(() => { dir = mkdtempSync(join(tmpdir(), 'delta-')); });
afterAll(() => { rmSync(dir, { recursive: true, force: true }); });

test('any image is rebuilt bit for bit from any other', async () => {
  await fc.assert(fc.asyncProperty(imagePair, fc.constantFrom('small' as const, 'fast' as const), async ({ old, now }, profile) => {
    const made = await ImageDelta.make(dir, old, now, { profile });
    made.expectSame(await made.apply());
    made.close();
  }), { numRuns: 60 });
});

test('equal inputs give equal bytes, however many threads there are', async () => {
  await fc.assert(fc.asyncProperty(imagePair, async ({ old, now }) => {
    const [one, two] = [await ImageDelta.make(dir, old, now, { threads: 1 }), await ImageDelta.make(dir, old, now, { threads: 4 })];
    expect(two.delta.index.equals(one.delta.index)).toBe(true);
    expect(two.data.equals(one.data)).toBe(true);
    one.close();
    two.close();
  }), { numRuns: 10 });
});

const plain = (path: string, content: Buffer, mtimeSec = 1): TestFile => ({ path, content, mode: 0o644, mtimeSec });

test('a renamed, touched tree of equal files costs almost nothing', async () => {
  const files = Array.from({ length: 300 }, (_, index) => plain(`opt/app/d${String(index % 20)}/f${String(index)}`, noise(index, 2000)));
  const moved = files.map((file) => ({ ...file, path: file.path.replace('opt/app', 'srv/fleet/app'), mtimeSec: 99 }));
  const made = await ImageDelta.make(dir, [files], [moved]);
  const sink = await made.apply();
  expect(sink.copies).toHaveLength(300);
  expect(made.data.length).toBeLessThan(250);
  made.close();
});

/** The index too may be one that cannot be read. */
const applyIndex = async (made: ImageDelta, index: Buffer): Promise<MemorySink> => made.apply({ index: parseDeltaIndex(index) });

test('damaged bytes all over a delta end in a clear error', async () => {
  const old = Array.from({ length: 12 }, (_, index) => plain(`usr/lib/lib${String(index)}.so`, noise(index, 6000)));
  const now = old.map((file, index) => ({ ...file, content: Buffer.concat([file.content.subarray(0, 3000), noise(index + 50, 40), file.content.subarray(3000)]), mtimeSec: index }));
  const made = await ImageDelta.make(dir, [old], [now]);
  made.expectSame(await made.apply());
  const codes = new Set<string>();
  for (const region of [made.data, made.delta.index]) {
    for (let at = 0; at < region.length; at += region === made.data ? 13 : 1) {
      const damaged = Buffer.from(region);
      damaged[at] = (damaged[at] ?? 0) ^ (1 << (at % 8));
      const result = await (region === made.data ? made.apply({ data: damaged }) : applyIndex(made, damaged)).then((sink) => { made.expectSame(sink); return 'applied'; }, (error: unknown) => (isWhittleError(error) ? error.code : `not ours: ${String(error)}`));
      codes.add(result);
      // A flipped byte in the index may be one of a digest that only the caller compares (image digests, frames); one in the data may
      // say of a source that it is a list of checksums, in which there is then nothing to bring up to date.
      if (region === made.data) expect(result).toMatch(/^(applied|DELTA_CORRUPT|DELTA_MISMATCH|BASIS_DAMAGED)$/);
      else expect(result).toMatch(/^(applied|DELTA_CORRUPT|DELTA_MISMATCH|DELTA_VERSION|DELTA_WRONG_BASIS|BASIS_DAMAGED)$/);
    }
  }
  expect(codes).toContain('DELTA_CORRUPT');
  for (let length = 0; length < made.data.length; length += 61) await expect(made.apply({ data: made.data.subarray(0, length) })).rejects.toMatchObject({ code: 'DELTA_CORRUPT' });
  await expect(made.apply({ data: Buffer.concat([made.data, Buffer.from([0])]) })).rejects.toMatchObject({ code: 'DELTA_CORRUPT' });
  made.close();
}, 180_000);

test('a delta for another basis is refused before anything is handed over', async () => {
  const made = await ImageDelta.make(dir, [[plain('a', noise(1, 5000))]], [[plain('a', noise(1, 5001))]]);
  const other = tarBasis(dir, [await packTar([plain('a', noise(2, 5000))])]);
  const sink = new MemorySink();
  await expect(made.apply({ basis: other, sink })).rejects.toMatchObject({ code: 'DELTA_WRONG_BASIS' });
  expect(sink.layers.size + sink.written.size).toBe(0);
  other.close();
  made.close();
});
