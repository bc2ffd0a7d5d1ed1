import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from '@jest/globals';
import { computeDelta } from '../../src/delta/encode/compute.js';
import { applyDelta, parseDeltaIndex, type DeltaIndex } from '../../src/delta/index.js';
import { MemorySink, packTar, type TestFile } from './delta-images.js';
import { tarBasis } from './tar-basis.js';

const image = { manifestDigest: '', configDigest: `sha256:${'1'.repeat(64)}` };

/** Files with contents, in the order of their names. */
export function treeOf(contents: Record<string, Buffer>): TestFile[] {
  return Object.entries(contents).map(([path, content]) => ({ path, content, mode: 0o644, mtimeSec: 1 }));
}

export interface TreeDelta {
  readonly dataSizeBytes: number;
  readonly index: DeltaIndex;
  /** Applies it once more, with the index changed. */
  apply(changes?: Partial<DeltaIndex>): Promise<void>;
  close(): void;
}

/** The delta from one layer to another, which is applied in `dir` and compared, by its layer's digest and file by file. The caller closes it. */
export async function treeDelta(dir: string, old: readonly TestFile[] | null, now: readonly TestFile[], { profile = 'small', threads = 2 }: { profile?: 'small' | 'fast'; threads?: number } = {}): Promise<TreeDelta> {
  const basis = tarBasis(dir, old === null ? [] : [await packTar(old)]);
  const target = tarBasis(dir, [await packTar(now)]);
  const dataPath = join(dir, 'data');
  const delta = await computeDelta({ basis, target, basisImage: image, targetImage: image, profile, dataPath, threads });
  const bytes = readFileSync(dataPath);
  const index = parseDeltaIndex(delta.index);
  const apply = async (changes: Partial<DeltaIndex> = {}): Promise<void> => {
    const sink = new MemorySink();
    sink.openTarget = (layer, entry) => target.openContent(layer, entry);
    const data = (async function* (): AsyncGenerator<Buffer> { yield await Promise.resolve(bytes); })();
    await applyDelta({ index: { ...index, ...changes }, data, basis, sink, scratchDir: dir });
    for (const [entry, { content }] of now.entries()) {
      const written = sink.written.get(`0/${String(entry)}`);
      if (written !== undefined) expect(Buffer.concat(written).equals(content)).toBe(true);
    }
    expect(sink.layers.size).toBe(1);
  };
  await apply();
  return { dataSizeBytes: delta.dataSizeBytes, index, apply, close: () => { basis.close(); target.close(); } };
}
