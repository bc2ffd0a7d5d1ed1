import { isSystemError, joinPath, type DurableFs, type FileStat, type FsPath } from '../../atomic/index.js';
import { systemErrorCode } from '../../core/errors.js';

const statsPerHop = 256;

/** Bytes on disk of everything below `path`; a file with several names counts once. What vanishes meanwhile counts nothing. */
export async function sizeOnDisk(fs: DurableFs, path: string): Promise<number> {
  const seen = new Set<bigint>();
  let total = 0;
  for await (const stat of statsBelow(fs, path)) {
    if (stat.linkCount > 1 && stat.kind === 'file' && seen.has(stat.inode)) continue;
    if (stat.linkCount > 1) seen.add(stat.inode);
    total += stat.allocatedBytes;
  }
  return total;
}

/**
 * Bytes on disk that go with `path` and everything below it: those of a file with names elsewhere stay. Free space before and
 * after would count what others write meanwhile, and miss what a filesystem gives back later. Blocks that files share
 * count as each one's own; what the disk does not tell counts nothing.
 */
export async function freedWith(fs: DurableFs, path: string): Promise<number> {
  const namesLeft = new Map<bigint, number>();
  let total = 0;
  try {
    total += (await fs.stat(path))?.allocatedBytes ?? 0;
    for await (const stat of statsBelow(fs, path)) {
      const left = stat.kind === 'directory' ? 0 : (namesLeft.get(stat.inode) ?? stat.linkCount) - 1;
      if (left > 0) namesLeft.set(stat.inode, left);
      else total += stat.allocatedBytes;
    }
  } catch (error) {
    // Nobody keeps what is to be deleted for want of a number.
    if (systemErrorCode(error) === undefined) throw error;
  }
  return total;
}

async function* statsBelow(fs: DurableFs, path: string): AsyncGenerator<FileStat, void, void> {
  const directories: FsPath[] = [path];
  for (let directory = directories.pop(); directory !== undefined; directory = directories.pop()) {
    const children: FsPath[] = [];
    for (const entry of await list(fs, directory)) {
      const child = joinPath('', directory, entry.name);
      if (entry.kind === 'directory') directories.push(child);
      children.push(child);
    }
    for (let start = 0; start < children.length; start += statsPerHop) {
      for (const stat of await fs.statMany(children.slice(start, start + statsPerHop))) if (stat !== undefined) yield stat;
    }
  }
}

async function list(fs: DurableFs, directory: FsPath): ReturnType<DurableFs['readdir']> {
  try {
    return await fs.readdir(directory);
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return [];
    throw error;
  }
}
