import type { Writable } from 'node:stream';
import { deltaMediaTypes } from '../delta/index.js';
import { mediaTypes, type Descriptor } from '../oci/index.js';
import { writeArchive } from '../registry/archive.js';
import { bufferBlob, fileBlob } from '../registry/blob-input.js';
import { emptyConfig } from './artifact.js';
import type { ComputedArtifact } from './compute.js';
import type { OpenedImage } from './sources.js';

/** The tag that the delta has within its `.delta` file. */
const deltaArchiveTag = 'delta';

/**
 * Writes a `.delta` file: an OCI archive with the delta's artifact (its `index.json` entry is tagged `delta`) and the
 * target's manifest and config. A file appears under its name only when it is whole and on disk. The same delta
 * gives the same bytes. Returns its size. Throws STORAGE_*, USAGE, INTERRUPTED.
 */
export async function writeDeltaArchive(place: string | Writable, artifact: ComputedArtifact, target: OpenedImage, signal?: AbortSignal): Promise<number> {
  const { mediaType, digest, bytes, annotations } = artifact.manifest;
  const { manifest, config } = target.source;
  const targetManifest = bufferBlob(manifest.descriptor.mediaType, manifest.bytes);
  const manifests: Descriptor[] = [
    { mediaType, digest, size: bytes.length, artifactType: deltaMediaTypes.artifact, annotations: { ...annotations, 'org.opencontainers.image.ref.name': deltaArchiveTag } },
    targetManifest.descriptor,
  ];
  const data = { mediaType: deltaMediaTypes.data, digest: artifact.manifest.blobs[2].digest, size: artifact.dataSizeBytes };
  // Small things first: a reader knows everything about the delta before its data comes.
  const blobs = [
    bufferBlob(mediaType, bytes), bufferBlob(mediaTypes.ociEmpty, emptyConfig), targetManifest, bufferBlob(config.descriptor.mediaType, config.bytes),
    bufferBlob(deltaMediaTypes.index, artifact.index), fileBlob(data, artifact.dataPath),
  ];
  return writeArchive(place, { manifests, blobs }, signal);
}
