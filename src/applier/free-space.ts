import { WhittleError } from '../core/errors.js';

/** Throws STORAGE_FULL, with the numbers, when a filesystem has not the bytes that a pull needs there. */
export function requireFree(directory: string, neededBytes: number, freeBytes: number): void {
  if (freeBytes >= neededBytes) return;
  throw new WhittleError('STORAGE_FULL', `the pull needs ${String(neededBytes)} bytes on the filesystem of ${directory}, ${String(freeBytes)} are free`, { data: { neededBytes, freeBytes } });
}
