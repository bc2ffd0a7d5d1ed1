import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startService, type Service } from '../../bench/services.js';
import type { PullEvent } from '../../src/applier/pull/events.js';
import { pullDefaults, type PullOptions } from '../../src/applier/pull/options.js';
import { pullImage, type PullResult } from '../../src/applier/pull/pull.js';
import { registrySource } from '../../src/applier/pull/registry-source.js';
import { defaultPatience, type Patience } from '../../src/applier/pull/transfer.js';
import { openStore } from '../../src/applier/store/open.js';
import type { Store } from '../../src/applier/store/types.js';
import { parseReference } from '../../src/oci/index.js';
import type { TransportOptions } from '../../src/registry/index.js';
import { makeImage, noise, type ImageFile, type MadeImage } from './images.js';

/** Patience for servers on loopback that misbehave on purpose. */
export const hurried: Patience = { ...defaultPatience, stallMs: 3000, slowWindowMs: 3000, pauseMs: 1, maxPauseMs: 5, maxRetryAfterMs: 50 };

/** Two versions of an image, served with deltas between them, and a folder for stores. */
export interface PullWorld {
  readonly service: Service;
  readonly v1: MadeImage;
  readonly v2: MadeImage;
  /** A new folder below the world's. */
  folder(name: string): Promise<string>;
  close(): Promise<void>;
}

/** Bytes of new content in v2 that no delta can predict: several frames of the delta's data, and of the layer. */
const freshBytes = 600_000;

/** Makes the images and serves them as `app:v1` and `app:v2`. The caller closes it. */
export async function makePullWorld(): Promise<PullWorld> {
  const scratch = await mkdtemp(join(tmpdir(), 'whittle-pull-'));
  const platform = { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : process.arch === 'arm' ? 'arm' : 'amd64' };
  const shared: ImageFile[] = [{ path: 'etc/' }, { path: 'etc/motd', content: 'hello\n' }, { path: 'lib/' }, { path: 'lib/shared.so', content: noise(700_000, 1), mode: 0o755 }];
  const base: ImageFile[] = [{ path: 'base/' }, { path: 'base/blob', content: noise(300_000, 2) }];
  const layout = join(scratch, 'app');
  const v1 = await makeImage(layout, 'v1', [base, [...shared, { path: 'app/' }, { path: 'app/data', content: noise(400_000, 3) }]], { platform });
  const v2 = await makeImage(layout, 'v2', [base, [...shared, { path: 'app/' }, { path: 'app/data', content: noise(freshBytes, 4) }]], { platform });
  const service = await startService([`app=oci:${layout}:v1`, `app=oci:${layout}:v2`], join(scratch, 'server'), 'fast');
  return {
    service, v1, v2,
    folder: (name) => mkdtemp(join(scratch, `${name}-`)),
    close: async () => {
      await service.stop();
      await rm(scratch, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** What one pull in this process came to. */
export interface Pulled {
  readonly result: PullResult | null;
  readonly error: unknown;
  readonly events: readonly PullEvent[];
}

/** Pulls `image` (`127.0.0.1:port/app:v2`) into the store at `root`, with hurried patience, in this process. */
export async function pullHere(root: string, image: string, options: Partial<PullOptions> = {}): Promise<Pulled> {
  const store = await openStore(root, { create: true });
  try {
    return await pullInto(store, image, options);
  } finally {
    await store.close();
  }
}

/** Pulls `image` into an open store, with hurried patience, in this process. */
export async function pullInto(store: Store, image: string, options: Partial<PullOptions> = {}, transport: TransportOptions = {}): Promise<Pulled> {
  const events: PullEvent[] = [];
  const reference = parseReference(image);
  const source = registrySource(reference, null, { limits: { attempts: 4, backoffMs: 1, backoffMaxMs: 5, headersTimeoutMs: 5000, bodyTimeoutMs: 5000, retryAfterMaxMs: 50, ...transport.limits }, credentials: transport.credentials });
  try {
    const result = await pullImage(store, source, {
      ...pullDefaults, image, reference, platform: { os: 'linux', architecture: 'amd64' }, platformChosen: false, patience: hurried,
      onEvent: (event) => { events.push(event); }, signal: new AbortController().signal, ...options,
    });
    return { result, error: null, events };
  } catch (error) {
    return { result: null, error, events };
  } finally {
    await source.close();
  }
}

/** The store at `root` as far as a user sees it: names with their image, and whether everything verifies. */
export async function stateOf(root: string): Promise<{ images: Record<string, string>; damaged: number }> {
  const store = await openStore(root, { create: true });
  try {
    return await stateOfStore(store);
  } finally {
    await store.close();
  }
}

/** The same of an open store. */
export async function stateOfStore(store: Store): Promise<{ images: Record<string, string>; damaged: number }> {
  const report = await store.verify();
  const images: Record<string, string> = {};
  for (const { name, current } of await store.references()) images[name.slice(name.indexOf('/') + 1)] = (await store.findImage(current))?.configDigest ?? 'gone';
  return { images, damaged: report.damagedLayers.length + report.damagedRecords.length };
}
