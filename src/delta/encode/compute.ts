import { dirname } from 'node:path';
import { throwIfAborted } from '../../core/interruption.js';
import { deviceAddon } from '../../core/native.js';
import type { LayerEntry } from '../../tar/types.js';
import type { Basis } from '../basis.js';
import { checksumListBytes } from '../checksum-list.js';
import { collapseBytes, expandedSize } from '../expansion.js';
import { deltaFormatVersion } from '../format.js';
import { encodeDeltaIndex, type DeltaLayer, type DeltaProfile, type ImageDigests } from '../index-blob.js';
import type { ContentPlan, ContentRef } from '../plan.js';
import { DataWriter } from './data-writer.js';
import { HeldWrites } from './held-writes.js';
import { LayerMetas } from './layer-metas.js';
import { MatchQueue } from './match-queue.js';
import { Planner, type PatchPlan, type PlannedLayer } from './planner.js';
import { SegmentWriter } from './segment-writer.js';

/** What a delta is made from, and how. */
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

/** A delta that was made; its data blob is in the file that the options named. */
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

/** How often executables are matched again through their references: each time costs another match. */
const labelPasses = { small: 1, fast: 0 } as const;

interface Coded {
  readonly metaBytes: number;
  readonly largestBytes: number;
  readonly streams: Readonly<Record<string, number>>;
}

const computeDefaults = { memoryLimitBytes: 2 ** 30, frameBytes: 256 * 1024, threads: 2 } as const;

/** Memory beside matching: the codec's models and buffers, metadata, the runtime itself. */
const reservedBytes = 400 * 2 ** 20;

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
    throwIfAborted(options.signal);
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
      memoryBytes: deviceAddon().PatchDecoder.memoryBytes(this.options.profile) + coded.largestBytes + this.#largestFile(planned),
    });
    return { index, dataSizeBytes: this.data.sizeBytes, dataDigest: digest, report: this.#report(planned, coded) };
  }

  /** Plans and encodes the layers. Files are matched and coded from when they are planned on. */
  async #code(layers: readonly number[]): Promise<{ planned: readonly PlannedLayer[]; used: readonly number[]; coded: Coded }> {
    const { basis, target, signal } = this.options;
    const files = new MatchQueue({ basis, target, threads: this.#threads, labelPasses: labelPasses[this.options.profile], memoryBytes: this.#matchMemoryBytes, scratchDir: dirname(this.options.dataPath), ...(signal && { signal }) });
    const held = new HeldWrites();
    const stop = (error: unknown): never => {
      files.fail(error);
      held.fail(error);
      throw error;
    };
    const metas = new LayerMetas(this.options);
    const planning = this.#plan(layers, files).then(async (planned) => {
      metas.start(planned);
      await held.release();
    });
    const [plan, coding] = await Promise.allSettled([planning.catch(stop), this.#encode(layers, { files, held, metas }).catch(stop)]);
    await files.abandon();
    if (plan.status === 'rejected') throw plan.reason;
    if (coding.status === 'rejected') throw coding.reason;
    return { planned: metas.planned, used: metas.used, coded: { metaBytes: metas.metaBytes, largestBytes: Math.max(coding.value.largestBytes, metas.largestBytes), streams: coding.value.stats } };
  }

  async #plan(layers: readonly number[], files: MatchQueue): Promise<PlannedLayer[]> {
    const { basis, target, profile, signal } = this.options;
    const indexMemoryBytes = Math.min(this.#matchMemoryBytes / 2, 256 * 2 ** 20);
    files.hold(indexMemoryBytes);
    const onPatch = (layer: number, entry: number, { sources, expansion, checksums }: PatchPlan): void => {
      const sizeBytes = expandedSize(target.layers[layer]?.entries.at(entry)?.header.sizeBytes ?? 0, expansion);
      files.add({ layer, entry, sizeBytes, sources, expansion, checksums });
    };
    const planned = await new Planner({ basis, target, layers, profile, indexMemoryBytes, threads: this.#threads, onPatch, onLayerEnd: () => { files.endLayer(); }, ...(signal && { signal }) }).plan();
    files.hold(0);
    return planned;
  }

  async #encode(layers: readonly number[], { files, held, metas }: { files: MatchQueue; held: HeldWrites; metas: LayerMetas }): Promise<SegmentWriter> {
    const write = (numbers: readonly number[], bytes: Buffer): Promise<void> => held.put(bytes.length, () => this.data.write(numbers, bytes));
    const segments = new SegmentWriter(write, this.options.profile, this.#threads);
    let done = 0;
    try {
      for (const at of layers.keys()) {
        await held.put(0, async () => {
          const meta = metas.code(at);
          await this.data.write([meta.length], meta);
        });
        for (let file = await files.next(); file !== null; file = await files.next()) {
          done += file.task.sizeBytes;
          await segments.add(file);
          if (metas.patchedBytes > 0) this.options.onProgress?.(done, metas.patchedBytes);
        }
        await segments.finish();
      }
    } finally {
      await segments.close();
    }
    return segments;
  }

  /** Memory that the planned file takes beside its decoder that takes the most. */
  #largestFile(planned: readonly PlannedLayer[]): number {
    const list = ({ sources: [first], checksums }: PatchPlan): number => (first === undefined || checksums === null ? 0 : checksumListBytes(this.#record(first)?.header.sizeBytes ?? 0));
    const each = (plan: ContentPlan): number => (plan.kind === 'patch' ? Math.max(collapseBytes(plan.expansion), list(plan)) : 0);
    return planned.flatMap(({ plan }) => plan.content).reduce((most, plan) => Math.max(most, each(plan)), 0);
  }

  #record(ref: ContentRef): LayerEntry | undefined {
    return this.options[ref.from].layers[ref.layer]?.entries.at(ref.entry);
  }

  #report(planned: readonly PlannedLayer[], { metaBytes, streams }: Coded): ComputedDelta['report'] {
    const name = (ref: ContentRef): string => this.#record(ref)?.header.path.toString('utf8') ?? '';
    const patchedFiles = planned.flatMap(({ layer, plan }) => plan.content.flatMap((content, entry): FileReport[] => {
      const header = plan.meta.entries.at(entry)?.header;
      if (content.kind !== 'patch' || header === undefined) return [];
      return [{ layer, path: header.path.toString('utf8'), sizeBytes: header.sizeBytes, sources: content.sources.map(name) }];
    }));
    const copiedFiles = planned.reduce((sum, { plan }) => sum + plan.content.filter((content) => content.kind === 'copy').length, 0);
    return { metaBytes, contentBytes: this.data.sizeBytes - metaBytes, streams, copiedFiles, patchedFiles };
  }
}
