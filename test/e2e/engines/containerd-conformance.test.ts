import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe } from '@jest/globals';
import { runOk } from '../../../bench/process.js';
import { openStore } from '../../../src/applier/store/open.js';
import { basisConformance, type InstalledImage } from '../../support/basis-conformance.js';
import { startContainerd, type TestContainerd } from '../../support/engines/containerd.js';
import { fileOf } from '../../support/engines/containerd-files.js';
import { makeImage, type MadeImage } from '../../support/images.js';
import { hasTool, testUnlessWanting } from '../../support/tools.js';

const wanting = [...['containerd', 'ctr', 'runc'].filter((name) => !hasTool(name)), ...(process.geteuid?.() === 0 ? [] : ['root'])];
const test = testUnlessWanting(wanting);
let containerd: TestContainerd;
let scratch: string;

beforeAll(async () => {
  if (wanting.length > 0) return;
  scratch = await mkdtemp(join(tmpdir(), 'whittle-conformance-'));
  containerd = await startContainerd();
});
afterAll(async () => {
  if (wanting.length > 0) return;
  await containerd.close();
  await rm(scratch, { recursive: true, force: true, maxRetries: 5 });
});

/** A namespace of its own, with a device's root: images of one test are nothing to another. */
interface Place {
  readonly namespace: string;
  readonly root: string;
}

/** Installs an image by what `put` does, for the suite that every basis is held to. */
async function install(tars: readonly Buffer[], put: (place: Place, image: MadeImage) => Promise<string>): Promise<InstalledImage> {
  const folder = await mkdtemp(join(scratch, 'image-'));
  const place: Place = { namespace: basename(folder), root: join(folder, 'store') };
  const ctr = (...words: string[]): Promise<string> => containerd.ctr('-n', place.namespace, ...words);
  const image = await makeImage(join(folder, 'layout'), 'c', tars, {});
  const name = await put(place, image);
  const open: (() => Promise<void>)[] = [];
  const basis = async (): ReturnType<InstalledImage['basis']> => {
    const store = await openStore(place.root, { create: true });
    const engine = await containerd.engine(store, place.namespace);
    open.push(async () => { await engine.close(); await store.close(); });
    return engine.basis((await engine.images())[0]!);
  };
  const withBasis = async (use: (file: (layer: number, path: string) => string) => void): Promise<void> => {
    const opened = await basis();
    use((layer, path) => fileOf(opened, layer, path));
    await opened.close();
  };
  return {
    basis,
    fileOf: async (layer, path) => {
      let file = '';
      await withBasis((find) => { file = find(layer, path); });
      return file;
    },
    removeLayer: async () => {
      let file = '';
      await withBasis((find) => { file = find(1, 'data/blob'); });
      await runOk(['rm', '-r', file.slice(0, -'/data/blob'.length)]);
    },
    collect: async () => {
      await ctr('images', 'rm', '--sync', name);
      containerd.collect(place.namespace);
      return 'held';
    },
    close: async () => {
      for (const close of open) await close();
      await ctr('images', 'rm', '--sync', name);
    },
  };
}

async function putByUs(place: Place, image: MadeImage): Promise<string> {
  const store = await openStore(place.root, { create: true });
  const engine = await containerd.engine(store, place.namespace);
  try {
    const sink = await engine.begin({ manifest: image.manifest, manifestMediaType: 'application/vnd.oci.image.manifest.v1+json', config: image.config }, { scratchDirectory: place.root, replaceLayers: [], onNote: () => undefined });
    for (const [layer, { tar }] of image.layers.entries()) await sink.writeLayerTar(layer, (async function* () { await Promise.resolve(); yield tar; })());
    await sink.commit({ name: 'conformance:1', source: '' });
    await sink.close();
  } finally {
    await engine.close();
    await store.close();
  }
  return 'conformance:1';
}

async function putByCtr(place: Place, image: MadeImage): Promise<string> {
  const archive = join(image.dir, '..', 'image.tar');
  await runOk(['tar', '-C', image.dir, '-cf', archive, '.']);
  await containerd.ctr('-n', place.namespace, 'images', 'import', '--base-name', 'conformance', archive);
  return 'conformance:c';
}

describe('conformance', () => {
  basisConformance('containerd, of an image put there by Whittle', { install: (tars) => install(tars, putByUs), test });
  basisConformance('containerd, of an image put there by ctr', { install: (tars) => install(tars, putByCtr), test });
});
