import { throwIfAborted } from '../../core/interruption.js';
import { serverAddon, type BlockIndex, type NativeContent } from '../../core/native.js';
import type { LayerEntry, LayerMeta } from '../../tar/types.js';
import type { Basis, BasisContent, BasisEntry } from '../basis.js';
import type { ChecksumList } from '../checksum-list.js';
import type { Expansion } from '../expansion.js';
import type { DeltaProfile } from '../index-blob.js';
import { deltaLimits } from '../limits.js';
import type { ContentPlan, ContentRef, LayerPlan } from '../plan.js';
import { nativeContent } from '../segments.js';
import { BrotliAhead, isBrotliName } from './brotli-ahead.js';
import { ChecksumLists } from './checksum-lists.js';
import { ContentIndex } from './content-index.js';
import { ExpandableFile } from './expander.js';
import { HeaderBases } from './header-bases.js';

/** What is planned, and what that may take. */
export interface PlannerOptions {
  readonly basis: Basis;
  readonly target: Basis;
  /** Indexes of the target layers to plan, ascending. */
  readonly layers: readonly number[];
  readonly profile: DeltaProfile;
  /** Memory for the index of the basis' contents. */
  readonly indexMemoryBytes: number;
  readonly threads: number;
  readonly signal?: AbortSignal;
  /** Told of each file that is to be differenced as soon as that is known, in the order of the plan. */
  readonly onPatch?: (layer: number, entry: number, plan: PatchPlan) => void;
  /** Told when a layer is planned. */
  readonly onLayerEnd?: () => void;
}

/** A file that is differenced. */
export type PatchPlan = Extract<ContentPlan, { kind: 'patch' }>;

/** A planned layer: contents, and the basis entry that each header is predicted from (null: none). */
export interface PlannedLayer {
  readonly layer: number;
  readonly plan: LayerPlan;
  readonly bases: readonly (ContentRef | null)[];
}

/** A file of the target whose turn it is, and what is known of the lists of checksums in its layer. */
interface PlannedFile extends BasisEntry {
  readonly record: LayerEntry;
  readonly lists: ChecksumLists;
}

/** What to difference a file against is decided by these. */
const tuning = {
  /** Smaller files are found by name only. */
  indexedBytes: 96,
  /** A file without a predecessor by name is differenced against a file that shares at least this part of it. */
  usefulShare: 0.04,
  /** Beside the predecessor by name another source is read when it shares this much more of the target … */
  betterShare: 0.25,
  /** … and this many bytes more: naming a source costs a few bytes, and it dilutes the search. */
  betterBytes: 512,
} as const;

/**
 * Decides for every entry of the target's rebuilt layers where its content comes from: an equal file anywhere in
 * the basis or earlier in the target, a difference against the most similar files, or nothing. Reads contents,
 * writes nothing. Deterministic.
 */
export class Planner {
  readonly #basisIndex = new ContentIndex('basis');
  readonly #targetIndex = new ContentIndex('target');
  readonly #bases: HeaderBases;
  readonly #packedBytes = { brotli: 0, decisions: 0 };
  #checksumListBytes = 0;
  /** Null in the fast profile: making a brotli stream again takes a device more time than that has for all else. */
  readonly #brotli: BrotliAhead | null;
  #blocks: { readonly index: BlockIndex; readonly refs: ContentRef[] } | null = null;

  constructor(private readonly options: PlannerOptions) {
    options.basis.layers.forEach((meta, layer) => { this.#basisIndex.addLayer(layer, meta); });
    this.#bases = new HeaderBases(options.basis.layers, this.#basisIndex);
    const isInBasis = (digest: Buffer): boolean => this.#basisIndex.withDigest(digest).length > 0;
    this.#brotli = options.profile === 'fast' ? null : new BrotliAhead({ ...options, isInBasis });
  }

  /** Plans all layers, in order. */
  async plan(): Promise<PlannedLayer[]> {
    const planned: PlannedLayer[] = [];
    try {
      for (const layer of this.options.layers) {
        const meta = this.options.target.layers[layer];
        if (meta === undefined) continue;
        planned.push(await this.#layer(layer, meta));
        this.options.onLayerEnd?.();
      }
      return planned;
    } finally {
      await this.#brotli?.abandon();
      this.#blocks?.index.clear();
      this.#blocks = null;
    }
  }

  async #layer(layer: number, meta: LayerMeta): Promise<PlannedLayer> {
    const content: ContentPlan[] = [];
    const bases: (ContentRef | null)[] = [];
    const lists = new ChecksumLists(this.options.target, layer, content);
    for (const [entry, record] of meta.entries.entries()) {
      throwIfAborted(this.options.signal);
      const plan = await this.#content({ layer, entry, record, lists });
      content.push(plan);
      if (plan.kind === 'patch') this.options.onPatch?.(layer, entry, plan);
      bases.push(this.#bases.choose(record, plan));
      this.#targetIndex.add(record.header.path.toString('latin1'), record.digest, { from: 'target', layer, entry });
    }
    return { layer, plan: { meta, content }, bases };
  }

  async #content(file: PlannedFile): Promise<ContentPlan> {
    const { record } = file;
    if (record.digest === null) return { kind: 'none' };
    const equal = this.#bases.nearest(this.#basisIndex.withDigest(record.digest), record.header.path) ?? this.#targetIndex.withDigest(record.digest).at(-1);
    if (equal !== undefined) return { kind: 'copy', origin: equal };
    return this.#patch(file);
  }

  async #patch(file: PlannedFile): Promise<ContentPlan> {
    const target = await this.options.target.openContent(file.layer, file.entry);
    try {
      const expandable = new ExpandableFile(target);
      return (await this.#packed(file, expandable)) ?? (await this.#differenced(file, target, expandable));
    } finally {
      await target.close();
    }
  }

  async #differenced({ layer, entry, record, lists }: PlannedFile, target: BasisContent, file: ExpandableFile): Promise<ContentPlan> {
    const sources = await this.#sources(layer, entry, record);
    const opened: BasisContent[] = [];
    try {
      for (const source of sources) opened.push(await this.options.basis.openContent(source.layer, source.entry, { callerVerifies: true }));
      const expansion = await file.expansion(opened, { mostDecidedBytes: deltaLimits.decidedTotalBytes - this.#packedBytes.decisions, threads: this.options.threads });
      if (expansion !== null) this.#mayPack('decisions', deltaLimits.decidedTotalBytes, expansion);
      const [first] = opened;
      const checksums = expansion !== null || first === undefined ? null : await this.#checksums(lists, entry, first, target);
      return { kind: 'patch', sources, expansion, checksums };
    } finally {
      for (const source of opened) await source.close();
    }
  }

  /** A compressed file beside the file that it holds is made of that. */
  async #packed({ layer, entry, record }: PlannedFile, file: ExpandableFile): Promise<ContentPlan | null> {
    const packed = isBrotliName(record) ? await this.#brotli?.take({ layer, entry }) : file.packed();
    if (packed === null || packed === undefined) return null;
    const plain = this.#bases.nearest(this.#basisIndex.withDigest(packed.plainDigest), record.header.path) ?? this.#targetIndex.withDigest(packed.plainDigest).at(-1);
    const expansion = plain === undefined ? null : await packed.expansion();
    if (plain === undefined || expansion === null) return null;
    if (!this.#mayPack('brotli', deltaLimits.brotliTotalBytes, expansion) || !this.#mayPack('decisions', deltaLimits.decidedTotalBytes, expansion)) return null;
    return { kind: 'patch', sources: [plain], expansion, checksums: null };
  }

  async #checksums(lists: ChecksumLists, entry: number, source: BasisContent, target: BasisContent): Promise<ChecksumList | null> {
    const { sizeBytes } = source;
    if (sizeBytes > deltaLimits.checksumListBytes || this.#checksumListBytes + sizeBytes > deltaLimits.checksumListTotalBytes) return null;
    const list = await lists.plan(entry, source, target);
    if (list !== null) this.#checksumListBytes += sizeBytes;
    return list;
  }

  /** Counts what streams of this kind hold; false when it would be more than all of them may. */
  #mayPack(kind: 'brotli' | 'decisions', mostBytes: number, expansion: Expansion): boolean {
    const bytes = expansion.deflated.reduce((sum, range) => sum + (range.packing.kind === kind ? range.sizeBytes : 0), this.#packedBytes[kind]);
    if (bytes > mostBytes) return false;
    this.#packedBytes[kind] = bytes;
    return true;
  }

  async #sources(layer: number, entry: number, record: LayerEntry): Promise<ContentRef[]> {
    const path = record.header.path.toString('latin1');
    const size = record.header.sizeBytes;
    const found = await this.#similar(layer, entry, size);
    const byName = this.#named(path, size);
    const best = found.find((candidate) => byName === undefined || !same(candidate.ref, byName));
    if (byName === undefined) return best !== undefined && best.share >= tuning.usefulShare ? [best.ref] : [];
    const namedShare = found.find((candidate) => same(candidate.ref, byName))?.share ?? 0;
    const gain = (best?.share ?? 0) - namedShare;
    return best !== undefined && gain >= tuning.betterShare && gain * size >= tuning.betterBytes ? [byName, best.ref] : [byName];
  }

  /** The basis file that by its name should be the predecessor. */
  #named(path: string, size: number): ContentRef | undefined {
    const withContent = (refs: readonly ContentRef[]): ContentRef[] => refs.filter((ref) => this.#size(ref) > 0);
    const exact = withContent(this.#basisIndex.withPath(path)).at(-1);
    if (exact !== undefined) return exact;
    const nearSize = (refs: ContentRef[]): ContentRef | undefined =>
      refs.length > 64 ? undefined : refs.sort((a, b) => Math.abs(this.#size(a) - size) - Math.abs(this.#size(b) - size))[0];
    return nearSize(withContent(this.#basisIndex.withShape(path))) ?? nearSize(withContent(this.#basisIndex.withName(path)));
  }

  #size(ref: ContentRef): number {
    return this.options.basis.layers[ref.layer]?.entries.at(ref.entry)?.header.sizeBytes ?? 0;
  }

  /** Basis files that share content with a target file, by the share of it that they may give. */
  async #similar(layer: number, entry: number, size: number): Promise<{ ref: ContentRef; share: number }[]> {
    if (size < tuning.indexedBytes) return [];
    const blocks = await this.#blockIndex();
    const content = await this.options.target.openContent(layer, entry);
    try {
      const pairs = await blocks.index.query(nativeContent(content));
      const found: { ref: ContentRef; share: number }[] = [];
      for (let at = 0; at + 1 < pairs.length; at += 2) {
        const ref = blocks.refs[pairs[at] ?? -1];
        if (ref !== undefined) found.push({ ref, share: (pairs[at + 1] ?? 0) / size });
      }
      return found;
    } finally {
      await content.close();
    }
  }

  /** An index of every distinct content of the basis as far as the target's new files ask for it, made when first wanted. */
  async #blockIndex(): Promise<{ readonly index: BlockIndex; readonly refs: ContentRef[] }> {
    if (this.#blocks !== null) return this.#blocks;
    const { basis, target, layers, indexMemoryBytes } = this.options;
    const isNew = ({ digest }: LayerEntry): boolean => digest !== null && this.#basisIndex.withDigest(digest).length === 0;
    const wanted = [...this.#distinct(target, layers, isNew)];
    const wantedBytes = wanted.reduce((sum, ref) => sum + (target.layers[ref.layer]?.entries.at(ref.entry)?.header.sizeBytes ?? 0), 0);
    const blocks = { index: new (serverAddon().BlockIndex)({ memoryLimitBytes: indexMemoryBytes, wantedBytes }), refs: [] as ContentRef[] };
    this.#blocks = blocks;
    for (const ref of wanted) await this.#read(target, ref, (content) => blocks.index.want(content));
    for (const ref of this.#distinct(basis, [...basis.layers.keys()])) {
      await this.#read(basis, ref, (content) => blocks.index.add(blocks.refs.length, content));
      blocks.refs.push({ from: 'basis', ...ref });
    }
    return blocks;
  }

  /** The entries whose content is worth looking up, each content once. */
  *#distinct(image: Basis, layers: readonly number[], counts: (record: LayerEntry) => boolean = () => true): Generator<BasisEntry> {
    const seen = new Set<string>();
    for (const layer of layers) {
      for (const [entry, record] of image.layers[layer]?.entries.entries() ?? []) {
        if (record.digest === null || record.header.sizeBytes < tuning.indexedBytes || !counts(record)) continue;
        const digest = record.digest.toString('latin1');
        if (seen.has(digest)) continue;
        seen.add(digest);
        yield { layer, entry };
      }
    }
  }

  async #read(image: Basis, { layer, entry }: BasisEntry, use: (content: NativeContent) => Promise<void>): Promise<void> {
    throwIfAborted(this.options.signal);
    const content = await image.openContent(layer, entry, { callerVerifies: true });
    try {
      await use(nativeContent(content));
    } finally {
      await content.close();
    }
  }
}

function same(a: ContentRef, b: ContentRef): boolean {
  return a.from === b.from && a.layer === b.layer && a.entry === b.entry;
}
