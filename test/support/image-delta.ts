import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from '@jest/globals';
import { computeDelta, type ComputedDelta } from '../../src/delta/encode/compute.js';
import { applyDelta, parseDeltaIndex, type DeltaIndex } from '../../src/delta/index.js';
import { joinHeader } from '../../src/tar/index.js';
import { MemorySink, packTar, type TestFile } from './delta-images.js';
import { tarBasis, type TarBasis } from './tar-basis.js';

export interface DeltaOptions {
  readonly profile?: 'small' | 'fast';
  readonly threads?: number;
}

/** Files with contents, in the order of their names. */
export function treeOf(contents: Record<string, Buffer>): TestFile[] {
  return Object.entries(contents).map(([path, content]) => ({ path, content, mode: 0o644, mtimeSec: 1 }));
}

const digests = (letter: string): { manifestDigest: string; configDigest: string } => ({ manifestDigest: `sha256:${letter.repeat(64)}`, configDigest: `sha256:${letter.repeat(64)}` });

async function* inPieces(data: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < data.length; at += size) yield await Promise.resolve(data.subarray(at, at + size));
}

/** The delta between two images of made-up layers, with its files in `dir`. */
export class ImageDelta {
  private constructor(private readonly dir: string, readonly basis: TarBasis, readonly target: TarBasis, readonly delta: ComputedDelta, readonly data: Buffer) {}

  static async make(dir: string, old: readonly (readonly TestFile[])[], now: readonly (readonly TestFile[])[], { profile = 'small', threads = 2 }: DeltaOptions = {}): Promise<ImageDelta> {
    const basis = tarBasis(dir, await Promise.all(old.map(packTar)));
    const target = tarBasis(dir, await Promise.all(now.map(packTar)));
    const dataPath = join(dir, 'data');
    const delta = await computeDelta({ basis, target, basisImage: digests('a'), targetImage: digests('b'), profile, dataPath, threads, frameBytes: 1000 });
    return new ImageDelta(dir, basis, target, delta, readFileSync(dataPath));
  }

  get index(): DeltaIndex {
    return parseDeltaIndex(this.delta.index);
  }

  /** Applies it, or what a test has made of it, and gives what came out. */
  async apply({ data = this.data, index = this.index, basis = this.basis, sink = new MemorySink() }: { data?: Buffer; index?: DeltaIndex; basis?: TarBasis; sink?: MemorySink } = {}): Promise<MemorySink> {
    sink.openTarget = (layer, entry) => this.target.openContent(layer, entry);
    await applyDelta({ index, data: inPieces(data, 777), basis, sink, scratchDir: this.dir });
    return sink;
  }

  /** Sees to it that what came out are the target's layers that the basis has not. */
  expectSame(sink: MemorySink): void {
    const held = new Set(this.basis.layers.map((layer) => layer.diffId));
    this.target.layers.forEach((meta, layer) => {
      const got = sink.layers.get(layer);
      expect(got === undefined).toBe(held.has(meta.diffId));
      if (got === undefined) return;
      expect([...got.entries].map((record) => record.digest?.toString('hex'))).toEqual([...meta.entries].map((record) => record.digest?.toString('hex')));
      expect([...got.entries].map((record) => joinHeader(record.header))).toEqual([...meta.entries].map((record) => joinHeader(record.header)));
      expect(got.sizeBytes).toBe(meta.sizeBytes);
    });
  }

  close(): void {
    this.basis.close();
    this.target.close();
  }
}

/** Size of the delta's data from one layer (null: none) to another, which is applied and compared. */
export async function layerDeltaBytes(dir: string, old: readonly TestFile[] | null, now: readonly TestFile[], options: DeltaOptions = {}): Promise<number> {
  const made = await ImageDelta.make(dir, old === null ? [] : [old], [now], options);
  made.expectSame(await made.apply());
  made.close();
  return made.data.length;
}
