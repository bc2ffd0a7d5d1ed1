import { stat } from 'node:fs/promises';
import { deltaAnnotations, deltaMediaTypes } from '../../delta/format.js';
import type { DeltaIndex } from '../../delta/index-blob.js';
import { maxConfigBytes } from '../../core/limits.js';
import { parseConfig, parseManifest, type Descriptor, type Manifest } from '../../oci/index.js';
import { type LayoutReader, type BlobToPush } from '../../registry/index.js';
import { fileRange, openFile } from '../../registry/file-bytes.js';
import type { WorkerDone } from '../worker-host.js';
import { notWhole, openDeltaFile, type DeltaFile } from '../delta-file.js';

/** A delta that is ready to be pushed. Whoever made it keeps its files until it is pushed, and closes it. */
export interface DeltaBundle {
  /** With artifact type and annotations, as lists of referrers shall have it. */
  readonly descriptor: Descriptor;
  readonly manifest: Buffer;
  readonly subjectDigest: string;
  readonly basisConfig: string;
  /** Config, index and data. */
  readonly blobs: readonly BlobToPush[];
  readonly deltaBytes: number;
  /** What pulling the layers that the basis lacks costs. */
  readonly layerPullBytes: number;
  close(): Promise<void>;
}

/** The delta that a computation made. Its files stay the caller's. Throws IMAGE_UNREADABLE. */
export async function bundleOfWork(done: WorkerDone, subjectDigest: string): Promise<DeltaBundle> {
  const paths = new Map(done.files);
  const path = (digest: string): string => paths.get(digest) ?? '';
  const manifest = await readSmall(path(done.manifest.digest), (await stat(path(done.manifest.digest))).size);
  const parsed = parseManifest(manifest, 'the delta', done.manifest.mediaType);
  return {
    descriptor: { mediaType: done.manifest.mediaType, digest: done.manifest.digest, size: manifest.length, artifactType: deltaMediaTypes.artifact, annotations: done.annotations },
    manifest, subjectDigest, basisConfig: done.annotations[deltaAnnotations.basisConfig] ?? '',
    blobs: [parsed.config, ...parsed.layers].map((descriptor) => fileToPush(descriptor, path(descriptor.digest))),
    deltaBytes: done.report.deltaBytes, layerPullBytes: done.report.layerPullBytes, close: () => Promise.resolve(),
  };
}

async function readSmall(path: string, sizeBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of fileToPush({ mediaType: '', digest: '', size: sizeBytes }, path).open(0)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** A blob that is a file of its own. */
export function fileToPush(descriptor: Descriptor, path: string): BlobToPush {
  return {
    descriptor,
    open: async function* (offset) {
      const handle = await openFile(path);
      try {
        yield* fileRange(handle, offset, descriptor.size - offset, path);
      } finally {
        await handle.close();
      }
    },
  };
}

/** The image that a `.delta` file makes, as far as the file has it. */
export interface ArchivedTarget {
  readonly descriptor: Descriptor;
  readonly manifest: Manifest;
  readonly configDigest: string;
  readonly diffIds: readonly string[];
}

/**
 * Opens a `.delta` file for pushing, and checks it: manifest, index and the target's manifest and config belong together, and
 * every blob is there in its size. The data is proven while it is sent. The caller closes it. Throws IMAGE_*, DELTA_*, DIGEST_MISMATCH.
 */
export async function openBundle(path: string): Promise<{ readonly bundle: DeltaBundle; readonly target: ArchivedTarget }> {
  const file = await openDeltaFile(path);
  try {
    return await bundleOfFile(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function bundleOfFile(file: DeltaFile): Promise<{ bundle: DeltaBundle; target: ArchivedTarget }> {
  const { layout, manifest, index, indexBlob, data } = file;
  if (manifest.subject === undefined) throw notWhole(layout, 'its manifest names no image that it makes');
  const target = await readTarget(layout, manifest.subject);
  if (target.configDigest !== index.target.configDigest || manifest.annotations[deltaAnnotations.basisConfig] !== index.basis.configDigest) throw notWhole(layout, 'its index is of other images than its manifest says');
  if ((await layout.blobSize(data.digest)) !== data.size) throw notWhole(layout, 'its data has another size than its index says');
  const bundle: DeltaBundle = {
    descriptor: { mediaType: manifest.mediaType, digest: file.descriptor.digest, size: file.manifestContent.length, artifactType: deltaMediaTypes.artifact, annotations: manifest.annotations },
    manifest: file.manifestContent, subjectDigest: manifest.subject.digest, basisConfig: index.basis.configDigest,
    blobs: [manifest.config, indexBlob, data].map((descriptor) => archivedToPush(layout, descriptor)),
    deltaBytes: file.manifestContent.length + indexBlob.size + data.size, layerPullBytes: layersCarried(index, target.manifest), close: () => file.close(),
  };
  return { bundle, target };
}

async function readTarget(layout: LayoutReader, subject: Descriptor): Promise<ArchivedTarget> {
  const manifest = parseManifest(await layout.readManifest(subject), 'the target in the .delta file', subject.mediaType);
  const { diffIds } = parseConfig(await layout.readBlob(manifest.config, maxConfigBytes), manifest.layers.length, 'the config in the .delta file');
  return { descriptor: subject, manifest, configDigest: manifest.config.digest, diffIds };
}

/** Bytes of the layers that a delta rebuilds, each blob once: what a device that has the basis pulls without it. */
export function layersCarried(index: DeltaIndex, target: Manifest): number {
  const wanted = new Map<string, number>();
  for (const [at, { how }] of index.layers.entries()) {
    const layer = target.layers[at];
    if (how === 'delta' && layer !== undefined) wanted.set(layer.digest, layer.size);
  }
  return [...wanted.values()].reduce((sum, sizeBytes) => sum + sizeBytes, 0);
}

/** A blob within an archive. It is read, and proven, from its beginning wherever the upload begins. */
function archivedToPush(layout: LayoutReader, descriptor: Descriptor): BlobToPush {
  return {
    descriptor,
    open: async function* (offset) {
      let at = 0;
      for await (const chunk of layout.openBlob(descriptor)) {
        const from = Math.max(0, offset - at);
        at += chunk.length;
        if (from < chunk.length) yield chunk.subarray(from);
      }
    },
  };
}
