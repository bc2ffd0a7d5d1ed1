import type { DurableFs } from '../../atomic/index.js';
import { isWhittleError, WhittleError } from '../../core/errors.js';
import { throwIfAborted } from '../../core/interruption.js';
import type { BasisContent } from '../../delta/basis.js';
import type { ContentOrigin, TargetSink } from '../../delta/sink.js';
import { LayerMetaBuilder, type LayerMeta, type TarHeader } from '../../tar/index.js';
import type { LayersBasis } from './basis.js';
import type { WriterCounters } from './file-sink.js';
import { contentPlace, type ContentPlace, type Layer } from './layer.js';
import type { LayerTree } from './layer-tree.js';
import { LayerWriter } from './layer-writer.js';
import { LinkRule, type CopyOrigin } from './link-rule.js';
import { sparseLayout } from './sparse.js';
import { diffIdAt, requireDiffId } from './target.js';

/** Where a target's layers are built, and what of them is there already. Layers are known by their diffIDs. */
export interface BuildingSite {
  /** Reaches the layers and the basis; asked for only when there is one. */
  readonly fs: DurableFs;
  /** Layers are extracted with owners and devices. */
  readonly privileged: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly counters: WriterCounters;
  /** The layer when it needs no more work. */
  whole(diffId: string): Promise<Layer | undefined>;
  /** Makes room for a layer, or takes over what an interrupted pull left of it: its directory below `fs`, and whether that is empty. */
  room(diffId: string): Promise<{ readonly path: string; readonly fresh: boolean }>;
  /** The layer was written and has its diffID. It is not durable yet. */
  built(diffId: string): void;
  /** What arrived was not the layer, and is of no use. */
  refused(diffId: string): Promise<void>;
}

/** A layer of the target while and after it is rebuilt. */
interface BuiltLayer {
  /** Null when the layer is whole. */
  writer: LayerWriter | null;
  readonly path: string;
  readonly tree: LayerTree;
  meta: LayerMeta;
  next: number;
}

/**
 * Builds the layers of one target as extracted files, from full tars or as a delta's sink. Entries of a layer come in order.
 * What it writes is as durable as the site makes it.
 */
export class LayerBuilder implements TargetSink {
  readonly #layers = new Map<string, BuiltLayer>();
  readonly #links: LinkRule;
  #basis: LayersBasis | null = null;

  constructor(private readonly site: BuildingSite, private readonly diffIds: readonly string[]) {
    this.#links = new LinkRule(diffIds, site.privileged);
  }

  /** The basis that origins refer to, below the same `fs`. */
  useBasis(basis: LayersBasis): void {
    this.#basis = basis;
  }

  /** Lets go of what building took, which is not needed any more once every layer is whole. */
  clear(): void {
    this.#layers.clear();
    this.#basis = null;
  }

  /** The diffID of the layer at `layer` of the target's manifest. */
  diffId(layer: number): string {
    return diffIdAt(this.diffIds, layer);
  }

  /** A layer in full, as its tar comes. Throws TAR_CORRUPT, TAR_UNSAFE, LIMIT_EXCEEDED, LAYER_MISMATCH. */
  async writeLayerTar(layer: number, chunks: AsyncIterable<Buffer>): Promise<void> {
    const diffId = this.diffId(layer);
    const { writer } = await this.#newWriter(diffId);
    try {
      await this.#extract(writer, diffId, chunks);
    } catch (error) {
      await writer.abandon();
      if (isRefused(error)) await this.site.refused(diffId);
      throw error;
    }
    this.site.built(diffId);
  }

  async #extract(writer: LayerWriter, diffId: string, chunks: AsyncIterable<Buffer>): Promise<void> {
    type Event = { readonly header: TarHeader; readonly index: number } | { readonly content: Buffer } | { readonly end: boolean };
    let events: Event[] = [];
    const builder = new LayerMetaBuilder({
      onEntry: (header, index) => { events.push({ header, index }); },
      onContent: (content) => { events.push({ content }); },
      onContentEnd: (digest) => { events.push({ end: digest !== null }); },
    });
    const drain = async (): Promise<void> => {
      const ready = events;
      events = [];
      for (const event of ready) {
        if ('header' in event) await writer.addEntry(event.index, event.header);
        else if ('content' in event) await writer.write(event.content);
        else if (event.end) await writer.endContent();
      }
    };
    await writer.begin();
    for await (const chunk of chunks) {
      throwIfAborted(this.site.signal);
      builder.write(chunk);
      await drain();
    }
    const meta = builder.finish();
    await drain();
    requireDiffId(meta.diffId, diffId);
    await writer.finish(meta);
  }

  async #newWriter(diffId: string): Promise<{ writer: LayerWriter; path: string }> {
    // Some sites know where their layers are only when they have made room for the first.
    const { path, fresh } = await this.site.room(diffId);
    const { fs, privileged, counters } = this.site;
    return { writer: new LayerWriter({ fs, path, privileged, fresh, counters }), path };
  }

  async beginLayer(layer: number, meta: LayerMeta): Promise<void> {
    const diffId = this.diffId(layer);
    const there = await this.site.whole(diffId);
    if (there !== undefined) {
      // Content that is there already is taken, compared by nobody but the layer's own digest, and dropped.
      this.#layers.set(diffId, { writer: null, path: there.path, tree: there.tree, meta: there.meta, next: meta.entries.length });
      return;
    }
    const { writer, path } = await this.#newWriter(diffId);
    await writer.begin();
    this.#layers.set(diffId, { writer, path, tree: writer.tree, meta, next: 0 });
  }

  #layer(layer: number): BuiltLayer {
    const built = this.#layers.get(this.diffId(layer));
    if (built === undefined) throw new WhittleError('INTERNAL', `layer ${String(layer)} was not begun`);
    return built;
  }

  /** Brings the writer up to `entry`: entries without content get no call of their own. */
  async #reach(built: BuiltLayer, entry: number): Promise<void> {
    for (; built.next <= entry; built.next++) {
      const header = built.meta.entries.at(built.next)?.header;
      if (header === undefined || built.writer === null) return;
      const steps = built.writer.addEntry(built.next, header);
      if (steps !== undefined) await steps;
    }
  }

  async copyEntry(layer: number, entry: number, origin: ContentOrigin, content?: Buffer): Promise<void> {
    const built = this.#layer(layer);
    if (built.writer === null) return;
    await this.#reach(built, entry);
    const source = origin.from === 'basis' ? this.#inBasis(origin) : await this.#inTarget(origin);
    const header = built.meta.entries.at(entry)?.header;
    if (header === undefined) throw new WhittleError('INTERNAL', `layer ${String(layer)} has no entry ${String(entry)}`);
    if (sparseLayout(header) !== undefined || !isWholeFile(source.place)) {
      await this.#copyByReading(built.writer, source);
      return;
    }
    const linkable = this.#links.mayLink(built.tree.nodeOf(entry), header, source);
    const steps = built.writer.copy({ path: source.place.path, sizeBytes: header.sizeBytes, linkable, content });
    if (steps !== undefined) await steps;
  }

  #inBasis({ layer, entry }: ContentOrigin): CopyOrigin {
    const basis = this.#basis?.storeLayers[layer];
    if (basis === undefined) throw new WhittleError('INTERNAL', 'content of a basis that the builder was not told of');
    return { place: basis.place(entry), header: basis.meta.entries.at(entry)?.header, basis, entry, stat: this.#basis?.hashedStat(layer, entry) };
  }

  async #inTarget(origin: ContentOrigin): Promise<CopyOrigin> {
    const from = this.#layer(origin.layer);
    await from.writer?.flush();
    return { place: contentPlace(from.path, from.tree, from.meta, origin.entry), header: from.meta.entries.at(origin.entry)?.header, basis: undefined, entry: origin.entry, stat: undefined };
  }

  async #copyByReading(writer: LayerWriter, source: CopyOrigin): Promise<void> {
    const file = await this.site.fs.open(source.place.path, 'read');
    try {
      const buffer = Buffer.allocUnsafe(128 * 1024);
      for (const { offset, lengthBytes } of source.place.extents) {
        for (let done = 0; done < lengthBytes;) {
          const wanted = buffer.subarray(0, Math.min(buffer.length, lengthBytes - done));
          if ((await file.read(wanted, offset + done)) !== wanted.length) throw new WhittleError('BASIS_DAMAGED', `${source.place.path.toString()} ends too early`);
          await writer.write(wanted);
          done += wanted.length;
        }
      }
    } finally {
      await file.close();
    }
    await writer.endContent();
  }

  async writeEntry(layer: number, entry: number, chunk: Buffer): Promise<void> {
    const built = this.#layer(layer);
    await this.#reach(built, entry);
    await built.writer?.write(chunk);
  }

  async endEntry(layer: number, entry: number): Promise<void> {
    const built = this.#layer(layer);
    await this.#reach(built, entry);
    await built.writer?.endContent();
  }

  async openContent(layer: number, entry: number): Promise<BasisContent> {
    const built = this.#layer(layer);
    await built.writer?.flush();
    const { path, extents } = contentPlace(built.path, built.tree, built.meta, entry);
    const file = await this.site.fs.open(path, 'read');
    return { fd: file.fd, extents, sizeBytes: built.meta.entries.at(entry)?.header.sizeBytes ?? 0, close: () => file.close() };
  }

  async endLayer(layer: number, meta: LayerMeta): Promise<void> {
    const diffId = this.diffId(layer);
    const built = this.#layer(layer);
    requireDiffId(meta.diffId, diffId);
    if (built.writer === null) return;
    await this.#reach(built, meta.entries.length - 1);
    await built.writer.finish(meta);
    built.writer = null;
    built.meta = meta;
    this.site.built(diffId);
  }

  /** Closes what is open. What was written stays for the site to delete or resume. */
  async abandon(): Promise<void> {
    for (const { writer } of this.#layers.values()) await writer?.abandon();
  }
}

/** Whether what arrived is to blame, so that keeping it would be of no use. */
function isRefused(error: unknown): boolean {
  return isWhittleError(error) && ['TAR_UNSAFE', 'TAR_CORRUPT', 'LAYER_MISMATCH', 'LIMIT_EXCEEDED'].includes(error.code);
}

function isWholeFile(place: ContentPlace): boolean {
  return place.extents.length === 1 && place.extents[0]?.offset === 0;
}
