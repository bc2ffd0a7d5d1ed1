import { deltaAnnotations, deltaMediaTypes } from '../delta/format.js';
import { sha256Digest } from '../oci/digest.js';
import { mediaTypes } from '../oci/media-types.js';
import type { BlobFacts } from './delta-record.js';
import type { ImageInput } from './image-input.js';

/** The content of OCI's empty descriptor. */
export const emptyConfig = Buffer.from('{}');

/** A delta's OCI manifest. */
export interface DeltaManifest {
  readonly mediaType: string;
  readonly digest: string;
  readonly bytes: Buffer;
  readonly annotations: Readonly<Record<string, string>>;
  /** Config, index and data blob, in the order in which the manifest names them. */
  readonly blobs: readonly [config: BlobFacts, index: BlobFacts, data: BlobFacts];
}

/** Writes the manifest of a delta: an OCI 1.1 artifact whose subject is the target. The same delta gives the same bytes: no times, no host. */
export function makeDeltaManifest(basis: ImageInput, target: ImageInput, index: BlobFacts, data: BlobFacts): DeltaManifest {
  const config: BlobFacts = { digest: sha256Digest(emptyConfig), sizeBytes: emptyConfig.length };
  const annotations = {
    [deltaAnnotations.basisConfig]: basis.configDigest,
    [deltaAnnotations.basisManifest]: basis.manifest.digest,
    [deltaAnnotations.targetConfig]: target.configDigest,
  };
  const bytes = Buffer.from(JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociManifest,
    artifactType: deltaMediaTypes.artifact,
    config: { mediaType: mediaTypes.ociEmpty, digest: config.digest, size: config.sizeBytes },
    layers: [
      { mediaType: deltaMediaTypes.index, digest: index.digest, size: index.sizeBytes },
      { mediaType: deltaMediaTypes.data, digest: data.digest, size: data.sizeBytes },
    ],
    subject: { mediaType: target.manifest.mediaType, digest: target.manifest.digest, size: target.manifest.sizeBytes },
    annotations,
  }));
  return { mediaType: mediaTypes.ociManifest, digest: sha256Digest(bytes), bytes, annotations, blobs: [config, index, data] };
}
