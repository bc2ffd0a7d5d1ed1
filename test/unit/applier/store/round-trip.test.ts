import { execFileSync } from 'node:child_process';
import { chownSync, closeSync, lstatSync, readdirSync, readFileSync, readlinkSync, writeFileSync, truncateSync, mkdirSync, linkSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { LinuxFs } from '../../../../src/atomic/index.js';
import { endOfTar, goPax, member } from '../../../support/tars.js';
import { testUnlessWanting, testWithTools } from '../../../support/tools.js';
import { exported, install, isRoot, layerDirectory, sha256, temporaryDirectory, withStore } from './support.js';

const testAsRoot = testUnlessWanting(isRoot ? [] : ['root']);

function paxRecord(key: string, value: Buffer): Buffer {
  const rest = Buffer.byteLength(key) + value.length + 3;
  let total = rest + String(rest).length;
  if (rest + String(total).length !== total) total = rest + String(total).length;
  return Buffer.concat([Buffer.from(`${String(total)} ${key}=`), value, Buffer.from('\n')]);
}

const capability = Buffer.from('0100000200240000000000000000000000000000', 'hex');
const binaryPax = member({ name: 'PaxHeaders.0/ping', type: 'x', mode: 0, data: Buffer.concat([paxRecord('SCHILY.xattr.security.capability', capability), paxRecord('mtime', Buffer.from('1700000000.123456789'))]) });

const everything = Buffer.concat([
  member({ name: './', type: '5', mode: 0o755, mtime: 11 }),
  member({ name: 'etc/', type: '5', mode: 0o1777, uid: 3, mtime: 12 }),
  member({ name: 'etc/passwd', data: Buffer.from('root:x:0:0\n'), mode: 0o4640, uid: 1000, mtime: 1234 }),
  member({ name: Buffer.from([0x65, 0x74, 0x63, 0x2f, 0xff, 0xfe]), data: Buffer.from('odd name') }),
  binaryPax,
  member({ name: 'ping', data: Buffer.from('ELF'), mode: 0o755 }),
  member({ name: 'etc/link', type: '2', link: '/nowhere/../x', uid: 7, mtime: 99 }),
  member({ name: 'etc/hard', type: '1', link: './etc/passwd' }),
  member({ name: 'etc/hard-symlink', type: '1', link: 'etc/link' }),
  member({ name: 'fifo', type: '6', mode: 0o600 }),
  member({ name: 'null', type: '3', mode: 0o666, edit: (block) => { block.write('0000001\0', 329, 'latin1'); block.write('0000003\0', 337, 'latin1'); } }),
  member({ name: 'empty', mode: 0 }),
  member({ name: 'gone/.wh.file' }), member({ name: 'gone/.wh..wh..opq' }),
  member({ name: '.wh.replaced' }), member({ name: 'replaced/', type: '5' }), member({ name: 'replaced/new', data: Buffer.from('new') }),
  member({ name: 'twice', data: Buffer.from('first') }), member({ name: 'twice', data: Buffer.from('second') }),
  member({ name: 'turns/', type: '5' }), member({ name: 'turns/a', data: Buffer.alloc(300_000, 'a') }), member({ name: 'turns/b', type: '1', link: 'turns/a' }),
  member({ name: 'turns', data: Buffer.from('now a file') }),
  member({ name: 'way', type: '2', link: 'etc' }), member({ name: 'way/through', data: Buffer.from('lands in etc') }),
  member({ name: 'odd-type', type: 'V', data: Buffer.from('volume label') }),
  goPax('long', { path: `${'d'.repeat(200)}/${'f'.repeat(250)}` }), member({ name: 'long', data: Buffer.from('long name') }),
  member({ name: 'big', data: Buffer.alloc(1_500_000, 'xyz'), mode: 0o400 }),
  Buffer.alloc(10240),
]);

test('a layer with everything comes back bit for bit', async () => {
  const root = temporaryDirectory();
  await withStore(root, async (store) => {
    const image = await install(store, [everything], 'all');
    expect(image.diffIds).toEqual([sha256(everything)]);
    expect((await exported(store, sha256(everything))).equals(everything)).toBe(true);
    expect((await store.verify()).damagedLayers).toEqual([]);
  });
  const fs = join(layerDirectory(root, everything), 'fs');
  expect(readFileSync(join(fs, 'twice'), 'latin1')).toBe('second');
  expect(readFileSync(join(fs, 'etc/through'), 'latin1')).toBe('lands in etc');
  expect(readFileSync(join(fs, 'turns'), 'latin1')).toBe('now a file');
  expect(readlinkSync(join(fs, 'etc/link'))).toBe('/nowhere/../x');
  expect(lstatSync(join(fs, 'etc/hard')).ino).toBe(lstatSync(join(fs, 'etc/passwd')).ino);
  expect(lstatSync(join(fs, 'etc/hard-symlink')).isSymbolicLink()).toBe(true);
  expect(readdirSync(join(fs, 'etc'), 'buffer').map((name) => name.toString('latin1'))).toContain('\xff\xfe');
  expect(lstatSync(join(fs, 'etc/passwd')).mtimeMs).toBe(1_234_000);
  expect(lstatSync(join(fs, 'etc')).mtimeMs).toBe(12_000);
});

testAsRoot('as root, files have owners, modes, times, devices, xattrs and overlay marks', async () => {
  const root = temporaryDirectory();
  await withStore(root, (store) => install(store, [everything], 'all'));
  const layer = layerDirectory(root, everything);
  const passwd = lstatSync(join(layer, 'fs/etc/passwd'));
  expect([passwd.mode & 0o7777, passwd.uid]).toEqual([0o4640, 1000]);
  expect(lstatSync(join(layer, 'fs/etc')).mode & 0o7777).toBe(0o1777);
  expect(lstatSync(join(layer, 'fs/etc/link')).uid).toBe(7);
  expect(lstatSync(join(layer, 'fs/empty')).mode & 0o7777).toBe(0);
  expect(lstatSync(join(layer, 'fs/null')).rdev).toBe(259);
  const whiteout = lstatSync(join(layer, 'fs/gone/file'));
  expect([whiteout.isCharacterDevice(), whiteout.rdev]).toEqual([true, 0]);
  expect(lstatSync(join(layer, 'fs/ping'), { bigint: true }).mtimeNs).toBe(1_700_000_000_123_456_789n);
  const fs = await LinuxFs.open(layer);
  expect(await fs.xattrs('fs/ping')).toEqual([{ name: Buffer.from('security.capability'), value: capability }]);
  const opaque = [{ name: Buffer.from('trusted.overlay.opaque'), value: Buffer.from('y') }];
  expect(await fs.xattrs('fs/gone')).toEqual(opaque);
  expect(await fs.xattrs('fs/replaced')).toEqual(opaque);
  await fs.close();
});

testAsRoot('a file that lost its extended attribute is found', async () => {
  const root = temporaryDirectory();
  await withStore(root, async (store) => {
    await install(store, [everything], 'all');
    // The kernel takes a file's capability away with a change of owner, even to the same one.
    chownSync(join(layerDirectory(root, everything), 'fs/ping'), 0, 0);
    const [found] = (await store.verify()).damagedLayers;
    expect(found?.damages.map(({ kind, detail }) => [kind, detail])).toEqual([['metadata', 'lost the extended attribute security.capability']]);
  });
});

test('xattrs that steer overlayfs stay in the metadata', async () => {
  const root = temporaryDirectory();
  const tar = Buffer.concat([goPax('f', { 'SCHILY.xattr.trusted.overlay.redirect': '/etc', 'SCHILY.xattr.user.overlay.metacopy': 'y' }), member({ name: 'f', data: Buffer.from('x') }), endOfTar]);
  await withStore(root, async (store) => {
    await install(store, [tar], 'x');
    expect((await exported(store, sha256(tar))).equals(tar)).toBe(true);
  });
  const fs = await LinuxFs.open(layerDirectory(root, tar));
  expect(await fs.xattrs('fs/f')).toEqual([]);
  await fs.close();
});

test('hard links, the same layer twice and an image without layers', async () => {
  const tar = Buffer.concat([member({ name: 'f', data: Buffer.from('x') }), endOfTar]);
  await withStore(temporaryDirectory(), async (store) => {
    expect((await install(store, [tar, tar], 'twice')).diffIds).toHaveLength(2);
    await install(store, [], 'empty');
    expect((await store.verify()).imageCount).toBe(2);
  });
});

for (const format of ['gnu', 'posix'] as const) {
  for (const version of format === 'posix' ? ['0.0', '0.1', '1.0'] : ['']) {
    testWithTools('tar')(`sparse files by GNU tar, format ${format} ${version}`, async () => {
      const source = temporaryDirectory();
      const root = temporaryDirectory();
      mkdirSync(join(source, 'd'));
      writeFileSync(join(source, 'd/holes'), Buffer.alloc(70_000, 'data'));
      truncateSync(join(source, 'd/holes'), 50_000_000);
      writeFileSync(join(source, 'd/holes'), Buffer.alloc(9_000, 'end'), { flag: 'a' });
      linkSync(join(source, 'd/holes'), join(source, 'd/same'));
      const args = ['-C', source, '--sparse', `--format=${format}`, ...(version === '' ? [] : [`--sparse-version=${version}`]), '-cf', '-', 'd'];
      const tar = execFileSync('tar', args, { maxBuffer: 1 << 28 });
      expect(tar.length).toBeLessThan(1_000_000);
      await withStore(root, async (store) => {
        await install(store, [tar], 'sparse');
        expect((await exported(store, sha256(tar))).equals(tar)).toBe(true);
        expect((await store.verify()).damagedLayers).toEqual([]);
      });
      const file = join(layerDirectory(root, tar), 'fs/d/holes');
      expect(readFileSync(file).equals(readFileSync(join(source, 'd/holes')))).toBe(true);
      expect(lstatSync(file).blocks * 512).toBeLessThan(2_000_000);
      // What was expanded can rot as all else can, also where the tar is rebuilt from another file.
      for (const [place, byte, kinds] of [[1_000_000, 'X', ['content']], [1_000_000, '\0', []], [10, 'X', ['content']]] as const) {
        const descriptor = openSync(file, 'r+');
        writeSync(descriptor, byte, place);
        closeSync(descriptor);
        const damages = await withStore(root, async (store) => (await store.verify()).damagedLayers.flatMap((layer) => layer.damages));
        // Writing has changed the file's time too.
        expect([...new Set(damages.map((damage) => damage.kind).filter((kind) => kind !== 'metadata'))]).toEqual(kinds);
      }
    });
  }
}
