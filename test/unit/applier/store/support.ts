import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from '@jest/globals';
import { openStore } from '../../../../src/applier/store/open.js';
import type { OpenStoreOptions, Stage, Store, StoredImage, TargetImage } from '../../../../src/applier/store/types.js';

const made: string[] = [];

/** A new directory that is deleted after the file's tests. */
export function temporaryDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), 'whittle-store-'));
  made.push(path);
  return path;
}

afterAll(() => {
  for (const path of made) rmSync(path, { recursive: true, force: true });
});

export const sha256 = (bytes: Buffer | string): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** Manifest and config of an image with these layer tars; `salt` makes another image of the same layers. */
export function target(tars: readonly Buffer[], salt = ''): TargetImage & { readonly manifestDigest: string } {
  const config = Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', created: salt, rootfs: { type: 'layers', diff_ids: tars.map(sha256) } }));
  const manifestMediaType = 'application/vnd.oci.image.manifest.v1+json';
  const manifest = Buffer.from(JSON.stringify({
    schemaVersion: 2, mediaType: manifestMediaType,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: sha256(config), size: config.length },
    layers: tars.map((tar) => ({ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: sha256(tar), size: tar.length })),
  }));
  return { manifest, manifestMediaType, config, manifestDigest: sha256(manifest) };
}

/** Bytes in pieces whose memory is spoilt once the next is asked for. */
export async function* pieces(bytes: Buffer, pieceBytes = 7000): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    const chunk = Buffer.from(bytes.subarray(at, at + pieceBytes));
    yield await Promise.resolve(chunk);
    chunk.fill(0xa5);
  }
}

/** Fills every missing layer of the stage from full tars. */
export async function fill(stage: Stage, tars: readonly Buffer[]): Promise<void> {
  for (const [layer, tar] of tars.entries()) if (!(await stage.hasLayer(layer))) await stage.writeLayerTar(layer, pieces(tar));
}

/** Pulls an image in full under `name`. */
export async function install(store: Store, tars: readonly Buffer[], name: string, salt = ''): Promise<StoredImage> {
  const stage = await store.stage(target(tars, salt));
  try {
    await fill(stage, tars);
    return await stage.commit({ name, source: `test/${name}` });
  } finally {
    await stage.close();
  }
}

/** The layer's tar as the store gives it back. */
export async function exported(store: Store, diffId: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of store.layerTar(diffId)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Opens a store, closes it after `body`. */
export async function withStore<T>(root: string, body: (store: Store) => Promise<T>, options: OpenStoreOptions = { create: true }): Promise<T> {
  const store = await openStore(root, options);
  try {
    return await body(store);
  } finally {
    await store.close();
  }
}

/** Directory of an extracted layer. */
export function layerDirectory(root: string, tar: Buffer): string {
  return join(root, 'layers', sha256(tar).slice('sha256:'.length));
}

export const isRoot = process.geteuid?.() === 0;
