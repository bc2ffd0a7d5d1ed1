import { createHash } from 'node:crypto';
import { parseDigest } from '../../oci/index.js';
import { WhittleError } from '../../core/errors.js';

/** Names below the store's root; `docs/format-store.md` describes them. */
export const layout = {
  format: 'format', layers: 'layers', images: 'images', references: 'refs', stages: 'stages', locks: 'locks', trash: 'trash', mounts: 'mounts', empty: 'empty', damaged: 'damaged',
  storeLock: 'locks/store', useLock: 'locks/use',
} as const;

/** Directories that every store has. */
export const storeDirectories = [layout.layers, layout.images, layout.references, layout.stages, layout.locks, layout.trash, layout.mounts, layout.empty, layout.damaged] as const;

/** The hex of a sha256 digest. Throws IMAGE_INVALID for others: layers of the store are known by sha256. */
export function hexOf(digest: string): string {
  const { algorithm, hex } = parseDigest(digest);
  if (algorithm !== 'sha256') throw new WhittleError('IMAGE_INVALID', `the store takes sha256 digests, not ${algorithm}`);
  return hex;
}

/** The directory of a layer. Throws IMAGE_INVALID unless the diffID is a sha256 digest. */
export function layerPath(diffId: string): string {
  return `${layout.layers}/${hexOf(diffId)}`;
}

/** The record of an image. Throws IMAGE_INVALID unless the digest is a sha256. */
export function imagePath(manifestDigest: string): string {
  return `${layout.images}/${hexOf(manifestDigest)}`;
}

/** The directory of the stage of an image. Throws IMAGE_INVALID unless the digest is a sha256. */
export function stagePath(manifestDigest: string): string {
  return `${layout.stages}/${hexOf(manifestDigest)}`;
}

/** The file that is locked by whoever works in that stage. Throws IMAGE_INVALID unless the digest is a sha256. */
export function stageLockPath(manifestDigest: string): string {
  return `${layout.locks}/stage-${hexOf(manifestDigest)}`;
}

/** Names may hold anything, so files are called by their digest. */
export function nameKey(name: string): string {
  return createHash('sha256').update(name).digest('hex');
}

/** What directories and files that are called by a digest look like; any other name there is not the store's. */
export const hexName = /^[0-9a-f]{64}$/;
