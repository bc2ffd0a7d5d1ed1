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

export function layerPath(diffId: string): string {
  return `${layout.layers}/${hexOf(diffId)}`;
}

export function imagePath(manifestDigest: string): string {
  return `${layout.images}/${hexOf(manifestDigest)}`;
}

export function stagePath(manifestDigest: string): string {
  return `${layout.stages}/${hexOf(manifestDigest)}`;
}

export function stageLockPath(manifestDigest: string): string {
  return `${layout.locks}/stage-${hexOf(manifestDigest)}`;
}

/** Names may hold anything, so files are called by their digest. */
export function nameKey(name: string): string {
  return createHash('sha256').update(name).digest('hex');
}

export const hexName = /^[0-9a-f]{64}$/;
