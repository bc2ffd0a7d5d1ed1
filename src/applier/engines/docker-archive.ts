import { readSync } from 'node:fs';
import { isWhittleError, WhittleError } from '../../core/errors.js';
import type { BasisContent } from '../../delta/basis.js';
import type { LayerPlan } from '../../delta/plan.js';
import type { ContentOrigin } from '../../delta/sink.js';
import { fileHeader, memberPadding, smallFile } from '../../registry/archive.js';
import { entryHeaderBytes, entryPadding, LayerMetaBuilder, trailerBytes, type LayerMeta } from '../../tar/index.js';
import type { Target } from '../store/target.js';
import type { CommitOptions, StageCounters } from '../store/types.js';
import { hexOf } from '../store/layout.js';
import type { ProvenLayers } from './extracted-layer.js';
import { ScratchContents } from './scratch-contents.js';
import type { HeldBasis, HeldImage, LayerSink } from './types.js';

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

/** The layer of an archive that is being written. */
interface Member {
  readonly layer: number;
  readonly meta: LayerMeta;
  /** False where the receiver has the layer: then its bytes are dropped. */
  readonly sent: boolean;
  next: number;
  /** Whether the header of entry `next` is out. */
  open: boolean;
}

const sendBytes = 256 * 1024;

/**
 * Makes a docker-archive while the layers of an image are rebuilt, and sends it away: nothing of it is on this side's disk but
 * what a delta may still refer to. Layers that the receiver has are left out. Manifest and config go last, once every
 * layer has had its diffID, so that a stream that breaks before leaves the receiver nothing to show.
 */
export class ArchiveSink implements LayerSink {
  readonly intake = 'streamed';
  readonly #scratch: ScratchContents;
  readonly #sent = new Map<string, LayerMeta>();
  readonly #buffer = Buffer.allocUnsafeSlow(sendBytes);
  readonly #reading = Buffer.allocUnsafeSlow(sendBytes);
  readonly #tally = { writtenBytes: 0, writtenFiles: 0, linkedBytes: 0, linkedFiles: 0, keptBytes: 0, keptFiles: 0 };
  #filled = 0;
  #pipe: BytePipe | null = null;
  #member: Member | null = null;
  #memberBytes = 0;
  #basis: HeldBasis | null = null;
  #plan: { readonly layer: number; readonly plan: LayerPlan; readonly isLast: boolean } | null = null;

  constructor(private readonly options: ArchiveOptions) {
    this.#scratch = new ScratchContents(options.scratchDirectory);
  }

  get counters(): StageCounters {
    return { ...this.#tally };
  }

  /** Most bytes that were kept for later reference. */
  get scratchBytes(): number {
    return this.#scratch.sizeBytes;
  }

  useBasis(basis: HeldBasis): void {
    this.#basis = basis;
  }

  planned(layer: number, plan: LayerPlan, isLast: boolean): void {
    // Taken in by `beginLayer`, for what a torn archive left goes first.
    this.#plan = { layer, plan, isLast };
  }

  async hasLayer(layer: number): Promise<boolean> {
    await this.#dropTorn();
    const { receiver, replaceLayers } = this.options;
    const diffId = this.#diffId(layer);
    return receiver.holdsStack(layer) || this.#sent.has(diffId) || (!replaceLayers.includes(diffId) && receiver.hasElsewhere(diffId));
  }

  #diffId(layer: number): string {
    const diffId = this.options.target.diffIds[layer];
    if (diffId === undefined) throw new WhittleError('INTERNAL', `the target has no layer ${String(layer)}`);
    return diffId;
  }

  /** A layer that was not finished tears the archive: it begins again, without what was sent. */
  async #dropTorn(): Promise<void> {
    if (this.#member !== null) await this.#reset();
  }

  async #reset(): Promise<void> {
    const pipe = this.#pipe;
    this.#pipe = null;
    this.#member = null;
    this.#filled = 0;
    this.#sent.clear();
    await this.#scratch.clear();
    await pipe?.abort();
  }

  /** Puts bytes into the archive, in pieces of a good size. */
  async #send(bytes: Buffer): Promise<void> {
    this.#memberBytes += bytes.length;
    for (let done = 0; done < bytes.length;) {
      const count = bytes.copy(this.#buffer, this.#filled, done);
      done += count;
      this.#filled += count;
      if (this.#filled === this.#buffer.length) await this.#flush();
    }
  }

  async #flush(): Promise<void> {
    if (this.#filled === 0) return;
    this.#pipe ??= await this.options.receiver.open();
    await this.#pipe.write(this.#buffer.subarray(0, this.#filled));
    this.#filled = 0;
  }

  async #beginMember(diffId: string, sizeBytes: number): Promise<void> {
    await this.#send(fileHeader(memberName(diffId), sizeBytes));
    this.#memberBytes = 0;
  }

  async #endMember(diffId: string, sizeBytes: number): Promise<void> {
    if (this.#memberBytes !== sizeBytes) throw new WhittleError('LAYER_MISMATCH', `layer ${diffId} came out with ${String(this.#memberBytes)} bytes instead of ${String(sizeBytes)}`);
    this.#tally.writtenBytes += sizeBytes;
    await this.#send(memberPadding(sizeBytes));
  }

  async beginLayer(layer: number, meta: LayerMeta): Promise<void> {
    await this.#dropTorn();
    this.#scratch.begin(layer, this.#plan?.layer === layer ? this.#plan : null);
    this.#plan = null;
    const diffId = this.#diffId(layer);
    const sent = !this.options.receiver.holdsStack(layer) && !this.#sent.has(diffId);
    this.#member = { layer, meta, sent, next: 0, open: false };
    if (sent) await this.#beginMember(diffId, meta.sizeBytes);
  }

  #current(layer: number): Member {
    if (this.#member?.layer !== layer) throw new WhittleError('INTERNAL', `layer ${String(layer)} was not begun`);
    return this.#member;
  }

  /** Puts out all up to the header of `entry`; entries without content get no call of their own. */
  async #reach(member: Member, entry: number): Promise<void> {
    for (; member.next < entry; member.next++) {
      if (member.open) throw new WhittleError('INTERNAL', `entry ${String(member.next)} was not ended`);
      const record = member.meta.entries.at(member.next);
      if (record === undefined || !member.sent) continue;
      await this.#send(entryHeaderBytes(record));
      await this.#send(entryPadding(record));
    }
    const record = member.meta.entries.at(entry);
    if (member.open || record === undefined) return;
    member.open = true;
    if (member.sent) await this.#send(entryHeaderBytes(record));
  }

  async #endContent(member: Member): Promise<void> {
    const record = member.meta.entries.at(member.next);
    if (member.sent && record !== undefined) await this.#send(entryPadding(record));
    member.open = false;
    member.next++;
  }

  async copyEntry(layer: number, entry: number, origin: ContentOrigin): Promise<void> {
    const member = this.#current(layer);
    await this.#reach(member, entry);
    this.#scratch.copied(layer, entry, origin);
    if (member.sent) {
      const content = await this.openContent(layer, entry);
      try {
        for (const chunk of contentChunks(content, this.#reading)) await this.#send(chunk);
      } finally {
        await content.close();
      }
    }
    await this.#endContent(member);
  }

  async writeEntry(layer: number, entry: number, chunk: Buffer): Promise<void> {
    const member = this.#current(layer);
    await this.#reach(member, entry);
    await this.#scratch.write(layer, entry, chunk);
    if (member.sent) await this.#send(chunk);
  }

  async endEntry(layer: number, entry: number): Promise<void> {
    const member = this.#current(layer);
    await this.#reach(member, entry);
    await this.#endContent(member);
  }

  async openContent(layer: number, entry: number): Promise<BasisContent> {
    const found = this.#scratch.find(layer, entry);
    if (!('from' in found)) return found;
    if (this.#basis === null) throw new WhittleError('INTERNAL', 'content of a basis that the sink was not told of');
    return this.#basis.openContent(found.layer, found.entry, { callerVerifies: true });
  }

  async endLayer(layer: number, meta: LayerMeta): Promise<void> {
    const member = this.#current(layer);
    const diffId = this.#diffId(layer);
    if (meta.diffId !== diffId) throw new WhittleError('LAYER_MISMATCH', `a layer came out as ${meta.diffId}, the image config declares ${diffId}`);
    if (meta.entries.length > member.next) {
      await this.#reach(member, meta.entries.length - 1);
      await this.#endContent(member);
    }
    if (member.sent) {
      for (const bytes of trailerBytes(meta)) await this.#send(bytes);
      await this.#endMember(diffId, meta.sizeBytes);
      this.#sent.set(diffId, meta);
    }
    this.#member = null;
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
        await this.#send(chunk);
      }
      const meta = builder.finish();
      if (meta.diffId !== diffId) throw new WhittleError('LAYER_MISMATCH', `a layer has the diffID ${meta.diffId}, the image config declares ${diffId}`, { data: { found: meta.diffId, expected: diffId } });
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
    await this.#scratch.clear();
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
      await this.#send(smallFile(config, target.config));
      await this.#send(smallFile('manifest.json', Buffer.from(JSON.stringify(manifest))));
      await this.#send(Buffer.alloc(1024));
      await this.#flush();
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

/** Content piece by piece in `buffer`. */
function* contentChunks(content: BasisContent, buffer: Buffer): Generator<Buffer> {
  for (const { offset, lengthBytes } of content.extents) {
    for (let done = 0; done < lengthBytes;) {
      const got = readSync(content.fd, buffer, 0, Math.min(buffer.length, lengthBytes - done), offset + done);
      if (got === 0) throw new WhittleError('BASIS_DAMAGED', 'content ends before its record says');
      done += got;
      yield buffer.subarray(0, got);
    }
  }
}
