import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect } from '@jest/globals';
import { program, run, type Outcome } from '../../../bench/process.js';
import { basisConformance } from '../../support/basis-conformance.js';
import { startBareRegistry } from '../../support/engines/bare-registry.js';
import { changedBytes, makeEngineWorld, pullToEngine, type EnginePull, type EngineWorld } from '../../support/engines/containerd-world.js';
import { writtenBytes } from '../../support/engines/daemon.js';
import { OrderWatch } from '../../support/engines/order.js';
import { startDocker, watchSocket, type TestDocker, type WatchedSocket } from '../../support/engines/docker.js';
import { makeImage } from '../../support/images.js';
import { hasTool, testUnlessWanting } from '../../support/tools.js';
import { openStore } from '../../../src/applier/store/open.js';

const wanting = [...['dockerd', 'docker', 'containerd', 'runc', 'cc'].filter((name) => !hasTool(name)), ...(process.geteuid?.() === 0 ? [] : ['root'])];
const test = testUnlessWanting(wanting);
let world: EngineWorld;
let docker: TestDocker;
let watched: WatchedSocket;
let folder: string;
const cleanUp: (() => Promise<void>)[] = [];
let root: string;

beforeAll(async () => {
  if (wanting.length > 0) return;
  world = await makeEngineWorld();
  cleanUp.unshift(() => world.close());
  docker = await startDocker();
  cleanUp.unshift(() => docker.close());
  folder = await mkdtemp(join(tmpdir(), 'dkw-'));
  cleanUp.unshift(() => rm(folder, { recursive: true, force: true }));
  watched = await watchSocket(folder, docker.socket);
  cleanUp.unshift(() => watched.close());
  root = join(await world.folder('device'), 'store');
});
afterAll(async () => {
  for (const each of cleanUp) await each();
});

function pull(version: number): Promise<EnginePull> {
  return pullToEngine(root, (store) => docker.engine(store, watched.path), world.image(version));
}

/** The program itself, as a user runs it. `whenItRuns` gets its process. */
function device(words: readonly string[], whenItRuns?: (pid: number) => void): Promise<Outcome> {
  return run([...program('device'), 'pull', ...words, '--into', 'docker', '--engine-address', watched.path, '--root', root, '--json'], { onStart: (child) => { whenItRuns?.(child.pid ?? 0); } });
}

interface Line { readonly event: string; readonly way?: string; readonly into?: string; readonly downloadedBytes?: { readonly data: number; readonly layers: number }; readonly error?: { readonly code: string }; readonly configDigest?: string }

function lines({ stdout }: Outcome): Line[] {
  return stdout.trim().split('\n').map((line) => JSON.parse(line) as Line);
}

const said = (version: number): string => `version ${String(version)}\nversion ${String(version)}\n/etc/gone is not there\n/old/a is not there\nb ${String(version)}\n`;

async function expectRuns(version: number): Promise<void> {
  expect(await docker.api('GET', `/images/${world.image(version)}/json`)).toMatchObject({ Id: world.version(version).configDigest, RepoTags: [world.image(version)] });
  expect(await docker.runContainer(world.image(version), '/bin/print', '/app/version', '/app/soft', '/etc/gone', '/old/a', '/old/b')).toBe(said(version));
}

function remove(version: number): Promise<unknown> {
  return docker.api('DELETE', `/images/${world.image(version)}?force=1`);
}

test('a pull in full, a delta from what it made, and another: each runs, and is listed under its name with its image ID', async () => {
  for (const [version, way] of [[1, 'layers'], [2, 'delta'], [3, 'delta']] as const) {
    watched.at(Infinity, () => Promise.resolve());
    const before = await writtenBytes('self') + await writtenBytes(docker.pid);
    const order = new OrderWatch();
    const { result, error, events } = await pull(version);
    order.stop();
    const written = await writtenBytes('self') + await writtenBytes(docker.pid) - before;
    expect(error).toBeNull();
    // Docker does not sync the files of layers: that is done before what was fetched for them is given up.
    expect(order.take()).toBe('sync stage.checkpoint');
    expect(result).toMatchObject({ outcome: 'committed', way, image: { configDigest: world.version(version).configDigest } });
    expect(events.filter(({ event }) => event === 'fallback')).toEqual([]);
    await expectRuns(version);
    const wholeBytes = world.version(version).layers.reduce((sum, { tar }) => sum + tar.length, 0);
    console.log(`version ${String(version)} by ${way}: ${String(result?.figures.downloadedBytes.total)} bytes received, ${String(watched.sentBytes)} given to docker, ${String(written)} to the disk by device and docker, for ${String(changedBytes)} changed`);
    // Layers that are there already are not sent again.
    if (version > 1) expect(watched.sentBytes).toBeLessThan(wholeBytes - (world.version(1).layers[0]?.tar.length ?? 0) + 30_000);
    expect((await pull(version)).result?.outcome).toBe('current');
  }
  await expectRuns(1);
});

test('a device that is killed while it gives the image leaves the old one running, and its next pull fetches nothing again', async () => {
  await remove(1);
  await expectRuns(3);
  let pid = 0;
  watched.at(1_500_000, () => {
    process.kill(pid, 'SIGKILL');
    return Promise.resolve();
  });
  const cut = await device([world.image(1)], (child) => { pid = child; });
  expect(cut.exitCode).toBeNull();
  await expect(docker.api('GET', `/images/${world.image(1)}/json`)).rejects.toThrow('404');
  await expectRuns(3);
  const whole = lines(await device([world.image(1)]));
  expect(whole.at(-1)).toMatchObject({ event: 'committed', into: 'docker', way: 'delta', configDigest: world.version(1).configDigest, downloadedBytes: { data: 0, layers: 0 } });
  await expectRuns(1);
});

test('a docker that is killed while it takes the image runs the old one again, and the next pull fetches nothing again', async () => {
  await remove(1);
  watched.at(1_500_000, () => docker.kill());
  const cut = await device([world.image(1)]);
  expect(lines(cut).at(-1)).toMatchObject({ error: { code: 'ENGINE_UNREACHABLE' } });
  await docker.start();
  await expectRuns(3);
  expect(lines(await device([world.image(1)])).at(-1)).toMatchObject({ event: 'committed', downloadedBytes: { data: 0, layers: 0 } });
  await expectRuns(1);
});

test('what docker prunes in the middle is missed, and the next pull brings it', async () => {
  await remove(1);
  await remove(2);
  // Version 3 is the basis, and its lowest layer would have been left out.
  watched.at(1_500_000, async () => {
    await docker.api('POST', `/images/prune?filters=${encodeURIComponent('{"dangling":["false"]}')}`);
    await expect(docker.api('GET', `/images/${world.image(3)}/json`)).rejects.toThrow('404');
  });
  const cut = await device([world.image(1)]);
  const last = lines(cut).at(-1);
  expect(last?.event === 'committed' || last?.error?.code === 'ENGINE_FAILED' || last?.error?.code === 'BASIS_DAMAGED').toBe(true);
  expect(lines(await device([world.image(1)])).at(-1)?.event).toMatch(/^(committed|current)$/);
  await expectRuns(1);
  // Back to what was there before, and on again.
  for (const version of [2, 3]) {
    expect((await pull(version)).error).toBeNull();
    await expectRuns(version);
  }
});

test('files that were edited below docker are found in the middle: the layers are fetched, and what comes is right', async () => {
  await remove(2);
  for (const version of [1, 3]) {
    const data = join(await docker.layerFolder(world.version(version).layers.map(({ diffId }) => diffId), 1), 'app/data');
    const bytes = await readFile(data);
    await writeFile(data, bytes.fill(0x78, 1000, 2000));
  }
  const { result, error, events } = await pull(2);
  expect(error).toBeNull();
  expect(events).toContainEqual(expect.objectContaining({ event: 'fallback', code: 'BASIS_DAMAGED' }));
  expect(result).toMatchObject({ outcome: 'committed', way: 'layers' });
  await expectRuns(2);
  // Mended by taking them out and pulling them again.
  for (const version of [1, 3]) {
    await remove(version);
    expect((await pull(version)).error).toBeNull();
    await expectRuns(version);
  }
});

test('a layer that is there above other layers is given to docker from its own files, not fetched', async () => {
  const app = world.version(2).layers[1]?.tar ?? Buffer.alloc(0);
  const base = world.version(2).layers[0]?.tar ?? Buffer.alloc(0);
  const other = await makeImage(world.layout, 'other', [base, [{ path: 'between', content: 'between\n' }], app], { config: { Cmd: ['/bin/print', '/between'] } });
  const outcome = await device(['127.0.0.1:1/app:other', '--from', `oci:${world.layout}`, '--platform', 'linux/amd64']);
  expect(lines(outcome).at(-1)).toMatchObject({ event: 'committed', configDigest: other.configDigest, downloadedBytes: { layers: other.layers[1]?.sizeBytes } });
  expect(await docker.runContainer('127.0.0.1:1/app:other', '/bin/print', '/between', '/app/version')).toBe('between\nversion 2\n');
});

test('a dry run changes nothing, an image that a name means already is said so, and no docker is a clear error', async () => {
  await remove(2);
  const planned = lines(await device([world.image(2), '--dry-run']));
  expect(planned.at(-1)).toMatchObject({ event: 'plan', into: 'docker', totalLayers: 3 });
  await expect(docker.api('GET', `/images/${world.image(2)}/json`)).rejects.toThrow('404');
  const nobody = await run([...program('device'), 'pull', world.image(2), '--into', 'docker', '--engine-address', join(folder, 'nobody'), '--root', root, '--json']);
  expect(nobody.exitCode).toBe(5);
  expect(lines(nobody).at(-1)).toMatchObject({ error: { code: 'ENGINE_UNREACHABLE' } });
});

test('a chain of published deltas is followed from docker\'s image, by the same plan, and leaves no image between; a lack of room is told before', async () => {
  for (const { Id } of await docker.api('GET', '/images/json?all=1') as { Id: string }[]) await docker.api('DELETE', `/images/${Id}?force=1`);
  const bare = await startBareRegistry(world);
  const pullBare = (version: number, layerCopies?: number): Promise<EnginePull> => pullToEngine(root, async (store) => {
    const engine = await docker.engine(store);
    expect(await engine.storage()).toEqual({ path: docker.root, layerCopies: 2 });
    if (layerCopies !== undefined) engine.storage = () => Promise.resolve({ path: docker.root, layerCopies });
    return engine;
  }, bare.image(version));
  try {
    expect((await pullBare(1)).result).toMatchObject({ outcome: 'committed', way: 'layers' });
    const full = await pullBare(3, 2 ** 40);
    expect(full).toMatchObject({ result: null, error: { code: 'STORAGE_FULL' } });
    expect(full.events.filter(({ event }) => event === 'progress')).toEqual([]);
    const pulled = await pullBare(3);
    expect([pulled.error, pulled.events.filter(({ event }) => event === 'fallback')]).toEqual([null, []]);
    expect(pulled.result).toMatchObject({ outcome: 'committed', way: 'delta', image: { configDigest: world.version(3).configDigest } });
    expect(pulled.events.find(({ event }) => event === 'plan')).toMatchObject({ into: 'docker', steps: [{ kind: 'delta' }, { kind: 'delta' }], downloadBytes: pulled.result?.figures.deltaBytes });
    expect(await docker.runContainer(bare.image(3), '/bin/print', '/app/version')).toBe('version 3\n');
    expect((await docker.api('GET', '/images/json') as { RepoTags: string[] }[]).flatMap(({ RepoTags }) => RepoTags).sort()).toEqual([bare.image(1), bare.image(3)].sort());
  } finally {
    await bare.close();
  }
});

basisConformance('docker', {
  test,
  install: async (tars) => {
    const device = join(await world.folder('conform'), 'store');
    const tag = `c${String(Math.random()).slice(2)}`;
    const name = `127.0.0.1:1/app:${tag}`;
    const { configDigest, layers } = await makeImage(world.layout, tag, tars);
    const diffIds = layers.map(({ diffId }) => diffId);
    const given = await run([...program('device'), 'pull', name, '--from', `oci:${world.layout}`, '--platform', 'linux/amd64', '--into', 'docker', '--engine-address', docker.socket, '--root', device]);
    if (given.exitCode !== 0) throw new Error(given.stderr);
    // What was learned while the layers were given must not be needed.
    await rm(join(device, 'engines'), { recursive: true, force: true });
    const store = await openStore(device, { create: true });
    const engine = await docker.engine(store);
    const images = await engine.images();
    const removeImage = async (): Promise<void> => { await docker.api('DELETE', `/images/${name}?force=1`).catch(() => undefined); };
    return {
      basis: () => {
        const image = images.find((each) => each.configDigest === configDigest);
        if (image === undefined) throw new Error('docker does not show the image');
        return engine.basis(image);
      },
      fileOf: async (layer, path) => join(await docker.layerFolder(diffIds, layer), path),
      removeLayer: async (layer) => { await rm(await docker.layerFolder(diffIds, layer), { recursive: true }); },
      collect: async () => {
        await removeImage();
        return 'gone';
      },
      close: async () => {
        await removeImage();
        await engine.close();
        await store.close();
      },
    };
  },
});
