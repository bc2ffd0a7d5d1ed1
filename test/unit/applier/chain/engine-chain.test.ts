import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ImagePlace } from '../../../../src/applier/engines/types.js';
import type { PullEvent } from '../../../../src/applier/pull/events.js';
import { pullDefaults, type PullOptions } from '../../../../src/applier/pull/options.js';
import { storePlace } from '../../../../src/applier/pull/place.js';
import { pullInto } from '../../../../src/applier/pull/pull.js';
import { registrySource } from '../../../../src/applier/pull/registry-source.js';
import { openStore } from '../../../../src/applier/store/open.js';
import type { Store } from '../../../../src/applier/store/types.js';
import { mediaTypes, parseReference } from '../../../../src/oci/index.js';
import type { RemoteRepository } from '../../../../src/server/publish/repository.js';
import { makeImage, noise, type ImageFile, type MadeImage } from '../../../support/images.js';
import { startOciRegistry, type OciRegistry, type OciRegistryOptions } from '../../../support/oci-registry.js';
import { publishReal, pushMade, remoteAt } from '../../../support/publish.js';
import { hurried, stateOf, type Pulled } from '../../../support/pull-world.js';

const platform = { os: 'linux', architecture: 'amd64' };
let scratch: string;
let registry: OciRegistry;
let to: RemoteRepository;
const versions: MadeImage[] = [];
const options: { intercept?: OciRegistryOptions['intercept'] } = {};
/** Contents that came with version `version` and stay. */
const came = (version: number): Buffer => noise(40_000, 100 + version);

function appOf(version: number): ImageFile[] {
  return [
    { path: 'app/' }, { path: 'app/kept', content: noise(500_000, 1) }, { path: 'app/old', content: noise(30_000, 5) }, { path: 'app/patched', content: Buffer.concat([noise(200_000, 2), noise(5000, 10 + version)]) },
    // What an earlier image brought appears under another name in each, more than one image later too.
    ...Array.from({ length: version - 1 }, (_, at): ImageFile => ({ path: `app/of-${String(at + 2)}-in-${String(version)}`, content: came(at + 2) })),
    { path: 'app/alias', type: 'link', linkPath: 'app/patched' }, { path: 'app/empty', content: '' }, { path: 'app/version', content: `v${String(version)}\n` },
  ];
}

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'whittle-engine-chain-'));
  const base: ImageFile[] = [{ path: 'etc/' }, { path: 'etc/os', content: noise(100_000, 3) }];
  const extra: ImageFile[] = [{ path: 'lib/' }, { path: 'lib/new', content: came(7) }, { path: 'lib/was-app', content: noise(30_000, 5) }];
  // The layer `extra` comes with the second version, moves below with the third, and is there twice in the last.
  for (const [at, layers] of [[base, appOf(1)], [base, appOf(2), extra], [base, extra, appOf(3)], [base, extra, appOf(4), extra]].entries()) {
    versions.push(await makeImage(join(scratch, 'app'), `v${String(at + 1)}`, layers, { platform }));
  }
  registry = await startOciRegistry({ intercept: (request, response) => options.intercept?.(request, response) ?? false });
  to = remoteAt(registry.host, 'app');
  for (const image of versions) await pushMade(to, image);
  for (const from of [1, 2, 3]) await publishReal(to, version(from), version(from + 1));
});
afterAll(async () => {
  await to.client.close();
  await registry.close();
  await rm(scratch, { recursive: true, force: true });
});

function version(number: number): MadeImage {
  const image = versions[number - 1];
  if (image === undefined) throw new Error(`no version ${String(number)}`);
  return image;
}

const asEngine = (store: Store): ImagePlace => ({ ...storePlace(store), passing: null, name: 'an engine' });

async function pull(root: string, number: number, place: (store: Store) => ImagePlace, more: Partial<PullOptions> = {}): Promise<Pulled> {
  const store = await openStore(root, { create: true });
  const events: PullEvent[] = [];
  const image = `${registry.host}/app:v${String(number)}`;
  const source = registrySource(parseReference(image), null, {});
  try {
    const result = await pullInto(place(store), source, {
      ...pullDefaults, image, reference: parseReference(image), platform, platformChosen: false, patience: hurried, onEvent: (event) => { events.push(event); }, signal: new AbortController().signal, ...more,
    });
    return { result, error: null, events };
  } catch (error) {
    return { result: null, error, events };
  } finally {
    await source.close();
    await store.close();
  }
}

async function deviceWithV1(): Promise<string> {
  const root = join(await mkdtemp(join(scratch, 'device-')), 'store');
  expect((await pull(root, 1, asEngine)).result).toMatchObject({ outcome: 'committed', way: 'layers' });
  return root;
}

const planOf = ({ events }: Pulled): PullEvent | undefined => events.find(({ event }) => event === 'plan');

test('a place that takes no other images gets a chain by the same plan, with no image on the way, and writes only what is new', async () => {
  for (const target of [3, 4]) {
    const own = await deviceWithV1();
    const plan = planOf(await pull(own, target, storePlace, { dryRun: true }));
    const root = await deviceWithV1();
    const dry = await pull(root, target, asEngine, { dryRun: true });
    expect(planOf(dry)).toEqual({ ...plan, into: 'an engine' });
    const pulled = await pull(root, target, asEngine);
    expect(pulled.error).toBeNull();
    expect(pulled.events.filter(({ event }) => event === 'fallback')).toEqual([]);
    expect(pulled.result).toMatchObject({ outcome: 'committed', way: 'delta', image: { configDigest: version(target).configDigest } });
    expect(planOf(pulled)).toMatchObject({ steps: Array.from({ length: target - 1 }, () => ({ kind: 'delta' })), downloadBytes: pulled.result?.figures.deltaBytes });
    // The first version's half megabyte is linked or shared, and was never written again on the way.
    expect(pulled.result?.figures.writtenBytes).toBeLessThan((target - 1) * 400_000);
    expect(await stateOf(root)).toMatchObject({ images: { [`app:v${String(target)}`]: version(target).configDigest }, damaged: 0 });
    const store = await openStore(root);
    expect((await store.images()).map(({ configDigest }) => configDigest).sort()).toEqual([version(1).configDigest, version(target).configDigest].sort());
    await store.close();
  }
});

test('cut off at any fetch, it leaves the old image and nothing else, and the next pull fetches only what is missing', async () => {
  const whole = await deviceWithV1();
  const blobs: string[] = [];
  options.intercept = (request) => {
    if (request.method === 'GET' && request.url.includes('/blobs/')) blobs.push(request.url);
    return false;
  };
  expect((await pull(whole, 4, asEngine)).error).toBeNull();
  const count = new Set(blobs).size;
  expect(count).toBe(9);
  for (const cut of [4, 9]) {
    const root = await deviceWithV1();
    const stop = new AbortController();
    const got = new Set<string>();
    options.intercept = (request) => {
      if (request.method !== 'GET' || !request.url.includes('/blobs/') || got.has(request.url)) return false;
      got.add(request.url);
      if (got.size === cut) stop.abort();
      return false;
    };
    const first = await pull(root, 4, asEngine, { signal: stop.signal });
    expect(first.error).toMatchObject({ code: 'INTERRUPTED' });
    expect(Object.keys((await stateOf(root)).images)).toEqual(['app:v1']);
    const stages = join(root, 'stages');
    for (const stage of await readdir(stages)) expect((await readdir(join(stages, stage, 'spool'))).filter((each) => each.startsWith('scratch'))).toEqual([]);
    const again: string[] = [];
    options.intercept = (request) => {
      if (request.method === 'GET' && request.url.includes('/blobs/')) again.push(request.url);
      return false;
    };
    const second = await pull(root, 4, asEngine);
    expect(second.error).toBeNull();
    expect(second.result).toMatchObject({ way: 'delta' });
    expect((await stateOf(root)).damaged).toBe(0);
    // Configs are small and asked for again; indexes and data that were here are not.
    const spooled = [...got].slice(0, -1).filter((url) => !versions.some(({ configDigest }) => url.includes(configDigest)));
    expect(again.filter((url) => spooled.includes(url))).toEqual([]);
  }
  delete options.intercept;
});

test('what a pull left that was cut off after its image became visible goes with the next pull, and what another is at stays', async () => {
  const root = await deviceWithV1();
  const store = await openStore(root);
  const { manifest, config } = version(1);
  const stage = await store.stage({ manifest, manifestMediaType: mediaTypes.ociManifest, config });
  expect((await pull(root, 1, asEngine)).result?.outcome).toBe('current');
  expect((await store.status()).stages).toMatchObject([{ active: true }]);
  await stage.close();
  expect((await store.status()).stages).toMatchObject([{ active: false }]);
  expect((await pull(root, 1, asEngine)).result?.outcome).toBe('current');
  expect((await store.status()).stages).toEqual([]);
  await store.close();
});
