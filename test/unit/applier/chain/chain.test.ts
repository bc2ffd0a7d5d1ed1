import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { PullEvent } from '../../../../src/applier/pull/events.js';
import { searchLimits } from '../../../../src/applier/pull/search-limits.js';
import { openStore } from '../../../../src/applier/store/open.js';
import { isWhittleError } from '../../../../src/core/errors.js';
import { mediaTypes } from '../../../../src/oci/index.js';
import { pushBundle } from '../../../../src/server/publish/push-bundle.js';
import type { DeltaBundle } from '../../../../src/server/publish/bundle.js';
import type { RemoteRepository } from '../../../../src/server/publish/repository.js';
import { digestOf, makeImage, type MadeImage } from '../../../support/images.js';
import { startOciRegistry, type OciRegistry, type OciRegistryOptions } from '../../../support/oci-registry.js';
import { madeUpBundle, makeVersions, publishReal, pushMade, realBundle, remoteAt, type Versions } from '../../../support/publish.js';
import { pullHere, stateOf, type Pulled } from '../../../support/pull-world.js';

type Plan = Extract<PullEvent, { event: 'plan' }>;

const partBytes = 60_000;
let versions: Versions;
let scratch: string;
let seed = '';
/** Deltas by the numbers of their versions: `1-2`. */
const bundles = new Map<string, DeltaBundle>();
let registry: OciRegistry;
let to: RemoteRepository;
const options: { intercept?: OciRegistryOptions['intercept'] } = {};

beforeAll(async () => {
  versions = await makeVersions(6, partBytes);
  scratch = await mkdtemp(join(tmpdir(), 'whittle-chain-'));
  for (const [from, into] of [[1, 2], [2, 3], [1, 3], [3, 4], [4, 5], [5, 6]] as const) bundles.set(`${String(from)}-${String(into)}`, await realBundle(version(from), version(into)));
});
afterAll(async () => {
  for (const bundle of bundles.values()) await bundle.close();
  await versions.close();
  await rm(scratch, { recursive: true, force: true });
});
beforeEach(async () => {
  delete options.intercept;
  registry = await startOciRegistry({ intercept: (request, response) => options.intercept?.(request, response) ?? false });
  to = remoteAt(registry.host, 'app');
  for (const image of versions.images) await pushMade(to, image);
  if (seed === '') {
    seed = join(scratch, 'seed');
    // The name in the store is the registry's, whose port is new each time: the images are found by what they are.
    expect((await pullHere(seed, `${registry.host}/app:v1`)).error).toBeNull();
  }
});
afterEach(async () => {
  await to.client.close();
  await registry.close();
});

function version(number: number): MadeImage {
  const image = versions.images[number - 1];
  if (image === undefined) throw new Error(`no version ${String(number)}`);
  return image;
}

async function put(...names: string[]): Promise<void> {
  for (const name of names) {
    const bundle = bundles.get(name);
    if (bundle === undefined) throw new Error(`no delta ${name}`);
    await pushBundle(to, bundle);
  }
}

async function storeWithV1(): Promise<string> {
  const root = await mkdtemp(join(scratch, 'device-'));
  // With times to the nanosecond and hard links, or the copy would be a damaged store.
  await promisify(execFile)('cp', ['-a', seed, join(root, 'store')]);
  return join(root, 'store');
}

const name = (number: number): string => `${registry.host}/app:v${String(number)}`;

function planOf({ events }: Pulled): Plan {
  const plan = events.find((event): event is Plan => event.event === 'plan');
  if (plan === undefined) throw new Error('no plan');
  return plan;
}

async function imageCount(root: string): Promise<number> {
  const store = await openStore(root);
  try {
    return (await store.images()).length;
  } finally {
    await store.close();
  }
}

const codeOf = (error: unknown): string | null => (isWhittleError(error) ? error.code : error === null ? null : 'not a WhittleError');

/** What the registry sent in bodies since the requests so far. */
const sentSince = (count: number): number => registry.requests.slice(count).reduce((sum, each) => sum + each.sentBytes, 0);

describe('the cheapest way', () => {
  test('a chain, when only that leads there; to the byte what the plan said; its images are gone after', async () => {
    await put('1-2', '2-3', '3-4');
    const root = await storeWithV1();
    const before = registry.requests.length;
    const pulled = await pullHere(root, name(4));
    expect(codeOf(pulled.error)).toBeNull();
    const plan = planOf(pulled);
    expect(plan.steps.map((step) => step.kind)).toEqual(['delta', 'delta', 'delta']);
    const figures = pulled.result?.figures;
    expect(figures?.deltaBytes).toBe(plan.downloadBytes);
    // Beyond the plan: the target's own manifest and config, and the lists that were read to find the way.
    const target = version(4);
    const { total, referrers } = figures?.downloadedBytes ?? { total: 0, referrers: 0 };
    expect(total).toBe(plan.downloadBytes + target.manifest.length + target.config.length + referrers);
    expect(sentSince(before)).toBe(total);
    expect(plan.downloadBytes).toBeLessThan(plan.layerPullBytes);
    expect(await stateOf(root)).toMatchObject({ images: { 'app:v4': target.configDigest }, damaged: 0 });
    expect(await imageCount(root)).toBe(2);
  });

  test('a direct delta when it is smaller than the chain, the chain when that is smaller', async () => {
    await put('1-2', '2-3', '1-3');
    const direct = await pullHere(await storeWithV1(), name(3), { dryRun: true });
    const chainBytes = ['1-2', '2-3'].reduce((sum, each) => sum + (bundles.get(each)?.deltaBytes ?? 0), version(2).manifest.length + version(2).config.length);
    expect(bundles.get('1-3')?.deltaBytes).toBeLessThan(chainBytes);
    expect(planOf(direct).steps).toHaveLength(1);
    // The same, with a direct delta that is dearer than the chain.
    await pushBundle(to, madeUpBundle({ basisConfig: version(1).configDigest, basisManifest: version(1).manifestDigest, targetConfig: version(4).configDigest, subject: subjectOf(version(4)), dataBytes: 250_000 }));
    await put('3-4');
    const chain = await pullHere(await storeWithV1(), name(4), { dryRun: true });
    expect(planOf(chain).steps).toHaveLength(2);
    expect(planOf(chain).downloadBytes).toBeLessThan(250_000);
  });

  test('layers in full when no way is cheaper, and no longer chain than the limit', async () => {
    await put('1-2', '2-3', '3-4', '4-5', '5-6');
    expect(searchLimits.chainLength).toBe(4);
    const root = await storeWithV1();
    expect(planOf(await pullHere(root, name(5), { dryRun: true })).steps).toHaveLength(4);
    const pulled = await pullHere(root, name(6));
    expect(pulled.result).toMatchObject({ outcome: 'committed', way: 'layers' });
  });

  test('an image between that is gone ends that branch alone', async () => {
    await put('1-2', '2-3');
    registry.repository('app').manifests.delete(version(2).manifestDigest);
    const root = await storeWithV1();
    expect((await pullHere(root, name(3))).result).toMatchObject({ outcome: 'committed', way: 'layers' });
    expect((await stateOf(root)).damaged).toBe(0);
  });
});

function subjectOf(image: MadeImage): { mediaType: string; digest: string; size: number } {
  return { mediaType: mediaTypes.ociManifest, digest: image.manifestDigest, size: image.manifest.length };
}

describe('a chain that is cut off', () => {
  test('goes on from what was fetched and from the image that was made, wherever it was cut', async () => {
    await put('1-2', '2-3');
    const whole = await pullHere(await storeWithV1(), name(3));
    const wholeBytes = whole.result?.figures.downloadedBytes.total ?? 0;
    const blobs = registry.requests.filter((each) => each.method === 'GET' && each.url.includes('/blobs/')).length;
    expect(blobs).toBeGreaterThan(4);
    for (const cut of [0, 2, 5]) {
      const root = await storeWithV1();
      const stop = new AbortController();
      let seen = 0;
      options.intercept = (request) => {
        if (request.method === 'GET' && request.url.includes('/blobs/') && seen++ === cut) stop.abort();
        return false;
      };
      const first = await pullHere(root, name(3), { signal: stop.signal });
      expect(codeOf(first.error)).toBe('INTERRUPTED');
      // No name shows anything but what was there.
      expect(Object.keys((await stateOf(root)).images)).toEqual(['app:v1']);
      delete options.intercept;
      const second = await pullHere(root, name(3));
      expect(codeOf(second.error)).toBeNull();
      expect(await stateOf(root)).toMatchObject({ images: { 'app:v3': version(3).configDigest }, damaged: 0 });
      expect(await imageCount(root)).toBe(2);
      // What the second run received is less than the whole once something had been received and kept.
      if (cut >= 4) expect(second.result?.figures.downloadedBytes.total).toBeLessThan(wholeBytes - partBytes);
    }
  });

  test('a wrong delta within it leads to the layers, and leaves nothing behind', async () => {
    await put('2-3');
    await pushBundle(to, madeUpBundle({ basisConfig: version(1).configDigest, basisManifest: version(1).manifestDigest, targetConfig: version(2).configDigest, subject: subjectOf(version(2)), dataBytes: 100 }));
    const root = await storeWithV1();
    const pulled = await pullHere(root, name(3));
    expect(pulled.events.some((event) => event.event === 'fallback')).toBe(true);
    expect(pulled.result).toMatchObject({ outcome: 'committed', way: 'layers' });
    expect(await imageCount(root)).toBe(2);
  });
});

describe('--max-bytes', () => {
  test('is never exceeded, whatever it is: refused before the fetch, or kept', async () => {
    await put('1-2', '2-3');
    const free = await pullHere(await storeWithV1(), name(3));
    const needed = free.result?.figures.downloadedBytes.total ?? 0;
    for (const maxBytes of [0, 900, 2500, Math.floor(needed / 2), needed - 1, needed]) {
      const root = await storeWithV1();
      const before = registry.requests.length;
      const pulled = await pullHere(root, name(3), { maxBytes });
      // A body that is too long is given up unread; the registry may have sent its beginning.
      expect(sentSince(before)).toBeLessThanOrEqual(Math.max(maxBytes, 2000));
      expect((pulled.result?.figures.downloadedBytes.total ?? 0)).toBeLessThanOrEqual(maxBytes);
      expect(codeOf(pulled.error)).toBe(maxBytes >= needed ? null : 'BUDGET_EXCEEDED');
    }
  });

  test('holds when connections break and bytes come again', async () => {
    await put('1-2', '2-3');
    const needed = (await pullHere(await storeWithV1(), name(3))).result?.figures.downloadedBytes.total ?? 0;
    let received = 0;
    const data = bundles.get('2-3')?.blobs[2]?.descriptor;
    const bytes = registry.repository('app').blobs.get(data?.digest ?? '') ?? Buffer.alloc(0);
    // A server that ignores ranges and breaks off near the end, again and again.
    options.intercept = (request, response) => {
      if (request.method !== 'GET' || !request.url.includes(data?.digest ?? '?')) return false;
      response.writeHead(200, { 'content-length': String(bytes.length) });
      const part = bytes.subarray(0, bytes.length - 1000);
      received += part.length;
      response.write(part, () => { setTimeout(() => response.destroy(), 20); });
      return true;
    };
    const maxBytes = needed + 90_000;
    const pulled = await pullHere(await storeWithV1(), name(3), { maxBytes });
    expect(codeOf(pulled.error)).toBe('BUDGET_EXCEEDED');
    expect(received).toBeGreaterThan(bytes.length);
    expect(received).toBeLessThan(maxBytes);
  });
});

describe('a registry that means harm', () => {
  test('circles, huge lists and endless graphs end the search within its bounds', async () => {
    const config = (at: number): string => digestOf(`config ${String(at)}`);
    // Every image, the target too, has 200 deltas from images that have as many, and from itself.
    options.intercept = (request, response) => {
      if (!request.url.includes('/referrers/')) return false;
      const entries = Array.from({ length: 200 }, (_, at) => ({ mediaType: mediaTypes.ociManifest, digest: digestOf(`delta ${String(at)} ${request.url}`), size: 900, artifactType: 'application/vnd.whittle.delta.v1', annotations: { 'dev.whittle.basis.config': config(at), 'dev.whittle.basis.manifest': at % 2 === 0 ? version(1 + (at % 6)).manifestDigest : digestOf(`image ${String(at)}`) } }));
      response.writeHead(200, { 'content-type': mediaTypes.ociIndex, link: `<${request.url}&n=${String(Math.random())}>; rel="next"` });
      response.end(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: entries }));
      return true;
    };
    const before = registry.requests.length;
    const pulled = await pullHere(await storeWithV1(), name(2));
    expect(pulled.result).toMatchObject({ outcome: 'committed', way: 'layers' });
    expect(registry.requests.length - before).toBeLessThan(searchLimits.chainManifests + searchLimits.imagesExplored * 2 + 20);
    // A list longer than what is read of lists.
    options.intercept = (request, response) => {
      if (!request.url.includes('/referrers/')) return false;
      response.writeHead(200, { 'content-type': mediaTypes.ociIndex });
      response.end(Buffer.alloc(3 * 2 ** 20, 0x20));
      return true;
    };
    const long = await pullHere(await storeWithV1(), name(2));
    expect(long.result).toMatchObject({ outcome: 'committed', way: 'layers' });
    expect(long.result?.figures.downloadedBytes.referrers).toBeLessThanOrEqual(searchLimits.listBytes);
  });

  test('deltas that lead in a circle are followed once', async () => {
    for (const [from, into] of [[2, 3], [3, 2], [3, 3]] as const) {
      await pushBundle(to, madeUpBundle({ basisConfig: version(from).configDigest, basisManifest: version(from).manifestDigest, targetConfig: version(into).configDigest, subject: subjectOf(version(into)), dataBytes: 500 + from }));
    }
    const before = registry.requests.length;
    expect((await pullHere(await storeWithV1(), name(3))).result).toMatchObject({ way: 'layers' });
    const lists = registry.requests.slice(before).filter((each) => each.url.includes('/referrers/')).map((each) => each.url);
    expect(new Set(lists.map((url) => url.split('?')[0])).size).toBe(lists.length);
  });
});

test('the store needs no other helper: a published delta of a real pair is found through the fallback tag too', async () => {
  const plain = await startOciRegistry({ referrers: false });
  const there = remoteAt(plain.host, 'app');
  for (const image of versions.images.slice(0, 3)) await pushMade(there, image);
  await publishReal(there, version(1), version(2));
  await publishReal(there, version(2), version(3));
  const pulled = await pullHere(await storeWithV1(), `${plain.host}/app:v3`);
  expect(planOf(pulled).steps).toHaveLength(2);
  expect(pulled.result).toMatchObject({ outcome: 'committed', way: 'delta' });
  await there.client.close();
  await plain.close();
});

test('for layers smaller than any delta nobody is asked for one', async () => {
  const tiny = await makeImage(join(scratch, 'tiny'), 'tiny', [[{ path: 'work/' }]]);
  await pushMade(to, tiny);
  const root = await storeWithV1();
  const before = registry.requests.length;
  const pulled = await pullHere(root, `${registry.host}/app:tiny`);
  expect(pulled.result).toMatchObject({ outcome: 'committed', way: 'layers' });
  expect(registry.requests.slice(before).filter(({ url }) => /referrers|sha256-/.test(url))).toEqual([]);
});
