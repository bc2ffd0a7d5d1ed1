import { createHash } from 'node:crypto';
import { withStorageErrors } from '../../atomic/index.js';
import { WhittleError } from '../../core/errors.js';
import type { BasisContent, OpenContentOptions } from '../../delta/basis.js';
import { chunksOf } from '../../delta/content-chunks.js';
import type { ContentOrigin, TargetSink } from '../../delta/sink.js';
import type { LayerMeta } from '../../tar/index.js';
import { ScratchContents } from '../engines/scratch-contents.js';
import type { HeldBasis, HeldImage, LayerSink } from '../engines/types.js';
import { noCounters } from '../store/file-sink.js';
import type { StageCounters } from '../store/types.js';
import { ForwardedSink } from './forwarded-sink.js';

const chunkBytes = 256 * 1024;

/** Where a content is that a chain passed: with the place that the chain starts from, or in the scratch of an image on the way. */
interface Whereabouts {
  /** Its place in the basis that the chain starts from; null in the scratch, which was proven when it was written, a moment ago. */
  readonly start: { readonly layer: number; readonly entry: number } | null;
  open(options?: OpenContentOptions): Promise<BasisContent>;
}

/** A basis that a step of a chain starts from: the place's own, or an image on the way. */
export interface ChainBasis extends HeldBasis {
  whereabouts(layer: number, entry: number): Whereabouts;
}

/** The basis of a chain's first delta, as the place gives it. */
export class ChainStart implements ChainBasis {
  constructor(readonly held: HeldBasis) {}

  get image(): HeldImage {
    return this.held.image;
  }

  get layers(): readonly LayerMeta[] {
    return this.held.layers;
  }

  openContent(layer: number, entry: number, options?: OpenContentOptions): Promise<BasisContent> {
    return this.held.openContent(layer, entry, options);
  }

  whereabouts(layer: number, entry: number): Whereabouts {
    return { start: { layer, entry }, open: (options) => this.held.openContent(layer, entry, options) };
  }

  close(): Promise<void> {
    return this.held.close();
  }
}

/**
 * Takes an image that a chain only passes: no place ever has it. Contents that the delta brings are kept in one file without a name, which takes no
 * space once it is closed or the process has ended; of all others only where they are.
 */
export class PassedSink implements TargetSink {
  readonly #contents: ScratchContents;
  readonly #rebuilt = new Map<string, { readonly layer: number; readonly meta: LayerMeta }>();
  readonly #tally = noCounters();

  /** `directory`: where the file is made, when something is kept. `before` stays the caller's. */
  constructor(directory: string, private readonly before: ChainBasis) {
    this.#contents = new ScratchContents(directory);
  }

  /** What went into the scratch file. */
  get counters(): StageCounters {
    return { ...this.#tally };
  }

  beginLayer(layer: number): Promise<void> {
    this.#contents.begin(layer, null);
    return Promise.resolve();
  }

  copyEntry(layer: number, entry: number, origin: ContentOrigin): Promise<void> {
    this.#contents.copied(layer, entry, origin);
    return Promise.resolve();
  }

  async writeEntry(layer: number, entry: number, chunk: Buffer): Promise<void> {
    await withStorageErrors('keeping a file of an image on the way', () => this.#contents.write(layer, entry, chunk));
    this.#tally.writtenBytes += chunk.length;
  }

  endEntry(): Promise<void> {
    this.#tally.writtenFiles++;
    return Promise.resolve();
  }

  openContent(layer: number, entry: number): Promise<BasisContent> {
    return this.#contents.open(layer, entry, this.before);
  }

  endLayer(layer: number, meta: LayerMeta): Promise<void> {
    this.#rebuilt.set(meta.diffId, { layer, meta });
    return Promise.resolve();
  }

  /** The image as the basis of the next delta; this sink and what is before it must stay open. */
  asBasis(image: HeldImage): ChainBasis {
    return new PassedBasis(image, this.before, this.#contents, this.#rebuilt);
  }

  /** Gives the space back. Idempotent. */
  close(): Promise<void> {
    return this.#contents.clear();
  }
}

/** Where a layer of an image on the way is: its number within the image, or that of the same layer in what is before. */
type LayerPlace = { readonly own: number } | { readonly before: number };

class PassedBasis implements ChainBasis {
  readonly layers: readonly LayerMeta[];
  readonly #places: readonly LayerPlace[];

  constructor(readonly image: HeldImage, private readonly before: ChainBasis, private readonly contents: ScratchContents, rebuilt: ReadonlyMap<string, { readonly layer: number; readonly meta: LayerMeta }>) {
    const layers: LayerMeta[] = [];
    const places: LayerPlace[] = [];
    for (const diffId of new Set(image.diffIds)) {
      const own = rebuilt.get(diffId);
      const at = before.layers.findIndex((layer) => layer.diffId === diffId);
      const meta = own?.meta ?? before.layers[at];
      // Layers that no later delta asks for were not opened.
      if (meta === undefined) continue;
      layers.push(meta);
      places.push(own === undefined ? { before: at } : { own: own.layer });
    }
    this.layers = layers;
    this.#places = places;
  }

  whereabouts(layer: number, entry: number): Whereabouts {
    const place = this.#places[layer];
    if (place === undefined) throw new WhittleError('INTERNAL', `an image on the way has no layer ${String(layer)}`);
    if ('before' in place) return this.before.whereabouts(place.before, entry);
    const origin = this.contents.whereIs(place.own, entry);
    if (origin.from === 'basis') return this.before.whereabouts(origin.layer, origin.entry);
    return { start: null, open: () => this.contents.open(origin.layer, origin.entry, null) };
  }

  async openContent(layer: number, entry: number, options?: OpenContentOptions): Promise<BasisContent> {
    return this.whereabouts(layer, entry).open(options);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/**
 * The end of a chain: gives the target's layers to the place's sink, which knows only the basis that the chain started from.
 * Layers that are the same in the image before are given too, in their turn, since no place has them.
 */
export class ChainEnd extends ForwardedSink<LayerSink> {
  /** First layer of the target that was not looked at yet. */
  #next = 0;

  /** `diffIds`: the target's. The sink must have been told of the basis that the chain started from. */
  constructor(sink: LayerSink, private readonly diffIds: readonly string[], private readonly basis: ChainBasis) {
    super(sink);
  }

  override async beginLayer(layer: number, meta: LayerMeta): Promise<void> {
    await this.#carryOver(layer);
    this.#next = layer + 1;
    await this.sink.beginLayer(layer, meta);
  }

  /** Gives the layers that no delta made, once all that the last one made were given. */
  finish(): Promise<void> {
    return this.#carryOver(this.diffIds.length);
  }

  async #carryOver(end: number): Promise<void> {
    for (; this.#next < end; this.#next++) {
      const diffId = this.diffIds[this.#next];
      const from = this.basis.layers.findIndex((each) => each.diffId === diffId);
      if (from >= 0 && !(await this.sink.hasLayer(this.#next))) await this.#carry(this.#next, from);
    }
  }

  async #carry(layer: number, from: number): Promise<void> {
    const meta = this.basis.layers[from];
    if (meta === undefined) return;
    await this.sink.beginLayer(layer, meta);
    for (const [entry, { header }] of meta.entries.entries()) {
      if (header.sizeBytes === 0) continue;
      await (await this.basis.openContent(from, entry)).close();
      await this.copyEntry(layer, entry, { from: 'basis', layer: from, entry });
    }
    await this.sink.endLayer(layer, meta);
  }

  override async copyEntry(layer: number, entry: number, origin: ContentOrigin): Promise<void> {
    const found = origin.from === 'basis' ? this.basis.whereabouts(origin.layer, origin.entry) : null;
    if (found === null) await this.sink.copyEntry(layer, entry, origin);
    else if (found.start !== null) await this.sink.copyEntry(layer, entry, { from: 'basis', ...found.start });
    else await this.#write(layer, entry, await found.open());
  }

  async #write(layer: number, entry: number, content: BasisContent): Promise<void> {
    const hash = createHash('sha256');
    const buffer = Buffer.allocUnsafe(chunkBytes);
    try {
      for (const chunk of chunksOf(content, buffer, () => new WhittleError('BASIS_DAMAGED', 'content of an image on the way ends too early'))) {
        hash.update(chunk);
        await this.sink.writeEntry(layer, entry, chunk);
      }
    } finally {
      await content.close();
    }
    await this.sink.endEntry(layer, entry, hash.digest());
  }
}
