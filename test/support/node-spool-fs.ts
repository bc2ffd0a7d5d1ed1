import { constants, readSync } from 'node:fs';
import { open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { DurableFile } from '../../src/atomic/durable-fs.js';
import type { SpoolFs } from '../../src/applier/pull/spool.js';

/** As much of the filesystem port as a spool needs, on node's own calls and without the addon. */
export function nodeSpoolFs(root: string): SpoolFs {
  return {
    open: async (path, how) => wrap(await open(join(root, String(path)), flags[how], 0o600)),
    unlink: async (path) => { await unlink(join(root, String(path))); },
    fsyncDir: async (path) => {
      const handle = await open(join(root, String(path)));
      await handle.sync();
      await handle.close();
    },
  };
}

const flags = {
  read: constants.O_RDONLY | constants.O_NOFOLLOW,
  create: constants.O_RDWR | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
  update: constants.O_RDWR | constants.O_NOFOLLOW,
};

function wrap(handle: Awaited<ReturnType<typeof open>>): DurableFile {
  return {
    fd: handle.fd,
    read: async (buffer, offset) => {
      let done = 0;
      while (done < buffer.length) {
        const { bytesRead } = await handle.read(buffer, done, buffer.length - done, offset + done);
        if (bytesRead === 0) break;
        done += bytesRead;
      }
      return done;
    },
    readNow: (buffer, offset) => readSync(handle.fd, buffer, 0, buffer.length, offset),
    write: async (data, offset) => {
      for (let done = 0; done < data.length;) done += (await handle.write(data, done, data.length - done, offset + done)).bytesWritten;
    },
    truncate: async (sizeBytes) => { await handle.truncate(sizeBytes); },
    stat: async () => ({ kind: 'file', ...emptyStat, sizeBytes: (await handle.stat()).size }),
    fsync: async () => { await handle.sync(); },
    close: async () => { await handle.close(); },
  };
}

const emptyStat = {
  mode: 0o600, uid: 0, gid: 0, allocatedBytes: 0, linkCount: 1, device: 0n, inode: 0n, mtimeSec: 0, mtimeNsec: 0, ctimeNs: 0n, deviceMajor: 0, deviceMinor: 0,
};
