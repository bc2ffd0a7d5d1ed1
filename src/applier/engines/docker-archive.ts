import { isWhittleError, WhittleError } from '../../core/errors.js';
import { fileHeader, memberPadding, smallFile } from '../../registry/archive.js';
import { LayerMetaBuilder, type LayerMeta } from '../../tar/index.js';
import { diffIdAt, requireDiffId, type Target } from '../store/target.js';
import type { CommitOptions } from '../store/types.js';
import { hexOf } from '../store/layout.js';
import type { ProvenLayers } from './extracted-layer.js';
import { LayerStream, Pieces } from './layer-stream.js';
import { StreamedContents, type StreamedLayer } from './streamed-contents.js';
import type { HeldImage, LayerSink } from './types.js';

/** Where the bytes of an archive go. */
export interface BytePipe {
  /** Resolves when `chunk` may be reused. Throws ENGINE_UNREACHABLE, ENGINE_FAILED, STORAGE_FULL when the receiver gave up. */
  write(chunk: Buffer): Promise<void>;
  /** Ends the archive; resolves when the receiver has taken all of it in. Throws as `write` does. */
  end(): Promise<void>;
  /** Gives up: the receiver sees an archive that is cut off. Idempotent; does nothing after `end`. */
  abort(): Promise<void>;
}

/** A layer that the receiver has already, though not where this image needs it. */
export interface ReadableLayer {
  readonly meta: LayerMeta;
  tar(signal?: AbortSignal): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

/** Who takes an archive. */
export interface ArchiveReceiver {
  /** Whether the layers 0 to `layer` of the target are there in this order, so that layer `layer` may be left out. */
  holdsStack(layer: number): boolean;
  /** Whether some image there has a layer with this diffID, which `openLayer` reads. */
  hasElsewhere(diffId: string): boolean;
  /** Throws BASIS_DAMAGED. */
  openLayer(diffId: string): Promise<ReadableLayer>;
  open(): Promise<BytePipe>;
  /** The archive was taken in: proves it and makes it durable. */
  taken(name: string | null): Promise<HeldImage>;
}

/** What an archive sink is made of. */
export interface ArchiveOptions {
  readonly target: Target;
  readonly receiver: ArchiveReceiver;
  readonly known: ProvenLayers;
  readonly scratchDirectory: string;
  /** Layers not to be taken from elsewhere. */
  readonly replaceLayers: readonly string[];
  /** How the receiver writes a name in the archive; null: it can have no such name. */
  readonly tagOf: (name: string) => string | null;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Makes a docker-archive while the layers of an image are rebuilt, and sends it away: nothing of it is on this side's disk but
 * what a delta may still refer to. Layers that the receiver has are left out. Manifest and config go last, once every
 * layer has had its diffID, so that a stream that breaks before leaves the receiver nothing to show.
 */
export class ArchiveSink extends StreamedContents<StreamedLayer> implements LayerSink {
  readonly intake = 'streamed';
  readonly #sent = new Map<string, LayerMeta>();
  readonly #pieces = new Pieces((piece) => this.#send(piece));
  #pipe: BytePipe | null = null;
  #memberStart = 0;

  constructor(private readonly options: ArchiveOptions) {
    super(options.scratchDirectory);
  }

  async hasLayer(layer: number): Promise<boolean> {
    await this.#dropTorn();
    const { receiver, replaceLayers } = this.options;
    const diffId = this.#diffId(layer);
    return receiver.holdsStack(layer) || this.#sent.has(diffId) || (!replaceLayers.includes(diffId) && receiver.hasElsewhere(diffId));
  }

  #diffId(layer: number): string {
    return diffIdAt(this.options.target.diffIds, layer);
  }

  /** A layer that was not finished tears the archive: it begins again, without what was sent. */
  async #dropTorn(): Promise<void> {
    if (this.open !== null) await this.#reset();
  }

  async #reset(): Promise<void> {
    const pipe = this.#pipe;
    this.#pipe = null;
    this.open = null;
    this.#pieces.clear();
    this.#sent.clear();
    await this.scratch.clear();
    await pipe?.abort();
  }

  async #send(piece: Buffer): Promise<void> {
    this.#pipe ??= await this.options.receiver.open();
    await this.#pipe.write(piece);
  }

  async #beginMember(diffId: string, sizeBytes: number): Promise<void> {
    await this.#pieces.put(fileHeader(memberName(diffId), sizeBytes));
    this.#memberStart = this.#pieces.putBytes;
  }

  async #endMember(diffId: string, sizeBytes: number): Promise<void> {
    const memberBytes = this.#pieces.putBytes - this.#memberStart;
    if (memberBytes !== sizeBytes) throw new WhittleError('LAYER_MISMATCH', `layer ${diffId} came out with ${String(memberBytes)} bytes instead of ${String(sizeBytes)}`);
    this.tally.writtenBytes += sizeBytes;
    await this.#pieces.put(memberPadding(sizeBytes));
  }

  async beginLayer(layer: number, meta: LayerMeta): Promise<void> {
    await this.#dropTorn();
    this.beginContents(layer);
    const diffId = this.#diffId(layer);
    const sent = !this.options.receiver.holdsStack(layer) && !this.#sent.has(diffId);
    this.open = { layer, stream: sent ? new LayerStream(meta, this.#pieces) : null };
    if (sent) await this.#beginMember(diffId, meta.sizeBytes);
  }

  async endLayer(layer: number, meta: LayerMeta): Promise<void> {
    const { stream } = this.current(layer);
    const diffId = this.#diffId(layer);
    requireDiffId(meta.diffId, diffId);
    if (stream !== null) {
      await stream.end();
      await this.#endMember(diffId, meta.sizeBytes);
      this.#sent.set(diffId, meta);
    }
    this.open = null;
  }

  async writeLayerTar(layer: number, chunks: AsyncIterable<Buffer>, sizeBytes?: number): Promise<void> {
    await this.#dropTorn();
    if (sizeBytes === undefined) throw new WhittleError('INTERNAL', 'a layer of unknown size cannot be streamed');
    await this.#wholeLayer(this.#diffId(layer), chunks, sizeBytes);
  }

  /** Sends a layer's tar, proving its diffID. An archive with another layer is given up. */
  async #wholeLayer(diffId: string, chunks: AsyncIterable<Buffer>, sizeBytes: number): Promise<void> {
    const builder = new LayerMetaBuilder();
    try {
      await this.#beginMember(diffId, sizeBytes);
      for await (const chunk of chunks) {
        builder.write(chunk);
        await this.#pieces.put(chunk);
      }
      const meta = builder.finish();
      requireDiffId(meta.diffId, diffId);
      await this.#endMember(diffId, sizeBytes);
      this.#sent.set(diffId, meta);
    } catch (error) {
      await this.#reset();
      throw error;
    }
  }

  checkpoint(): Promise<void> {
    return Promise.resolve();
  }

  async commit({ name, signal }: CommitOptions): Promise<HeldImage> {
    await this.#dropTorn();
    const { target, receiver } = this.options;
    for (const [layer, diffId] of target.diffIds.entries()) {
      if (receiver.holdsStack(layer) || this.#sent.has(diffId)) continue;
      if (!(await this.hasLayer(layer))) throw new WhittleError('STAGE_INCOMPLETE', `layer ${diffId} is not there yet`, { data: { diffId } });
      await this.#fromElsewhere(diffId, signal);
    }
    await this.#finish(name);
    for (const meta of this.#sent.values()) await this.options.known.put(meta);
    const image = await receiver.taken(name);
    await this.scratch.clear();
    return image;
  }

  /** A layer that the receiver has under others than this image: it takes it only as a tar, which its own files give. */
  async #fromElsewhere(diffId: string, signal: AbortSignal | undefined): Promise<void> {
    try {
      const layer = await this.options.receiver.openLayer(diffId);
      try {
        await this.#wholeLayer(diffId, layer.tar(signal), layer.meta.sizeBytes);
      } finally {
        await layer.close();
      }
    } catch (error) {
      if (!isWhittleError(error) || !['BASIS_DAMAGED', 'STORE_DAMAGED', 'LAYER_MISMATCH', 'TAR_CORRUPT'].includes(error.code)) throw error;
      throw new WhittleError('STORE_DAMAGED', `the engine's copy of layer ${diffId} is not what was published: ${error.message}`, { cause: error, data: { layers: diffId } });
    }
  }

  async #finish(name: string | null): Promise<void> {
    const { target, tagOf } = this.options;
    const tag = name === null ? null : tagOf(name);
    const config = `${hexOf(target.configDigest)}.json`;
    const manifest = [{ Config: config, RepoTags: tag === null ? null : [tag], Layers: target.diffIds.map(memberName) }];
    try {
      await this.#pieces.put(smallFile(config, target.config));
      await this.#pieces.put(smallFile('manifest.json', Buffer.from(JSON.stringify(manifest))));
      await this.#pieces.put(Buffer.alloc(1024));
      await this.#pieces.flush();
      await this.#pipe?.end();
      this.#pipe = null;
    } catch (error) {
      await this.#reset();
      throw error;
    }
  }

  async discard(): Promise<void> {
    await this.#reset();
  }

  async close(): Promise<void> {
    await this.#reset();
  }
}

function memberName(diffId: string): string {
  return `${hexOf(diffId)}.tar`;
}
