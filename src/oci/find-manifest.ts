import { WhittleError } from '../core/errors.js';
import { maxIndexDepth } from '../core/limits.js';
import type { Descriptor } from './descriptor.js';
import { parseManifestOrIndex, type ImageIndex, type Manifest } from './manifest.js';
import { selectPlatform, type Platform } from './platform.js';

/** A manifest or index as somebody served it. */
export interface ServedDocument {
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/**
 * The manifest that `first` is, or that it leads to for a platform: through an index, which may lead to further ones. `what` is the
 * image, for messages. `index` is `first`, where that is one. Throws IMAGE_INVALID, IMAGE_MEDIA_TYPE, IMAGE_PLATFORM, and what `read` throws.
 */
export async function findManifest<T extends ServedDocument>(first: T, wanted: Platform, what: string, read: (descriptor: Descriptor) => Promise<T>): Promise<{ readonly served: T; readonly manifest: Manifest; readonly index: ImageIndex | undefined }> {
  let served = first;
  let index: ImageIndex | undefined;
  for (let depth = 0; depth < maxIndexDepth; depth++) {
    const parsed = parseManifestOrIndex(served.bytes, what, served.mediaType);
    if (parsed.kind === 'manifest') return { served, manifest: parsed, index };
    index ??= parsed;
    served = await read(selectPlatform(parsed.manifests, wanted, what));
  }
  throw new WhittleError('IMAGE_INVALID', `${what}: indexes within indexes, more than ${String(maxIndexDepth)} deep`);
}
