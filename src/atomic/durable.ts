import { randomBytes } from 'node:crypto';
import type { Barrier, DurableKind } from './barriers.js';
import type { DurableFs, FsPath } from './durable-fs.js';
import { isSystemError } from './storage-error.js';

/** Names that start so are unfinished files: whoever finds one while holding the lock may delete it. */
export const temporaryPrefix = '.tmp-';
const slash = 0x2f;

/** Joins path components of which none is empty; a Buffer makes the result one. */
export function joinPath(first: string, ...rest: readonly FsPath[]): FsPath {
  let joined: FsPath = first;
  for (const part of rest) {
    if (part.length === 0) continue;
    if (joined.length === 0) joined = part;
    else joined = typeof joined === 'string' && typeof part === 'string' ? `${joined}/${part}` : joinBytes(joined, part);
  }
  return joined;
}

function joinBytes(before: FsPath, after: FsPath): Buffer {
  const beforeBytes = typeof before === 'string' ? Buffer.byteLength(before) : before.length;
  const out = Buffer.allocUnsafe(beforeBytes + 1 + (typeof after === 'string' ? Buffer.byteLength(after) : after.length));
  put(out, before, 0);
  out[beforeBytes] = slash;
  put(out, after, beforeBytes + 1);
  return out;
}

function put(out: Buffer, path: FsPath, at: number): void {
  if (typeof path === 'string') out.write(path, at);
  else path.copy(out, at);
}

function parentOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash < 0 ? '' : path.slice(0, slash);
}

/**
 * Writes `content` under `path` so that, whatever happens, `path` is the old file or the new one, whole; the new one
 * is durable when it returns: temporary file beside it, fsync, rename, fsync of the directory. `kind` names the barriers. System errors pass.
 */
export async function writeFileDurably(fs: DurableFs, path: string, content: Buffer, kind: DurableKind, mode = 0o600): Promise<void> {
  const parent = parentOf(path);
  const temporary = `${parent === '' ? '' : `${parent}/`}${temporaryPrefix}${randomBytes(8).toString('hex')}`;
  const file = await fs.open(temporary, 'create', mode);
  try {
    try {
      await file.write(content, 0);
      await file.fsync(`${kind}.content`);
    } finally {
      await file.close();
    }
    await fs.rename(temporary, path, 'file.rename');
  } catch (error) {
    await removeQuietly(fs, temporary);
    throw error;
  }
  await fs.fsyncDir(parent, `${kind}.name`);
}

async function removeQuietly(fs: DurableFs, path: string): Promise<void> {
  try {
    await fs.unlink(path);
  } catch {
    // The first error is the one to report; recovery deletes what stays.
  }
}

/** Makes the directory `path`, durable when it returns; one that exists is fine. Its parent must exist. */
export async function makeDirectoryDurably(fs: DurableFs, path: string, barrier: Barrier, mode = 0o700): Promise<void> {
  try {
    await fs.mkdir(path, mode);
  } catch (error) {
    if (!isSystemError(error, 'EEXIST')) throw error;
    return;
  }
  await fs.fsyncDir(parentOf(path), barrier);
}

/** One directory tree that is to become visible under its final name. */
export interface TreeMove {
  readonly from: string;
  readonly to: string;
  /** Something is at `to` and is to be swapped with `from`, which then holds the old tree. */
  readonly replace: boolean;
}

/** Suffix of a tree that was set aside where the filesystem cannot swap names; recovery puts it back when its successor is missing. */
export const asideSuffix = '.old';

/**
 * Moves trees whose contents are durable (after a successful `syncfs`) to their final names. When it returns, the
 * moves are durable: every parent directory that changed was synced. Returns trees that were set aside because the
 * filesystem cannot swap names, for the caller to discard.
 */
export async function moveTrees(fs: DurableFs, moves: readonly TreeMove[]): Promise<string[]> {
  const aside: string[] = [];
  for (const move of moves) {
    if (!move.replace) await fs.rename(move.from, move.to, 'layers.rename');
    else if (!(await exchanged(fs, move))) {
      await fs.rename(move.to, move.to + asideSuffix, 'layers.aside');
      await fs.rename(move.from, move.to, 'layers.successor');
      aside.push(move.to + asideSuffix);
    }
  }
  for (const parent of new Set(moves.map((move) => parentOf(move.to)))) await fs.fsyncDir(parent, 'layers.name');
  for (const parent of new Set(moves.map((move) => parentOf(move.from)))) await fs.fsyncDir(parent, 'layers.origin');
  // Only now: until both directories are synced, a disk may forget the successor and keep nothing but what was set aside.
  return aside;
}

/** Whether the two trees swapped names; false where the filesystem cannot. */
async function exchanged(fs: DurableFs, move: TreeMove): Promise<boolean> {
  try {
    await fs.exchange(move.from, move.to, 'layers.exchange');
    return true;
  } catch (error) {
    if (!isSystemError(error, 'EINVAL', 'ENOSYS', 'EOPNOTSUPP', 'ENOTSUP')) throw error;
    return false;
  }
}

/**
 * After a cut within `moveTrees`: puts trees of `directory` that were set aside back where nothing took their place,
 * and reports the others, which may be deleted. Idempotent, so nothing is synced: what a cut undoes is done again.
 */
export async function recoverAside(fs: DurableFs, directory: string): Promise<{ restored: number; obsolete: string[] }> {
  const names = (await fs.readdir(directory)).map((entry) => entry.name.toString('latin1'));
  const present = new Set(names);
  const obsolete: string[] = [];
  let restored = 0;
  for (const name of names.filter((each) => each.endsWith(asideSuffix))) {
    const original = name.slice(0, -asideSuffix.length);
    if (present.has(original)) {
      obsolete.push(`${directory}/${name}`);
      continue;
    }
    await fs.rename(`${directory}/${name}`, `${directory}/${original}`, 'aside.rename');
    restored++;
  }
  return { restored, obsolete };
}

/** Deletes unfinished files of `directory`; returns how many. Call only while nobody else can be writing there. */
export async function removeTemporaries(fs: DurableFs, directory: string): Promise<number> {
  const stale = (await fs.readdir(directory)).filter((entry) => entry.name.toString('latin1').startsWith(temporaryPrefix));
  for (const entry of stale) {
    try {
      await fs.unlink(joinPath(directory, entry.name));
    } catch (error) {
      if (!isSystemError(error, 'ENOENT')) throw error;
    }
  }
  return stale.length;
}
