import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { fetchFrames } from '../../../src/applier/pull/fetch.js';
import { RateLimiter } from '../../../src/applier/pull/rate.js';
import { plainFrames, Spool, type SpoolFs } from '../../../src/applier/pull/spool.js';
import { defaultPatience } from '../../../src/applier/pull/transfer.js';
import { startBlobServer, type BlobServer } from '../../support/blob-server.js';
import { httpSource } from '../../support/http-source.js';
import { noise } from '../../support/images.js';
import { nodeSpoolFs } from '../../support/node-spool-fs.js';

const blob = noise(300_000, 1);
let server: BlobServer;
let dir: string;

beforeAll(async () => {
  server = await startBlobServer(blob);
  dir = await mkdtemp(join(tmpdir(), 'whittle-disk-full-'));
});

afterAll(async () => {
  await server.close();
  await rm(dir, { recursive: true, force: true });
});

/** A filesystem whose `nth` write (from 1) fails once, as Node puts it. */
function failingFs(nth: number, code: string, errno: number): SpoolFs {
  const real = nodeSpoolFs(dir);
  let writes = 0;
  return {
    ...real,
    open: async (path, how) => {
      const file = await real.open(path, how);
      return {
        ...file,
        write: (data, offset) => {
          writes++;
          return writes === nth ? Promise.reject(Object.assign(new Error(`${code}: write`), { code, errno, syscall: 'write' })) : file.write(data, offset);
        },
      };
    },
  };
}

test.each([
  ['ENOSPC', -28, 'STORAGE_FULL'], ['Unknown system error -122', -122, 'STORAGE_FULL'], ['EROFS', -30, 'STORAGE_READ_ONLY'], ['EIO', -5, 'STORAGE_IO'],
])('%s while a frame is written ends the download at once, and is told as it is', async (code, errno, told) => {
  for (const nth of [1, 3]) {
    const name = `spool-${String(-errno)}-${String(nth)}`;
    const spool = await Spool.open(failingFs(nth, code, errno), '', name, plainFrames(blob.length, 65_536));
    const retries: string[] = [];
    const reading = (async () => {
      for await (const frame of fetchFrames({
        source: httpSource(`${server.url}/blobs/x`), spool, limiter: new RateLimiter(null), patience: defaultPatience, signal: new AbortController().signal,
        events: { retry: (reason) => { retries.push(reason); } },
      })) expect(frame.length).toBeGreaterThan(0);
    })();
    await expect(reading).rejects.toMatchObject({ code: told });
    expect(retries).toEqual([]);
    await spool.close();
  }
});
