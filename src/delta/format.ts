import { WhittleError } from '../core/errors.js';
import type { Descriptor } from '../oci/descriptor.js';

/**
 * The one format version that this code writes and reads. It rises with every change of what the data blob means:
 * the codec's models adapt to what they have seen, so a decoder of another version would not fail, it would rebuild something else.
 */
export const deltaFormatVersion = 11;

const blobType = (blob: 'index' | 'data', version: number): string => `application/vnd.whittle.delta.${blob}.v${String(version)}`;

/** Media types of the delta artifact (docs/format.md). Those of its blobs name the format version, the artifact's own stays: any version is found by it. */
export const deltaMediaTypes = {
  artifact: 'application/vnd.whittle.delta.v1',
  index: blobType('index', deltaFormatVersion),
  data: blobType('data', deltaFormatVersion),
} as const;

/** Annotation keys of the delta artifact. */
export const deltaAnnotations = {
  basisManifest: 'dev.whittle.basis.manifest',
  basisConfig: 'dev.whittle.basis.config',
  targetConfig: 'dev.whittle.target.config',
} as const;

/** The two blobs of a delta, and their format version. */
export interface DeltaBlobs {
  readonly version: number;
  readonly index: Descriptor;
  readonly data: Descriptor;
}

/** Finds the blobs of a delta of any format version among the layers of its manifest; null when they are not one index and one data blob of the same. */
export function deltaBlobs(layers: readonly Descriptor[]): DeltaBlobs | null {
  const [index, data] = layers;
  if (layers.length !== 2 || index === undefined || data === undefined) return null;
  const version = Number(/\.v([1-9][0-9]{0,4})$/.exec(index.mediaType)?.[1] ?? 0);
  if (index.mediaType !== blobType('index', version) || data.mediaType !== blobType('data', version)) return null;
  return { version, index, data };
}

/** Throws DELTA_VERSION unless a delta's format version is the one that this code reads. */
export function requireDeltaFormat(version: number): void {
  if (version === deltaFormatVersion) return;
  throw new WhittleError('DELTA_VERSION', `the delta has format version ${String(version)}, this program reads version ${String(deltaFormatVersion)}`, { data: { version } });
}
