import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { openStore } from '../../../../src/applier/store/open.js';
import type { DurableFile, DurableFs } from '../../../../src/atomic/index.js';
import { LinuxFs } from '../../../../src/atomic/index.js';
import { endOfTar, member } from '../../../support/tars.js';
import { testUnlessWanting } from '../../../support/tools.js';
import { exported, fill, install, isRoot, pieces, sha256, target, temporaryDirectory, withStore } from './support.js';

const testAsRoot = testUnlessWanting(isRoot ? [] : ['root']);
const small = Buffer.concat([member({ name: 'f', data: Buffer.from('small') }), endOfTar]);
const medium = Buffer.concat([...Array.from({ length: 30 }, (_, at) => member({ name: `f${String(at)}`, data: randomBytes(20_000) })), endOfTar]);
const large = Buffer.concat([...Array.from({ length: 40 }, (_, at) => member({ name: `d/f${String(at)}`, data: randomBytes(at === 20 ? 1_500_000 : 60_000) })), endOfTar]);

let disk = '';
beforeEach(() => {
  disk = temporaryDirectory();
  if (isRoot) execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', disk]);
});
afterEach(() => {
  if (isRoot) execFileSync('umount', [disk]);
});

testAsRoot('a full disk: a clear error, the old image runs on, the stage gives its space back', async () => {
  await withStore(join(disk, 'store'), async (store) => {
    const old = await install(store, [small], 'n');
    const stage = await store.stage(target([large]));
    await expect(stage.writeLayerTar(0, pieces(large))).rejects.toMatchObject({ code: 'STORAGE_FULL' });
    await stage.discard();
    expect((await store.resolve('n'))?.manifestDigest).toBe(old.manifestDigest);
    expect((await store.verify()).damagedLayers).toEqual([]);
    await install(store, [medium], 'n');
    expect((await exported(store, sha256(medium))).equals(medium)).toBe(true);
  });
  await withStore(join(disk, 'store'), async (store) => { expect((await store.resolve('n'))?.diffIds).toEqual([sha256(medium)]); }, {});
});

testAsRoot('a read-only disk: an error that says so, and reading works when it is asked for', async () => {
  const root = join(disk, 'store');
  await withStore(root, (store) => install(store, [small], 'n'));
  execFileSync('mount', ['-o', 'remount,ro', disk]);
  await expect(openStore(root)).rejects.toMatchObject({ code: 'STORAGE_READ_ONLY' });
  await withStore(root, async (store) => {
    expect((await store.resolve('n'))?.diffIds).toEqual([sha256(small)]);
    expect((await store.verify()).damagedLayers).toEqual([]);
    expect((await exported(store, sha256(small))).equals(small)).toBe(true);
    await expect(store.stage(target([medium]))).rejects.toMatchObject({ code: 'STORAGE_READ_ONLY' });
  }, { readOnly: true });
});

/** A filesystem of which one operation fails, and whose calls are noted. */
function failing(fs: DurableFs, fails: (name: string, count: number) => string | undefined): { fs: DurableFs; calls: string[] } {
  const calls: string[] = [];
  const counts = new Map<string, number>();
  const guard = (name: string): void => {
    const count = (counts.get(name) ?? 0) + 1;
    counts.set(name, count);
    calls.push(name);
    const code = fails(name, count);
    if (code !== undefined) throw Object.assign(new Error(`${code}: ${name}`), { code });
  };
  const wrap = <T extends object>(object: T, prefix: string): T => new Proxy(object, {
    get: (inner, key) => {
      const value: unknown = Reflect.get(inner, key);
      if (typeof value !== 'function') return value;
      return async (...args: unknown[]): Promise<unknown> => {
        guard(prefix + String(key));
        const result: unknown = await (value as (...all: unknown[]) => unknown).apply(inner, args);
        return key === 'open' && prefix === '' ? wrap(result as DurableFile, 'file.') : result;
      };
    },
  });
  return { fs: wrap(fs, ''), calls };
}

test.each(['ENOSPC', 'EDQUOT'])('%s for a name in the trash, as where btrfs has a quota: the stage gives its space back all the same', async (code) => {
  const root = join(disk, 'store');
  await withStore(root, () => Promise.resolve());
  // Until something was deleted.
  let isFull = false;
  const { fs, calls } = failing(await LinuxFs.open(root), (name) => {
    if (name === 'batch' && calls.at(-2) === 'readdir') isFull = false;
    return isFull && name === 'rename' ? code : undefined;
  });
  await withStore(root, async (store) => {
    const stage = await store.stage(target([medium]));
    await stage.writeLayerTar(0, pieces(medium));
    isFull = true;
    await stage.discard();
    expect([isFull, readdirSync(join(root, 'stages')), readdirSync(join(root, 'trash'))]).toEqual([false, [], []]);
    await (await store.stage(target([medium]))).close();
    isFull = true;
    expect((await store.gc({ stageMaxAgeMs: 0 })).removedStages).toBe(1);
    expect([isFull, readdirSync(join(root, 'stages'))]).toEqual([false, []]);
  }, { openFs: () => Promise.resolve(fs) });
});

for (const operation of ['syncfs', 'file.fsync', 'fsyncDir', 'rename', 'batch', 'file.write', 'file.close']) {
  test(`EIO from ${operation} at any of its calls: not committed or committed whole, never retried, reported`, async () => {
    const root = temporaryDirectory();
    await withStore(root, (store) => install(store, [small], 'n'));
    let failures = 0;
    for (let at = 1; ; at++) {
      const seen = { failed: false, after: 0 };
      const { fs } = failing(await LinuxFs.open(root), (name, count) => {
        if (name !== operation) return undefined;
        if (seen.failed) seen.after++;
        seen.failed ||= count === at;
        return count === at ? 'EIO' : undefined;
      });
      let error: unknown;
      try {
        const store = await openStore(root, { fs });
        try {
          const stage = await store.stage(target([medium, small], String(at)));
          try {
            await fill(stage, [medium, small]);
            await stage.commit({ name: 'n', source: 's' });
          } finally {
            await stage.close();
          }
        } finally {
          await store.close();
        }
      } catch (caught) {
        error = caught;
      }
      if (!seen.failed) break;
      failures++;
      if (operation === 'syncfs' || operation === 'file.fsync') expect(seen.after).toBe(0);
      if (error !== undefined) expect(error).toMatchObject({ code: 'STORAGE_IO' });
      await withStore(root, async (store) => {
        const image = await store.resolve('n');
        expect(image).toBeDefined();
        expect((await store.verify()).damagedLayers).toEqual([]);
        expect((await store.status()).damagedRecords).toEqual([]);
        await install(store, [small], 'n');
        await store.gc({ stageMaxAgeMs: 0 });
      }, {});
      expect(readdirSync(join(root, 'trash'))).toEqual([]);
    }
    expect(failures).toBeGreaterThan(0);
  });
}

test.each([['EIO', 0], ['ENOSPC', 1]])('after %s a stage that is closed keeps %i of its whole layers: what a failing disk acknowledged is written anew', async (code, kept) => {
  const root = temporaryDirectory();
  await withStore(root, (store) => install(store, [small], 'n'));
  const two = target([medium, large]);
  let broken = false;
  const { fs } = failing(await LinuxFs.open(root), (name) => (broken && name === 'syncfs' ? code : undefined));
  const store = await openStore(root, { fs });
  const stage = await store.stage(two);
  await stage.writeLayerTar(0, pieces(medium));
  broken = true;
  await expect(stage.checkpoint()).rejects.toMatchObject({ code: code === 'EIO' ? 'STORAGE_IO' : 'STORAGE_FULL' });
  await stage.close();
  await store.close();
  await withStore(root, async (after) => {
    const again = await after.stage(two);
    expect([await again.hasLayer(0), await again.hasLayer(1)].filter(Boolean)).toHaveLength(kept);
    await again.discard();
  });
});

testAsRoot('a process that opens the store meanwhile, and empties its trash, takes nothing that a pull tries out there', async () => {
  const root = temporaryDirectory();
  await withStore(root, (store) => install(store, [small], 'n'));
  const real = await LinuxFs.open(root);
  let other: Promise<void> | undefined;
  const fs = new Proxy<DurableFs>(real, {
    get: (inner, key) => {
      const value: unknown = Reflect.get(inner, key);
      if (typeof value !== 'function') return value;
      return async (...args: unknown[]): Promise<unknown> => {
        const result: unknown = await (value as (...all: unknown[]) => unknown).apply(inner, args);
        const made = key === 'batch' ? (args[0] as readonly { readonly op: string; readonly path: string }[])[0] : undefined;
        if (made?.op === 'mknod' && made.path.startsWith('trash/')) {
          other = openStore(root).then((store) => store.close());
          // It ends at once, or waits until this one is done.
          await Promise.race([other, sleep(300)]);
        }
        return result;
      };
    },
  });
  const store = await openStore(root, { fs });
  try {
    const stage = await store.stage(target([medium]));
    await stage.discard();
    expect(other).toBeDefined();
    await other;
  } finally {
    await store.close();
  }
});
