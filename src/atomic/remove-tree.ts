import { randomBytes } from 'node:crypto';
import type { BatchOp, DurableFs, FsPath } from './durable-fs.js';
import { joinPath } from './durable.js';
import { isSystemError } from './storage-error.js';

const opsPerBatch = 256;

/** Runs deletions; what is gone already is fine. */
async function remove(fs: DurableFs, ops: readonly BatchOp[]): Promise<void> {
  for (let start = 0; start < ops.length;) {
    try {
      await fs.batch(ops.slice(start, start + opsPerBatch));
      start += opsPerBatch;
    } catch (error) {
      if (!isSystemError(error, 'ENOENT')) throw error;
      start += ((error as { index?: number }).index ?? 0) + 1;
    }
  }
}

/** Deletes `path` and all below it, whatever it is; nothing there is fine. Not durable by itself. No recursion: trees may be thousands deep. */
export async function removeTree(fs: DurableFs, path: FsPath): Promise<void> {
  const stat = await fs.stat(path);
  if (stat === undefined) return;
  if (stat.kind !== 'directory') {
    await remove(fs, [{ op: 'unlink', path }]);
    return;
  }
  const found: FsPath[] = [path];
  // Every directory after its parent; deleted from the end.
  for (let at = 0; at < found.length; at++) {
    const directory = found[at] ?? path;
    const files: BatchOp[] = [];
    for (const entry of await listOrNothing(fs, directory)) {
      const child = joinPath('', directory, entry.name);
      if (entry.kind === 'directory') found.push(child);
      else files.push({ op: 'unlink', path: child });
    }
    await remove(fs, files);
  }
  await remove(fs, found.reverse().map((each) => ({ op: 'rmdir', path: each })));
}

async function listOrNothing(fs: DurableFs, directory: FsPath): ReturnType<DurableFs['readdir']> {
  try {
    return await fs.readdir(directory);
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return [];
    throw error;
  }
}

/**
 * Makes `path` invisible in one step, durably, and then deletes it: it is moved into the directory `trash` first, so that a
 * cut leaves it whole under its name or not at all, and only then emptied. Nothing at `path` is fine.
 */
export async function discardTree(fs: DurableFs, path: string, trash: string): Promise<void> {
  const grave = `${trash}/${randomBytes(8).toString('hex')}`;
  try {
    await fs.rename(path, grave, 'trash.rename');
  } catch (error) {
    if (isSystemError(error, 'ENOENT')) return;
    throw error;
  }
  // Without this a disk could forget the move and remember the deletions: a tree with holes under a trusted name. Whether
  // the tree is in the trash after a cut, or nowhere, is all the same.
  await fs.fsyncDir(path.includes('/') ? path.slice(0, path.lastIndexOf('/')) : '', 'trash.origin');
  await removeTree(fs, grave);
}
