import { createHash, type Hash } from 'node:crypto';
import { tmpdir } from 'node:os';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isWhittleError, WhittleError } from '../core/errors.js';
import { throwIfAborted } from '../core/interruption.js';
import { entryHeaderBytes, entryPadding, trailerBytes, type PackedEntries } from '../tar/index.js';
import type { LayerEntry, LayerMeta } from '../tar/types.js';
import type { Basis, BasisBytes, BasisContent } from './basis.js';
import { BitDecoder, type BitPort } from './bits.js';
import { checksumListBytes, createMd5 } from './checksum-list.js';
import { chunksOf } from './content-chunks.js';
import { CopiesAhead } from './copies-ahead.js';
import { DataReader } from './data-reader.js';
import { collapseBytes, Collapser, expandedSize } from './expansion.js';
import { inflatedContent } from './inflated-content.js';
import type { DeltaIndex } from './index-blob.js';
import { deltaLimits } from './limits.js';
import { MetaCoder, type CodedLayer } from './meta-coder.js';
import type { ContentPlan, ContentRef, LayerPlan } from './plan.js';
import { RebuiltChecksums } from './rebuilt-checksums.js';
import { SegmentDecoder, type SegmentCodec } from './segments.js';
import type { TargetSink } from './sink.js';

/** What `applyDelta` works on. Nothing of it is closed. */
export interface ApplyOptions {
  readonly index: DeltaIndex;
  /** The data blob in order, verified; consumed as it is needed. */
  readonly data: AsyncIterable<Buffer>;
  /** Must hold every layer of `index.basisLayers`, in any order. */
  readonly basis: Basis;
  readonly sink: TargetSink;
  /** Where streams of compressed basis files are inflated to, in files without a name. Default: the system's temporary directory. */
  readonly scratchDir?: string;
  readonly signal?: AbortSignal;
  /** Keeps account of what the delta's bits are for. */
  readonly observer?: DecodeObserver;
}

/** Watches a delta being decoded, so that its cost can be told file by file. */
export interface DecodeObserver {
  /** Decodes segments in place of the device's decoder. */
  readonly codec?: SegmentCodec;
  /** What the tar metadata of a layer is read through: `bits`, or a port upon it. `sizeBytes`: of the coded metadata. */
  metadata?(layer: number, bits: BitDecoder, sizeBytes: number): BitPort;
  /** The plan of a layer was read. */
  planned?(layer: number, plan: LayerPlan): void;
  /** The content of this entry is decoded next. */
  entry?(layer: number, entry: number): void;
}

/** An entry of the target that is under way: `hash` is its layer's, which its content is to be added to. */
interface TargetEntry {
  readonly layer: number;
  readonly entry: number;
  readonly record: LayerEntry;
  readonly hash: Hash;
  readonly ahead: CopiesAhead;
  readonly checksums: RebuiltChecksums;
}

type PatchPlan = Extract<ContentPlan, { kind: 'patch' }>;

const chunkBytes = 256 * 1024;
const turnMs = 20;

/** What a damaged basis may look like, as its contents are only hashed together with what is made of them. */
const blamable: readonly string[] = ['DELTA_MISMATCH', 'DELTA_CORRUPT', 'BASIS_DAMAGED'];

/**
 * Rebuilds the layers that a delta carries, in manifest order, and hands them to the sink; each layer's tar is
 * hashed on the way and must have its diffID before `endLayer`. What the sink has on disk is the sink's promise.
 * Throws DELTA_WRONG_BASIS when a basis layer is not there, BASIS_DAMAGED when basis content is not what its
 * record says, DELTA_CORRUPT for malformed data, DELTA_MISMATCH when a layer comes out with another digest,
 * INTERRUPTED when `signal` aborts; and whatever `data`, `basis` and `sink` throw.
 */
export async function applyDelta(options: ApplyOptions): Promise<void> {
  const reader = new DataReader(options.data);
  try {
    await new Applier(options, reader).run();
    await reader.end();
  } catch (error) {
    await reader.close();
    throw error;
  }
}

class Applier {
  readonly #basisOrder: readonly number[];
  readonly #segments: SegmentDecoder;
  readonly #meta: MetaCoder;
  readonly #buffer = Buffer.allocUnsafeSlow(chunkBytes);
  readonly #rebuilt = new Map<number, PackedEntries>();
  #turnAt = performance.now();

  constructor(private readonly options: ApplyOptions, private readonly reader: DataReader) {
    const { index, basis } = options;
    this.#basisOrder = index.basisLayers.map((diffId) => {
      const found = basis.layers.findIndex((layer) => layer.diffId === diffId);
      if (found < 0) throw new WhittleError('DELTA_WRONG_BASIS', `the delta needs basis layer ${diffId}, which is not here`, { data: { diffId } });
      return found;
    });
    this.#meta = new MetaCoder(this.#basisOrder.map((layer) => basis.layers[layer]).filter((layer) => layer !== undefined));
    this.#segments = new SegmentDecoder(reader, index.profile, index.memoryBytes, options.observer?.codec);
  }

  async run(): Promise<void> {
    for (const [layer, { diffId, how }] of this.options.index.layers.entries()) {
      if (how === 'delta') await this.#layer(layer, diffId);
    }
    this.#segments.end();
  }

  async #layer(layer: number, diffId: string): Promise<void> {
    const size = await this.reader.varint(Math.min(deltaLimits.metaBytes, this.#segments.budgetBytes), 'tar metadata size');
    const coded = new BitDecoder(await this.reader.bytes(size));
    const port = this.options.observer?.metadata?.(layer, coded, size) ?? coded;
    const plan = fromDelta(() => this.#meta.layer(port, layer, diffId));
    this.options.observer?.planned?.(layer, plan);
    const { entries } = plan;
    this.#rebuilt.set(layer, entries);
    await this.options.sink.beginLayer(layer, plan.meta);
    const hash = createHash('sha256');
    try {
      await this.#contents(layer, plan, hash);
      for (const bytes of trailerBytes(plan.meta)) hash.update(bytes);
      this.#require(layer, plan, hash);
    } catch (error) {
      throw await this.#blame(plan, error);
    }
    await this.options.sink.endLayer(layer, plan.meta);
  }

  async #contents(layer: number, plan: CodedLayer, hash: Hash): Promise<void> {
    const { entries } = plan;
    const ahead = this.#copiesAhead(plan, entries);
    const checksums = new RebuiltChecksums(plan);
    try {
      for (let entry = 0; entry < plan.content.length; entry++) {
        const content = plan.content[entry];
        const record = entries.at(entry);
        if (content === undefined || record === undefined) break;
        hash.update(fromDelta(() => entryHeaderBytes(record)));
        if (content.kind !== 'none') entries.setDigest(entry, await this.#content({ layer, entry, record, hash, ahead, checksums }, content));
        const padding = entryPadding(record);
        if (padding.length > 0) hash.update(padding);
        if (this.#isTurn()) await this.#turn();
      }
    } finally {
      await ahead.close();
    }
  }

  /** Throws DELTA_MISMATCH unless the layer's tar has its diffID. */
  #require(layer: number, { meta }: LayerPlan, hash: Hash): void {
    const found = `sha256:${hash.digest('hex')}`;
    if (found === meta.diffId) return;
    throw new WhittleError('DELTA_MISMATCH', `layer ${String(layer)} came out as ${found} instead of ${meta.diffId}`, { data: { layer, found, expected: meta.diffId } });
  }

  #copiesAhead({ content }: LayerPlan, entries: PackedEntries): CopiesAhead {
    return new CopiesAhead(this.options.basis, {
      content, sizeBytes: (entry) => entries.sizeBytes(entry),
      origin: (entry) => {
        const plan = content[entry];
        return plan?.kind === 'copy' && plan.origin.from === 'basis' ? this.#origin(plan.origin) : null;
      },
    });
  }

  /** Makes the content of an entry, adds it to the layer's hash, and gives its digest. */
  async #content(target: TargetEntry, content: Exclude<ContentPlan, { kind: 'none' }>): Promise<Buffer> {
    if (content.kind === 'patch') return this.#patched(target, content);
    const { ahead, layer, entry } = target;
    if (!ahead.has(entry)) await ahead.reach(entry);
    const read = ahead.take(entry);
    // Without a wait where there is nothing to wait for: an image has tens of thousands of these.
    const known = this.#copiedNow(target, content.origin, read);
    const digest = known ?? await this.#copied(target, content.origin);
    await this.options.sink.copyEntry(layer, entry, this.#origin(content.origin), known === undefined ? undefined : read?.bytes);
    return digest;
  }

  /**
   * Adds content that is already there to the layer's hash; the sink links or copies it after. It is not compared with its record, as the
   * layer is with its diffID. Gives its digest.
   */
  async #copied({ record, hash }: TargetEntry, origin: ContentRef): Promise<Buffer> {
    const expected = this.#digest(origin);
    if (expected !== null) {
      await this.#hash([hash], origin, record);
      return expected;
    }
    const own = createHash('sha256');
    await this.#hash([hash, own], origin, record);
    return own.digest();
  }

  /** The same of content that is in memory and has a digest; undefined, and nothing done, of other. */
  #copiedNow({ record, hash }: TargetEntry, origin: ContentRef, read: BasisBytes | undefined): Buffer | undefined {
    const digest = read === undefined ? null : this.#digest(origin);
    if (read === undefined || digest === null) return undefined;
    if (read.bytes.length !== record.header.sizeBytes) throw damaged(origin);
    hash.update(read.bytes);
    read.hashed();
    return digest;
  }

  async #hash(hashes: readonly Hash[], origin: ContentRef, record: LayerEntry): Promise<void> {
    const content = await this.#open(origin);
    try {
      if (content.sizeBytes !== record.header.sizeBytes) throw damaged(origin);
      for (const chunk of chunksOf(content, this.#buffer, () => damaged(origin))) {
        for (const hash of hashes) hash.update(chunk);
        if (this.#isTurn()) await this.#turn();
      }
      content.hashed?.();
    } finally {
      await content.close();
    }
  }

  async #patched({ layer, entry, record, hash, checksums }: TargetEntry, plan: PatchPlan): Promise<Buffer> {
    this.options.observer?.entry?.(layer, entry);
    const own = createHash('sha256');
    const md5 = checksums.wantsMd5(entry) ? createMd5() : null;
    const give = async (chunk: Buffer): Promise<void> => {
      hash.update(chunk);
      own.update(chunk);
      md5?.update(chunk);
      await this.options.sink.writeEntry(layer, entry, chunk);
      if (this.#isTurn()) await this.#turn();
    };
    const collapser = new Collapser(plan.expansion?.deflated ?? [], give);
    const sources: BasisContent[] = [];
    try {
      await this.#openSources({ entry, checksums }, plan, sources);
      await this.#segments.file(sources, expandedSize(record.header.sizeBytes, plan.expansion), (chunk) => collapser.push(chunk));
    } finally {
      for (const source of sources) await source.close();
    }
    if (md5 !== null) checksums.setMd5(entry, Buffer.from(md5.digest()));
    const digest = own.digest();
    await this.options.sink.endEntry(layer, entry, digest);
    return digest;
  }

  /** Opens what a file is made from, into `sources`, which the caller closes, after an error too. */
  async #openSources({ entry, checksums }: Pick<TargetEntry, 'entry' | 'checksums'>, plan: PatchPlan, sources: BasisContent[]): Promise<void> {
    const { expansion, checksums: list } = plan;
    this.#requireMemory(collapseBytes(expansion));
    const scratchDir = this.options.scratchDir ?? tmpdir();
    for (const ref of plan.sources) sources.push(await this.#open(ref));
    if (expansion !== null && expansion.inflated.length > 0) sources.push(await inflatedContent(expansion.inflated, sources, scratchDir));
    const [first] = sources;
    if (list === null || first === undefined) return;
    this.#requireMemory(checksumListBytes(first.sizeBytes));
    sources[0] = await checksums.updated(entry, list, first, scratchDir);
    await first.close();
  }

  #requireMemory(bytes: number): void {
    if (bytes > this.#segments.budgetBytes) throw new WhittleError('DELTA_CORRUPT', 'making a file takes more memory than the delta declares');
  }

  #origin(ref: ContentRef): ContentRef {
    return ref.from === 'basis' ? { ...ref, layer: this.#basisOrder[ref.layer] ?? -1 } : ref;
  }

  #digest(ref: ContentRef): Buffer | null {
    if (ref.from === 'target') return this.#rebuilt.get(ref.layer)?.at(ref.entry)?.digest ?? null;
    const meta: LayerMeta | undefined = this.options.basis.layers[this.#basisOrder[ref.layer] ?? -1];
    return meta?.entries.at(ref.entry)?.digest ?? null;
  }

  async #open(ref: ContentRef): Promise<BasisContent> {
    const { layer, entry } = this.#origin(ref);
    if (ref.from === 'target') return this.options.sink.openContent(layer, entry);
    return this.options.basis.openContent(layer, entry, { callerVerifies: true });
  }

  /**
   * Why a layer did not come out as it should: BASIS_DAMAGED for the first content of the basis in `plan` that is not what its record
   * says, and `error` when all of it is.
   */
  async #blame({ content }: LayerPlan, error: unknown): Promise<unknown> {
    if (!isWhittleError(error) || !blamable.includes(error.code)) return error;
    try {
      for (const ref of content.flatMap(refsOf)) {
        const { from, layer, entry } = this.#origin(ref);
        if (from === 'target') continue;
        await (await this.options.basis.openContent(layer, entry)).close();
        if (this.#isTurn()) await this.#turn();
      }
    } catch (cause) {
      return cause;
    }
    return error;
  }

  #isTurn(): boolean {
    return performance.now() - this.#turnAt >= turnMs;
  }

  /** Lets timers and the network run now and then, and stops when asked. */
  async #turn(): Promise<void> {
    await nextTurn();
    this.#turnAt = performance.now();
    throwIfAborted(this.options.signal);
  }
}

/** What the content of an entry is made from. */
function refsOf(content: ContentPlan): readonly ContentRef[] {
  if (content.kind === 'none') return [];
  return content.kind === 'copy' ? [content.origin] : content.sources;
}

/** Headers that cannot be are the delta's fault here, not a tar's. */
function fromDelta<T>(action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (isWhittleError(error) && error.code === 'TAR_CORRUPT') throw new WhittleError('DELTA_CORRUPT', `the delta's tar metadata is malformed: ${error.message}`, { cause: error });
    throw error;
  }
}

function damaged(origin: ContentRef): WhittleError {
  const { from, layer, entry } = origin;
  return new WhittleError('BASIS_DAMAGED', `content of entry ${String(entry)} of ${from} layer ${String(layer)} is not what its record says`, { data: { from, layer, entry } });
}
