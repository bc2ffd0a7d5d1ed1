import { WhittleError } from '../../core/errors.js';
import { mediaTypes } from '../../oci/index.js';
import { pushBlob, pushManifest, pushReferrer, type BlobToPush, type ImageSource, type RegistryClient } from '../../registry/index.js';
import type { DeltaBundle } from './bundle.js';
import type { RemoteRepository } from './repository.js';

/** What pushing a delta came to. */
export interface PushedBundle {
  /** Through which of the two ways the registry lists it. */
  readonly listedBy: 'api' | 'tag';
  /** Bytes of blobs that were sent; those that were there or could be mounted cost nothing. */
  readonly sentBytes: number;
}

/** How a delta is pushed. */
export interface PushOptions {
  readonly signal?: AbortSignal | undefined;
  /** Bytes of the blobs that the registry has, of all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /** Another repository of the same registry that may have the blobs. */
  readonly mountFrom?: string | undefined;
}

/** Pushes a delta's blobs, then its manifest, and makes it findable from its target. Throws REGISTRY_*, INTERRUPTED, and what reading the blobs throws. */
export async function pushBundle(to: RemoteRepository, bundle: DeltaBundle, options: PushOptions = {}): Promise<PushedBundle> {
  const sentBytes = await pushBlobs(to.client, to.repository, bundle.blobs, options);
  const listedBy = await pushReferrer(to.client, to.repository, { descriptor: bundle.descriptor, bytes: bundle.manifest, subjectDigest: bundle.subjectDigest }, { signal: options.signal });
  return { listedBy, sentBytes };
}

async function pushBlobs(client: RegistryClient, repository: string, blobs: readonly BlobToPush[], { signal, onProgress, mountFrom }: PushOptions): Promise<number> {
  const total = blobs.reduce((sum, { descriptor }) => sum + descriptor.size, 0);
  let [done, sentBytes] = [0, 0];
  for (const blob of blobs) {
    const from = mountFrom === repository ? undefined : mountFrom;
    const how = await pushBlob(client, repository, blob, { signal, mountFrom: from, onProgress: (count) => onProgress?.(done + count, total) });
    if (how === 'uploaded') sentBytes += blob.descriptor.size;
    done += blob.descriptor.size;
    onProgress?.(done, total);
  }
  return sentBytes;
}

/**
 * Pushes an image under a tag (null: by digest alone): layers and config, mounted from `mountFrom` where the registry can, then
 * the manifest. Throws REGISTRY_*, IMAGE_MEDIA_TYPE for an image whose manifest is not what a registry stores.
 */
export async function pushImage(to: RemoteRepository, image: ImageSource, tag: string | null, options: PushOptions = {}): Promise<number> {
  const { descriptor, bytes, parsed } = image.manifest;
  if (![mediaTypes.ociManifest, mediaTypes.dockerManifest].includes(descriptor.mediaType as typeof mediaTypes.ociManifest)) {
    throw new WhittleError('IMAGE_MEDIA_TYPE', `${image.name}: its manifest is ${descriptor.mediaType}, which is not pushed`);
  }
  const blobs = [...new Map([parsed.config, ...parsed.layers].map((each) => [each.digest, each])).values()].map((each): BlobToPush => ({
    descriptor: each, open: (offset) => from(image.openBlob(each), offset),
  }));
  const sentBytes = await pushBlobs(to.client, to.repository, blobs, options);
  await pushManifest(to.client, to.repository, tag ?? descriptor.digest, descriptor.mediaType, bytes, { signal: options.signal });
  return sentBytes;
}

async function* from(chunks: AsyncIterable<Buffer>, offset: number): AsyncGenerator<Buffer, void, void> {
  let at = 0;
  for await (const chunk of chunks) {
    const skip = Math.max(0, offset - at);
    at += chunk.length;
    if (skip < chunk.length) yield chunk.subarray(skip);
  }
}
