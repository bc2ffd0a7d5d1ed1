import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { PodmanCommand } from '../../../../src/applier/engines/podman/command.js';
import { plainManifest, unfinishedConfig, unfinishedIds, unfinishedName } from '../../../../src/applier/engines/podman/documents.js';
import { PodmanFeed } from '../../../../src/applier/engines/podman/feed.js';
import { LayerPull } from '../../../../src/applier/engines/podman/layer-pull.js';
import { ContainersStorage } from '../../../../src/applier/engines/podman/storage.js';
import { sweepMemory, TemporaryDirectory } from '../../../../src/applier/engines/podman/temporary-directory.js';
import { parseTarget } from '../../../../src/applier/store/target.js';
import { LinuxFs } from '../../../../src/atomic/index.js';
import { isWhittleError } from '../../../../src/core/errors.js';
import { makeImage } from '../../../support/images.js';

let folder = '';
beforeEach(() => { folder = mkdtempSync(join(tmpdir(), 'whittle-podman-')); });
afterEach(() => { rmSync(folder, { recursive: true, force: true }); });

const hex = (text: string): string => createHash('sha256').update(text).digest('hex');

describe('containers-storage', () => {
  const diffIds = [`sha256:${hex('a')}`, `sha256:${hex('b')}`];
  const config = JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: diffIds } });
  const layers = [
    { id: hex('1'), 'diff-digest': diffIds[0], 'diff-size': 10 }, { id: hex('2'), parent: hex('1'), 'diff-digest': diffIds[1], 'diff-size': 20 },
    { id: hex('3'), parent: hex('2') }, { id: hex('4'), 'diff-digest': diffIds[0], flags: { incomplete: true } },
  ];
  const image = { id: hex(config), names: ['localhost/app:1'], layer: hex('2'), created: '2026-01-02T03:04:05Z' };

  function write(images: unknown, list: unknown, bigData = config): void {
    for (const path of ['overlay-layers', `overlay-images/${hex(config)}`]) mkdirSync(join(folder, path), { recursive: true });
    writeFileSync(join(folder, 'overlay-images/images.json'), typeof images === 'string' ? images : JSON.stringify(images));
    writeFileSync(join(folder, 'overlay-layers/layers.json'), typeof list === 'string' ? list : JSON.stringify(list));
    writeFileSync(join(folder, 'overlay-images', hex(config), `=${Buffer.from(`sha256:${hex(config)}`).toString('base64')}`), bigData);
  }

  async function read(): Promise<unknown> {
    const storage = await ContainersStorage.open(folder);
    try {
      const view = await storage.view();
      return await Promise.all(view.images.map((each) => storage.image(view, each)));
    } finally {
      await storage.close();
    }
  }

  test('an image with its layers, lowest first; containers\' and unfinished layers are none', async () => {
    write([image], layers);
    expect(await read()).toMatchObject([{ configDigest: `sha256:${hex(config)}`, diffIds, names: ['localhost/app:1'], sequence: Date.parse(image.created), layers: [{ id: hex('1'), sizeBytes: 10 }, { id: hex('2') }] }]);
  });

  test('an image that does not fit together is none', async () => {
    const cases: [unknown, unknown, string?][] = [
      [[image], layers.slice(1)], [[image], [layers[1]]], [[{ ...image, layer: hex('1') }], layers], [[{ ...image, layer: '../../etc' }], layers], [[image], layers, `${config} `],
      [[image], [{ ...layers[0], parent: hex('2') }, layers[1]]], [[image], [{ ...layers[0], id: '../x' }, layers[1]]], [[image], [layers[0], { ...layers[1], 'diff-digest': 'sha256:x' }]],
    ];
    for (const [images, list, bigData] of cases) {
      write(images, list, bigData);
      expect(await read()).toEqual([undefined]);
    }
    write([{ ...image, id: '../../etc/passwd' }, null, 5, {}], layers);
    expect(await read()).toEqual([]);
    rmSync(join(folder, 'overlay-layers'), { recursive: true });
    expect(await read()).toEqual([]);
  });

  test('lists that are no lists are refused', async () => {
    for (const text of ['{', '{}', '"x"']) {
      write(text, layers);
      await expect(read()).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    }
    await expect(ContainersStorage.open(join(folder, 'none'))).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
  });

  test('whatever the lists hold, they are read or refused', async () => {
    const key = fc.constantFrom('id', 'parent', 'layer', 'names', 'diff-digest', 'diff-size', 'flags', 'created');
    const value = fc.oneof(fc.jsonValue(), fc.constantFrom(hex('1'), hex('2'), diffIds[0], '../..'));
    const list = fc.array(fc.dictionary(key, value), { maxLength: 4 });
    await fc.assert(fc.asyncProperty(list, list, async (images, all) => {
      write([image, ...images], [...layers, ...all]);
      try {
        expect(Array.isArray(await read())).toBe(true);
      } catch (error) {
        if (!isWhittleError(error) || error.code === 'INTERNAL') throw error;
      }
    }), { numRuns: 100 });
  });
});

describe('what podman is given', () => {
  test('unfinished images have IDs that follow from the target, and the last manifest has the target\'s config', async () => {
    for (const mediaTypes of ['oci', 'docker'] as const) {
      const made = await makeImage(join(folder, mediaTypes), 'x', [[{ path: 'a', content: 'a' }], [{ path: 'b', content: 'b' }]], { mediaTypes });
      const manifestMediaType = mediaTypes === 'oci' ? 'application/vnd.oci.image.manifest.v1+json' : 'application/vnd.docker.distribution.manifest.v2+json';
      const target = parseTarget({ manifest: made.manifest, manifestMediaType, config: made.config });
      expect(unfinishedIds(target)).toEqual(new Set([1, 2].map((count) => hex(unfinishedConfig(target, count).toString()))));
      expect(unfinishedIds(target).has(target.configDigest.slice(7))).toBe(false);
      expect(unfinishedName(target)).toBe(`localhost/whittle-unfinished:${target.configDigest.slice(7, 31)}`);
      const plain = plainManifest(target, target.config, made.layers.map(({ diffId, tar }) => ({ diffId, sizeBytes: tar.length })));
      const again = parseTarget({ manifest: plain.manifest, manifestMediaType: plain.mediaType, config: made.config });
      expect([again.configDigest, again.diffIds, plain.mediaType]).toEqual([target.configDigest, target.diffIds, manifestMediaType]);
    }
  });

  function get(location: string, path: string, method = 'GET'): Promise<{ status: number; body: string }> {
    const [host = '', token = ''] = location.split('/');
    return new Promise((settle, fail) => {
      const asked = request(`http://${host}/v2/${path.replace('TOKEN', token)}`, { method, agent: false }, (response) => {
        let body = '';
        response.on('data', (chunk: Buffer) => { body += chunk.toString(); });
        response.once('end', () => { settle({ status: response.statusCode ?? 0, body }); });
        response.once('error', fail);
      });
      asked.once('error', fail);
      asked.end();
    });
  }

  test('the feed answers only below its secret path, and gives the layer once', async () => {
    const feed = await PodmanFeed.open();
    const { location } = feed;
    const incoming = `sha256:${hex('layer')}`;
    const config = Buffer.from('{"config":1}');
    expect((await get(location, 'TOKEN/manifests/x')).status).toBe(404);
    const asked = feed.offer({ manifest: Buffer.from('{"manifest":1}'), mediaType: 'text/x', config, incoming });
    expect(await get(location, '')).toEqual({ status: 200, body: '{}' });
    expect(await get(location, 'TOKEN/manifests/x')).toEqual({ status: 200, body: '{"manifest":1}' });
    expect(await get(location, 'TOKEN/manifests/x', 'HEAD')).toEqual({ status: 200, body: '' });
    expect(await get(location, `TOKEN/blobs/sha256:${hex(config.toString())}`)).toEqual({ status: 200, body: '{"config":1}' });
    const layer = get(location, `TOKEN/blobs/${incoming}`);
    (await asked).end('bytes');
    expect(await layer).toEqual({ status: 200, body: 'bytes' });
    for (const [path, method] of [[`TOKEN/blobs/${incoming}`, 'GET'], [`TOKEN/blobs/sha256:${hex('x')}`, 'GET'], ['other/manifests/x', 'GET'], ['TOKEN/manifests/x', 'PUT'], ['TOKEN/tags/list', 'GET']] as const) {
      expect((await get(location, path, method)).status).toBe(404);
    }
    await feed.close();
    await feed.close();
    await expect(get(location, '')).rejects.toThrow();
  });

  function script(text: string): PodmanCommand {
    const path = join(folder, 'podman');
    writeFileSync(path, `#!/bin/sh\n${text}\n`);
    chmodSync(path, 0o755);
    return new PodmanCommand({ address: path, root: '/a root', runRoot: '/r' });
  }

  test('podman gets its arguments as they are, and its words come back', async () => {
    expect(await script('for word; do echo "[$word]"; done').run(['x', '$(id)'])).toBe('[--root]\n[/a root]\n[--runroot]\n[/r]\n[x]\n[$(id)]\n');
    await expect(script('echo first >&2; echo "Error: no such thing" >&2; echo last >&2; exit 125').run(['tag'])).rejects.toMatchObject({ code: 'ENGINE_FAILED', message: 'podman tag ended with 125: Error: no such thing', retryable: false });
    await expect(script('echo "write x: no space left on device" >&2; exit 1').run(['pull'])).rejects.toMatchObject({ code: 'STORAGE_FULL' });
    await expect(script('kill -9 $$').run(['pull'])).rejects.toMatchObject({ code: 'ENGINE_FAILED', retryable: true });
    await expect(new PodmanCommand({ address: join(folder, 'none') }).run(['x'])).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
    writeFileSync(join(folder, 'plain'), 'x', { mode: 0o644 });
    await expect(new PodmanCommand({ address: join(folder, 'plain') }).run(['x'])).rejects.toMatchObject({ code: 'ENGINE_DENIED' });
    const stop = new AbortController();
    const interrupted = script('exec sleep 60').run(['x'], stop.signal);
    stop.abort();
    await expect(interrupted).rejects.toMatchObject({ code: 'INTERRUPTED' });
    await expect(script('true').run(['x'], stop.signal)).rejects.toMatchObject({ code: 'INTERRUPTED' });
  });

  test('a pull that ends before it asks, or while it is fed, is an error with podman\'s words; one that wants nothing is none', async () => {
    const never = new Promise<never>(() => undefined);
    const chunk = Buffer.alloc(1000);
    const failing = new LayerPull(script('echo "Error: refused" >&2; exit 1').start(['pull']), never, undefined);
    await expect(failing.write(chunk)).rejects.toMatchObject({ code: 'ENGINE_FAILED', message: expect.stringContaining('refused') as unknown });
    await failing.abort();
    const content = new LayerPull(script('exit 0').start(['pull']), never, undefined);
    await content.write(chunk);
    await content.end();
    const stop = new AbortController();
    const stopped = new LayerPull(script('exec sleep 60').start(['pull']), never, stop.signal);
    const writing = stopped.write(chunk);
    stop.abort();
    await expect(writing).rejects.toMatchObject({ code: 'INTERRUPTED' });
    await stopped.abort();
    await stopped.abort();
  });

  test('a small layer goes through memory, a large one or one of unknown size through the scratch directory', async () => {
    const device = await LinuxFs.open(folder);
    const temporary = new TemporaryDirectory(device, folder);
    expect(await temporary.forBytes(null)).toBe(folder);
    expect(await temporary.forBytes(2 ** 52)).toBe(folder);
    const small = await temporary.forBytes(1000);
    await temporary.close();
    await temporary.close();
    if (small === folder) return;
    expect([small.startsWith('/dev/shm/whittle-'), existsSync(small)]).toEqual([true, false]);
    // What a process left that is no more goes, what one has that still is stays.
    const running = new TemporaryDirectory(device, folder);
    const used = await running.forBytes(1000);
    const killed = used.replace(/-[0-9a-f]{16}-[^-]*$/, '-0123456789abcdef-left');
    mkdirSync(killed);
    writeFileSync(join(killed, 'left'), 'x');
    await sweepMemory(device);
    expect([existsSync(killed), existsSync(used)]).toEqual([false, true]);
    await running.close();
    expect(existsSync(used)).toBe(false);
    await device.close();
  });
});
