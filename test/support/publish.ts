import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deltaAnnotations, deltaFormatVersion, deltaMediaTypes } from '../../src/delta/index.js';
import { mediaTypes, type Descriptor } from '../../src/oci/index.js';
import { openSource, RegistryClient } from '../../src/registry/index.js';
import { computeArtifact, writeArtifactFiles } from '../../src/server/compute.js';
import { fileToPush, type DeltaBundle } from '../../src/server/publish/bundle.js';
import { pushBundle, pushImage } from '../../src/server/publish/push-bundle.js';
import type { RemoteRepository } from '../../src/server/publish/repository.js';
import { openImage } from '../../src/server/sources.js';
import { digestOf, makeImage, noise, type MadeImage } from './images.js';

/** Limits that make waiting short. */
export const quickLimits = { backoffMs: 5, backoffMaxMs: 20, attempts: 6, tagSettleMs: 80, retryAfterMaxMs: 3000 } as const;

/** A repository as the publishing commands open it, with short pauses. The caller closes its client. */
export function remoteAt(host: string, repository: string): RemoteRepository {
  return { client: new RegistryClient(host, { limits: quickLimits }), repository, name: `${host}/${repository}`, reference: { registry: host, repository } };
}

/** Versions of an image in a layout, each a small step from the one before. */
export interface Versions {
  readonly layout: string;
  readonly images: readonly MadeImage[];
  close(): Promise<void>;
}

/**
 * Makes `count` versions `v1`, `v2` …: a base layer, and a layer of which each version changes one more of `count` parts of
 * `partBytes`, to something that no delta can predict. So a delta over n versions costs about n parts, and a layer pull all of them.
 */
export async function makeVersions(count: number, partBytes: number): Promise<Versions> {
  const layout = await mkdtemp(join(tmpdir(), 'whittle-versions-'));
  const platform = { os: 'linux', architecture: 'amd64' };
  const images: MadeImage[] = [];
  for (let version = 1; version <= count; version++) {
    const held = Array.from({ length: count }, (_, part) => ({ path: `app/part${String(part)}`, content: noise(partBytes, part < version ? 1000 + part : part + 1) }));
    images.push(await makeImage(layout, `v${String(version)}`, [[{ path: 'etc/' }, { path: 'etc/os', content: 'test\n' }], [{ path: 'app/' }, ...held, { path: 'version', content: `v${String(version)}\n` }]], { platform }));
  }
  return { layout, images, close: () => rm(layout, { recursive: true, force: true }) };
}

/** Pushes an image of a layout under its tag. */
export async function pushMade(to: RemoteRepository, image: MadeImage): Promise<void> {
  const source = await openSource(`oci:${image.dir}:${image.tag}`);
  try {
    await pushImage(to, source, image.tag);
  } finally {
    await source.close();
  }
}

/** A real delta between two images of a layout. Closing it removes its files. */
export async function realBundle(basis: MadeImage, target: MadeImage): Promise<DeltaBundle> {
  const directory = await mkdtemp(join(tmpdir(), 'whittle-bundle-'));
  const [from, to] = [await openImage(`oci:${basis.dir}:${basis.tag}`, {}), await openImage(`oci:${target.dir}:${target.tag}`, {})];
  const artifact = await computeArtifact({ basis: from.input, target: to.input, directory, profile: 'fast', memoryLimitBytes: 2 ** 28, threads: 1 });
  const files = await writeArtifactFiles(artifact, directory);
  await from.close();
  await to.close();
  const { mediaType, digest, bytes, annotations, blobs } = artifact.manifest;
  const types = [mediaTypes.ociEmpty, deltaMediaTypes.index, deltaMediaTypes.data];
  return {
    descriptor: { mediaType, digest, size: bytes.length, artifactType: deltaMediaTypes.artifact, annotations }, manifest: bytes,
    subjectDigest: target.manifestDigest, basisConfig: basis.configDigest, deltaBytes: artifact.report.deltaBytes, layerPullBytes: artifact.report.layerPullBytes,
    blobs: blobs.map((blob, at) => fileToPush({ mediaType: types[at] ?? '', digest: blob.digest, size: blob.sizeBytes }, files.get(blob.digest) ?? '')),
    close: () => rm(directory, { recursive: true, force: true }),
  };
}

/** Publishes a real delta; returns what it costs a device. */
export async function publishReal(to: RemoteRepository, basis: MadeImage, target: MadeImage): Promise<{ readonly digest: string; readonly deltaBytes: number }> {
  const bundle = await realBundle(basis, target);
  try {
    await pushBundle(to, bundle);
    return { digest: bundle.descriptor.digest, deltaBytes: bundle.deltaBytes };
  } finally {
    await bundle.close();
  }
}

/** What a made-up delta says of itself. */
export interface MadeUp {
  readonly basisConfig: string;
  readonly basisManifest: string;
  readonly targetConfig: string;
  readonly subject: Descriptor;
  readonly dataBytes: number;
  /** Another format version than this program's. */
  readonly formatVersion?: number;
}

/** A delta in form only: its blobs are noise. */
export function madeUpBundle({ basisConfig, basisManifest, targetConfig, subject, dataBytes, formatVersion = deltaFormatVersion }: MadeUp): DeltaBundle {
  const contents = [Buffer.from('{}'), Buffer.from(`index of ${basisConfig}`), noise(dataBytes, dataBytes)];
  const types = [mediaTypes.ociEmpty, ...[deltaMediaTypes.index, deltaMediaTypes.data].map((type) => type.replace(/\d+$/, String(formatVersion)))];
  const blobs = contents.map((bytes, at) => ({ descriptor: { mediaType: types[at] ?? '', digest: digestOf(bytes), size: bytes.length }, open: (offset: number) => only(bytes.subarray(offset)) }));
  const annotations = { [deltaAnnotations.basisConfig]: basisConfig, [deltaAnnotations.basisManifest]: basisManifest, [deltaAnnotations.targetConfig]: targetConfig };
  const [config, ...layers] = blobs.map((blob) => blob.descriptor);
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociManifest, artifactType: deltaMediaTypes.artifact, config, layers, subject, annotations }));
  return {
    descriptor: { mediaType: mediaTypes.ociManifest, digest: digestOf(manifest), size: manifest.length, artifactType: deltaMediaTypes.artifact, annotations }, manifest,
    subjectDigest: subject.digest, basisConfig, blobs, deltaBytes: manifest.length + dataBytes, layerPullBytes: dataBytes * 10, close: () => Promise.resolve(),
  };
}

async function* only(bytes: Buffer): AsyncGenerator<Buffer, void, void> {
  yield await Promise.resolve(bytes);
}
