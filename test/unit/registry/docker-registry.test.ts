import { afterAll, beforeAll, describe, expect } from '@jest/globals';
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { mediaTypes, sha256Digest, type Descriptor } from '../../../src/oci/index.js';
import {
  fallbackTag, fixedCredentials, listReferrers, openSource, pushBlob, pushManifest, RegistryClient, updateFallbackTag, type BlobToPush,
} from '../../../src/registry/index.js';
import { registryLogin, startDockerRegistry, type DockerRegistry } from '../../support/docker-registry.js';
import { makeImage, noise, type MadeImage } from '../../support/images.js';
import { startFlakyProxy } from '../../support/flaky-proxy.js';
import { hasTool, testWithTools } from '../../support/tools.js';
import { chunked, collect, expectCode, quick } from './support.js';

const run = promisify(execFile);
const tools = ['docker-registry', 'skopeo'];
const test = testWithTools(...tools);
const credentials = fixedCredentials({ kind: 'basic', ...registryLogin });

let dir = '';
let open!: DockerRegistry;
let locked!: DockerRegistry;
const images: Record<string, MadeImage> = {};

beforeAll(async () => {
  if (!tools.every(hasTool)) return;
  dir = await mkdtemp(join(tmpdir(), 'registry-test-'));
  const layers = [[{ path: 'a/' }, { path: 'a/b', content: noise(200_000) }], [{ path: 'c', content: 'c' }]];
  images['gzip'] = await makeImage(join(dir, 'i'), 'gzip', layers);
  images['zstd'] = await makeImage(join(dir, 'i'), 'zstd', layers, { compression: 'zstd' });
  images['docker'] = images['gzip'];
  images['none'] = await makeImage(join(dir, 'i'), 'none', layers, { compression: 'none' });
  [open, locked] = await Promise.all([startDockerRegistry(), startDockerRegistry({ login: true })]);
});
afterAll(async () => {
  if (dir === '') return;
  await Promise.all([open.close(), locked.close()]);
  await rm(dir, { recursive: true, force: true });
});

const blobOf = (bytes: Buffer, mediaType: string = mediaTypes.ociLayerTar): BlobToPush => ({
  descriptor: { mediaType, digest: sha256Digest(bytes), size: bytes.length }, open: (offset) => chunked(bytes.subarray(offset), 10_000),
});
const connect = (registry: DockerRegistry | { host: string }, extra: object = {}): RegistryClient => new RegistryClient(registry.host, { limits: { ...quick, uploadChunkBytes: 100_000, tagSettleMs: 400 }, ...extra });

describe('Debian\'s docker-registry', () => {
  test('images pushed by skopeo are read back bit for bit, gzip, zstd and plain', async () => {
    for (const [tag, image] of Object.entries(images)) {
      await run('skopeo', ['copy', '-q', '--dest-tls-verify=false', ...(tag === 'docker' ? ['--format', 'v2s2'] : ['--preserve-digests']), `oci:${image.dir}:${image.tag}`, `docker://${open.host}/app:${tag}`]);
      const source = await openSource(`docker://${open.host}/app:${tag}`);
      expect(source.config.descriptor.digest).toBe(image.configDigest);
      for (const [at, layer] of image.layers.entries()) expect((await collect(source.openLayerTar(at))).equals(layer.tar)).toBe(true);
      if (tag === 'docker') expect(source.manifest.parsed.mediaType).toBe(mediaTypes.dockerManifest);
      else expect(source.manifest.descriptor.digest).toBe(image.manifestDigest);
      await source.close();
    }
    const client = connect(open);
    expect([...(await client.listTags('app'))].sort()).toEqual(['docker', 'gzip', 'none', 'zstd']);
    const byDigest = await openSource(`docker://${open.host}/app@${images['zstd']!.manifestDigest}`);
    expect(byDigest.manifest.descriptor.digest).toBe(images['zstd']!.manifestDigest);
    await byDigest.close();
    await expectCode(openSource(`docker://${open.host}/app:nope`), 'IMAGE_NOT_FOUND');
    await expectCode(openSource(`docker://${open.host}/nothing:v1`), 'IMAGE_NOT_FOUND');
    await client.close();
  });

  test('a login is used, and its lack said', async () => {
    const image = images['gzip']!;
    await run('skopeo', ['copy', '-q', '--dest-tls-verify=false', '--dest-creds', `${registryLogin.username}:${registryLogin.password}`, `oci:${image.dir}:gzip`, `docker://${locked.host}/app:v1`]);
    const source = await openSource(`docker://${locked.host}/app:v1`, { registry: { credentials } });
    expect((await collect(source.openLayerTar(1))).equals(image.layers[1]!.tar)).toBe(true);
    await source.close();
    await expectCode(openSource(`docker://${locked.host}/app:v1`), 'REGISTRY_UNAUTHORIZED');
    await expectCode(openSource(`docker://${locked.host}/app:v1`, { registry: { credentials: fixedCredentials({ kind: 'basic', username: 'tester', password: 'x' }) } }), 'REGISTRY_UNAUTHORIZED');
  });

  test('ranges', async () => {
    const image = images['gzip']!;
    const client = connect(open);
    await pushBlob(client, 'ranges', blobOf(image.layers[0]!.tar));
    const range = await client.openBlobRange('ranges', image.layers[0]!.diffId, 1000);
    expect(range).toMatchObject({ status: 206, offset: 1000, totalBytes: image.layers[0]!.tar.length });
    expect((await collect(range.body)).equals(image.layers[0]!.tar.subarray(1000))).toBe(true);
    await client.close();
  });

  test('an artifact is pushed: one piece, chunks, mounted, there already; and found by its subject', async () => {
    const client = connect(locked, { credentials });
    const large = blobOf(noise(1_234_567, 7));
    const doneBytes: number[] = [];
    expect(await pushBlob(client, 'one', large, { onProgress: (done) => doneBytes.push(done) })).toBe('uploaded');
    expect(doneBytes.at(-1)).toBe(1_234_567);
    expect(doneBytes.length).toBeGreaterThan(10);
    expect(await pushBlob(client, 'one', large)).toBe('exists');
    expect(await pushBlob(client, 'two', large, { mountFrom: 'one' })).toBe('mounted');
    const small = blobOf(noise(50, 9));
    expect(await pushBlob(client, 'two', small, { mountFrom: 'one' })).toBe('uploaded');
    const empty = blobOf(Buffer.from('{}'), mediaTypes.ociEmpty);
    expect(await pushBlob(client, 'two', empty)).toBe('uploaded');
    const bytes = Buffer.from(JSON.stringify({
      schemaVersion: 2, mediaType: mediaTypes.ociManifest, artifactType: 'application/vnd.test', config: empty.descriptor, layers: [large.descriptor, small.descriptor],
      subject: { mediaType: mediaTypes.ociManifest, digest: images['gzip']!.manifestDigest, size: images['gzip']!.manifest.length },
    }));
    const pushed = await pushManifest(client, 'two', sha256Digest(bytes), mediaTypes.ociManifest, bytes);
    expect(pushed).toEqual({ digest: sha256Digest(bytes), subjectNoted: false });
    expect((await client.getManifest('two', pushed.digest)).bytes.equals(bytes)).toBe(true);
    expect((await client.readBlob('two', large.descriptor, 2_000_000)).length).toBe(1_234_567);
    const entry: Descriptor = { mediaType: mediaTypes.ociManifest, digest: pushed.digest, size: bytes.length, artifactType: 'application/vnd.test' };
    const subject = images['gzip']!.manifestDigest;
    expect(await listReferrers(client, 'two', subject)).toEqual({ status: 'ready', from: 'tag', manifests: [] });
    await updateFallbackTag(client, 'two', subject, { added: [entry] });
    expect(await listReferrers(client, 'two', subject, { artifactType: 'application/vnd.test', basis: [subject] })).toEqual({ status: 'ready', from: 'tag', manifests: [entry] });
    expect(await listReferrers(client, 'two', subject, { artifactType: 'application/vnd.other' })).toMatchObject({ manifests: [] });
    expect(await client.listTags('two')).toEqual([fallbackTag(subject)]);
    await updateFallbackTag(client, 'two', subject, { removed: [entry.digest] });
    expect(await listReferrers(client, 'two', subject)).toMatchObject({ manifests: [] });
    await client.close();
  });

  test('publishers that race on the fallback tag all stay in it', async () => {
    const client = connect(open);
    const subject = images['zstd']!.manifestDigest;
    const entries: Descriptor[] = [];
    const empty = blobOf(Buffer.from('{}'), mediaTypes.ociEmpty);
    await pushBlob(client, 'race', empty);
    for (let at = 0; at < 5; at++) {
      const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociManifest, config: empty.descriptor, layers: [], annotations: { at: String(at) } }));
      const { digest } = await pushManifest(client, 'race', sha256Digest(bytes), mediaTypes.ociManifest, bytes);
      entries.push({ mediaType: mediaTypes.ociManifest, digest, size: bytes.length });
    }
    await Promise.all(entries.map((entry) => updateFallbackTag(client, 'race', subject, { added: [entry] })));
    const found = await listReferrers(client, 'race', subject);
    expect(found.status === 'ready' ? found.manifests.map((each) => each.digest).sort() : []).toEqual(entries.map((each) => each.digest).sort());
    await client.close();
  });

  test('an upload whose connections break is continued, not begun again', async () => {
    const bytes = noise(800_000, 3);
    const proxy = await startFlakyProxy({
      upstream: `http://${open.host}`, match: (method) => method === 'PATCH' || method === 'PUT',
      faults: [{ kind: 'none' }, { kind: 'cut', afterBytes: 0 }, { kind: 'none' }, { kind: 'status', status: 503 }, { kind: 'none' }, { kind: 'none' }, { kind: 'none' }, { kind: 'none' }, { kind: 'cut', afterBytes: 0 }],
    });
    const client = new RegistryClient(proxy.url.slice('http://'.length), { limits: { ...quick, uploadChunkBytes: 100_000 } });
    expect(await pushBlob(client, 'broken', blobOf(bytes))).toBe('uploaded');
    expect(proxy.requests.filter((each) => each.method === 'POST').length).toBe(1);
    expect((await client.readBlob('broken', blobOf(bytes).descriptor, 1_000_000)).equals(bytes)).toBe(true);
    await client.close();
    await proxy.close();
  });

  test('a blob that is not what its descriptor says is refused by the registry', async () => {
    const client = connect(open);
    const blob = blobOf(noise(1000, 5));
    await expectCode(pushBlob(client, 'bad', { ...blob, open: (offset) => chunked(noise(1000, 6).subarray(offset), 100) }), 'REGISTRY_BAD_RESPONSE');
    expect(await client.headBlob('bad', blob.descriptor.digest)).toBeUndefined();
    await client.close();
  });
});
