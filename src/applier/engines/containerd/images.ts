import { isWhittleError, WhittleError } from '../../../core/errors.js';
import { chainIds, isIndexType, isManifestType, parseConfig, parseIndex, parseManifest, verifyDigest, type Descriptor } from '../../../oci/index.js';
import type { HeldImage } from '../types.js';
import type { ContainerdApi, ImageRecord } from './api.js';
import { containerdLimits } from './limits.js';

/** An image that containerd has unpacked. */
export interface UnpackedImage extends HeldImage {
  readonly manifestDigest: string;
  /** Of the record that it was read from. */
  readonly indexDigest: string | null;
  /** The layers' blobs, in the order of `diffIds`; containerd may not have them any more. */
  readonly layers: readonly Descriptor[];
  /** Names of the layers' snapshots, bottom first: one for each layer. */
  readonly chain: readonly string[];
}

/** The label of a snapshot that was filled here: the diffID of the layer, whose metadata is kept in the snapshot's directory. */
export const layerLabel = 'vnd.whittle.layer';

/** A layer that containerd has: its snapshot's chain up to it, bottom first, and its blob where one is known. */
export interface LayerAddress {
  readonly diffId: string;
  readonly chain: readonly string[];
  readonly blob: Descriptor | undefined;
}

/** What of an image's record is wanted. */
export type RecordTarget = Pick<Descriptor, 'digest' | 'mediaType'>;

/** Reads images of containerd as far as they are unpacked by its snapshotter. What it says is checked; documents are proven by their digests. */
export class ImageReader {
  constructor(private readonly api: ContainerdApi) {}

  /**
   * All images that are unpacked, newest first, each once with all its names. `isCommitted` tells of a snapshot's name.
   * What cannot be read is left out, and told.
   */
  async all(isCommitted: (name: string) => boolean | Promise<boolean>, onNote: (note: string) => void): Promise<UnpackedImage[]> {
    const byManifest = new Map<string, UnpackedImage>();
    for await (const image of this.each(isCommitted, onNote)) {
      const known = byManifest.get(image.manifestDigest);
      byManifest.set(image.manifestDigest, known === undefined ? image : { ...known, names: [...known.names, ...image.names], sequence: Math.max(known.sequence, image.sequence) });
    }
    return [...byManifest.values()].sort((a, b) => b.sequence - a.sequence);
  }

  /** The image of each record that is unpacked, newest first, read as it is asked for. */
  async *each(isCommitted: (name: string) => boolean | Promise<boolean>, onNote: (note: string) => void): AsyncGenerator<UnpackedImage, void, void> {
    const records = [...await this.api.images()].sort((a, b) => milliseconds(b) - milliseconds(a));
    for (const record of records) {
      try {
        const image = await this.read(record, isCommitted);
        if (image !== undefined) yield image;
      } catch (error) {
        if (!isWhittleError(error) || unanswered.has(error.code)) throw error;
        onNote(`containerd's image ${JSON.stringify(record.name.slice(0, 300))} cannot be read: ${error.message}`);
      }
    }
  }

  /** Those of these snapshots that no image shows. Reads images, newest first, until each was found: most are of the version before. */
  async unshown(snapshots: readonly string[], isCommitted: (name: string) => boolean | Promise<boolean>): Promise<ReadonlySet<string>> {
    const left = new Set(snapshots);
    for await (const { chain } of this.each(isCommitted, () => undefined)) {
      for (const name of chain) left.delete(name);
      if (left.size === 0) break;
    }
    return left;
  }

  /** The image of one record; undefined when none of its platforms is unpacked. Throws IMAGE_INVALID, DIGEST_MISMATCH, LIMIT_EXCEEDED. */
  async read(record: ImageRecord, isCommitted: (name: string) => boolean | Promise<boolean>): Promise<UnpackedImage | undefined> {
    if (record.target === undefined) throw new WhittleError('IMAGE_INVALID', 'an image of containerd has no target');
    for (const manifest of await this.#manifests(record.target)) {
      const image = await this.#image(manifest, record);
      const top = image?.chain.at(-1);
      if (image !== undefined && (top === undefined || await isCommitted(top))) return image;
    }
    return undefined;
  }

  /** The manifests that a record stands for: one, or those of an index. */
  async #manifests(target: RecordTarget): Promise<readonly RecordTarget[]> {
    if (isManifestType(target.mediaType)) return [target];
    if (!isIndexType(target.mediaType)) return [];
    const bytes = await this.#document(target.digest);
    return bytes === undefined ? [] : parseIndex(bytes, 'an index in containerd', target.mediaType).manifests.filter(({ mediaType }) => isManifestType(mediaType));
  }

  async #image(target: RecordTarget, record: ImageRecord): Promise<UnpackedImage | undefined> {
    const bytes = await this.#document(target.digest);
    if (bytes === undefined) return undefined;
    const manifest = parseManifest(bytes, 'a manifest in containerd', target.mediaType);
    const config = await this.#document(manifest.config.digest);
    if (config === undefined) return undefined;
    const { diffIds } = parseConfig(config, manifest.layers.length, 'an image config in containerd');
    return {
      manifestDigest: target.digest, indexDigest: record.target?.digest === target.digest ? null : record.target?.digest ?? null, configDigest: manifest.config.digest, config, diffIds, layers: manifest.layers, chain: chainIds(diffIds),
      names: isName(record.name) ? [record.name] : [], sequence: milliseconds(record),
    };
  }

  /** A small blob, proven; undefined when containerd does not have it (of an index, it has the platforms that were pulled). */
  async #document(digest: string): Promise<Buffer | undefined> {
    const info = await this.api.contentInfo(digest);
    if (info === undefined) return undefined;
    if (info.size > containerdLimits.maxDocumentBytes) throw new WhittleError('LIMIT_EXCEEDED', `${digest} has ${info.size} bytes; at most ${containerdLimits.maxDocumentBytes} are read (maxDocumentBytes)`);
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    for await (const chunk of this.api.content(digest)) {
      chunks.push(chunk);
      sizeBytes += chunk.length;
      if (sizeBytes > containerdLimits.maxDocumentBytes) throw new WhittleError('LIMIT_EXCEEDED', `${digest} has more than ${containerdLimits.maxDocumentBytes} bytes (maxDocumentBytes)`);
    }
    const bytes = Buffer.concat(chunks);
    verifyDigest(bytes, digest, 'a blob of containerd');
    return bytes;
  }
}

/** Errors that say nothing of one image. */
const unanswered: ReadonlySet<string> = new Set(['ENGINE_UNREACHABLE', 'ENGINE_DENIED', 'INTERRUPTED']);

/** Kubernetes keeps each image under its ID too, which is no name that anybody gave. */
function isName(name: string): boolean {
  return !/^sha256:[0-9a-f]{64}$/.test(name);
}

function milliseconds({ updatedAt, createdAt }: ImageRecord): number {
  const time = updatedAt ?? createdAt;
  return time === undefined ? 0 : time.seconds * 1000 + Math.floor(time.nanos / 1_000_000);
}
