import { createReadStream } from 'node:fs';
import type { DeltaProfile } from '../delta/index-blob.js';
import type { ImageLayer } from '../registry/layer.js';
import type { BlobPlace } from './catalog.js';
import type { ArtifactReport } from './compute.js';
import type { BlobFacts } from './delta-record.js';
import type { ImageInput } from './image-input.js';

/** An image whose blobs are all local files, as it is sent to a worker. */
export interface LocalImage {
  readonly manifest: ImageInput['manifest'];
  readonly configDigest: string;
  readonly layers: readonly (ImageLayer & { readonly place: BlobPlace })[];
}

/** What a worker is told to do. */
export interface WorkerJob {
  readonly basis: LocalImage;
  readonly target: LocalImage;
  readonly directory: string;
  readonly profile: DeltaProfile;
  readonly memoryLimitBytes: number;
  readonly threads: number;
}

/** What a worker says: progress any number of times, then one of the others, then it ends. */
export type WorkerAnswer =
  | { readonly kind: 'progress'; readonly share: number }
  | {
      readonly kind: 'done';
      readonly manifest: BlobFacts & { readonly mediaType: string };
      readonly annotations: Readonly<Record<string, string>>;
      readonly blobs: readonly BlobFacts[];
      /** Path of each blob by digest. */
      readonly files: readonly (readonly [digest: string, path: string])[];
      readonly report: ArtifactReport;
      readonly peakRssBytes: number;
    }
  | { readonly kind: 'failed'; readonly code: string; readonly message: string };

/** A local image as input of a computation. */
export function inputOf(image: LocalImage): ImageInput {
  const places = new Map(image.layers.map((layer) => [layer.descriptor.digest, layer.place.path]));
  return {
    manifest: image.manifest, configDigest: image.configDigest, layers: image.layers,
    openLayer: (layer, signal) => createReadStream(places.get(layer.descriptor.digest) ?? '', { highWaterMark: 1 << 18, ...(signal && { signal }) }) as AsyncIterable<Buffer>,
  };
}
