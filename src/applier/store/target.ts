import { WhittleError } from '../../core/errors.js';
import { checkImageManifest, parseConfig, parseManifest, sha256Digest } from '../../oci/index.js';
import { hexOf } from './layout.js';
import type { TargetImage } from './types.js';

/** An image's documents with what follows from them. */
export interface Target extends TargetImage {
  readonly manifestDigest: string;
  readonly configDigest: string;
  /** In manifest order. */
  readonly diffIds: readonly string[];
}

/**
 * Checks that manifest and config belong together and works out their digests. Throws IMAGE_INVALID,
 * IMAGE_MEDIA_TYPE, IMAGE_FOREIGN_LAYER, LIMIT_EXCEEDED, DIGEST_MISMATCH.
 */
export function parseTarget(image: TargetImage): Target {
  const manifest = parseManifest(image.manifest, 'image manifest', image.manifestMediaType);
  checkImageManifest(manifest, 'image manifest');
  const configDigest = sha256Digest(image.config);
  if (manifest.config.digest !== configDigest) {
    throw new WhittleError('DIGEST_MISMATCH', `the image config has digest ${configDigest}, the manifest names ${manifest.config.digest}`);
  }
  const { diffIds } = parseConfig(image.config, manifest.layers.length);
  diffIds.forEach(hexOf);
  return { ...image, manifestDigest: sha256Digest(image.manifest), configDigest, diffIds };
}

/** The diffID of the layer at `layer` of a target's manifest. Throws INTERNAL when there is none. */
export function diffIdAt(diffIds: readonly string[], layer: number): string {
  const diffId = diffIds[layer];
  if (diffId === undefined) throw new WhittleError('INTERNAL', `the target has no layer ${String(layer)}`);
  return diffId;
}

/** Throws LAYER_MISMATCH when a layer came out with another diffID than the image's config declares for it. */
export function requireDiffId(found: string, expected: string | undefined): void {
  if (found !== expected) throw new WhittleError('LAYER_MISMATCH', `a layer has the diffID ${found}, the image config declares ${String(expected)}`, { data: { found, expected } });
}
