import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { readSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WhittleError } from '../../../src/core/errors.js';
import type { Basis } from '../../../src/delta/index.js';
import { openImage, type OpenedImage } from '../../../src/server/sources.js';
import { unpackPair } from '../../../src/server/unpack.js';
import { digestOf, makeImage, noise, type ImageFile } from '../../support/images.js';

let folder: string;
const opened: OpenedImage[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'whittle-unpack-'));
  await mkdir(join(folder, 'work'));
});
afterEach(async () => {
  for (const image of opened.splice(0)) await image.close();
  await rm(folder, { recursive: true, force: true });
});

async function open(tag: string): Promise<OpenedImage> {
  const image = await openImage(`oci:${join(folder, 'img')}:${tag}`, {});
  opened.push(image);
  return image;
}

/** Content of every file, read in place. */
async function contents(basis: Basis): Promise<Map<string, Buffer>> {
  const found = new Map<string, Buffer>();
  for (const [layer, meta] of basis.layers.entries()) {
    for (const [entry, { header, digest }] of meta.entries.entries()) {
      if (digest === null) continue;
      const content = await basis.openContent(layer, entry);
      const bytes = Buffer.alloc(content.sizeBytes);
      let at = 0;
      for (const extent of content.extents) at += readSync(content.fd, bytes, at, extent.lengthBytes, extent.offset);
      expect(digestOf(bytes).slice(7)).toBe(digest.toString('hex'));
      found.set(`${String(layer)}/${header.path.toString()}`, bytes);
      await content.close();
    }
  }
  return found;
}

const shared: ImageFile[] = [{ path: 'd/' }, { path: 'd/odd', content: noise(1, 1) }, { path: 'd/block', content: noise(512, 2) }, { path: `long/${'n'.repeat(200)}`, content: noise(300_000, 3) }, { path: 'empty', content: '' }];

test('every content is where the basis says, in each compression; shared layers are read once, repeated ones stand in their places', async () => {
  for (const compression of ['gzip', 'zstd', 'none'] as const) {
    const own: ImageFile[] = [{ path: 'own', content: noise(70_000, 4) }];
    await makeImage(join(folder, 'img'), 'a', [shared, own, shared], { compression });
    await makeImage(join(folder, 'img'), 'b', [own, shared, [{ path: 'new', content: 'new' }], own], { compression });
    const [basis, target] = [await open('a'), await open('b')];
    const reads: string[] = [];
    const counting = (image: OpenedImage): OpenedImage['input'] => ({ ...image.input, openLayer: (layer, signal) => { reads.push(layer.diffId); return image.input.openLayer(layer, signal); } });
    const pair = await unpackPair({ basis: counting(basis), target: counting(target), directory: join(folder, 'work') });
    expect(pair.basis.layers).toHaveLength(2);
    expect(pair.target.layers.map((layer) => layer.diffId)).toEqual(target.input.layers.map((layer) => layer.diffId));
    expect([reads.length, new Set(reads).size]).toEqual([3, 3]);
    const found = await contents(pair.target);
    expect(found.get('0/own')?.equals(noise(70_000, 4))).toBe(true);
    expect(found.get(`1/long/${'n'.repeat(200)}`)?.equals(noise(300_000, 3))).toBe(true);
    expect((await contents(pair.basis)).get('0/d/block')?.equals(noise(512, 2))).toBe(true);
    // The tars have no names, so nothing could be left behind even now.
    expect(await readdir(join(folder, 'work'))).toEqual([]);
    await pair.close();
  }
});

test('a layer that is not what its image says is refused, and nothing stays', async () => {
  const broken = await makeImage(join(folder, 'img'), 'broken', [Buffer.from('this is no tar, whatever its digest'.repeat(40))]);
  await makeImage(join(folder, 'img'), 'good', [shared]);
  const [basis, target] = [await open('good'), await open('broken')];
  await expect(unpackPair({ basis: basis.input, target: target.input, directory: join(folder, 'work') })).rejects.toMatchObject({ code: 'TAR_CORRUPT', message: expect.stringContaining(`layer ${broken.layers[0]!.digest}: tar: `) });
  const lying = { ...target.input, layers: [{ ...basis.input.layers[0]!, diffId: broken.layers[0]!.diffId }], openLayer: (layer: Parameters<typeof basis.input.openLayer>[0]) => basis.input.openLayer(layer) };
  await expect(unpackPair({ basis: basis.input, target: lying, directory: join(folder, 'work') })).rejects.toMatchObject({ code: 'LAYER_MISMATCH' });
  const stop = new AbortController();
  stop.abort(new WhittleError('INTERRUPTED', 'enough'));
  await expect(unpackPair({ basis: basis.input, target: basis.input, directory: join(folder, 'work'), signal: stop.signal })).rejects.toThrow('enough');
  expect(await readdir(join(folder, 'work'))).toEqual([]);
});
