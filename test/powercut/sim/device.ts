import { pullDefaults } from '../../../src/applier/pull/options.js';
import { pullImage, type PullResult } from '../../../src/applier/pull/pull.js';
import { defaultPatience, type Patience } from '../../../src/applier/pull/transfer.js';
import { openStore } from '../../../src/applier/store/open.js';
import type { Store } from '../../../src/applier/store/types.js';
import { parseReference } from '../../../src/oci/index.js';
import type { SourceOptions, World } from './fixtures.js';
import type { Machine } from './machine.js';
import { SimFs } from './sim-fs.js';

/** Where the store is on a simulated machine. Its parents are made too. */
export const storeRoot = '/var/lib/whittle';
export const repository = 'simulated:5000/app';

/** Waits for nothing: a simulated link is up or down. */
export const patience: Patience = { ...defaultPatience, pauseMs: 0, maxPauseMs: 0, maxFruitless: 4, maxRetryAfterMs: 0 };

/** One process opens the store; a crash needs no closing. */
export function openOn(machine: Machine, create: boolean): Promise<Store> {
  return openStore(storeRoot, { create, openFs: (path) => Promise.resolve().then(() => new SimFs(machine, path)) });
}

/** Pulls `app:<name>` as `device pull` does. */
export function pull(store: Store, world: World, name = 'latest', options: SourceOptions & { readonly delta?: 'auto' | 'never' } = {}): Promise<PullResult> {
  const image = `${repository}:${name}`;
  return pullImage(store, world.source(options), {
    ...pullDefaults, image, reference: parseReference(image), platform: { os: 'linux', architecture: 'amd64' }, platformChosen: false, patience,
    delta: options.delta ?? 'auto', lockWaitMs: 20_000, onEvent: () => undefined, signal: new AbortController().signal,
  });
}
