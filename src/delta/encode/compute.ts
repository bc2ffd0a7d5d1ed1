import { dirname } from 'node:path';
import { WhittleError } from '../../core/errors.js';
import { deviceAddon } from '../../core/native.js';
import type { Basis } from '../basis.js';
import { expandedSize } from '../expansion.js';
import { deltaFormatVersion, encodeDeltaIndex, type DeltaLayer, type DeltaProfile, type ImageDigests } from '../index-blob.js';
import { MetaCoder, type LayerInput } from '../meta-coder.js';
import type { ContentPlan, ContentRef } from '../plan.js';
import { BitEncoder } from './bit-encoder.js';
import { DataWriter } from './data-writer.js';
import { MatchQueue } from './match-queue.js';
import { Planner, type PatchPlan, type PlannedLayer } from './planner.js';
import { SegmentWriter } from './segment-writer.js';

export interface ComputeOptions {
  readonly basis: Basis;
  /** The target image, seen as a basis is: all its layers in manifest order. */
  readonly target: Basis;
  readonly basisImage: ImageDigests;
  readonly targetImage: ImageDigests;
  readonly profile: DeltaProfile;
  /** Bound of the memory that matching and indexing take. Default 1 GiB. */
  readonly memoryLimitBytes?: number;
  /** Where the data blob is written; the caller owns the file, also after an error. Its directory takes scratch files without a name. */
  readonly dataPath: string;
  /** Size of a frame. Default 256 KiB. */
  readonly frameBytes?: number;
  readonly threads?: number;
  readonly signal?: AbortSignal;
  /** Called with target bytes coded so far, of all that is to be coded. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** What a file of the target became, for reports. */
export interface FileReport {
  readonly layer: number;
  readonly path: string;
  readonly sizeBytes: number;
  readonly sources: readonly string[];
}

export interface ComputedDelta {
  readonly index: Buffer;
  readonly dataSizeBytes: number;
  readonly dataDigest: string;
  readonly report: {
    /** Coded size of all tar metadata. */
    readonly metaBytes: number;
    /** Coded size of all patched content. */
    readonly contentBytes: number;
    /** The codec's counts and sizes by kind of stream. */
    readonly streams: Readonly<Record<string, number>>;
    readonly copiedFiles: number;
    readonly patchedFiles: readonly FileReport[];
  };
}

interface Coded {
  readonly metaBytes: number;
  readonly largestBytes: number;
  readonly streams: Readonly<Record<string, number>>;
}

export const computeDefaults = { memoryLimitBytes: 2 ** 30, frameBytes: 256 * 1024, threads: 2 } as const;

/** Memory beside matching: the codec's models and buffers, metadata, the runtime itself. */
const reservedBytes = 256 * 2 ** 20;

/**
 * Computes the delta that turns the basis image into the target: writes the data blob to `dataPath` (not synced)
 * and returns the index blob. Identical inputs and options give identical bytes, whatever `threads` is. Throws
 * INTERRUPTED when `signal` aborts, and what reading the images throws.
 */
export async function computeDelta(options: ComputeOptions): Promise<ComputedDelta> {
  const data = await DataWriter.open(options.dataPath, options.frameBytes ?? computeDefaults.frameBytes);
  try {
    return await new DeltaComputer(options, data).run();
  } catch (error) {
    await data.abandon();
    if (options.signal?.aborted === true) throw new WhittleError('INTERRUPTED', 'stopped while computing the delta', { cause: error });
    throw error;
  }
}

class DeltaComputer {
  readonly #matchMemoryBytes: number;
  readonly #threads: number;

  constructor(private readonly options: ComputeOptions, private readonly data: DataWriter) {
    const limit = options.memoryLimitBytes ?? computeDefaults.memoryLimitBytes;
    this.#matchMemoryBytes = Math.max(limit - reservedBytes, limit / 4);
    this.#threads = options.threads ?? computeDefaults.threads;
  }

  async run(): Promise<ComputedDelta> {
    const { basis, target } = this.options;
    const held = new Set(basis.layers.map((layer) => layer.diffId));
    const layers = target.layers.map((meta): DeltaLayer => ({ diffId: meta.diffId, how: held.has(meta.diffId) ? 'basis' : 'delta' }));
    const rebuilt = [...layers.keys()].filter((layer) => layers[layer]?.how === 'delta');
    const { planned, used, coded } = await this.#code(rebuilt);
    const { frames, digest } = await this.data.finish();
    const index = encodeDeltaIndex({
      version: deltaFormatVersion, profile: this.options.profile, basis: this.options.basisImage, target: this.options.targetImage, layers,
      basisLayers: used.map((layer) => basis.layers[layer]?.diffId ?? ''), frames, dataSizeBytes: this.data.sizeBytes,
      memoryBytes: deviceAddon().PatchDecoder.memoryBytes(this.options.profile) + coded.largestBytes,
    });
    return { index, dataSizeBytes: this.data.sizeBytes, dataDigest: digest, report: this.#report(planned, coded) };
  }

  /** Plans and encodes the layers. Files are matched from when they are planned on. */
  async #code(layers: readonly number[]): Promise<{ planned: readonly PlannedLayer[]; used: readonly number[]; coded: Coded }> {
    const { basis, target, signal } = this.options;
    const files = new MatchQueue({ basis, target, threads: this.#threads, memoryBytes: this.#matchMemoryBytes, scratchDir: dirname(this.options.dataPath), ...(signal && { signal }) });
    try {
      const planned = await this.#plan(layers, files);
      const used = usedLayers(planned, basis.layers.length);
      return { planned, used, coded: await this.#encode(planned, used, files) };
    } finally {
      await files.abandon();
    }
  }

  async #plan(layers: readonly number[], files: MatchQueue): Promise<PlannedLayer[]> {
    const { basis, target, profile, signal } = this.options;
    const indexMemoryBytes = Math.min(this.#matchMemoryBytes / 2, 256 * 2 ** 20);
    files.hold(indexMemoryBytes);
    const onPatch = (layer: number, entry: number, { sources, expansion }: PatchPlan): void => {
      const sizeBytes = expandedSize(target.layers[layer]?.entries.at(entry)?.header.sizeBytes ?? 0, expansion);
      files.add({ layer, entry, sizeBytes, sources, expansion });
    };
    const planned = await new Planner({ basis, target, layers, profile, indexMemoryBytes, onPatch, ...(signal && { signal }) }).plan();
    files.hold(0);
    return planned;
  }

  async #encode(planned: readonly PlannedLayer[], used: readonly number[], files: MatchQueue): Promise<Coded> {
    const { basis, profile } = this.options;
    const total = planned.reduce((sum, layer) => sum + patchedBytes(layer), 0);
    const segments = new SegmentWriter(this.data, profile, this.#threads);
    const metas = new MetaCoder(used.map((layer) => basis.layers[layer]).filter((meta) => meta !== undefined));
    let metaBytes = 0;
    let largestMeta = 0;
    let done = 0;
    try {
      for (const layer of planned) {
        const meta = this.#meta(metas, layer, used);
        metaBytes += meta.length;
        largestMeta = Math.max(largestMeta, meta.length);
        await this.data.write([meta.length], meta);
        for (const content of layer.plan.content) {
          const file = content.kind === 'patch' ? await files.next() : null;
          if (file === null) continue;
          await segments.add(file);
          this.options.onProgress?.((done += file.task.sizeBytes), total);
        }
        await segments.finish();
      }
    } finally {
      await segments.close();
    }
    return { metaBytes, largestBytes: Math.max(segments.largestBytes, largestMeta), streams: segments.stats };
  }

  #meta(coder: MetaCoder, { layer, plan, bases }: PlannedLayer, used: readonly number[]): Buffer {
    const moved = (ref: ContentRef): ContentRef => (ref.from === 'basis' ? { ...ref, layer: used.indexOf(ref.layer) } : ref);
    const content = plan.content.map((one): ContentPlan => {
      if (one.kind === 'copy') return { kind: 'copy', origin: moved(one.origin) };
      return one.kind === 'patch' ? { ...one, sources: one.sources.map(moved) } : one;
    });
    const ordinals = Int32Array.from(bases, (base) => (base === null ? -1 : coder.basis.ordinal(used.indexOf(base.layer), base.entry)));
    const input: LayerInput = { plan: { meta: plan.meta, content }, bases: ordinals };
    const bits = new BitEncoder();
    coder.layer(bits, layer, plan.meta.diffId, input);
    return bits.finish();
  }

  #report(planned: readonly PlannedLayer[], { metaBytes, streams }: Coded): ComputedDelta['report'] {
    const name = (ref: ContentRef): string => this.options[ref.from].layers[ref.layer]?.entries.at(ref.entry)?.header.path.toString('utf8') ?? '';
    const patchedFiles = planned.flatMap(({ layer, plan }) => plan.content.flatMap((content, entry): FileReport[] => {
      const header = plan.meta.entries.at(entry)?.header;
      if (content.kind !== 'patch' || header === undefined) return [];
      return [{ layer, path: header.path.toString('utf8'), sizeBytes: header.sizeBytes, sources: content.sources.map(name) }];
    }));
    const copiedFiles = planned.reduce((sum, { plan }) => sum + plan.content.filter((content) => content.kind === 'copy').length, 0);
    return { metaBytes, contentBytes: this.data.sizeBytes - metaBytes, streams, copiedFiles, patchedFiles };
  }
}

/** Size of the files of a layer that are differenced, expanded. */
function patchedBytes({ plan }: PlannedLayer): number {
  return plan.content.reduce((sum, content, entry) => sum + (content.kind === 'patch' ? expandedSize(plan.meta.entries.at(entry)?.header.sizeBytes ?? 0, content.expansion) : 0), 0);
}

/** Basis layers that the plans read or predict from, ascending. */
function usedLayers(planned: readonly PlannedLayer[], count: number): number[] {
  const used = new Array<boolean>(count).fill(false);
  const mark = (ref: ContentRef | null): void => {
    if (ref?.from === 'basis') used[ref.layer] = true;
  };
  for (const { plan, bases } of planned) {
    bases.forEach(mark);
    for (const content of plan.content) {
      if (content.kind === 'copy') mark(content.origin);
      else if (content.kind === 'patch') content.sources.forEach(mark);
    }
  }
  return [...used.keys()].filter((layer) => used[layer] === true);
}
