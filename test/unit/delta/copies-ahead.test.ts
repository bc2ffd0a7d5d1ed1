import { mkdtempSync, readFileSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { WhittleError } from '../../../src/core/errors.js';
import type { Basis, BasisBytes, BasisEntry } from '../../../src/delta/basis.js';
import { computeDelta, type ComputedDelta } from '../../../src/delta/encode/compute.js';
import { applyDelta, parseDeltaIndex } from '../../../src/delta/index.js';
import type { ContentOrigin } from '../../../src/delta/sink.js';
import { MemorySink, noise, packTar, type TestFile } from '../../support/delta-images.js';
import { tarBasis, type TarBasis } from '../../support/tar-basis.js';

const largest = 128 * 1024;
const files: TestFile[] = Array.from({ length: 700 }, (_, at) => ({
  path: `d${String(at % 7)}/f${String(at)}`, mode: 0o644, mtimeSec: 1000 + at, content: noise(at, at % 50 === 0 ? largest + at : at % 9 === 0 ? 0 : 1 + at * 13),
}));
const isSmall = ({ content }: TestFile): boolean => content.length > 0 && content.length <= largest;

let dir = '';
let old: TarBasis;
let target: TarBasis;
let delta: ComputedDelta;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'delta-'));
  old = tarBasis(dir, [await packTar(files)]);
  target = tarBasis(dir, [await packTar(files.map((file) => ({ ...file, mtimeSec: file.mtimeSec + 1 })))]);
  const image = { manifestDigest: `sha256:${'a'.repeat(64)}`, configDigest: `sha256:${'a'.repeat(64)}` };
  delta = await computeDelta({ basis: old, target, basisImage: image, targetImage: image, profile: 'fast', dataPath: join(dir, 'data'), threads: 1 });
});
afterAll(() => {
  old.close();
  target.close();
  rmSync(dir, { recursive: true, force: true });
});

class ContentSink extends MemorySink {
  readonly contents = new Map<number, Buffer>();

  override copyEntry(layer: number, entry: number, origin: ContentOrigin, content?: Buffer): Promise<void> {
    if (content !== undefined) this.contents.set(entry, Buffer.from(content));
    return super.copyEntry(layer, entry, origin);
  }
}

/** The old image as a basis that reads in groups into two buffers in turn, changed by `change`. */
function grouped(change: (entry: number, bytes: Buffer) => Buffer | undefined): { basis: Basis; hashed: Set<number> } {
  const scratch = [Buffer.alloc(1 << 20), Buffer.alloc(1 << 20)];
  const hashed = new Set<number>();
  let turn = 0;
  const readContents = async (wanted: readonly BasisEntry[]): Promise<(BasisBytes | undefined)[]> => {
    const into = scratch[turn = 1 - turn]?.fill(0xee) ?? Buffer.alloc(0);
    let used = 0;
    const read: (BasisBytes | undefined)[] = [];
    for (const { layer, entry } of wanted) {
      const { fd, extents, sizeBytes } = await old.openContent(layer, entry);
      const bytes = into.subarray(used, used += sizeBytes);
      readSync(fd, bytes, 0, sizeBytes, extents[0]?.offset ?? 0);
      const changed = change(entry, bytes);
      read.push(changed === undefined ? undefined : { bytes: changed, hashed: () => { hashed.add(entry); } });
    }
    return read;
  };
  return { basis: { layers: old.layers, openContent: (layer, entry) => old.openContent(layer, entry), readContents }, hashed };
}

async function apply(basis: Basis, sink = new ContentSink(), index = parseDeltaIndex(delta.index)): Promise<ContentSink> {
  const data = [readFileSync(join(dir, 'data'))];
  await applyDelta({ index, data: (async function* () { for (const part of data) yield await Promise.resolve(part); })(), basis, sink });
  return sink;
}

test('small contents come in groups, each given to the sink; the others are opened', async () => {
  const { basis, hashed } = grouped((_, bytes) => bytes);
  const { contents, copies } = await apply(basis);
  const small = [...files.entries()].filter(([, file]) => isSmall(file));
  expect([...hashed]).toEqual(small.map(([entry]) => entry));
  expect(copies).toHaveLength(files.filter(({ content }) => content.length > 0).length);
  expect(contents.size).toBe(small.length);
  for (const [entry, { content }] of small) expect(contents.get(entry)?.equals(content)).toBe(true);
});

test('a content that is not what its record says is BASIS_DAMAGED, and the layer is not ended', async () => {
  for (const make of [(bytes: Buffer) => Buffer.alloc(bytes.length, 1), (bytes: Buffer) => bytes.subarray(1)]) {
    const { basis } = grouped((entry, bytes) => (entry === 301 ? make(bytes) : bytes));
    const opened: number[] = [];
    const openContent: Basis['openContent'] = (layer, entry, options) => {
      if (options?.callerVerifies !== true) opened.push(entry);
      if (entry === 301 && options?.callerVerifies !== true) return Promise.reject(new WhittleError('BASIS_DAMAGED', 'entry 301', { data: { entry } }));
      return old.openContent(layer, entry);
    };
    const sink = new ContentSink();
    await expect(apply({ ...basis, openContent }, sink)).rejects.toMatchObject({ code: 'BASIS_DAMAGED', data: { entry: 301 } });
    expect(sink.layers.size).toBe(0);
    // Contents are only looked at by themselves to find out which is to blame.
    expect(opened.at(-1)).toBe(301);
  }
});

test('a layer that does not come out of a basis without damage is the delta\'s fault', async () => {
  const { basis } = grouped((_, bytes) => bytes);
  const sink = new ContentSink();
  const wrong = { ...parseDeltaIndex(delta.index), layers: [{ diffId: `sha256:${'b'.repeat(64)}`, how: 'delta' as const }] };
  await expect(apply(basis, sink, wrong)).rejects.toMatchObject({ code: 'DELTA_MISMATCH' });
  expect(sink.layers.size).toBe(0);
});

test('what cannot be read in a group is opened by itself', async () => {
  const some = grouped((entry, bytes) => (entry % 2 === 0 ? undefined : bytes));
  expect((await apply(some.basis)).copies).toHaveLength(files.filter(({ content }) => content.length > 0).length);
  const none: Basis = { ...some.basis, readContents: () => Promise.reject(new Error('no')) };
  expect((await apply(none)).contents.size).toBe(0);
});
