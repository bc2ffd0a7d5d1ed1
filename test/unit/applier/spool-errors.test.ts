import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { plainFrames, Spool, type SpoolFrame, type SpoolFs } from '../../../src/applier/pull/spool.js';
import { noise } from '../../support/images.js';
import { nodeSpoolFs } from '../../support/node-spool-fs.js';

const frameBytes = 4096;
const blob = noise(5 * frameBytes + 100, 1);
const frames: readonly SpoolFrame[] = plainFrames(blob.length, frameBytes).map(({ sizeBytes }, at) => ({
  sizeBytes, digest: createHash('sha256').update(blob.subarray(at * frameBytes, at * frameBytes + sizeBytes)).digest(),
}));

let dir: string;

beforeEach(async () => { dir = await mkdtemp(join(tmpdir(), 'whittle-spool-errors-')); });
afterEach(async () => { await rm(dir, { recursive: true, force: true }); });

/** Where one operation of files fails once, the `nth` time; counts the syncs of each inode. */
function failingFs(operation: 'write' | 'fsync', nth: number, code: string, syncs: bigint[]): SpoolFs {
  const real = nodeSpoolFs(dir);
  let calls = 0;
  const mayFail = async (which: 'write' | 'fsync', work: () => Promise<void>): Promise<void> => {
    if (which === operation && ++calls === nth) throw Object.assign(new Error(`${code}: ${which}`), { code, errno: -5, syscall: which });
    await work();
  };
  return {
    ...real,
    open: async (path, how) => {
      const file = await real.open(path, how);
      const { ino } = await stat(join(dir, String(path)), { bigint: true });
      return {
        ...file,
        write: (data, offset) => mayFail('write', () => file.write(data, offset)),
        fsync: (barrier) => { syncs.push(ino); return mayFail('fsync', () => file.fsync(barrier)); },
      };
    },
  };
}

async function isThere(): Promise<boolean> {
  return stat(join(dir, 'spool')).then(() => true, () => false);
}

describe.each(['write', 'fsync'] as const)('EIO from %s', (operation) => {
  test.each([1, 2, 4])('at call %i: the file is never synced again, and the next download has a new one', async (nth) => {
    const syncs: bigint[] = [];
    const fs = failingFs(operation, nth, 'EIO', syncs);
    const spool = await Spool.open(fs, '', 'spool', frames);
    const failed = (await stat(join(dir, 'spool'), { bigint: true })).ino;
    await expect(spool.append(blob)).rejects.toMatchObject({ code: 'STORAGE_IO' });
    expect(await isThere()).toBe(false);
    const before = syncs.length;
    // The number of an inode may be given again once nobody has it open: it is held here until the new one is made.
    const next = await Spool.open(fs, '', 'spool', frames);
    expect(next.position).toBe(0);
    await next.append(blob);
    expect(next.complete).toBe(true);
    expect(syncs.slice(before)).not.toContain(failed);
    await spool.discard();
    await next.close();
    expect(await readFile(join(dir, 'spool'))).toEqual(blob);
  });
});

test('a full disk takes nothing away: what was synced before stays for the next download', async () => {
  const fs = failingFs('write', 3, 'ENOSPC', []);
  const spool = await Spool.open(fs, '', 'spool', frames);
  await expect(spool.append(blob)).rejects.toMatchObject({ code: 'STORAGE_FULL' });
  await spool.close();
  const next = await Spool.open(fs, '', 'spool', frames);
  expect(next.verifiedFrames).toBe(2);
  await next.close();
});
