import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { openStore } from '../../../../src/applier/store/open.js';
import { basisConformance } from '../../../support/basis-conformance.js';
import { install, layerDirectory, temporaryDirectory } from './support.js';

basisConformance('the device\'s own store', {
  install: async (tars) => {
    const root = temporaryDirectory();
    const store = await openStore(root, { create: true });
    const image = await install(store, tars, 'app:v1');
    return {
      basis: () => store.basis(image),
      fileOf: (layer, path) => Promise.resolve(join(layerDirectory(root, tars[layer] ?? Buffer.alloc(0)), 'fs', path)),
      removeLayer: (layer) => rm(layerDirectory(root, tars[layer] ?? Buffer.alloc(0)), { recursive: true }),
      collect: async () => {
        await store.removeReference('app:v1');
        // Whoever holds a basis keeps the garbage from being collected.
        return store.gc().then(() => 'gone' as const, () => 'held' as const);
      },
      close: () => store.close(),
    };
  },
});
