import { isWhittleError, WhittleError } from '../../../core/errors.js';
import type { BasisContent } from '../../../delta/basis.js';
import type { LayerPlan } from '../../../delta/plan.js';
import type { ContentOrigin } from '../../../delta/sink.js';
import { LayerMetaBuilder, type LayerMeta } from '../../../tar/index.js';
import { requireDiffId, type Target } from '../../store/target.js';
import type { CommitOptions, StageCounters } from '../../store/types.js';
import type { ProvenLayers } from '../extracted-layer.js';
import { LayerStream, Pieces } from '../layer-stream.js';
import { ScratchContents } from '../scratch-contents.js';
import type { BeginOptions, HeldBasis, HeldImage, LayerSink } from '../types.js';
import type { LayerPull } from './layer-pull.js';
import type { PodmanIntake } from './intake.js';

/** A layer that is coming in. */
interface Incoming {
  readonly layer: number;
  readonly meta: LayerMeta;
  readonly pieces: Pieces;
  readonly stream: LayerStream;
  /** Null where podman has the layer: then its bytes are dropped. */
  readonly pull: LayerPull | null;
}

/**
 * Gives podman the layers of an image one by one, as they are rebuilt: after each, podman has an unfinished image of the
 * layers so far, so that they stay over an interruption, and the layer is never on this side's disk.
 */
export class PodmanSink implements LayerSink {
  readonly intake = 'kept';
  readonly #scratch: ScratchContents;
  readonly #tally = { writtenBytes: 0, writtenFiles: 0, linkedBytes: 0, linkedFiles: 0, keptBytes: 0, keptFiles: 0 };
  #incoming: Incoming | null = null;
  #basis: HeldBasis | null = null;
  #plan: { readonly layer: number; readonly plan: LayerPlan; readonly isLast: boolean } | null = null;
  #done = false;

  constructor(private readonly target: Target, private readonly podman: PodmanIntake, private readonly known: ProvenLayers, private readonly options: BeginOptions) {
    this.#scratch = new ScratchContents(options.scratchDirectory);
  }

  get counters(): StageCounters {
    return { ...this.#tally };
  }

  useBasis(basis: HeldBasis): void {
    this.#basis = basis;
  }

  planned(layer: number, plan: LayerPlan, isLast: boolean): void {
    this.#plan = { layer, plan, isLast };
  }

  hasLayer(layer: number): Promise<boolean> {
    return this.podman.hasLayer(layer);
  }

  async beginLayer(layer: number, meta: LayerMeta): Promise<void> {
    await this.#abort();
    this.#scratch.begin(layer, this.#plan?.layer === layer ? this.#plan : null);
    this.#plan = null;
    const pull = (await this.podman.hasLayer(layer)) ? null : await this.podman.pullLayer(layer, meta.sizeBytes);
    const pieces = new Pieces(async (piece) => {
      if (pull === null) return;
      this.#tally.writtenBytes += piece.length;
      await pull.write(piece);
    });
    this.#incoming = { layer, meta, pieces, stream: new LayerStream(meta, pieces), pull };
  }

  #current(layer: number): Incoming {
    if (this.#incoming?.layer !== layer) throw new WhittleError('INTERNAL', `layer ${String(layer)} was not begun`);
    return this.#incoming;
  }

  async copyEntry(layer: number, entry: number, origin: ContentOrigin): Promise<void> {
    const { stream, pull } = this.#current(layer);
    this.#scratch.copied(layer, entry, origin);
    if (pull === null) return;
    const content = await this.openContent(layer, entry);
    try {
      await stream.copy(entry, content);
    } finally {
      await content.close();
    }
  }

  async writeEntry(layer: number, entry: number, chunk: Buffer): Promise<void> {
    const { stream, pull } = this.#current(layer);
    await this.#scratch.write(layer, entry, chunk);
    if (pull !== null) await stream.write(entry, chunk);
  }

  async endEntry(layer: number, entry: number): Promise<void> {
    const { stream, pull } = this.#current(layer);
    if (pull !== null) await stream.endEntry(entry);
  }

  openContent(layer: number, entry: number): Promise<BasisContent> {
    return this.#scratch.open(layer, entry, this.#basis);
  }

  async endLayer(layer: number, meta: LayerMeta): Promise<void> {
    const { pieces, stream, pull } = this.#current(layer);
    if (pull !== null) {
      await stream.end();
      await pieces.flush();
      await pull.end();
      await this.podman.layerCame(layer);
    }
    this.#incoming = null;
    await this.known.put(meta);
  }

  async writeLayerTar(layer: number, chunks: AsyncIterable<Buffer>): Promise<void> {
    await this.#abort();
    const builder = new LayerMetaBuilder();
    const pull = await this.podman.pullLayer(layer, null);
    try {
      for await (const chunk of chunks) {
        builder.write(chunk);
        this.#tally.writtenBytes += chunk.length;
        await pull.write(chunk);
      }
      const meta = builder.finish();
      requireDiffId(meta.diffId, this.target.diffIds[layer]);
      await pull.end();
      await this.podman.layerCame(layer);
      await this.known.put(meta);
    } catch (error) {
      await pull.abort();
      throw error;
    }
  }

  /** What podman has is on the disk when this returns: it does not sync the files of layers itself. */
  async checkpoint(): Promise<void> {
    await this.podman.makeDurable();
  }

  async commit({ name }: CommitOptions): Promise<HeldImage> {
    await this.#abort();
    const image = await this.podman.commit(name);
    this.#done = true;
    await this.#scratch.clear();
    await this.podman.close();
    return image;
  }

  async discard(): Promise<void> {
    if (this.#done) return;
    await this.#abort();
    await this.podman.removeUnfinished();
    await this.close();
  }

  async close(): Promise<void> {
    if (this.#done) return;
    this.#done = true;
    try {
      await this.#abort();
      await this.#scratch.clear();
    } finally {
      await this.podman.close();
    }
  }

  /** Breaks off a layer that is not whole; podman keeps nothing of it. */
  async #abort(): Promise<void> {
    const incoming = this.#incoming;
    this.#incoming = null;
    try {
      await incoming?.pull?.abort();
    } catch (error) {
      if (!isWhittleError(error)) throw error;
      this.options.onNote(`podman could not be stopped: ${error.message}`);
    }
  }
}
