import { isSystemError, joinPath, type DurableFs, type FsPath } from '../../atomic/index.js';

const statsPerHop = 256;

/** Bytes on disk of everything below `path`; a file with several names counts once. What vanishes meanwhile counts nothing. */
export async function sizeOnDisk(fs: DurableFs, path: string): Promise<number> {
  const seen = new Set<bigint>();
  const directories: FsPath[] = [path];
  let total = 0;
  for (let directory = directories.pop(); directory !== undefined; directory = directories.pop()) {
    const children: FsPath[] = [];
    for (const entry of await list(fs, directory)) {
      const child = joinPath('', directory, entry.name);
      if (entry.kind === 'directory') directories.push(child);
      children.push(child);
    }
    for (let start = 0; start < children.length; start += statsPerHop) {
      for (const stat of await fs.statMany(children.slice(start, start + statsPerHop))) {
        if (stat === undefined || (stat.linkCount > 1 && stat.kind === 'file' && seen.has(stat.inode))) continue;
        if (stat.linkCount > 1) seen.add(stat.inode);
        total += stat.allocatedBytes;
      }
    }
  }
  return total;
}

async function list(fs: DurableFs, directory: FsPath): ReturnType<DurableFs['readdir']> {
  try {
    return await fs.readdir(directory);
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return [];
    throw error;
  }
}
