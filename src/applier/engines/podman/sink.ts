import { isWhittleError } from '../../../core/errors.js';
import { LayerMetaBuilder, type LayerMeta } from '../../../tar/index.js';
import { requireDiffId, type Target } from '../../store/target.js';
import type { CommitOptions } from '../../store/types.js';
import type { ProvenLayers } from '../extracted-layer.js';
import { LayerStream, Pieces } from '../layer-stream.js';
import { StreamedContents, type StreamedLayer } from '../streamed-contents.js';
import type { BeginOptions, HeldImage, LayerSink } from '../types.js';
import type { LayerPull } from './layer-pull.js';
import type { PodmanIntake } from './intake.js';

/** A layer that is coming in. */
interface Incoming extends StreamedLayer {
  /** Null where podman has the layer. */
  readonly way: { readonly pieces: Pieces; readonly pull: LayerPull } | null;
}

/**
 * Gives podman the layers of an image one by one, as they are rebuilt: after each, podman has an unfinished image of the
 * layers so far, so that they stay over an interruption, and the layer is never on this side's disk.
 */
export class PodmanSink extends StreamedContents<Incoming> implements LayerSink {
  readonly intake = 'kept';
  #done = false;

  constructor(private readonly target: Target, private readonly podman: PodmanIntake, private readonly known: ProvenLayers, private readonly options: BeginOptions) {
    super(options.scratchDirectory);
  }

  hasLayer(layer: number): Promise<boolean> {
    return this.podman.hasLayer(layer);
  }

  async beginLayer(layer: number, meta: LayerMeta): Promise<void> {
    await this.#abort();
    this.beginContents(layer);
    const way = (await this.podman.hasLayer(layer)) ? null : this.#wayOf(await this.podman.pullLayer(layer, meta.sizeBytes));
    this.open = { layer, way, stream: way === null ? null : new LayerStream(meta, way.pieces) };
  }

  #wayOf(pull: LayerPull): { pieces: Pieces; pull: LayerPull } {
    const pieces = new Pieces(async (piece) => {
      this.tally.writtenBytes += piece.length;
      await pull.write(piece);
    });
    return { pieces, pull };
  }

  async endLayer(layer: number, meta: LayerMeta): Promise<void> {
    const { stream, way } = this.current(layer);
    if (stream !== null && way !== null) {
      await stream.end();
      await way.pieces.flush();
      await way.pull.end();
      await this.podman.layerCame(layer);
    }
    this.open = null;
    await this.known.put(meta);
  }

  async writeLayerTar(layer: number, chunks: AsyncIterable<Buffer>): Promise<void> {
    await this.#abort();
    const builder = new LayerMetaBuilder();
    const pull = await this.podman.pullLayer(layer, null);
    try {
      for await (const chunk of chunks) {
        builder.write(chunk);
        this.tally.writtenBytes += chunk.length;
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
    await this.scratch.clear();
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
      await this.scratch.clear();
    } finally {
      await this.podman.close();
    }
  }

  /** Breaks off a layer that is not whole; podman keeps nothing of it. */
  async #abort(): Promise<void> {
    const incoming = this.open;
    this.open = null;
    try {
      await incoming?.way?.pull.abort();
    } catch (error) {
      if (!isWhittleError(error)) throw error;
      this.options.onNote(`podman could not be stopped: ${error.message}`);
    }
  }
}
