import { mkdtempSync, rmSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { Engine, EngineStorage, LayerSink, PullStage } from '../../../../src/applier/engines/types.js';
import { enginePlace } from '../../../../src/applier/pull/place.js';
import { openStore } from '../../../../src/applier/store/open.js';
import type { Store } from '../../../../src/applier/store/types.js';
import { makeImage } from '../../../support/images.js';

let folder = '';
let store: Store;
let stage: PullStage;
let storage: EngineStorage | null;
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'whittle-space-'));
  store = await openStore(join(folder, 'store'), { create: true });
  const { manifest, config } = await makeImage(join(folder, 'image'), 'v1', [[{ path: 'a', content: 'a' }]]);
  const sink = { intake: 'kept', close: () => Promise.resolve() } as Partial<LayerSink> as LayerSink;
  const engine = { name: 'docker', storage: () => Promise.resolve(storage), begin: () => Promise.resolve(sink) } as Partial<Engine> as Engine;
  stage = await enginePlace(store, engine).stage({ manifest, manifestMediaType: 'application/vnd.oci.image.manifest.v1+json', config });
});
afterEach(async () => {
  await stage.close();
  await store.close();
  rmSync(folder, { recursive: true, force: true });
});

const huge = 2 ** 51;

test('what surely does not fit where the engine keeps its images is refused before anything is fetched', async () => {
  // The device's own filesystem, and another one: the sum counts where both are one.
  const here = await statfs(folder);
  for (const [path, spoolCounts] of [[folder, true], ['/proc', false]] as const) {
    storage = { path, layerCopies: 2 };
    const free = path === folder ? here.bavail * here.bsize : 0;
    await expect(stage.requireSpace({ spoolBytes: 1000, imageBytes: 5, layerBytes: huge })).rejects.toMatchObject({ code: 'STORAGE_FULL', data: { neededBytes: 2 * huge + (spoolCounts ? 1000 : 0) } });
    if (free > 10_000_000) await stage.requireSpace({ spoolBytes: 1000, imageBytes: huge, layerBytes: 1000 });
  }
});

test('an engine that writes only what changed needs room for that; one that cannot be seen is left to say so itself', async () => {
  storage = { path: folder, layerCopies: 0 };
  await stage.requireSpace({ spoolBytes: 0, imageBytes: 1, layerBytes: huge });
  await expect(stage.requireSpace({ spoolBytes: 0, imageBytes: huge, layerBytes: 1 })).rejects.toMatchObject({ code: 'STORAGE_FULL', data: { neededBytes: huge } });
  for (storage of [null, { path: join(folder, 'gone'), layerCopies: 2 }]) {
    await stage.requireSpace({ spoolBytes: 0, imageBytes: huge, layerBytes: huge });
    await expect(stage.requireSpace({ spoolBytes: huge, imageBytes: 0, layerBytes: 0 })).rejects.toMatchObject({ code: 'STORAGE_FULL' });
  }
});
