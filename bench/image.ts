import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Transform, type TransformCallback } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { runOk } from './process.js';

/** A layer as an OCI layout holds it. */
export interface Layer {
  readonly digest: string;
  readonly mediaType: string;
  readonly sizeBytes: number;
  /** Digest of the uncompressed tar, as the config declares it. */
  readonly diffId: string;
}

/** One image of an OCI layout. */
export interface Image {
  readonly layout: string;
  readonly tag: string;
  readonly manifestDigest: string;
  readonly configDigest: string;
  readonly layers: readonly Layer[];
}

interface Descriptor { mediaType: string; digest: string; size: number; annotations?: Record<string, string> }

/** File of a blob in a layout. */
function blobPath(layout: string, digest: string): string {
  return join(layout, 'blobs', ...digest.split(':'));
}

async function readJson(path: string): Promise<unknown> {
  return JSON.parse(await readFile(path, 'utf8')) as unknown;
}

/** Tags of a layout, in the order of its index. */
export async function layoutTags(layout: string): Promise<string[]> {
  const { manifests } = (await readJson(join(layout, 'index.json'))) as { manifests: Descriptor[] };
  return manifests.flatMap((manifest) => manifest.annotations?.['org.opencontainers.image.ref.name'] ?? []);
}

/** Reads one image of a layout: the one with `tag`, or the only one. */
export async function readImage(layout: string, tag?: string): Promise<Image> {
  const { manifests } = (await readJson(join(layout, 'index.json'))) as { manifests: Descriptor[] };
  const found = tag === undefined ? manifests : manifests.filter((one) => one.annotations?.['org.opencontainers.image.ref.name'] === tag);
  const [descriptor] = found;
  if (descriptor === undefined || found.length !== 1) throw new Error(`${layout}: ${String(found.length)} images with tag ${tag ?? '(any)'}`);
  const manifest = (await readJson(blobPath(layout, descriptor.digest))) as { config: Descriptor; layers: Descriptor[] };
  const config = (await readJson(blobPath(layout, manifest.config.digest))) as { rootfs: { diff_ids: string[] } };
  return {
    layout,
    tag: tag ?? '',
    manifestDigest: descriptor.digest,
    configDigest: manifest.config.digest,
    layers: manifest.layers.map((layer, at) => ({ digest: layer.digest, mediaType: layer.mediaType, sizeBytes: layer.size, diffId: config.rootfs.diff_ids[at] ?? '' })),
  };
}

/** Layers of `target` that a device with `basis` lacks. */
export function missingLayers(basis: Image, target: Image): Layer[] {
  const held = new Set(basis.layers.map((layer) => layer.diffId));
  return target.layers.filter((layer) => !held.has(layer.diffId));
}

/** Bytes that a layer pull downloads: the compressed blobs of the missing layers. */
export function layerPullBytes(basis: Image, target: Image): number {
  return missingLayers(basis, target).reduce((sum, layer) => sum + layer.sizeBytes, 0);
}

/** Writes uncompressed layer tars, one after the other, to one file; returns its size. */
export async function writeTars(layout: string, layers: readonly Layer[], path: string): Promise<number> {
  let sizeBytes = 0;
  const out = createWriteStream(path);
  for (const layer of layers) {
    const count = new Transform({ transform(chunk: Buffer, _encoding, done) { sizeBytes += chunk.length; done(null, chunk); } });
    await pipeline(createReadStream(blobPath(layout, layer.digest)), decompressor(layer.mediaType), count, out, { end: false });
  }
  await new Promise<void>((resolve, reject) => { out.once('error', reject); out.end(resolve); });
  return sizeBytes;
}

function decompressor(mediaType: string): Transform {
  if (mediaType.endsWith('gzip')) return createGunzip();
  if (mediaType.endsWith('.tar')) return new Transform({ transform(chunk: Buffer, _encoding, done: TransformCallback) { done(null, chunk); } });
  throw new Error(`the bench reads gzip and plain layers, not ${mediaType}`);
}

/** Digest of the uncompressed bytes of a layer, computed from its blob. */
async function computeDiffId(layout: string, layer: Layer): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(blobPath(layout, layer.digest)), decompressor(layer.mediaType), hash);
  return `sha256:${hash.digest('hex')}`;
}

/** Unpacks an OCI archive (a tar of a layout) into a folder. */
export async function unpackArchive(archive: string, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  await runOk(['tar', '-xf', archive, '-C', folder]);
}

/**
 * Holds an exported image against the published one, bit for bit: the config's bytes (so the image ID) and every layer's
 * uncompressed bytes, hashed here anew. Returns what differs; empty when nothing does.
 */
export async function differences(published: Image, exported: Image): Promise<string[]> {
  const found: string[] = [];
  const config = await readFile(blobPath(exported.layout, exported.configDigest));
  const configDigest = `sha256:${createHash('sha256').update(config).digest('hex')}`;
  if (configDigest !== published.configDigest) found.push(`config ${configDigest} instead of ${published.configDigest}`);
  if (exported.layers.length !== published.layers.length) found.push(`${String(exported.layers.length)} layers instead of ${String(published.layers.length)}`);
  for (const [at, layer] of exported.layers.entries()) {
    const diffId = await computeDiffId(exported.layout, layer);
    if (diffId !== published.layers[at]?.diffId) found.push(`layer ${String(at)}: ${diffId} instead of ${published.layers[at]?.diffId ?? 'none'}`);
  }
  return found;
}
