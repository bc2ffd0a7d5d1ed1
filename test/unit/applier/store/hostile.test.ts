import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from '@jest/globals';
import { isWhittleError } from '../../../../src/core/errors.js';
import { openStore } from '../../../../src/applier/store/open.js';
import { endOfTar, goPax, member } from '../../../support/tars.js';
import { exported, pieces, sha256, target, temporaryDirectory, withStore } from './support.js';

const x = Buffer.from('x');
const refused: Readonly<Record<string, readonly Buffer[]>> = {
  'a path that climbs out': [member({ name: '../evil', data: x })],
  'a path that climbs within': [member({ name: 'a/../../evil', data: x })],
  'an absolute path that climbs': [member({ name: '/../evil', data: x })],
  'a hard link out of the tree': [member({ name: 'l', type: '1', link: '../../../etc/passwd' })],
  'a hard link to nothing': [member({ name: 'l', type: '1', link: '/etc/passwd' })],
  'a hard link to a directory': [member({ name: 'd/', type: '5' }), member({ name: 'l', type: '1', link: 'd' })],
  'a hard link to itself': [member({ name: 'f', data: x }), member({ name: 'f', type: '1', link: 'f' })],
  'a hard link to what it replaces': [member({ name: 'd/f', data: x }), member({ name: 'd', type: '1', link: 'd/f' })],
  'links in a circle as parents': [member({ name: 'a', type: '2', link: 'b' }), member({ name: 'b', type: '2', link: 'a' }), member({ name: 'a/f', data: x })],
  'a file as a parent': [member({ name: 'f', data: x }), member({ name: 'f/g', data: x })],
  'a root that is no directory': [member({ name: './', type: '2', link: '/' })],
  'a whiteout of the parent': [member({ name: 'd/.wh...' })],
  'a whiteout of nothing': [member({ name: 'd/.wh.' })],
  'a name that is too long': [goPax('f', { path: 'n'.repeat(256) }), member({ name: 'f', data: x })],
  'an empty link': [member({ name: 'l', type: '2', link: '' })],
  // Without root there are no owners and devices: the numbers stay in the metadata alone.
  ...(process.getuid?.() === 0 ? {
    'an owner that no file can have': [member({ name: 'f', data: x, edit: (block) => { block.set([0x80, 0, 0, 1, 0, 0, 0, 0], 108); } })],
    'a major number that no device can have': [member({ name: 'd', type: '4', edit: (block) => { block.write('0010000', 329, 'latin1'); } })],
    'a minor number that no device can have': [member({ name: 'd', type: '3', edit: (block) => { block.set([0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], 337); } })],
    'a device number below zero': [member({ name: 'd', type: '3', edit: (block) => { block.fill(0xff, 329, 337); } })],
  } : {}),
};

for (const [what, members] of Object.entries(refused)) {
  test(`refused, with nothing left: ${what}`, async () => {
    const root = temporaryDirectory();
    const tar = Buffer.concat([member({ name: 'before', data: x }), ...members, endOfTar]);
    await withStore(root, async (store) => {
      const stage = await store.stage(target([tar]));
      await expect(stage.writeLayerTar(0, pieces(tar))).rejects.toMatchObject({ code: 'TAR_UNSAFE', message: expect.stringMatching(/tar entry \d+ "/) as unknown });
      expect(readdirSync(join(stage.spool.absolutePath, '../layers'))).toEqual([]);
      await expect(stage.commit({ name: 'n', source: 's' })).rejects.toMatchObject({ code: 'STAGE_INCOMPLETE' });
      await stage.discard();
    });
    expect(readdirSync(join(root, 'stages'))).toEqual([]);
    expect(readdirSync(join(root, 'layers'))).toEqual([]);
  });
}

test('links as parents lead somewhere within the layer', async () => {
  const outer = temporaryDirectory();
  const root = join(outer, 'root');
  const tar = Buffer.concat([
    member({ name: 'out', type: '2', link: outer }), member({ name: 'out/file', data: x }),
    member({ name: 'up', type: '2', link: '../../../../../..' }), member({ name: 'up/second', data: x }),
    member({ name: '/abs', data: x }), endOfTar,
  ]);
  await withStore(root, async (store) => {
    const stage = await store.stage(target([tar]));
    await stage.writeLayerTar(0, pieces(tar));
    await stage.commit({ name: 'n', source: 's' });
    expect((await exported(store, sha256(tar))).equals(tar)).toBe(true);
  });
  expect(readdirSync(outer)).toEqual(['root']);
  const fs = join(root, 'layers', sha256(tar).slice(7), 'fs');
  expect(readdirSync(fs).sort()).toEqual(['abs', 'out', 'second', outer.split('/')[1], 'up'].sort());
});

const part = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'a', 'b', 'c', 'd', 'e', 'a', 'b', 'c', 'd', 'e', 'a', 'b', '.', '..', '', '.wh.a', '.wh..wh..opq', '.wh..', 'sentinel', 'etc', '.wh..wh.plnk');
const path = fc.tuple(fc.constantFrom('', '', '', '', '', '/', './', './', './', '../', '//'), fc.array(part, { minLength: 1, maxLength: 4 })).map(([start, parts]) => start + parts.join('/'));
const entry = fc.record({ name: path, link: path, type: fc.constantFrom('0', '0', '0', '0', '1', '2', '2', '5', '5', '5', '6', '3', 'V'), size: fc.constantFrom(0, 5, 700) })
  .map(({ name, link, type, size }) => member({ name, link, type, mode: 0o755, ...(type === '0' || type === 'V' ? { data: Buffer.alloc(size, name) } : {}) }));

test('whatever paths and links a tar has: it round trips or is refused, and nothing outside changes', async () => {
  const outer = temporaryDirectory();
  const root = join(outer, 'root');
  writeFileSync(join(outer, 'sentinel'), 'safe');
  mkdirSync(join(outer, 'etc'));
  const store = await openStore(root, { create: true });
  let taken = 0;
  let turned = 0;
  await fc.assert(fc.asyncProperty(fc.array(entry, { minLength: 1, maxLength: 9 }), async (members) => {
    const tar = Buffer.concat([...members, endOfTar]);
    const stage = await store.stage(target([tar]));
    try {
      await stage.writeLayerTar(0, pieces(tar, 999));
      // Over itself, as after a cut: the same again.
      const image = await stage.commit({ name: 'n', source: 's' });
      expect((await exported(store, image.diffIds[0] ?? '')).equals(tar)).toBe(true);
      taken++;
    } catch (error) {
      if (!isWhittleError(error) || error.code !== 'TAR_UNSAFE') throw error;
      turned++;
    } finally {
      await stage.discard();
    }
    expect(readdirSync(outer).sort()).toEqual(['etc', 'root', 'sentinel']);
    expect(readdirSync(join(outer, 'etc'))).toEqual([]);
    expect(readFileSync(join(outer, 'sentinel'), 'latin1')).toBe('safe');
  }), { numRuns: 250 });
  expect(taken).toBeGreaterThan(20);
  expect(turned).toBeGreaterThan(20);
  expect(existsSync(join(root, 'stages'))).toBe(true);
  await store.close();
});

test('extracting over any leftover of another tar with the same paths gives the same layer', async () => {
  const store = await openStore(temporaryDirectory(), { create: true });
  const good = fc.array(entry, { minLength: 1, maxLength: 12 });
  await fc.assert(fc.asyncProperty(good, good, async (first, second) => {
    const leftover = Buffer.concat([...first, endOfTar]);
    const tar = Buffer.concat([...second, endOfTar]);
    const stage = await store.stage(target([tar], 'leftover'));
    try {
      // Refused for its digest or its paths, or cut short; then made to stay, as after a power cut.
      await stage.writeLayerTar(0, interrupted(leftover)).catch(() => undefined);
      await stage.writeLayerTar(0, pieces(tar));
      await stage.commit({ name: 'm', source: 's' });
    } catch (error) {
      if (!isWhittleError(error) || error.code !== 'TAR_UNSAFE') throw error;
    } finally {
      await stage.discard();
    }
  }), { numRuns: 120 });
  await store.close();
});

async function* interrupted(tar: Buffer): AsyncGenerator<Buffer> {
  yield* pieces(tar.subarray(0, tar.length - 1024));
  throw new Error('cut');
}
