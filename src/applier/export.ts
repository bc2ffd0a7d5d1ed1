import type { Writable } from 'node:stream';
import { mediaTypes, type Descriptor } from '../oci/index.js';
import { bufferBlob, writeArchive, type BlobInput } from '../registry/index.js';
import type { Store, StoredImage } from './store/types.js';

/**
 * Writes an image of the store as an OCI archive: its config as it is, its layers as plain tars, and a manifest that
 * says so. The image ID and the diffIDs are those of the published image; the manifest's digest is not, for the layers
 * are not packed. When it returns a file is whole and durable; on an error nothing of it remains. Into a stream (standard output) the archive
 * goes as it comes. `sizeBytes` is the archive's. Throws STORE_DAMAGED, STORAGE_*, USAGE, INTERRUPTED.
 */
export async function exportImage(store: Store, image: StoredImage, place: string | Writable, name: string | null, signal?: AbortSignal): Promise<{ readonly manifestDigest: string; readonly sizeBytes: number }> {
  const config = bufferBlob(mediaTypes.ociConfig, image.config);
  const layers: BlobInput[] = [];
  for (const diffId of image.diffIds) {
    const descriptor = { mediaType: mediaTypes.ociLayerTar, digest: diffId, size: await store.layerTarSizeBytes(diffId) };
    layers.push({ descriptor, open: () => store.layerTar(diffId) });
  }
  const manifest = bufferBlob(mediaTypes.ociManifest, Buffer.from(JSON.stringify({
    schemaVersion: 2, mediaType: mediaTypes.ociManifest, config: config.descriptor, layers: layers.map((layer) => layer.descriptor),
  })));
  const sizeBytes = await writeArchive(place, { blobs: [manifest, config, ...layers], manifests: [named(manifest.descriptor, name)] }, signal);
  return { manifestDigest: manifest.descriptor.digest, sizeBytes };
}

/** The tag for tools that look an image up by it, the whole name for those that load it under its name. */
function named(descriptor: Descriptor, name: string | null): Descriptor {
  if (name === null) return descriptor;
  const tag = /:([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})$/.exec(name)?.[1];
  return { ...descriptor, annotations: { 'io.containerd.image.name': name, ...(tag === undefined ? {} : { 'org.opencontainers.image.ref.name': tag }) } };
}
