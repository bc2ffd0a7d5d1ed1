import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, readdir, readFile, rm, symlink, truncate, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect } from '@jest/globals';
import { program, run, runOk } from '../../../bench/process.js';
import { rootMark } from '../../../src/applier/engines/owner-locks.js';
import { ContainersStorage } from '../../../src/applier/engines/podman/storage.js';
import { unfinishedRepository } from '../../../src/applier/engines/podman/documents.js';
import type { PullEvent } from '../../../src/applier/pull/events.js';
import { openStore } from '../../../src/applier/store/open.js';
import { isWhittleError } from '../../../src/core/errors.js';
import { basisConformance, type InstalledImage } from '../../support/basis-conformance.js';
import { changedBytes, makeEngineWorld, pullToEngine, type EnginePull, type EngineWorld } from '../../support/engines/containerd-world.js';
import { startBareRegistry } from '../../support/engines/bare-registry.js';
import { OrderWatch } from '../../support/engines/order.js';
import { makePodman, podmanWanting, type TestPodman } from '../../support/engines/podman.js';
import { makeImage } from '../../support/images.js';
import { testUnlessWanting } from '../../support/tools.js';

const test = testUnlessWanting(podmanWanting);
let world: EngineWorld;
const made: TestPodman[] = [];

beforeAll(async () => {
  if (podmanWanting.length === 0) world = await makeEngineWorld();
});
afterAll(async () => {
  if (podmanWanting.length > 0) return;
  for (const podman of made) await podman.close();
  await world.close();
});

/** A device with a podman of its own. */
class Device {
  private constructor(readonly podman: TestPodman, readonly root: string) {}

  static async make(): Promise<Device> {
    const podman = await makePodman();
    made.push(podman);
    return new Device(podman, join(await world.folder('device'), 'store'));
  }

  pull(version: number, onEvent: (event: PullEvent) => void = () => undefined): Promise<EnginePull> {
    const events: PullEvent[] = [];
    return pullToEngine(this.root, (store) => this.podman.engine(store), world.image(version), { onEvent: (event) => { events.push(event); onEvent(event); } })
      .then((pulled) => ({ ...pulled, events }));
  }

  /** That podman lists these versions and no others, and that they run. */
  async expectRuns(...versions: number[]): Promise<void> {
    for (const version of versions) {
      const text = `version ${String(version)}\n`;
      const said = await this.podman.runContainer(world.image(version), '/bin/print', '/app/version', '/app/soft', '/etc/gone', '/old/a', '/old/b');
      expect(said).toBe(`${text}${text}/etc/gone is not there\n/old/a is not there\nb ${String(version)}\n`);
    }
    expect((await this.listed()).filter((each) => each.startsWith('127.0.0.1:'))).toEqual(versions.map(line).sort());
  }

  /** Names and IDs of podman's list, unfinished images too. */
  async listed(): Promise<string[]> {
    const list = await this.podman.podman('images', '--all', '--no-trunc', '--format', '{{.Repository}}:{{.Tag}} {{.ID}}');
    return list.split('\n').filter((each) => each !== '').sort();
  }

  async expectOnly(...versions: number[]): Promise<void> {
    expect(await this.listed()).toEqual(versions.map(line).sort());
    expect((await readdir(join(this.root, 'stages')))).toEqual([]);
  }

  /** What pulls of this device have in memory. */
  async inMemory(): Promise<string[]> {
    const store = await openStore(this.root);
    const mark = `whittle-${rootMark(store.fs)}-`;
    await store.close();
    return (await readdir('/dev/shm').catch((): string[] => [])).filter((name) => name.startsWith(mark));
  }

  /** Bytes of files that podman's store takes. */
  async storeBytes(): Promise<number> {
    return Number((await runOk(['du', '-sxB1', join(this.podman.graphRoot, 'overlay')])).stdout.split('\t')[0]);
  }
}

const line = (version: number): string => `${world.image(version)} ${world.version(version).configDigest}`;

function succeeded({ result, error }: EnginePull, way: string, version: number): void {
  expect(error).toBeNull();
  expect(result).toMatchObject({ outcome: 'committed', way, image: { configDigest: world.version(version).configDigest } });
}

/** What a checkpoint does; pulls as small as these come to none. */
async function stepsOfCheckpoint(device: Device): Promise<string> {
  const { manifest, config } = world.version(1);
  const store = await openStore(device.root);
  const engine = await device.podman.engine(store);
  try {
    const sink = await engine.begin({ manifest, config, manifestMediaType: 'application/vnd.oci.image.manifest.v1+json' }, { scratchDirectory: device.root, replaceLayers: [], onNote: () => undefined });
    const order = new OrderWatch();
    await sink.checkpoint();
    order.stop();
    await sink.discard();
    return order.take();
  } finally {
    await engine.close();
    await store.close();
  }
}

test('a pull in full, a delta from what podman holds, another, and back: each runs, and is listed under its name with its ID', async () => {
  const device = await Device.make();
  const seen: number[] = [];
  for (const [version, way] of [[1, 'layers'], [2, 'delta'], [3, 'delta']] as const) {
    const before = seen.length === 0 ? 0 : await device.storeBytes();
    const order = new OrderWatch();
    const pulled = await device.pull(version);
    order.stop();
    // Podman's lists are durable at once: the layers' files come before the image that names them, and all before what was fetched is given up.
    expect(order.take()).toMatch(/^podman info(, podman pull)+, sync stage\.checkpoint, podman pull(, podman \w+)+, sync stage\.checkpoint$/);
    succeeded(pulled, way, version);
    expect(pulled.events.filter(({ event }) => event === 'fallback' || event === 'note')).toEqual([]);
    seen.push(version);
    const grown = await device.storeBytes() - before;
    console.log(`version ${String(version)} by ${way}: ${String(pulled.result?.figures.downloadedBytes.total)} bytes received, ${String(pulled.result?.figures.writtenBytes)} given to podman, its store grew by ${String(grown)}, for ${String(changedBytes)} changed`);
    await device.expectRuns(...seen);
    await device.expectOnly(...seen);
    expect((await device.pull(version)).result?.outcome).toBe('current');
  }
  expect(await stepsOfCheckpoint(device)).toBe('sync stage.checkpoint');
  // Back: the old name is what it was; gone, it is made anew.
  expect((await device.pull(1)).result?.outcome).toBe('current');
  await device.podman.podman('rmi', world.image(1));
  succeeded(await device.pull(1), 'delta', 1);
  await device.expectRuns(1, 2, 3);
});

test('an image that podman pulled itself is a basis, and its name can move to another image and back', async () => {
  const device = await Device.make();
  await givePodman(device, world.layout, 'v1');
  succeeded(await device.pull(2), 'delta', 2);
  await device.podman.podman('tag', world.version(2).configDigest.slice(7), world.image(1));
  await device.podman.podman('image', 'prune', '--force');
  const back = await device.pull(1);
  succeeded(back, back.result?.way ?? '', 1);
  await device.expectRuns(1, 2);
});

/** Kills a pull as soon as podman has an unfinished image of it. */
async function killWithOneLayer(device: Device, version: number): Promise<void> {
  const words = [...program('device'), 'pull', world.image(version), '--no-delta', '--json', '--root', device.root, '--into', 'podman', '--config', await settings(device)];
  const before = (await device.listed()).filter((each) => each.startsWith(unfinishedRepository)).length;
  let killed = false;
  await run(words, { onStart: (child) => {
    const watch = setInterval(() => {
      void readFile(join(device.podman.graphRoot, 'overlay-images/images.json'), 'utf8').then((list) => {
        if (killed || new Set(list.match(/whittle-unfinished:[0-9a-f]+/g)).size <= before) return;
        killed = true;
        child.kill('SIGKILL');
      }, () => undefined);
    }, 2);
    child.once('close', () => { clearInterval(watch); });
  } });
  expect(killed).toBe(true);
  await waitForPodman(device);
}

/** Damages the layer that all versions begin with. */
async function tearFirstLayer(device: Device): Promise<void> {
  const storage = await ContainersStorage.open(device.podman.graphRoot);
  for (const layer of (await storage.view()).layers.values()) if (layer.diffId === world.version(1).layers[0]?.diffId) await writeFile(join(device.podman.graphRoot, 'overlay', layer.id, 'diff/bin/print'), 'torn', { flag: 'r+' });
  await storage.close();
}

test('two pulls that were cut off and share a layer that was torn: the next pull removes what both left', async () => {
  const device = await Device.make();
  await killWithOneLayer(device, 1);
  await killWithOneLayer(device, 2);
  expect((await device.listed()).filter((each) => each.startsWith(unfinishedRepository))).toHaveLength(2);
  await tearFirstLayer(device);
  const pulled = await device.pull(1);
  expect(pulled.error).toBeNull();
  expect(pulled.events.find((event) => event.event === 'plan')).toMatchObject({ missingLayers: 3 });
  expect(await device.listed()).toEqual([line(1)]);
  await device.expectRuns(1);
  expect((await device.pull(2)).error).toBeNull();
  await device.expectRuns(1, 2);
});

test('the layers that came before an interruption are not fetched again, unless they were torn', async () => {
  for (const torn of ['no', 'yes', 'without an image']) {
    const device = await Device.make();
    await killWithOneLayer(device, 1);
    if (torn !== 'no') {
      await tearFirstLayer(device);
      if (torn === 'without an image') await writeFile(join(device.podman.graphRoot, 'overlay-images/images.json'), '[]');
    }
    const pulled = await device.pull(1);
    expect(pulled.error).toBeNull();
    const plan = pulled.events.find((event) => event.event === 'plan');
    if (torn !== 'no') expect(plan).toMatchObject({ missingLayers: 3 });
    else expect(plan?.event === 'plan' ? plan.missingLayers : 3).toBeLessThan(3);
    await device.expectRuns(1);
    await device.expectOnly(1);
    // What the killed one had in memory went with the next pull.
    expect(await device.inMemory()).toEqual([]);
  }
});

test('a chain of published deltas is followed from podman\'s image, by the same plan, and leaves no image between', async () => {
  const device = await Device.make();
  const bare = await startBareRegistry(world);
  const pullBare = (version: number): Promise<EnginePull> => pullToEngine(device.root, async (store) => {
    const engine = await device.podman.engine(store);
    expect(await engine.storage()).toEqual({ path: device.podman.graphRoot, layerCopies: 1 });
    return engine;
  }, bare.image(version));
  try {
    succeeded(await pullBare(1), 'layers', 1);
    const pulled = await pullBare(3);
    succeeded(pulled, 'delta', 3);
    expect(pulled.events.filter(({ event }) => event === 'fallback')).toEqual([]);
    expect(pulled.events.find(({ event }) => event === 'plan')).toMatchObject({ into: 'podman', steps: [{ kind: 'delta' }, { kind: 'delta' }], downloadBytes: pulled.result?.figures.deltaBytes });
    expect(await device.podman.runContainer(bare.image(3), '/bin/print', '/app/version')).toBe('version 3\n');
    expect(await device.listed()).toEqual([1, 3].map((version) => `${bare.image(version)} ${world.version(version).configDigest}`));
  } finally {
    await bare.close();
  }
});

/** Lets podman pull an image from a layout; it names it by the path, and takes no capital letters there. */
async function givePodman(device: Device, layout: string, tag: string): Promise<void> {
  const path = join(tmpdir(), `whittle-layout-${randomBytes(8).toString('hex')}`);
  await symlink(layout, path);
  try {
    await device.podman.podman('pull', '--quiet', `oci:${path}:${tag}`);
  } finally {
    await unlink(path);
  }
}

/** The program is gone, but a podman that it started may still have its locks. */
async function waitForPodman(device: Device): Promise<void> {
  await device.podman.podman('images', '--quiet');
}

async function settings(device: Device, address?: string): Promise<string> {
  const path = join(await world.folder('settings'), 'device.json');
  await writeFile(path, JSON.stringify({ engines: { podman: { ...device.podman.settings, ...(address === undefined ? {} : { address }) } } }), { mode: 0o600 });
  return path;
}

test('podman is killed at any of its runs: the old image runs, and the next pull goes on', async () => {
  const device = await Device.make();
  succeeded(await device.pull(1), 'layers', 1);
  const folder = await world.folder('killer');
  const killer = join(folder, 'podman');
  await writeFile(killer, `#!/bin/sh
runs=$(($(cat ${folder}/runs) + 1))
echo $runs > ${folder}/runs
[ $runs = "$(cat ${folder}/at)" ] || exec podman "$@"
podman "$@" & sleep "$(cat ${folder}/after)"; kill -9 $!; kill -9 $$
`);
  await chmod(killer, 0o755);
  const config = await settings(device, killer);
  const words = (version: number): string[] => [...program('device'), 'pull', world.image(version), '--json', '--root', device.root, '--into', 'podman', '--config', config];
  let kills = 0;
  for (let at = 1; at < 30; at++) {
    await writeFile(join(folder, 'runs'), '0');
    await writeFile(join(folder, 'at'), String(at));
    await writeFile(join(folder, 'after'), at % 2 === 0 ? '0.03' : '0.15');
    const { exitCode, stdout } = await run(words(2));
    if (Number(await readFile(join(folder, 'runs'), 'utf8')) >= at) kills++;
    if (exitCode !== 0) expect(stdout).toContain('ENGINE_FAILED');
    else expect(stdout).toContain(world.version(2).configDigest);
    // Not by podman's list: that fails while there is an image which it was killed over before it wrote the manifest.
    const old = await device.podman.podman('image', 'inspect', '--format', '{{.Id}}', world.image(1));
    expect(`sha256:${old.trim()}`).toBe(world.version(1).configDigest);
    if (exitCode === 0) break;
  }
  await device.expectRuns(1, 2);
  expect(kills).toBeGreaterThan(3);
});

/** Where podman keeps the manifest of a version. */
const manifestOf = (device: Device, version: number): string => join(device.podman.graphRoot, 'overlay-images', world.version(version).configDigest.replace('sha256:', ''), 'manifest');

test('an image whose manifest podman lost, as when it is killed while it writes one, is pulled anew, whether it has its name or not', async () => {
  const device = await Device.make();
  succeeded(await device.pull(1), 'layers', 1);
  succeeded(await device.pull(2), 'delta', 2);
  for (const left of ['no name', 'its name', 'a torn manifest']) {
    if (left === 'no name') await device.podman.podman('untag', world.image(2));
    if (left === 'a torn manifest') await truncate(manifestOf(device, 2), 100);
    else await unlink(manifestOf(device, 2));
    await expect(device.listed()).rejects.toThrow(/manifest|JSON/);
    succeeded(await device.pull(2), 'nothing', 2);
    await device.expectRuns(1, 2);
    expect((await device.pull(2)).result?.outcome).toBe('current');
  }
  // What it has lost a delta does not need.
  await unlink(manifestOf(device, 2));
  succeeded(await device.pull(3), 'delta', 3);
});

test('images are pruned in the middle: nothing is missing after that pull, or the next', async () => {
  const device = await Device.make();
  for (const [force, version, step] of [['--force', 1, 'applied'], ['--all', 2, 'plan'], ['--all', 1, 'applied']] as const) {
    if ((await device.listed()).length > 0) await device.podman.podman('rmi', '--all', '--force');
    succeeded(await device.pull(3), 'layers', 3);
    let pruned = false;
    const { error } = await device.pull(version, ({ event }) => {
      if (event !== step || pruned) return;
      pruned = true;
      execFileSync('podman', ['--root', device.podman.settings.root ?? '', '--runroot', device.podman.settings.runRoot ?? '', 'image', 'prune', '--force', force], { stdio: 'ignore' });
    });
    expect(pruned).toBe(true);
    if (force === '--force') expect(error).toBeNull();
    if (error !== null) {
      expect(isWhittleError(error) ? error.code : error).toBe('ENGINE_FAILED');
      expect((await device.pull(version)).error).toBeNull();
    }
    await device.expectRuns(...(force === '--force' ? [version, 3] : [version]));
  }
});

test('a basis whose file was edited is found out, and the layers are fetched', async () => {
  const device = await Device.make();
  succeeded(await device.pull(1), 'layers', 1);
  const image = await installed(device, world.image(1));
  await writeFile(await image.fileOf(1, 'app/kept'), 'edited', { flag: 'r+' });
  const pulled = await device.pull(2);
  succeeded(pulled, 'layers', 2);
  expect(pulled.events.find(({ event }) => event === 'fallback')).toMatchObject({ code: 'BASIS_DAMAGED' });
  await device.expectRuns(1, 2);
  await image.close();
});

/** An image of podman's, for the suite that every basis is held to. */
async function installed(device: Device, name: string): Promise<InstalledImage> {
  const store = await openStore(device.root, { create: true });
  const engine = await device.podman.engine(store);
  const image = await engine.resolve(name);
  if (image === undefined) throw new Error(`podman has no ${name}`);
  const storage = await ContainersStorage.open(device.podman.graphRoot);
  const directory = async (layer: number): Promise<string> => {
    const found = [...(await storage.view()).layers.values()].find(({ diffId }) => diffId === image.diffIds[layer]);
    return join(device.podman.graphRoot, 'overlay', found?.id ?? '', 'diff');
  };
  return {
    basis: () => engine.basis(image),
    fileOf: async (layer, path) => join(await directory(layer), path),
    removeLayer: async (layer) => { await rm(await directory(layer), { recursive: true }); },
    collect: async () => {
      await device.podman.podman('rmi', '--force', image.configDigest.slice(7));
      return 'gone';
    },
    close: async () => {
      await storage.close();
      await engine.close();
      await store.close();
    },
  };
}

basisConformance('podman', {
  test,
  install: async (tars) => {
    const device = await Device.make();
    const layout = join(await world.folder('conformance'), 'layout');
    await makeImage(layout, 'c', tars, {});
    await givePodman(device, layout, 'c');
    const [name] = (await device.podman.podman('images', '--format', '{{.ID}}')).split('\n');
    await device.podman.podman('tag', name ?? '', 'localhost/conformance:1');
    return installed(device, 'localhost/conformance:1');
  },
});
