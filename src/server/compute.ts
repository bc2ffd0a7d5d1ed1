import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { serverAddon } from '../core/native.js';
import { computeDelta } from '../delta/encode/compute.js';
import { returnFreeMemory } from '../delta/encode/free-memory.js';
import type { DeltaProfile } from '../delta/index-blob.js';
import { sha256Digest } from '../oci/digest.js';
import { makeDeltaManifest, type DeltaManifest } from './artifact.js';
import { layerPullBytes, type ImageInput } from './image-input.js';
import { checkDelta } from './self-check.js';
import { unpackPair } from './unpack.js';

/** The steps of a computation, in order. */
export type ComputePhase = 'unpack' | 'compute' | 'check';

/** What a delta artifact is made from, and what that may take. */
export interface ComputeArtifactOptions {
  readonly basis: ImageInput;
  readonly target: ImageInput;
  /** An empty directory of the caller's: the data blob is written there, unpacked layers too while they are needed. The caller removes it. */
  readonly directory: string;
  readonly profile: DeltaProfile;
  /** Bounds matching and indexing. */
  readonly memoryLimitBytes: number;
  readonly threads?: number;
  readonly signal?: AbortSignal;
  /** Bytes done of all in a phase; the phases come in order. */
  readonly onProgress?: (phase: ComputePhase, done: number, total: number) => void;
}

/** What one layer of the target cost and became. */
export interface LayerFacts {
  readonly diffId: string;
  readonly digest: string;
  /** Size of the blob as a registry has it. */
  readonly blobBytes: number;
  /** Size of the uncompressed tar. */
  readonly tarBytes: number;
  readonly entries: number;
  /** `basis`: the basis has it; `delta`: it is rebuilt. */
  readonly how: 'basis' | 'delta';
}

/** A delta that was made and proved. Its data blob lies at `dataPath`; nothing is synced. */
export interface ComputedArtifact {
  readonly manifest: DeltaManifest;
  readonly index: Buffer;
  readonly dataPath: string;
  readonly dataSizeBytes: number;
  readonly report: ArtifactReport;
}

/** Measurements of a computation. Times are wall clock. */
export interface ArtifactReport {
  readonly layerPullBytes: number;
  /** Manifest, index and data. */
  readonly deltaBytes: number;
  readonly manifestBytes: number;
  readonly indexBytes: number;
  readonly dataBytes: number;
  /** Coded tar metadata and coded file content, both within `dataBytes`. */
  readonly metaBytes: number;
  readonly contentBytes: number;
  readonly copiedFiles: number;
  readonly patchedFiles: number;
  /** Reading, decompressing and verifying both images. */
  readonly unpackMs: number;
  /** Making the delta, without unpacking and without the check. */
  readonly computeMs: number;
  /** Applying the delta once, in the check. */
  readonly applyMs: number;
  readonly layers: readonly LayerFacts[];
}

/**
 * Makes the delta artifact that turns the basis into the target: unpacks and verifies both, computes, then applies
 * what was written and compares every diffID. The same images, profile and memory limit give the same bytes. Throws
 * what reading the images, `computeDelta` and `checkDelta` throw; INTERRUPTED when `signal` aborts.
 */
export async function computeArtifact(options: ComputeArtifactOptions): Promise<ComputedArtifact> {
  const { basis, target, directory, signal, onProgress } = options;
  // It sets the allocator as it is loaded: too late once the images have gone through it.
  serverAddon();
  const unpackStartMs = performance.now();
  const pair = await unpackPair({ basis, target, directory, ...(signal && { signal }), onProgress: (done, total) => onProgress?.('unpack', done, total) });
  try {
    returnFreeMemory();
    const computeStartMs = performance.now();
    const dataPath = join(directory, 'data');
    const delta = await computeDelta({
      basis: pair.basis, target: pair.target, basisImage: digestsOf(basis), targetImage: digestsOf(target), profile: options.profile,
      memoryLimitBytes: options.memoryLimitBytes, dataPath, onProgress: (done, total) => onProgress?.('compute', done, total),
      ...(options.threads !== undefined && { threads: options.threads }), ...(signal && { signal }),
    });
    const computeMs = performance.now() - computeStartMs;
    onProgress?.('check', 0, 1);
    returnFreeMemory();
    const { applyMs } = await checkDelta({ index: delta.index, dataPath, basis: pair.basis, target: pair.target, ...(signal && { signal }) });
    onProgress?.('check', 1, 1);
    const index = { digest: sha256Digest(delta.index), sizeBytes: delta.index.length };
    const manifest = makeDeltaManifest(basis, target, index, { digest: delta.dataDigest, sizeBytes: delta.dataSizeBytes });
    const held = new Set(basis.layers.map((layer) => layer.diffId));
    return {
      manifest, index: delta.index, dataPath, dataSizeBytes: delta.dataSizeBytes,
      report: {
        layerPullBytes: layerPullBytes(basis, target),
        deltaBytes: manifest.bytes.length + delta.index.length + delta.dataSizeBytes,
        manifestBytes: manifest.bytes.length, indexBytes: delta.index.length, dataBytes: delta.dataSizeBytes,
        metaBytes: delta.report.metaBytes, contentBytes: delta.report.contentBytes,
        copiedFiles: delta.report.copiedFiles, patchedFiles: delta.report.patchedFiles.length,
        unpackMs: Math.round(computeStartMs - unpackStartMs), computeMs: Math.round(computeMs), applyMs: Math.round(applyMs),
        layers: target.layers.map((layer, at): LayerFacts => ({
          diffId: layer.diffId, digest: layer.descriptor.digest, blobBytes: layer.descriptor.size, how: held.has(layer.diffId) ? 'basis' : 'delta',
          tarBytes: pair.target.layers[at]?.sizeBytes ?? 0, entries: pair.target.layers[at]?.entries.length ?? 0,
        })),
      },
    };
  } finally {
    await pair.close();
  }
}

function digestsOf(image: ImageInput): { manifestDigest: string; configDigest: string } {
  return { manifestDigest: image.manifest.digest, configDigest: image.configDigest };
}

/** Writes the small blobs of an artifact beside its data blob, as files named for what they are, and returns them by digest. Nothing is synced. */
export async function writeArtifactFiles(artifact: ComputedArtifact, directory: string): Promise<ReadonlyMap<string, string>> {
  const [config, index, data] = artifact.manifest.blobs;
  const files = new Map([[data.digest, artifact.dataPath]]);
  const put = async (digest: string, name: string, bytes: Buffer): Promise<void> => {
    const path = join(directory, name);
    const handle = await open(path, 'wx');
    try {
      await handle.writeFile(bytes);
    } finally {
      await handle.close();
    }
    files.set(digest, path);
  };
  await put(artifact.manifest.digest, 'manifest', artifact.manifest.bytes);
  await put(index.digest, 'index', artifact.index);
  await put(config.digest, 'config', Buffer.from('{}'));
  return files;
}
