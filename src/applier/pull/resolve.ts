import { WhittleError } from '../../core/errors.js';
import { maxConfigBytes, maxLayerBlobBytes, maxManifestBytes } from '../../core/limits.js';
import { checkImageManifest, findManifest, formatPlatform, parseConfig, platformMatches, referenceTarget, type ImageConfig, type Manifest } from '../../oci/index.js';
import type { HeldImage } from '../engines/types.js';
import type { TargetImage, TargetIndex } from '../store/types.js';
import { fetchManifest, fetchSmall, requireSize, type PullContext } from './context.js';
import type { ServedManifest } from './image-source.js';
import type { PullOptions } from './options.js';

/** The manifest that an image name leads to, checked. */
export interface ResolvedManifest {
  readonly served: ServedManifest;
  readonly manifest: Manifest;
  /** The index that it was picked from, if its name led to one. */
  readonly index?: TargetIndex;
}

/** An image to pull: manifest and config, verified. */
export interface ResolvedImage {
  readonly target: TargetImage;
  readonly manifest: Manifest;
  readonly config: ImageConfig;
  readonly manifestDigest: string;
}

/** Asks what the image's name means now, and picks the platform. Throws IMAGE_*, REGISTRY_*. */
export async function resolveManifest(context: PullContext, options: PullOptions): Promise<ResolvedManifest> {
  const first = await readManifest(context, referenceTarget(options.reference));
  const { served, manifest, index } = await findManifest(first, options.platform, options.image, ({ digest }) => readManifest(context, digest));
  const image = checked(served, manifest, options.image);
  // An index of indexes is of no use to whoever keeps it without those: what it says of this image is the manifest.
  if (index?.manifests.some(({ digest }) => digest === served.digest) !== true) return image;
  return { ...image, index: { bytes: first.bytes, mediaType: index.mediaType, digest: first.digest } };
}

async function readManifest(context: PullContext, target: string): Promise<ServedManifest> {
  return fetchManifest(context, target, maxManifestBytes);
}

function checked(served: ServedManifest, manifest: Manifest, what: string): ResolvedManifest {
  checkImageManifest(manifest, what);
  for (const layer of manifest.layers) requireSize(layer, maxLayerBlobBytes);
  return { served, manifest };
}

/** Adds the config, from an image that is there when one has it. Throws IMAGE_*, FETCH_*. */
export async function resolveConfig(context: PullContext, options: PullOptions, { served, manifest, index }: ResolvedManifest): Promise<ResolvedImage> {
  const held = (await context.place.images()).find((image) => image.configDigest === manifest.config.digest);
  const bytes = held?.config ?? await fetchSmall(context, manifest.config, 'config', maxConfigBytes);
  const config = parseConfig(bytes, manifest.layers.length, `the config of ${options.image}`);
  checkPlatform(context, options, config);
  return { target: { manifest: served.bytes, manifestMediaType: manifest.mediaType, config: bytes, index }, manifest, config, manifestDigest: served.digest };
}

/** An image that is here already must be for the platform that the user named, as one that is to be fetched must. Throws IMAGE_PLATFORM. */
export function requirePlatform(context: PullContext, options: PullOptions, { config, diffIds }: HeldImage): void {
  if (options.platformChosen) checkPlatform(context, options, parseConfig(config, diffIds.length, `the config of ${options.image}`));
}

function checkPlatform(context: PullContext, options: PullOptions, config: ImageConfig): void {
  if (platformMatches(options.platform, config.platform)) return;
  const mismatch = `${options.image} is for ${formatPlatform(config.platform)}, not for ${formatPlatform(options.platform)}`;
  if (options.platformChosen) throw new WhittleError('IMAGE_PLATFORM', mismatch);
  context.onEvent({ event: 'note', text: mismatch });
}
