import { dirname } from 'node:path';
import type { LoggedCall } from './trace.js';

/** Paths in the arguments of a call, as `strace -y` writes them. */
function pathsIn(text: string): string[] {
  return [...text.matchAll(/"((?:\/[^"]*)?)"|<(\/[^>]*)>/g)].map(([, quoted, open]) => quoted ?? open ?? '').filter((path) => path !== '');
}

/** The path that a call made durable; null where it did not. */
export function syncedPath({ name, text }: LoggedCall): string | null {
  return name === 'fsync' || name === 'fdatasync' ? (pathsIn(text)[0] ?? null) : null;
}

/** The calls whose order `orderProblems` judges. */
export const orderCalls = 'fsync,fdatasync,write,pwrite64,writev,pwritev,ftruncate,rename,renameat,renameat2,mkdir,mkdirat';

/**
 * What is wrong with the order in which a program brought files below `root` under the names by which they are trusted. A file that is renamed
 * is on the disk by then; each new name, and each new directory above it, is on the disk before the next file is renamed, and
 * when the program ends. Names below `scratch` (a folder, by its path) are trusted by nobody.
 */
export function orderProblems(calls: readonly LoggedCall[], root: string, scratch: string | null = null): string[] {
  const problems: string[] = [];
  const unsynced = new Set<string>();
  const unsyncedNames = new Map<string, string>();
  const isTrusted = (path: string): boolean => path.startsWith(root) && (scratch === null || !path.startsWith(scratch));
  for (const call of calls) {
    const [first, second] = pathsIn(call.text);
    const synced = syncedPath(call);
    if (synced !== null) {
      unsynced.delete(synced);
      for (const [made, folder] of unsyncedNames) if (folder === synced) unsyncedNames.delete(made);
    } else if (call.name.startsWith('mkdir')) {
      if (first !== undefined && isTrusted(first) && !call.text.includes('EEXIST')) unsyncedNames.set(first, dirname(first));
    } else if (call.name.startsWith('rename')) {
      if (first === undefined || second === undefined || !isTrusted(second)) continue;
      if (unsynced.has(first)) problems.push(`${second} was renamed before its content was on the disk`);
      for (const made of unsyncedNames.keys()) problems.push(`${second} was renamed before the name ${made} was on the disk`);
      unsyncedNames.set(second, dirname(second));
    } else if (first?.startsWith(root) === true) unsynced.add(first);
  }
  return [...problems, ...[...unsyncedNames.keys()].map((made) => `the program ended before the name ${made} was on the disk`)];
}
