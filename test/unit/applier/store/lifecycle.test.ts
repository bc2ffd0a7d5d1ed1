import { chmodSync, chownSync, linkSync, lstatSync, readdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, jest, test } from '@jest/globals';
import { openStore } from '../../../../src/applier/store/open.js';
import type { Stage, Store } from '../../../../src/applier/store/types.js';
import { LayerMetaBuilder, type LayerMeta } from '../../../../src/tar/index.js';
import { endOfTar, goPax, member } from '../../../support/tars.js';
import { scan } from '../../../support/tars.js';
import { exported, fill, install, isRoot, layerDirectory, pieces, sha256, target, temporaryDirectory, withStore } from './support.js';

const tarOf = (files: Readonly<Record<string, string>>, mtime = 5): Buffer =>
  Buffer.concat([...Object.entries(files).map(([name, text]) => member({ name, data: Buffer.from(text), mtime })), endOfTar]);

const base = tarOf({ 'lib/a': 'library a', 'lib/b': 'library b'.repeat(50_000) });
const oldApp = tarOf({ app: 'version 1', same: 'unchanged', moved: 'content that moves' });
const newApp = tarOf({ app: 'version 2', same: 'unchanged', 'there/moved': 'content that moves' });

function metaOf(tar: Buffer): LayerMeta {
  const builder = new LayerMetaBuilder();
  builder.write(tar);
  return builder.finish();
}

test('images, names, rollback and gc', async () => {
  const root = temporaryDirectory();
  await withStore(root, async (store) => {
    const first = await install(store, [base, oldApp], 'shop:latest');
    const second = await install(store, [base, newApp], 'shop:latest');
    expect(await store.references()).toEqual([{ name: 'shop:latest', current: second.manifestDigest, previous: first.manifestDigest }]);
    expect((await store.resolve('shop:latest'))?.manifestDigest).toBe(second.manifestDigest);
    expect((await store.images()).map((image) => [image.configDigest, image.names])).toEqual([[second.configDigest, ['shop:latest']], [first.configDigest, []]]);
    expect((await store.gc()).removedImages).toEqual([]);

    expect((await store.rollback('shop:latest')).current).toBe(first.manifestDigest);
    expect((await store.rollback('shop:latest')).current).toBe(second.manifestDigest);
    await expect(store.rollback('nobody')).rejects.toMatchObject({ code: 'IMAGE_UNKNOWN' });

    const third = await install(store, [base], 'shop:latest');
    const collected = await store.gc();
    expect(collected.removedImages).toEqual([first.manifestDigest]);
    expect(collected.removedLayers).toEqual([sha256(oldApp)]);
    expect((await exported(store, sha256(newApp))).equals(newApp)).toBe(true);
    await store.removeReference('shop:latest');
    await store.gc();
    expect(await store.images()).toEqual([]);
    expect(await store.findImage(third.configDigest)).toBeUndefined();
    expect(readdirSync(join(root, 'layers'))).toEqual([]);
    expect(readdirSync(join(root, 'trash'))).toEqual([]);
    await install(store, [base], 'only');
    await expect(store.rollback('only')).rejects.toMatchObject({ code: 'STORE_NO_PREVIOUS' });
  });
});

test('gc says what went with what it removed: files that other layers have too stay, and what others write on that disk is not its doing', async () => {
  const root = temporaryDirectory();
  await withStore(root, async (store) => {
    await install(store, [base, oldApp], 'shop:latest');
    const kept = await install(store, [base, newApp], 'other:latest');
    expect((await store.gc()).freedBytes).toBe(0);
    // A name of a file in a layer that stays.
    const layer = join(root, 'layers', sha256(oldApp).slice(7));
    const shared = join(layer, 'shared');
    writeFileSync(shared, Buffer.alloc(300_000, 'x'));
    linkSync(shared, join(root, 'layers', sha256(newApp).slice(7), 'shared'));
    await store.removeReference('shop:latest');
    const before = (await store.status()).layerBytes;
    const space = jest.spyOn(store.fs, 'space').mockResolvedValueOnce({ ...(await store.fs.space()), freeBytes: 0 });
    const { removedLayers, freedBytes } = await store.gc();
    space.mockRestore();
    expect(removedLayers).toEqual([sha256(oldApp)]);
    expect(freedBytes).toBeGreaterThan(0);
    expect(freedBytes).toBe(before - (await store.status()).layerBytes);
    expect((await store.images()).map((image) => image.manifestDigest)).toEqual([kept.manifestDigest]);
  });
});

test('a stage and its lock go together; who waits for the lock gets one that counts', async () => {
  const root = temporaryDirectory();
  const locks = (): string[] => readdirSync(join(root, 'locks')).filter((name) => name.startsWith('stage-'));
  await withStore(root, async (store) => {
    await install(store, [base], 'n');
    expect(locks()).toEqual([]);
    // A pull that is cut off keeps it, for the next one; gc takes both, and what earlier versions left.
    await (await store.stage(target([oldApp]))).close();
    writeFileSync(join(root, 'locks', `stage-${'a'.repeat(64)}`), '');
    expect(locks()).toHaveLength(2);
    await store.gc();
    expect(locks()).toHaveLength(1);
    expect((await store.gc({ stageMaxAgeMs: 0 })).removedStages).toBe(1);
    expect(locks()).toEqual([]);
    // Gone between opening and locking: two would hold it, if each believed in its own file.
    const path = 'locks/stage-x';
    const { addon } = store.fs as unknown as { addon: { flock(fd: number, exclusive: boolean): boolean } };
    const flock = jest.spyOn(addon, 'flock').mockImplementationOnce((fd, exclusive) => {
      rmSync(join(root, path));
      flock.mockRestore();
      return addon.flock(fd, exclusive);
    });
    const held = await store.fs.tryLock(path, 'exclusive');
    expect(await store.fs.tryLock(path, 'exclusive')).toBeUndefined();
    await held?.release();
  });
});

test('gc leaves a stage alone that somebody has the lock of and waits to work in', async () => {
  const root = temporaryDirectory();
  await withStore(root, async (store) => {
    await (await store.stage(target([oldApp]))).close();
    const [stage = ''] = readdirSync(join(root, 'stages'));
    const held = await store.fs.tryLock(`locks/stage-${stage}`, 'exclusive');
    expect((await store.gc({ stageMaxAgeMs: 0 })).removedStages).toBe(0);
    await held?.release();
    expect(readdirSync(join(root, 'stages'))).toEqual([stage]);
  });
});

test('a store opens again with what it had; other directories and newer formats are refused', async () => {
  const root = temporaryDirectory();
  await withStore(root, (store) => install(store, [base], 'n'));
  await withStore(root, async (store) => { expect((await store.resolve('n'))?.diffIds).toEqual([sha256(base)]); }, {});
  writeFileSync(join(root, 'format'), 'whittle-store 2\n');
  await expect(openStore(root)).rejects.toMatchObject({ code: 'STORE_VERSION' });
  const other = temporaryDirectory();
  await expect(openStore(other)).rejects.toMatchObject({ code: 'STORE_ABSENT' });
  writeFileSync(join(other, 'holiday.jpg'), '');
  await expect(openStore(other, { create: true })).rejects.toMatchObject({ code: 'STORE_ABSENT' });
  await expect(openStore(join(other, 'none'))).rejects.toMatchObject({ code: 'STORE_ABSENT' });
  symlinkSync('nowhere', join(other, 'link'));
  for (const path of ['holiday.jpg', 'holiday.jpg/store', 'link', 'link/store']) await expect(openStore(join(other, path), { create: true })).rejects.toMatchObject({ code: 'USAGE' });
  await expect(openStore('/proc/whittle', { create: true })).rejects.toMatchObject({ code: 'USAGE' });
});

/** Plays a delta into the stage: entries whose content the basis has are copied, others written. */
async function play(store: Store, stage: Stage, from: readonly Buffer[], tar: Buffer, layer: number): Promise<void> {
  const image = (await store.images())[0];
  if (image === undefined) throw new Error('no basis');
  const basis = await store.basis(image, { layers: from.map(sha256) });
  stage.useBasis(basis);
  const meta = metaOf(tar);
  await stage.beginLayer(layer, { ...meta, entries: [...meta.entries].map((entry) => ({ ...entry, digest: null })) });
  const { contents } = scan(tar);
  for (const [entry, { digest, header }] of meta.entries.entries()) {
    if (digest === null) continue;
    const origin = basis.layers.flatMap((each, at) => [...each.entries].flatMap((old, index) => (old.digest?.equals(digest) === true ? [{ from: 'basis' as const, layer: at, entry: index }] : [])))[0];
    if (origin === undefined) {
      await stage.writeEntry(layer, entry, contents[entry] ?? Buffer.alloc(0));
      await stage.endEntry(layer, entry, digest);
    } else {
      await (await basis.openContent(origin.layer, origin.entry)).close();
      await stage.copyEntry(layer, entry, origin);
    }
    const given = await stage.openContent(layer, entry);
    expect(given.sizeBytes).toBe(header.sizeBytes);
    await given.close();
  }
  await stage.endLayer(layer, meta);
  await basis.close();
}

test('a delta links what is unchanged, writes what is not, and the basis stays as it was', async () => {
  const root = temporaryDirectory();
  await withStore(root, async (store) => {
    await install(store, [base, oldApp], 'n');
    const stage = await store.stage(target([base, newApp]));
    expect([await stage.hasLayer(0), await stage.hasLayer(1)]).toEqual([true, false]);
    await play(store, stage, [oldApp], newApp, 1);
    const counters = stage.counters;
    await stage.commit({ name: 'n', source: 's' });
    expect([counters.linkedFiles, counters.writtenFiles]).toEqual([2, 1]);
    expect((await store.verify()).damagedLayers).toEqual([]);
    expect((await exported(store, sha256(newApp))).equals(newApp)).toBe(true);
  });
  const inode = (tar: Buffer, path: string): number => lstatSync(join(layerDirectory(root, tar), 'fs', path)).ino;
  expect(inode(newApp, 'same')).toBe(inode(oldApp, 'same'));
  expect(inode(newApp, 'there/moved')).toBe(inode(oldApp, 'moved'));
  expect(inode(newApp, 'app')).not.toBe(inode(oldApp, 'app'));
});

test('what differs in mode or time is no link, and one inode never appears under two paths', async () => {
  const root = temporaryDirectory();
  const old = tarOf({ one: 'same content', two: 'other content' });
  const next = Buffer.concat([
    member({ name: 'one', data: Buffer.from('same content'), mtime: 6 }), member({ name: 'two', data: Buffer.from('other content'), mtime: 5 }),
    member({ name: 'copy-of-two', data: Buffer.from('other content'), mtime: 5 }), member({ name: 'two-private', data: Buffer.from('other content'), mtime: 5, mode: 0o600 }), endOfTar,
  ]);
  await withStore(root, async (store) => {
    await install(store, [old], 'n');
    const stage = await store.stage(target([next]));
    await play(store, stage, [old], next, 0);
    await stage.commit({ name: 'n', source: 's' });
    expect((await store.verify()).damagedLayers).toEqual([]);
  });
  const inode = (tar: Buffer, path: string): number => lstatSync(join(layerDirectory(root, tar), 'fs', path)).ino;
  expect(inode(next, 'two')).toBe(inode(old, 'two'));
  expect(new Set([inode(old, 'one'), inode(next, 'one'), inode(next, 'two'), inode(next, 'copy-of-two'), inode(next, 'two-private')]).size).toBe(5);
});

test('a resumed stage keeps what it has and writes only the rest', async () => {
  const root = temporaryDirectory();
  const big = Buffer.concat([member({ name: 'big', data: Buffer.alloc(3_000_000, 'abc') }), member({ name: 'l', type: '1', link: 'big' }), member({ name: 's', type: '2', link: 'big' }), member({ name: 'small', data: Buffer.from('s') }), endOfTar]);
  await withStore(root, async (store) => {
    const stage = await store.stage(target([base, big]));
    await stage.writeLayerTar(0, pieces(base));
    await expect(stage.writeLayerTar(1, failing(big, 2_000_000))).rejects.toThrow('the network went');
    await stage.close();
  });
  await withStore(root, async (store) => {
    const stage = await store.stage(target([base, big]));
    expect(stage.resumed).toBe(true);
    expect(await stage.hasLayer(0)).toBe(true);
    expect(await stage.hasLayer(1)).toBe(false);
    const before = stage.counters.keptBytes;
    await stage.writeLayerTar(1, pieces(big));
    await stage.close();
    const again = await store.stage(target([base, big]));
    await fill(again, [base, big]);
    expect(again.counters.writtenBytes).toBe(0);
    await again.commit({ name: 'n', source: 's' });
    expect(before).toBe(450_009);
    expect((await exported(store, sha256(big))).equals(big)).toBe(true);
  });
});

async function* failing(tar: Buffer, at: number): AsyncGenerator<Buffer> {
  yield* pieces(tar.subarray(0, at));
  throw new Error('the network went');
}

test('extracting a whole layer again over itself writes no content', async () => {
  const root = temporaryDirectory();
  await withStore(root, async (store) => {
    const stage = await store.stage(target([base]));
    await stage.writeLayerTar(0, pieces(base));
    rmSync(join(stage.spool.absolutePath, '../layers', sha256(base).slice(7), 'meta'));
    await stage.close();
    const again = await store.stage(target([base]));
    await again.writeLayerTar(0, pieces(base));
    expect(again.counters).toMatchObject({ writtenBytes: 0, keptFiles: 2 });
    await again.commit({ name: 'n', source: 's' });
  });
});

const rot: Readonly<Record<string, { readonly how: (layer: string) => void; readonly kind: string }>> = {
  'a flipped byte': { kind: 'content', how: (layer) => { const path = join(layer, 'fs/lib/b'); const bytes = readFileSync(path); bytes[1000] = (bytes[1000] ?? 0) ^ 1; writeFileSync(path, bytes); } },
  'a truncated file': { kind: 'content', how: (layer) => { truncateSync(join(layer, 'fs/lib/b'), 10); } },
  'a deleted file': { kind: 'content', how: (layer) => { rmSync(join(layer, 'fs/lib/a')); } },
  'a deleted tree': { kind: 'content', how: (layer) => { rmSync(join(layer, 'fs/lib'), { recursive: true }); } },
  'an added file': { kind: 'extra', how: (layer) => { writeFileSync(join(layer, 'fs/lib/rootkit'), ''); } },
  'another mode': { kind: 'metadata', how: (layer) => { chmodSync(join(layer, 'fs/lib/a'), 0o777); } },
  'a torn metadata file': { kind: 'record', how: (layer) => { truncateSync(join(layer, 'meta'), 100); } },
  'an empty metadata file': { kind: 'record', how: (layer) => { truncateSync(join(layer, 'meta'), 0); } },
};

for (const [what, { how, kind }] of Object.entries(rot)) {
  test(`rot is found, not passed on, and repaired: ${what}`, async () => {
    const root = temporaryDirectory();
    await withStore(root, async (store) => {
      const image = await install(store, [base, oldApp], 'n');
      how(layerDirectory(root, base));
      const report = await store.verify();
      expect(report.damagedLayers.map((layer) => layer.diffId)).toEqual([sha256(base)]);
      expect(report.damagedLayers[0]?.damages.map((damage) => damage.kind)).toContain(kind);
      if (kind === 'content' || kind === 'record') await expect(exported(store, sha256(base))).rejects.toMatchObject({ code: 'STORE_DAMAGED' });

      // A new image on top of the rotten layer is not committed, and the layer is named.
      const blocked = await store.stage(target([base, newApp]));
      await fill(blocked, kind === 'record' ? [base, newApp] : [base, newApp]);
      if (kind !== 'record') await expect(blocked.commit({ name: 'n', source: 's' })).rejects.toMatchObject({ code: 'STORE_DAMAGED', data: { layers: sha256(base) } });
      await blocked.close();
      expect((await store.resolve('n'))?.manifestDigest).toBe(image.manifestDigest);

      const repair = await store.stage(target([base, oldApp]), { replaceLayers: [sha256(base)] });
      expect([await repair.hasLayer(0), await repair.hasLayer(1)]).toEqual([false, true]);
      await repair.writeLayerTar(0, pieces(base));
      await repair.commit({ name: null, source: 's' });
      expect((await store.verify()).damagedLayers).toEqual([]);
      expect((await store.resolve('n'))?.manifestDigest).toBe(image.manifestDigest);
    });
  });
}

test('a rotten basis file is refused before it is used; a rotten previous image is not rolled back to', async () => {
  const root = temporaryDirectory();
  await withStore(root, async (store) => {
    const first = await install(store, [oldApp], 'n');
    await install(store, [newApp], 'n');
    writeFileSync(join(layerDirectory(root, oldApp), 'fs/app'), 'version X');
    const basis = await store.basis(first);
    await expect(basis.openContent(0, 0)).rejects.toMatchObject({ code: 'BASIS_DAMAGED' });
    await (await basis.openContent(0, 1)).close();
    writeFileSync(join(layerDirectory(root, oldApp), 'fs/same'), 'unchangeD');
    await expect(basis.openContent(0, 1)).rejects.toMatchObject({ code: 'BASIS_DAMAGED' });
    await basis.close();
    await expect(store.rollback('n')).rejects.toMatchObject({ code: 'STORE_DAMAGED' });
  });
});

test('a torn, empty or stale reference falls back to the one before', async () => {
  const root = temporaryDirectory();
  await withStore(root, async (store) => {
    await install(store, [oldApp], 'n');
    await install(store, [newApp], 'n');
  });
  const slots = readdirSync(join(root, 'refs')).sort();
  expect(slots).toHaveLength(2);
  const newer = join(root, 'refs', slots[1] ?? '');
  const whole = readFileSync(newer);
  for (const spoil of [whole.subarray(0, whole.length - 1), Buffer.alloc(0), Buffer.alloc(whole.length), Buffer.concat([whole, Buffer.from('x')])]) {
    writeFileSync(newer, spoil);
    await withStore(root, async (store) => {
      expect((await store.resolve('n'))?.diffIds).toEqual([sha256(oldApp)]);
      expect(store.recovery.fellBack).toHaveLength(1);
      // Nobody knows what the lost generation pointed to: nothing is deleted.
      expect((await store.gc()).removedImages).toEqual([]);
    });
  }
  await withStore(root, async (store) => {
    await install(store, [newApp], 'n');
    expect((await store.resolve('n'))?.diffIds).toEqual([sha256(newApp)]);
    expect((await store.status()).damagedRecords).toEqual([]);
  });
});

test('a damaged image record is reported, and a pull mends it', async () => {
  const root = temporaryDirectory();
  await withStore(root, async (store) => {
    const image = await install(store, [oldApp], 'n');
    const path = join(root, 'images', image.manifestDigest.slice(7));
    truncateSync(path, 40);
    expect(await store.resolve('n')).toBeUndefined();
    expect((await store.verify()).damagedRecords).toHaveLength(1);
    expect((await store.gc()).removedLayers).toEqual([]);
    await install(store, [oldApp], 'n');
    expect((await store.resolve('n'))?.diffIds).toEqual([sha256(oldApp)]);
  });
});

test('the record of a named image that is gone is reported, and a pull mends it', async () => {
  const root = temporaryDirectory();
  await withStore(root, async (store) => {
    const image = await install(store, [oldApp], 'n');
    await install(store, [newApp], 'n');
    expect((await store.verify()).damagedRecords).toEqual([]);
    const record = `images/${image.manifestDigest.slice(7)}`;
    rmSync(join(root, record));
    expect((await store.verify()).damagedRecords).toEqual([record]);
    expect((await store.status()).damagedRecords).toEqual([record]);
    await install(store, [oldApp], 'n');
    expect((await store.verify()).damagedRecords).toEqual([]);
  });
});

test('gc keeps the layers that an image without a record may need, and says so', async () => {
  const root = temporaryDirectory();
  await withStore(root, async (store) => {
    const image = await install(store, [oldApp], 'n');
    await install(store, [newApp], 'other');
    await store.removeReference('other');
    const record = `images/${image.manifestDigest.slice(7)}`;
    const content = readFileSync(join(root, record));
    rmSync(join(root, record));
    expect(await store.gc()).toMatchObject({ removedImages: [], removedLayers: [], damagedRecords: [record] });
    writeFileSync(join(root, record), content);
    expect(await store.gc()).toMatchObject({ removedLayers: [sha256(newApp)], damagedRecords: [] });
    expect((await store.verify()).damagedLayers).toEqual([]);
  });
});

test('one holder per stage, no gc while one is held, and a wait that ends', async () => {
  const root = temporaryDirectory();
  const first = await openStore(root, { create: true });
  const second = await openStore(root);
  const stage = await first.stage(target([oldApp]));
  await expect(second.stage(target([oldApp]))).rejects.toMatchObject({ code: 'STORE_BUSY' });
  await expect(second.gc()).rejects.toMatchObject({ code: 'STORE_BUSY' });
  expect((await second.status()).stages).toMatchObject([{ active: true }]);
  const other = await second.stage(target([newApp]));
  await other.discard();
  const waiting = second.stage(target([oldApp]), { waitMs: 5000 });
  await stage.close();
  await (await waiting).discard();
  await second.gc();
  await first.close();
  await second.close();
});

test('wrong layers are refused and leave nothing', async () => {
  await withStore(temporaryDirectory(), async (store) => {
    const stage = await store.stage(target([oldApp]));
    await expect(stage.writeLayerTar(0, pieces(newApp))).rejects.toMatchObject({ code: 'LAYER_MISMATCH' });
    await expect(stage.writeLayerTar(0, pieces(oldApp.subarray(0, 515)))).rejects.toMatchObject({ code: 'TAR_CORRUPT' });
    expect(readdirSync(join(stage.spool.absolutePath, '../layers'))).toEqual([]);
    await expect(stage.requireSpace({ spoolBytes: 2 ** 51, imageBytes: 2 ** 51, layerBytes: 0 })).rejects.toMatchObject({ code: 'STORAGE_FULL', data: { neededBytes: 2 ** 52 } });
    await stage.discard();
    await expect(store.stage({ ...target([oldApp]), config: Buffer.from('{}') })).rejects.toMatchObject({ code: 'DIGEST_MISMATCH' });
  });
});

test('recovery puts back a layer that was set aside, and deletes what is unfinished', async () => {
  const root = temporaryDirectory();
  await withStore(root, (store) => install(store, [oldApp], 'n'));
  const { renameSync, mkdirSync } = await import('node:fs');
  renameSync(layerDirectory(root, oldApp), `${layerDirectory(root, oldApp)}.old`);
  writeFileSync(join(root, 'refs/.tmp-1'), 'torn');
  mkdirSync(join(root, 'trash/x/y'), { recursive: true });
  await withStore(root, async (store) => {
    expect(store.recovery).toMatchObject({ finished: 1, removed: 2 });
    expect((await store.verify()).damagedLayers).toEqual([]);
  });
  expect(readdirSync(join(root, 'trash'))).toEqual([]);
});

const testAsRoot = isRoot ? test : test.skip;
testAsRoot('a mount shows the layers merged, whiteouts and opaque directories applied; a writable one forgets', async () => {
  const lower = Buffer.concat([member({ name: 'd/', type: '5', mode: 0o755 }), member({ name: 'd/gone', data: Buffer.from('x') }), member({ name: 'o/old', data: Buffer.from('x') }), member({ name: 'both', data: Buffer.from('low') }), endOfTar]);
  const upper = Buffer.concat([member({ name: 'd/.wh.gone' }), member({ name: 'o/', type: '5', mode: 0o755 }), member({ name: 'o/.wh..wh..opq' }), member({ name: 'o/new', data: Buffer.from('y') }), goPax('both', { comment: 'x' }), member({ name: 'both', data: Buffer.from('high') }), endOfTar]);
  const root = temporaryDirectory();
  const point = temporaryDirectory();
  await withStore(root, async (store) => {
    const image = await install(store, [lower, upper], 'n');
    await store.mount(image, point);
    expect((await store.status()).mounts).toMatchObject([{ mountPoint: point, manifestDigest: image.manifestDigest, writable: false }]);
    expect([readdirSync(join(point, 'd')), readdirSync(join(point, 'o')), readFileSync(join(point, 'both'), 'latin1')]).toEqual([[], ['new'], 'high']);
    expect(() => { writeFileSync(join(point, 'x'), ''); }).toThrow('EROFS');
    await expect(store.mount(image, point)).rejects.toMatchObject({ code: 'MOUNT_FAILED' });
    await store.removeReference('n');
    expect((await store.gc()).removedImages).toEqual([]);
    await store.umount(point);
    await store.mount(image, point, { writable: true });
    writeFileSync(join(point, 'x'), 'written');
    await store.umount(point);
    await expect(store.umount(point)).rejects.toMatchObject({ code: 'MOUNT_FAILED' });
    expect(readdirSync(point)).toEqual([]);
    expect((await store.verify()).damagedLayers).toEqual([]);
  });
});

testAsRoot('an image without layers is mounted too, and what cannot be mounted says what to do', async () => {
  const point = temporaryDirectory();
  await withStore(temporaryDirectory(), async (store) => {
    const image = await install(store, [], 'n');
    for (const writable of [false, true]) {
      await store.mount(image, point, { writable });
      expect(readdirSync(point)).toEqual([]);
      await expect(store.mount(image, point)).rejects.toMatchObject({ code: 'MOUNT_FAILED', hint: 'Unmount it first, or name another directory.' });
      await store.umount(point);
    }
    await expect(store.umount(point)).rejects.toMatchObject({ code: 'MOUNT_FAILED', hint: 'See: device status' });
    await expect(store.mount(image, `${point}/none`)).rejects.toMatchObject({ code: 'MOUNT_FAILED', message: `there is no directory ${point}/none` });
    await expect(store.umount(`${point}/none`)).rejects.toMatchObject({ code: 'MOUNT_FAILED', hint: 'See: device status' });
  });
});

test('a root whose path is too long is a wrong argument, and no defect', async () => {
  await expect(openStore(join(temporaryDirectory(), 'n'.repeat(300)), { create: true })).rejects.toMatchObject({ code: 'USAGE', hint: 'Choose another with --root DIR.' });
});

testAsRoot('root makes no changes in the store of another user, and may look', async () => {
  const root = temporaryDirectory();
  await withStore(root, (store) => install(store, [base], 'n'));
  chownSync(join(root, 'format'), 4242, 4242);
  await expect(openStore(root)).rejects.toMatchObject({ code: 'STORAGE_PERMISSION', data: { owner: 4242 } });
  await withStore(root, async (store) => { expect(await store.references()).toHaveLength(1); }, { readOnly: true });
});
