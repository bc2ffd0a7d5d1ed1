import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { isWhittleError } from '../../../src/core/errors.js';
import { computeDelta, type ComputedDelta } from '../../../src/delta/encode/compute.js';
import { applyDelta, parseDeltaIndex } from '../../../src/delta/index.js';
import { joinHeader } from '../../../src/tar/index.js';
import { imagePair, MemorySink, noise, packTar, type TestFile } from '../../support/delta-images.js';
import { tarBasis, type TarBasis } from '../../support/tar-basis.js';

let dir = '';
beforeAll(() => { dir = mkdtempSync(join(tmpdir(), 'delta-')); });
afterAll(() => { rmSync(dir, { recursive: true, force: true }); });

const digests = (letter: string): { manifestDigest: string; configDigest: string } => ({ manifestDigest: `sha256:${letter.repeat(64)}`, configDigest: `sha256:${letter.repeat(64)}` });

interface Made {
  readonly basis: TarBasis;
  readonly target: TarBasis;
  readonly delta: ComputedDelta;
  readonly data: Buffer;
}

async function make(old: readonly TestFile[][], now: readonly TestFile[][], options: { profile?: 'small' | 'fast'; threads?: number } = {}): Promise<Made> {
  const basis = tarBasis(dir, await Promise.all(old.map(packTar)));
  const target = tarBasis(dir, await Promise.all(now.map(packTar)));
  const dataPath = join(dir, 'data');
  const delta = await computeDelta({ basis, target, basisImage: digests('a'), targetImage: digests('b'), profile: options.profile ?? 'small', dataPath, threads: options.threads ?? 2, frameBytes: 1000 });
  return { basis, target, delta, data: readFileSync(dataPath) };
}

async function* inPieces(data: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < data.length; at += size) yield await Promise.resolve(data.subarray(at, at + size));
}

async function apply(made: Made, data = made.data, index = made.delta.index): Promise<MemorySink> {
  const sink = new MemorySink();
  sink.openTarget = (layer, entry) => made.target.openContent(layer, entry);
  await applyDelta({ index: parseDeltaIndex(index), data: inPieces(data, 777), basis: made.basis, sink });
  return sink;
}

function expectSame(made: Made, sink: MemorySink): void {
  const held = new Set(made.basis.layers.map((layer) => layer.diffId));
  made.target.layers.forEach((meta, layer) => {
    const got = sink.layers.get(layer);
    expect(got === undefined).toBe(held.has(meta.diffId));
    if (got === undefined) return;
    expect([...got.entries].map((record) => record.digest?.toString('hex'))).toEqual([...meta.entries].map((record) => record.digest?.toString('hex')));
    expect([...got.entries].map((record) => joinHeader(record.header))).toEqual([...meta.entries].map((record) => joinHeader(record.header)));
    expect(got.sizeBytes).toBe(meta.sizeBytes);
  });
}

const close = (made: Made): void => { made.basis.close(); made.target.close(); };

test('any image is rebuilt bit for bit from any other', async () => {
  await fc.assert(fc.asyncProperty(imagePair, fc.constantFrom('small' as const, 'fast' as const), async ({ old, now }, profile) => {
    const made = await make(old, now, { profile });
    expectSame(made, await apply(made));
    close(made);
  }), { numRuns: 60 });
});

test('equal inputs give equal bytes, however many threads there are', async () => {
  await fc.assert(fc.asyncProperty(imagePair, async ({ old, now }) => {
    const [one, two] = [await make(old, now, { threads: 1 }), await make(old, now, { threads: 4 })];
    expect(two.delta.index.equals(one.delta.index)).toBe(true);
    expect(two.data.equals(one.data)).toBe(true);
    close(one);
    close(two);
  }), { numRuns: 10 });
});

const plain = (path: string, content: Buffer, mtimeSec = 1): TestFile => ({ path, content, mode: 0o644, mtimeSec });

test('a renamed, touched tree of equal files costs almost nothing', async () => {
  const files = Array.from({ length: 300 }, (_, index) => plain(`opt/app/d${String(index % 20)}/f${String(index)}`, noise(index, 2000)));
  const moved = files.map((file) => ({ ...file, path: file.path.replace('opt/app', 'srv/fleet/app'), mtimeSec: 99 }));
  const made = await make([files], [moved]);
  const sink = await apply(made);
  expect(sink.copies).toHaveLength(300);
  expect(made.data.length).toBeLessThan(250);
  close(made);
});

test('damaged bytes all over a delta end in a clear error', async () => {
  const old = Array.from({ length: 12 }, (_, index) => plain(`usr/lib/lib${String(index)}.so`, noise(index, 6000)));
  const now = old.map((file, index) => ({ ...file, content: Buffer.concat([file.content.subarray(0, 3000), noise(index + 50, 40), file.content.subarray(3000)]), mtimeSec: index }));
  const made = await make([old], [now]);
  expectSame(made, await apply(made));
  const codes = new Set<string>();
  for (const region of [made.data, made.delta.index]) {
    for (let at = 0; at < region.length; at += region === made.data ? 13 : 1) {
      const damaged = Buffer.from(region);
      damaged[at] = (damaged[at] ?? 0) ^ (1 << (at % 8));
      const result = await (region === made.data ? apply(made, damaged) : apply(made, made.data, damaged)).then((sink) => { expectSame(made, sink); return 'applied'; }, (error: unknown) => (isWhittleError(error) ? error.code : `not ours: ${String(error)}`));
      codes.add(result);
      // A flipped byte in the index may be one of a digest that only the caller compares (image digests, frames); one in the data may
      // say of a source that it is a list of checksums, in which there is then nothing to bring up to date.
      if (region === made.data) expect(result).toMatch(/^(applied|DELTA_CORRUPT|DELTA_MISMATCH|BASIS_DAMAGED)$/);
      else expect(result).toMatch(/^(applied|DELTA_CORRUPT|DELTA_MISMATCH|DELTA_VERSION|DELTA_WRONG_BASIS|BASIS_DAMAGED)$/);
    }
  }
  expect(codes).toContain('DELTA_CORRUPT');
  for (let length = 0; length < made.data.length; length += 61) await expect(apply(made, made.data.subarray(0, length))).rejects.toMatchObject({ code: 'DELTA_CORRUPT' });
  await expect(apply(made, Buffer.concat([made.data, Buffer.from([0])]))).rejects.toMatchObject({ code: 'DELTA_CORRUPT' });
  close(made);
}, 180_000);

test('a delta for another basis is refused before anything is handed over', async () => {
  const made = await make([[plain('a', noise(1, 5000))]], [[plain('a', noise(1, 5001))]]);
  const other = tarBasis(dir, [await packTar([plain('a', noise(2, 5000))])]);
  const sink = new MemorySink();
  await expect(applyDelta({ index: parseDeltaIndex(made.delta.index), data: inPieces(made.data, 100), basis: other, sink })).rejects.toMatchObject({ code: 'DELTA_WRONG_BASIS' });
  expect(sink.layers.size + sink.written.size).toBe(0);
  other.close();
  close(made);
});
