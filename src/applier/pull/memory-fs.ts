import type { DurableFile } from '../../atomic/durable-fs.js';
import type { SpoolFs } from './spool.js';

/** One file in memory of at most `capacityBytes` behind the part of the filesystem port that a spool uses, for downloads too small to keep. */
export function memoryFs(capacityBytes: number): SpoolFs {
  const content = Buffer.alloc(capacityBytes);
  let sizeBytes = 0;
  const file: DurableFile = {
    fd: -1,
    readNow: (buffer, offset) => content.copy(buffer, 0, offset, sizeBytes),
    read: (buffer, offset) => Promise.resolve(content.copy(buffer, 0, offset, sizeBytes)),
    write: (data, offset) => {
      data.copy(content, offset);
      sizeBytes = Math.max(sizeBytes, offset + data.length);
      return Promise.resolve();
    },
    truncate: (to) => {
      sizeBytes = to;
      return Promise.resolve();
    },
    stat: () => Promise.resolve({
      kind: 'file', mode: 0o600, uid: 0, gid: 0, sizeBytes, allocatedBytes: 0, linkCount: 1, device: 0n, inode: 0n,
      mtimeSec: 0, mtimeNsec: 0, ctimeNs: 0n, deviceMajor: 0, deviceMinor: 0,
    }),
    fsync: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
  return { open: () => Promise.resolve(file), unlink: () => Promise.resolve(), fsyncDir: () => Promise.resolve() };
}
