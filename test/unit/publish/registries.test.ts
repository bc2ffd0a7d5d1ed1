import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { deltaFormatVersion } from '../../../src/delta/index.js';
import { mediaTypes, type Descriptor } from '../../../src/oci/index.js';
import { deleteManifest, entryTag, fallbackTag, listReferrers, pushBlob, pushReferrer, RegistryClient } from '../../../src/registry/index.js';
import { tabulateDeltas } from '../../../src/server/publish/deltas.js';
import { prune, type PruneEvent } from '../../../src/server/publish/prune.js';
import { pushBundle, pushImage } from '../../../src/server/publish/push-bundle.js';
import { pushInstead } from '../../../src/server/publish/push-instead.js';
import { listDeltas, type RemoteRepository } from '../../../src/server/publish/repository.js';
import { openSource } from '../../../src/registry/source.js';
import { startDockerRegistry } from '../../support/docker-registry.js';
import { digestOf, noise } from '../../support/images.js';
import { startOciRegistry, type OciRegistryOptions } from '../../support/oci-registry.js';
import { madeUpBundle, makeVersions, pushMade, quickLimits, realBundle, remoteAt, type Versions } from '../../support/publish.js';
import { pullHere, stateOf } from '../../support/pull-world.js';
import { hasTool, testWithTools } from '../../support/tools.js';
import { until } from '../../support/until.js';
import { expectCode } from '../registry/support.js';

/** A registry of the suite, with deletes on or off. */
interface Kind {
  readonly name: string;
  readonly listedBy: 'api' | 'tag';
  readonly tools: readonly string[];
  readonly start: (deletes: boolean) => Promise<{ readonly host: string; close(): Promise<void> }>;
}

const kinds: readonly Kind[] = [
  { name: 'Debian\'s docker-registry', listedBy: 'tag', tools: ['docker-registry'], start: (deletes) => startDockerRegistry({ deletes }) },
  { name: 'a registry of our own with the referrers API', listedBy: 'api', tools: [], start: (deletes) => startOciRegistry({ deletes, pageEntries: 2 }) },
  { name: 'a registry of our own without it', listedBy: 'tag', tools: [], start: (deletes) => startOciRegistry({ deletes, referrers: false }) },
];

let versions: Versions;
let scratch: string;
beforeAll(async () => {
  versions = await makeVersions(4, 30_000);
  scratch = await mkdtemp(join(tmpdir(), 'whittle-registries-'));
});
afterAll(async () => {
  await versions.close();
  await rm(scratch, { recursive: true, force: true });
});

const signal = new AbortController().signal;
const image = (number: number): Versions['images'][number] => versions.images[number - 1] ?? (() => { throw new Error('no such version'); })();
const subjectOf = (number: number): Descriptor => ({ mediaType: mediaTypes.ociManifest, digest: image(number).manifestDigest, size: image(number).manifest.length });
const madeUp = (from: number, into: number, dataBytes = 1000): ReturnType<typeof madeUpBundle> => madeUpBundle({
  basisConfig: image(from).configDigest, basisManifest: image(from).manifestDigest, targetConfig: image(into).configDigest, subject: subjectOf(into), dataBytes,
});
const pruned = (to: RemoteRepository, options: { dryRun?: boolean; keepBasisGone?: boolean } = {}, events: PruneEvent[] = []): ReturnType<typeof prune> =>
  prune(to, { dryRun: false, keepBasisGone: false, signal, onEvent: (event) => { events.push(event); }, ...options });

describe.each(kinds)('$name', ({ listedBy, tools, start }) => {
  const conforms = testWithTools(...tools);
  const there = tools.every(hasTool);
  let host = '';
  let close: () => Promise<void> = () => Promise.resolve();
  let to: RemoteRepository;
  beforeEach(async () => {
    if (!there) return;
    const started = await start(true);
    host = started.host;
    close = () => started.close();
    to = remoteAt(host, 'fleet/app');
  });
  afterEach(async () => {
    if (!there) return;
    await to.client.close();
    await close();
  });

  conforms('publish, list, pull, and nothing is sent twice', async () => {
    for (const each of versions.images.slice(0, 2)) await pushMade(to, each);
    const bundle = await realBundle(image(1), image(2));
    const blobBytes = bundle.blobs.reduce((sum, { descriptor }) => sum + descriptor.size, 0);
    expect(await pushBundle(to, bundle)).toEqual({ listedBy, sentBytes: blobBytes });
    expect(await pushBundle(to, bundle)).toEqual({ listedBy, sentBytes: 0 });
    const table = await tabulateDeltas({ ...to, reference: { ...to.reference, tag: 'v2' } }, { signal });
    expect(table).toMatchObject({ listedBy, configDigest: image(2).configDigest });
    expect(table.deltas).toEqual([{
      digest: bundle.descriptor.digest, basisConfig: image(1).configDigest, basisManifest: image(1).manifestDigest, basisTags: ['v1'],
      deltaBytes: bundle.deltaBytes, formatVersion: deltaFormatVersion, layerPullBytes: bundle.layerPullBytes,
    }]);
    const root = await mkdtemp(join(scratch, 'store-'));
    await pullHere(root, `${host}/fleet/app:v1`);
    const pulled = await pullHere(root, `${host}/fleet/app:v2`);
    expect(pulled.result).toMatchObject({ outcome: 'committed', way: 'delta', figures: { deltaBytes: bundle.deltaBytes } });
    expect(await stateOf(root)).toMatchObject({ damaged: 0, images: { 'fleet/app:v2': image(2).configDigest } });
    await bundle.close();
  });

  conforms('a delta takes the place of those before it, and of no other; where nobody may delete, they stay', async () => {
    for (const each of versions.images.slice(0, 3)) await pushMade(to, each);
    const [before, again, other] = [madeUp(1, 3, 1001), madeUp(1, 3, 1002), madeUp(2, 3, 1003)];
    const digests = { before: before.descriptor.digest, again: again.descriptor.digest, other: other.descriptor.digest };
    const listed = async (where: RemoteRepository): Promise<string[]> => (await listDeltas(where, image(3).manifestDigest)).descriptors.map((each) => each.digest).sort();
    for (const each of [before, other]) await pushBundle(to, each);
    expect(await pushInstead(to, again, [digests.before, digests.again])).toMatchObject({ listedBy, replaced: [digests.before], left: [] });
    expect(await listed(to)).toEqual([digests.again, digests.other].sort());
    await expectCode(to.client.getManifest(to.repository, digests.before), 'REGISTRY_NOT_FOUND');
    // Gone already: somebody else was quicker.
    expect(await pushInstead(to, again, [digests.before])).toMatchObject({ replaced: [digests.before], left: [] });

    const fixed = await start(false);
    const there = remoteAt(fixed.host, 'fleet/app');
    try {
      for (const each of versions.images.slice(0, 3)) await pushMade(there, each);
      await pushBundle(there, before);
      expect(await pushInstead(there, again, [digests.before])).toMatchObject({ replaced: [], left: [digests.before] });
      expect(await listed(there)).toEqual([digests.before, digests.again].sort());
    } finally {
      await there.client.close();
      await fixed.close();
    }
  });

  conforms('an image is mounted from another repository of the same registry, not sent again', async () => {
    await pushMade(to, image(1));
    const source = await openSource(`docker://${host}/fleet/app:v1`);
    const elsewhere = { ...to, repository: 'copy/app' };
    const mounted = await pushImage(elsewhere, source, 'v1', { mountFrom: 'fleet/app' });
    expect(mounted).toBe(0);
    expect((await to.client.getManifest('copy/app', 'v1')).descriptor.digest).toBe(image(1).manifestDigest);
    await source.close();
  });

  conforms('prune removes what leads from or to images that are gone, and nothing else', async () => {
    for (const each of versions.images) await pushMade(to, each);
    const kept = madeUp(3, 4);
    const [basisGone, targetGone] = [madeUp(1, 4, 1001), madeUp(3, 2, 1002)];
    for (const each of [kept, basisGone, targetGone]) await pushBundle(to, each);
    await deleteManifest(to.client, to.repository, image(1).manifestDigest);
    await deleteManifest(to.client, to.repository, image(2).manifestDigest);
    const left = async (subject: number): Promise<string[]> => (await listDeltas(to, image(subject).manifestDigest)).descriptors.map((each) => each.digest).sort();
    const whole = [kept, basisGone].map((each) => each.descriptor.digest).sort();
    // A target that is gone is found by what is left of it: a fallback tag, or a delta that starts from it.
    const reasons = listedBy === 'tag' ? ['basis-gone', 'target-gone'] : ['basis-gone'];
    const dry = await pruned(to, { dryRun: true });
    expect(dry.stale.map((each) => each.why).sort()).toEqual(reasons);
    expect(await left(4)).toEqual(whole);
    expect((await pruned(to, { dryRun: true, keepBasisGone: true })).stale.map((each) => each.why)).toEqual(reasons.slice(1));
    const result = await pruned(to);
    expect(result).toMatchObject({ removed: reasons.length });
    expect(await left(4)).toEqual([kept.descriptor.digest]);
    expect(await to.client.headManifest(to.repository, basisGone.descriptor.digest)).toBeUndefined();
    expect(await pruned(to)).toMatchObject({ removed: 0, entriesRemoved: 0 });
    const tags = await to.client.listTags(to.repository);
    expect([...tags].sort()).toEqual(['v3', 'v4', ...(listedBy === 'tag' ? [fallbackTag(image(4).manifestDigest), entryTag(image(4).manifestDigest, kept.descriptor.digest)] : [])].sort());
  });

  conforms('where deletes are off, prune says so and changes nothing', async () => {
    const locked = await start(false);
    const where = remoteAt(locked.host, 'app');
    await pushMade(where, image(2));
    await pushBundle(where, madeUp(1, 2));
    const error = await expectCode(pruned(where), 'REGISTRY_DELETES_OFF');
    expect(error.message).toContain('405');
    expect(error.exitCode).toBe(4);
    expect((await listDeltas(where, image(2).manifestDigest)).descriptors).toHaveLength(1);
    await where.client.close();
    await locked.close();
  });

  conforms('eight publishers at once: every entry is there in the end, and stays', async () => {
    await pushMade(to, image(4));
    const bundles = Array.from({ length: 8 }, (_, at) => madeUp(1 + (at % 3), 4, 100 + at));
    // Each with connections of its own, and some of them twice, as impatient people do.
    await Promise.all([...bundles, ...bundles.slice(0, 3)].map(async (bundle, at) => {
      const mine = remoteAt(host, 'fleet/app');
      await sleep(at * 7);
      await pushBundle(mine, bundle);
      // When a publisher has been told that it is done, its delta is listed.
      await mine.client.close();
    }));
    const listed = await listDeltas(to, image(4).manifestDigest);
    expect(listed.descriptors.map((each) => each.digest).sort()).toEqual(bundles.map((each) => each.descriptor.digest).sort());
  });
});

testWithTools('docker-registry')('a publisher that was asleep between reading and writing loses nothing that came meanwhile', async () => {
  const registry = await startDockerRegistry();
  const slow = remoteAt(registry.host, 'app');
  await pushMade(slow, image(4));
  // The slow one has read an empty list; it writes when all others are long done.
  const write = slow.client.transport.once.bind(slow.client.transport);
  let asleep = false;
  let wake = (): void => undefined;
  const woken = new Promise<void>((resolve) => { wake = resolve; });
  slow.client.transport.request = async (request) => slow.client.transport.retry(async () => {
    if (!asleep && request.method === 'PUT' && String(request.target).endsWith(`/manifests/${fallbackTag(image(4).manifestDigest)}`)) {
      asleep = true;
      await woken;
    }
    return write(request);
  });
  const others = [madeUp(1, 4, 51), madeUp(2, 4, 52), madeUp(3, 4, 53)];
  const last = madeUp(1, 4, 54);
  const slowly = pushBundle(slow, last);
  await until(() => asleep);
  for (const each of others) {
    const quick = remoteAt(registry.host, 'app');
    await pushBundle(quick, each);
    await quick.client.close();
  }
  wake();
  await slowly;
  const listed = await listReferrers(slow.client, 'app', image(4).manifestDigest);
  expect(listed.status === 'ready' ? listed.manifests.map((each) => each.digest).sort() : []).toEqual([...others, last].map((each) => each.descriptor.digest).sort());
  await slow.client.close();
  await registry.close();
});

describe('uploads', () => {
  const blob = (bytes: Buffer): Parameters<typeof pushBlob>[2] => ({
    descriptor: { mediaType: 'application/octet-stream', digest: digestOf(bytes), size: bytes.length },
    open: async function* (offset) { yield await Promise.resolve(bytes.subarray(offset)); },
  });
  const serve = async (intercept: OciRegistryOptions['intercept']): Promise<{ registry: Awaited<ReturnType<typeof startOciRegistry>>; client: RegistryClient }> => {
    const registry = await startOciRegistry(intercept === undefined ? {} : { intercept });
    return { registry, client: new RegistryClient(registry.host, { limits: { ...quickLimits, uploadChunkBytes: 10_000 } }) };
  };

  test('a 429 with Retry-After in the middle is waited for, and the upload goes on where it was', async () => {
    let refused = 0;
    const { registry, client } = await serve((request, response) => {
      if (request.method !== 'PATCH' || request.headers['content-range']?.startsWith('20000-') !== true || refused++ > 0) return false;
      response.writeHead(429, { 'retry-after': '1' }).end();
      return true;
    });
    const bytes = noise(45_000, 1);
    const startedMs = performance.now();
    expect(await pushBlob(client, 'app', blob(bytes))).toBe('uploaded');
    expect(performance.now() - startedMs).toBeGreaterThan(950);
    expect(registry.requests.filter((each) => each.method === 'POST')).toHaveLength(1);
    expect(registry.requests.filter((each) => each.method === 'PATCH').map((each) => each.headers['content-range'])).toEqual(['0-9999', '10000-19999', '20000-29999', '20000-29999', '30000-39999', '40000-44999']);
    expect(registry.repository('app').blobs.get(digestOf(bytes))?.equals(bytes)).toBe(true);
    await client.close();
    await registry.close();
  });

  test('a connection that breaks in the middle of a chunk: the upload goes on at the byte that the registry has', async () => {
    const bytes = noise(45_000, 3);
    let cut = false;
    const { registry, client } = await serve(async ({ method }) => {
      // It has noticed that the connection broke.
      if (method === 'GET') await until(() => [...registry.repository('app').uploads.values()].some((parts) => Buffer.concat(parts).length === 23_000));
      return false;
    });
    const broken: Parameters<typeof pushBlob>[2] = {
      ...blob(bytes),
      open: async function* (offset) {
        if (cut || offset < 20_000) { yield bytes.subarray(offset); return; }
        cut = true;
        yield bytes.subarray(offset, offset + 3000);
        // The registry has them before the connection goes.
        await until(() => registry.receivedBytes >= 23_000);
        throw Object.assign(new Error('cut'), { code: 'ECONNRESET' });
      },
    };
    expect(await pushBlob(client, 'app', broken)).toBe('uploaded');
    expect(registry.requests.filter((each) => each.method === 'POST')).toHaveLength(1);
    expect(registry.requests.filter((each) => each.method === 'PATCH').map((each) => each.headers['content-range'])).toEqual(['0-9999', '10000-19999', '20000-29999', '23000-32999', '33000-42999', '43000-44999']);
    expect(registry.repository('app').blobs.get(digestOf(bytes))?.equals(bytes)).toBe(true);
    await client.close();
    await registry.close();
  });

  test('a registry that holds other bytes than we think (416) is asked how many, and the upload goes on there', async () => {
    const bytes = noise(45_000, 4);
    let lost = false;
    const { registry, client } = await serve((request) => {
      if (request.method !== 'PATCH' || request.headers['content-range'] !== '20000-29999' || lost) return false;
      lost = true;
      // It has lost the last chunk that it took.
      for (const parts of registry.repository('app').uploads.values()) parts.pop();
      return false;
    });
    expect(await pushBlob(client, 'app', blob(bytes))).toBe('uploaded');
    expect(registry.requests.filter((each) => each.method === 'PATCH').map((each) => [each.headers['content-range'], each.status]).slice(1, 4)).toEqual([['10000-19999', 202], ['20000-29999', 416], ['10000-19999', 202]]);
    expect(registry.requests.filter((each) => each.method === 'POST')).toHaveLength(1);
    expect(registry.repository('app').blobs.get(digestOf(bytes))?.equals(bytes)).toBe(true);
    await client.close();
    await registry.close();
  });

  test('tokens are asked for with what each request needs, and with no more', async () => {
    const asked: string[][] = [];
    const needs = ({ method, url }: { readonly method: string; readonly url: string }): string[] => {
      const from = new URL(url, 'http://registry').searchParams.get('from');
      const action = method === 'GET' || method === 'HEAD' ? 'pull' : method === 'DELETE' && url.includes('/manifests/') ? 'delete' : 'pull,push';
      return [`repository:app:${action}`, ...(from === null ? [] : [`repository:${from}:pull`])];
    };
    const granted = (token: string): string[] => JSON.parse(Buffer.from(token, 'base64url').toString() || '[]') as string[];
    const { registry, client } = await serve((request, response) => {
      if (request.url.startsWith('/token')) {
        const scopes = new URL(request.url, 'http://registry').searchParams.getAll('scope');
        asked.push(scopes);
        response.end(JSON.stringify({ token: Buffer.from(JSON.stringify(scopes)).toString('base64url') }));
        return true;
      }
      const scopes = granted(/^Bearer (.*)$/.exec(request.headers.authorization ?? '')?.[1] ?? '');
      // A token to push is one to pull, too.
      if (needs(request).every((scope) => scopes.includes(scope) || scopes.includes(scope.replace(/:pull$/, ':pull,push')))) return false;
      response.writeHead(401, { 'www-authenticate': `Bearer realm="http://${registry.host}/token",service="here"` }).end();
      return true;
    });
    const bundle = madeUp(1, 2);
    for (const each of bundle.blobs) await pushBlob(client, 'app', each, { mountFrom: 'base' });
    await pushReferrer(client, 'app', { descriptor: bundle.descriptor, bytes: bundle.manifest, subjectDigest: bundle.subjectDigest });
    await deleteManifest(client, 'app', bundle.descriptor.digest);
    expect(new Set(asked.map((scopes) => scopes.sort().join(' ')))).toEqual(new Set([
      'repository:app:pull', 'repository:app:pull,push repository:base:pull', 'repository:app:pull,push', 'repository:app:delete',
    ]));
    await client.close();
    await registry.close();
  });

  test('a registry that never takes anything is not sent the same chunk for ever', async () => {
    const { registry, client } = await serve((request, response) => {
      if (request.method !== 'PATCH' && request.method !== 'GET') return false;
      response.writeHead(202, { location: request.url, range: '0-0' }).end();
      return true;
    });
    await expectCode(pushBlob(client, 'app', blob(noise(45_000, 5))), 'REGISTRY_BAD_RESPONSE');
    expect(registry.requests.filter((each) => each.method === 'PATCH').length).toBeLessThanOrEqual(quickLimits.attempts);
    await client.close();
    await registry.close();
  });

  test('a Retry-After that is too long is not waited for', async () => {
    const { registry, client } = await serve((request, response) => {
      if (request.method !== 'PUT') return false;
      response.writeHead(503, { 'retry-after': '900' }).end();
      return true;
    });
    await expectCode(pushBlob(client, 'app', blob(noise(100, 1))), 'REGISTRY_UNAVAILABLE');
    await client.close();
    await registry.close();
  });

  test('to other storage, without the login', async () => {
    const storage = await startOciRegistry();
    const { registry, client: plain } = await serve((request, response) => {
      if (request.method !== 'PATCH' && request.method !== 'PUT') return false;
      response.writeHead(307, { location: `http://${storage.host}${request.url}` }).end();
      return true;
    });
    await plain.close();
    const client = new RegistryClient(registry.host, { limits: quickLimits, credentials: () => Promise.resolve({ kind: 'basic', username: 'me', password: 'secret' }) });
    await expectCode(pushBlob(client, 'app', blob(noise(100, 2))), 'REGISTRY_NOT_FOUND');
    expect(storage.requests.map((each) => each.method)).toContain('PUT');
    expect(storage.requests.every((each) => each.headers.authorization === undefined)).toBe(true);
    await client.close();
    await registry.close();
    await storage.close();
  });

  test('a manifest that the registry takes without a word of its subject is looked for before the fallback tag is written', async () => {
    const { registry, client } = await serve(undefined);
    const bundle = madeUp(1, 2);
    for (const each of bundle.blobs) await pushBlob(client, 'app', each);
    const request = client.transport.request.bind(client.transport);
    // A registry with the API that does not say OCI-Subject.
    client.transport.request = async (what) => {
      const response = await request(what);
      return { ...response, header: (name: string) => (name === 'oci-subject' ? undefined : response.header(name)), discard: () => response.discard(), status: response.status, url: response.url, body: response.body };
    };
    expect(await pushReferrer(client, 'app', { descriptor: bundle.descriptor, bytes: bundle.manifest, subjectDigest: bundle.subjectDigest })).toBe('api');
    expect([...registry.repository('app').tags.keys()]).toEqual([]);
    await client.close();
    await registry.close();
  });
});
