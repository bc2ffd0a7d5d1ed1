import { execFileSync } from 'node:child_process';
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, expect } from '@jest/globals';
import { program, run, runOk } from '../../../bench/process.js';
import { GrpcConnection } from '../../../src/applier/engines/containerd/grpc.js';
import { MessageType, nested, text, texts } from '../../../src/applier/engines/containerd/wire.js';
import { openStore } from '../../../src/applier/store/open.js';
import { pullDefaults } from '../../../src/applier/pull/options.js';
import type { PullEvent } from '../../../src/applier/pull/events.js';
import { startBareRegistry, type BareRegistry } from '../../support/engines/bare-registry.js';
import { startContainerd, type TestContainerd } from '../../support/engines/containerd.js';
import { fileOf } from '../../support/engines/containerd-files.js';
import { changedBytes, makeEngineWorld, pullToEngine, type EnginePull, type EngineWorld } from '../../support/engines/containerd-world.js';
import { writtenBytes } from '../../support/engines/daemon.js';
import { openCuttingSocket } from '../../support/engines/cutting-socket.js';
import { OrderWatch } from '../../support/engines/order.js';
import { chainIds } from '../../../src/oci/index.js';
import { startOciRegistry } from '../../support/oci-registry.js';
import { pushMade, remoteAt } from '../../support/publish.js';
import { makeImage, noise, type MadeImage } from '../../support/images.js';
import { hasTool, testUnlessWanting } from '../../support/tools.js';

const wanting = [...['containerd', 'ctr', 'runc', 'cc'].filter((name) => !hasTool(name)), ...(process.geteuid?.() === 0 ? [] : ['root'])];
const test = testUnlessWanting(wanting);
let world: EngineWorld;
let containerd: TestContainerd;
let bare: BareRegistry;
let containers = 0;

beforeAll(async () => {
  if (wanting.length > 0) return;
  world = await makeEngineWorld();
  containerd = await startContainerd();
  bare = await startBareRegistry(world);
});
afterAll(async () => {
  if (wanting.length > 0) return;
  await bare.close();
  await containerd.close();
  await world.close();
});

/** A namespace of its own with a device's root: images of one test are nothing to another. */
class Device {
  readonly namespace = `n${String(++containers)}`;

  constructor(readonly root: string) {}

  static async make(): Promise<Device> {
    return new Device(join(await world.folder('device'), 'store'));
  }

  ctr(...words: string[]): Promise<string> {
    return containerd.ctr('-n', this.namespace, ...words);
  }

  /** Pulls from where deltas are only published. */
  pullBare(image: string): Promise<EnginePull> {
    return pullToEngine(this.root, (store) => containerd.engine(store, this.namespace), image);
  }

  pull(version: number, onEvent: (event: PullEvent) => void = () => undefined, address = containerd.socket): Promise<EnginePull> {
    return pullToEngine(this.root, (store) => containerd.engine(store, this.namespace, address), world.image(version), { onEvent, delta: pullDefaults.delta });
  }

  /** What a container of the image says when it is asked for some files. */
  say(version: number): Promise<string> {
    return containerd.runContainer(this.namespace, world.image(version), `c${String(++containers)}`, '/bin/print', '/app/version', '/app/soft', '/etc/gone', '/old/a', '/old/b');
  }

  async expectRuns(...versions: number[]): Promise<void> {
    for (const version of versions) {
      const text = `version ${String(version)}\n`;
      expect(await this.say(version)).toBe(`${text}${text}/etc/gone is not there\n/old/a is not there\nb ${String(version)}\n`);
    }
    const listed = (await this.ctr('images', 'ls')).trim().split('\n').slice(1).map((line) => line.split(/\s+/).slice(0, 3).join(' '));
    const type = 'application/vnd.oci.image.manifest.v1+json';
    expect(listed.sort()).toEqual(versions.map((version) => `${world.image(version)} ${type} ${world.version(version).manifestDigest}`).sort());
  }

  async expectNothingLeft(): Promise<void> {
    expect(await this.ctr('leases', 'ls', '-q')).toBe('');
    containerd.collect(this.namespace);
    expect((await this.ctr('snapshots', 'ls')).split('\n').filter((line) => line.includes('whittle') || line.includes('Active') || line.includes('View'))).toEqual([]);
    expect((await readdir(join(this.root, 'engines')).catch(() => [])).filter((name) => name.endsWith('.lock'))).toEqual([]);
  }
}

function succeeded({ result, error }: EnginePull, way: string, version: number): void {
  expect(error).toBeNull();
  const { configDigest, manifestDigest } = world.version(version);
  expect(result).toMatchObject({ outcome: 'committed', way, image: { configDigest, manifestDigest } });
}

test('a pull in full, a delta from what it made, another, and back: each runs, and is listed under its name with its digest', async () => {
  const device = await Device.make();
  const seen: number[] = [];
  const order = new OrderWatch();
  for (const [version, way] of [[1, 'layers'], [2, 'delta'], [3, 'delta']] as const) {
    const before = await writtenBytes('self') + await writtenBytes(containerd.pid);
    const pulled = await device.pull(version);
    // Layers are on the disk before they are proven, and in their place before containerd is told.
    expect(order.take()).toMatch(/^sync stage\.commit(, sync layers\.name, snapshot)+$/);
    const written = await writtenBytes('self') + await writtenBytes(containerd.pid) - before;
    succeeded(pulled, way, version);
    expect(pulled.events.filter(({ event }) => event === 'fallback')).toEqual([]);
    seen.push(version);
    await device.expectRuns(...seen);
    expect((await device.pull(version)).result?.outcome).toBe('current');
    const figures = pulled.result?.figures;
    console.log(`version ${String(version)} by ${way}: ${String(figures?.downloadedBytes.total)} bytes received, ${String(figures?.writtenBytes)} of content written, ${String(written)} to the disk by device and containerd, for ${String(changedBytes)} changed`);
    if (way === 'delta') expect(figures?.writtenBytes).toBeLessThan(changedBytes + 300_000);
  }
  // Back: the old name again is what it was, at no cost; gone, it is made anew from what is there.
  expect((await device.pull(1)).result?.outcome).toBe('current');
  await device.ctr('images', 'rm', '--sync', world.image(1));
  succeeded(await device.pull(1), 'delta', 1);
  order.stop();
  await device.expectRuns(1, 2, 3);
  await device.expectNothingLeft();
});

test('manifest and config are byte for byte the published ones, and containerd knows what needs what', async () => {
  const device = await Device.make();
  succeeded(await device.pull(1), 'layers', 1);
  const { manifest, manifestDigest, config, configDigest, layers } = world.version(1);
  expect(await device.ctr('content', 'get', manifestDigest)).toBe(manifest.toString());
  expect(await device.ctr('content', 'get', configDigest)).toBe(config.toString());
  for (let round = 0; round < 2; round++) {
    const listed = await device.ctr('content', 'ls', '-q');
    expect(listed.trim().split('\n').sort()).toEqual([manifestDigest, configDigest].sort());
    expect((await device.ctr('snapshots', 'ls')).trim().split('\n').slice(1)).toHaveLength(layers.length);
    containerd.collect(device.namespace);
  }
  // Without layers' blobs the check says incomplete, as after any unpacking that discards them; unpacked it is.
  expect(await device.ctr('images', 'check')).toMatch(/incomplete \(1\/4\).*true/);
  await device.ctr('images', 'rm', '--sync', world.image(1));
  expect(await device.ctr('content', 'ls', '-q')).toBe('');
  expect((await device.ctr('snapshots', 'ls')).trim().split('\n').slice(1)).toEqual([]);
});

test('an image that ctr put there is a basis', async () => {
  const device = await Device.make();
  const archive = join(await world.folder('archive'), 'app.tar');
  await runOk(['tar', '-C', world.layout, '-cf', archive, '.']);
  await device.ctr('images', 'import', '--base-name', 'stranger', archive);
  for (const version of [2, 3]) await device.ctr('images', 'rm', '--sync', `stranger:v${String(version)}`);
  const pulled = await device.pull(2);
  succeeded(pulled, 'delta', 2);
  expect(pulled.result?.figures.reusedBytes).toBeGreaterThan(1_900_000);
  await device.ctr('images', 'rm', '--sync', 'stranger:v1');
  await device.expectRuns(2);
});

test('a directory that a layer only implies is that of the layers below, as ctr unpacks it; a pull that was cut off takes it for whole', async () => {
  const layout = join(await world.folder('implied'), 'app');
  const note = 'SCHILY.xattr.user.note';
  const image = await makeImage(layout, 'v1', [
    [{ path: 'tmp/', mode: 0o1777 }, { path: 'srv/', mode: 0o700, uid: 7, gid: 8, pax: { [note]: 'kept' } }, { path: 'srv/in/', mode: 0o711 }, { path: 'old/', mode: 0o700 }, { path: 'usr/', mode: 0o750 }],
    [{ path: '.wh.old', content: '' }],
    [{ path: 'tmp/x', content: 'x' }, { path: 'srv/in/deep/y', content: 'y' }, { path: 'old/z', content: 'z' }, { path: 'usr/.wh..wh..opq', content: '' }, { path: 'usr/n', content: 'n' }],
  ], { platform: { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' } });
  const registry = await startOciRegistry();
  const to = remoteAt(registry.host, 'app');
  await pushMade(to, image);
  await to.client.close();
  const [ours, theirs] = [await Device.make(), await Device.make()];
  const name = `${registry.host}/app:v1`;
  const top = chainIds(image.layers.map(({ diffId }) => diffId)).at(-1) ?? '';
  const seen = async (device: Device): Promise<string> => {
    const point = await world.folder('view');
    execFileSync('sh', ['-c', await device.ctr('snapshots', 'view', '-t', point, 'look', top)]);
    try {
      return execFileSync('sh', ['-c', 'stat -c "%n %a %u:%g" tmp srv srv/in srv/in/deep old usr; ls usr'], { cwd: point }).toString();
    } finally {
      execFileSync('umount', [point]);
      // Nothing refers to it, so containerd's collector may have been quicker.
      await device.ctr('snapshots', 'rm', 'look').catch(() => undefined);
    }
  };
  try {
    expect((await ours.pullBare(name)).error).toBeNull();
    await theirs.ctr('images', 'pull', '--plain-http', name);
    const expected = await seen(theirs);
    expect(await seen(ours)).toBe(expected);
    expect(expected).toContain('tmp 1777 0:0\nsrv 700 7:8\nsrv/in 711');
    // Without the image's record its snapshots are what a pull left that was cut off: they are read, and taken.
    await ours.ctr('snapshots', 'label', top, 'containerd.io/gc.root=now');
    await ours.ctr('images', 'rm', name);
    const again = await ours.pullBare(name);
    expect([again.error, again.result?.figures.downloadedBytes.layers]).toEqual([null, 0]);
    expect(await seen(ours)).toBe(expected);
  } finally {
    await registry.close();
  }
});

test('layers that containerd has in other images, or twice in this one, are not fetched', async () => {
  const device = await Device.make();
  succeeded(await device.pull(1), 'layers', 1);
  const [, app, top] = world.version(1).layers;
  if (app === undefined || top === undefined) throw new Error('no layers');
  const first = [{ path: 'other', content: noise(1000, 60) }];
  const made: MadeImage = await makeImage(join(await world.folder('other'), 'layout'), 'o', [first, app.tar, top.tar, first, top.tar], { config: { Cmd: ['/x'] } });
  const store = await openStore(device.root);
  const engine = await containerd.engine(store, device.namespace);
  try {
    const sink = await engine.begin({ manifest: made.manifest, manifestMediaType: 'application/vnd.oci.image.manifest.v1+json', config: made.config }, { scratchDirectory: device.root, replaceLayers: [], onNote: () => undefined });
    expect(await Promise.all(made.layers.map((_, layer) => sink.hasLayer(layer)))).toEqual([false, true, true, false, true]);
    await sink.writeLayerTar(0, (async function* () { await Promise.resolve(); yield made.layers[0]?.tar ?? Buffer.alloc(0); })());
    expect(await sink.hasLayer(3)).toBe(true);
    const order = new OrderWatch();
    await sink.checkpoint();
    expect(order.take()).toBe('sync stage.checkpoint');
    await sink.commit({ name: 'other:1', source: 'other:1' });
    order.stop();
    // Those that come from elsewhere too, whether they lie in another snapshot or are here for the second time.
    expect(order.take()).toBe(['sync stage.commit', ...made.layers.flatMap(() => ['sync layers.name', 'snapshot'])].join(', '));
    await sink.close();
    const basis = await engine.basis((await engine.images()).find(({ names }) => names.includes('other:1'))!, {});
    expect(basis.layers.map(({ diffId }) => diffId)).toEqual([...new Set(made.layers.map(({ diffId }) => diffId))]);
    await basis.close();
  } finally {
    await engine.close();
    await store.close();
  }
  await device.ctr('images', 'rm', '--sync', world.image(1));
  await device.ctr('snapshots', 'mounts', '/nowhere', made.layers[0]?.diffId ?? '').catch(() => '');
  expect((await device.ctr('snapshots', 'ls')).trim().split('\n').slice(1)).toHaveLength(5);
  await device.expectNothingLeft();
});

test('garbage is collected in the middle, and the basis loses its name: what is being built and what it is built from stay', async () => {
  const device = await Device.make();
  succeeded(await device.pull(1), 'layers', 1);
  let removed = false;
  const pulled = await pullToEngine(device.root, async (store) => {
    const engine = await containerd.engine(store, device.namespace);
    const open = engine.basis.bind(engine);
    engine.basis = async (image, options) => {
      const basis = await open(image, options);
      await device.ctr('images', 'rm', '--sync', world.image(1));
      removed = true;
      return basis;
    };
    return engine;
  }, world.image(2), { onEvent: () => { containerd.collect(device.namespace); } });
  expect(removed).toBe(true);
  succeeded(pulled, 'delta', 2);
  await device.expectRuns(2);
  await device.expectNothingLeft();
});

test('a basis whose file was edited is found out, and the layers are fetched', async () => {
  const device = await Device.make();
  succeeded(await device.pull(1), 'layers', 1);
  const store = await openStore(device.root);
  const engine = await containerd.engine(store, device.namespace);
  const basis = await engine.basis((await engine.images())[0]!);
  const file = fileOf(basis, 1, 'app/kept');
  await basis.close();
  await engine.close();
  await store.close();
  await writeFile(file, 'edited', { flag: 'r+' });
  const pulled = await device.pull(2);
  succeeded(pulled, 'layers', 2);
  expect(pulled.events.find(({ event }) => event === 'fallback')).toMatchObject({ code: 'BASIS_DAMAGED' });
  expect(await device.say(2)).toContain('version 2\n');
});

test('containerd is killed at each step that a pull tells of: the old image runs, and the next pull ends it', async () => {
  const steps = ['resolved', 'plan', 'progress', 'applied'];
  const device = await Device.make();
  succeeded(await device.pull(1), 'layers', 1);
  for (const step of steps) {
    let killed = false;
    const { error } = await device.pull(2, ({ event }) => {
      if (event !== step || killed) return;
      killed = true;
      process.kill(containerd.pid, 'SIGKILL');
    });
    expect(killed).toBe(true);
    await containerd.kill();
    await containerd.start();
    expect([step, error]).toEqual([step, expect.objectContaining({ code: 'ENGINE_UNREACHABLE' })]);
    await device.expectRuns(1);
  }
  // At the last step every layer was there; it was not made again.
  const last = await device.pull(2);
  succeeded(last, 'nothing', 2);
  expect(last.result?.figures.downloadedBytes.data).toBe(0);
  await device.expectRuns(1, 2);
  await device.expectNothingLeft();
});

test('the connection is cut at any call: the old image runs, there is no half one, and the next pull goes on', async () => {
  const device = await Device.make();
  succeeded(await device.pull(1), 'layers', 1);
  const socket = await openCuttingSocket(await world.folder('socket'), containerd.socket);
  let cuts = 0;
  try {
    for (let allowed = 1; ; allowed += 1 + Math.floor(allowed / 6)) {
      socket.allow(allowed);
      const { error } = await device.pull(2, undefined, socket.path);
      if (error === null && !socket.hasCut) break;
      cuts++;
      if (error !== null) expect([allowed, error]).toMatchObject([allowed, { code: 'ENGINE_UNREACHABLE' }]);
      const listed = (await device.ctr('images', 'ls', '-q')).trim().split('\n');
      expect(listed).toContain(world.image(1));
      if (listed.length > 1) await device.expectRuns(1, 2);
    }
  } finally {
    await socket.close();
  }
  expect(cuts).toBeGreaterThan(10);
  await device.expectRuns(1, 2);
  succeeded(await device.pull(3), 'delta', 3);
  await device.expectNothingLeft();
});

test('the program is killed after each thing it says: the old image runs, and the next pull ends it', async () => {
  const device = await Device.make();
  const words = (version: number): string[] => [
    ...program('device'), 'pull', world.image(version), '--json', '--root', device.root, '--into', 'containerd', '--engine-address', containerd.socket, '--engine-namespace', device.namespace,
  ];
  await runOk(words(1));
  for (let lines = 1; ; lines += 2) {
    let seen = 0;
    const outcome = await run(words(2), {
      onStart: (child) => child.stdout?.on('data', (chunk: Buffer) => {
        seen += chunk.toString().split('\n').length - 1;
        if (seen >= lines) child.kill('SIGKILL');
      }),
    });
    const listed = await device.ctr('images', 'ls', '-q');
    expect(listed).toContain(world.image(1));
    if (listed.includes(world.image(2))) await device.expectRuns(1, 2);
    if (outcome.exitCode === 0 || listed.includes(world.image(2))) break;
  }
  await runOk(words(2));
  await device.expectRuns(1, 2);
  await runOk(words(3));
  await device.expectNothingLeft();
});

const imageSpec = new MessageType({ image: text(1) });
const imageStatusRequest = new MessageType({ image: nested(1, imageSpec) });
const imageStatusResponse = new MessageType({ image: nested(1, new MessageType({ id: text(1), tags: texts(2), digests: texts(3) })) });

test('Kubernetes\' side of containerd finds the image by tag, by the digest that pins it, and by ID, also after it starts again', async () => {
  const kubernetes = await startContainerd({ cri: true });
  const root = join(await world.folder('kubernetes'), 'store');
  const { configDigest, manifestDigest } = world.version(2);
  const pinned = `${world.image(2).replace(/:v2$/, '')}@${manifestDigest}`;
  const inKubernetes = async (look: (status: (image: string) => Promise<unknown>) => Promise<void>): Promise<void> => {
    const connection = await GrpcConnection.open(kubernetes.socket);
    try {
      await look(async (image) => {
        const request = imageStatusRequest.encode({ image: { image } });
        return imageStatusResponse.decode(await connection.unary({ path: '/runtime.v1.ImageService/ImageStatus', requests: [request], metadata: {} })).image;
      });
    } finally {
      await connection.close();
    }
  };
  const expectFound = (): Promise<void> => inKubernetes(async (status) => {
    // It learns of images by containerd's events.
    while ((await status(world.image(2))) === undefined || (await status(pinned)) === undefined) await pause(20);
    for (const name of [world.image(2), pinned, configDigest]) expect(await status(name)).toEqual({ id: configDigest, tags: [world.image(2)], digests: [pinned] });
  });
  try {
    for (const version of [1, 2]) succeeded(await pullToEngine(root, (store) => kubernetes.engine(store, 'k8s.io'), world.image(version)), version === 1 ? 'layers' : 'delta', version);
    await expectFound();
    await kubernetes.kill();
    await kubernetes.start();
    await expectFound();
    expect(await kubernetes.runContainer('k8s.io', pinned, 'pinned', '/bin/print', '/app/version')).toBe('version 2\n');
    expect((await pullToEngine(root, (store) => kubernetes.engine(store, 'k8s.io'), pinned)).result?.outcome).toBe('current');
    // By an index's digest too.
    const whole = `${bare.repository}@${bare.putIndex(3, 'kubernetes')}`;
    succeeded(await pullToEngine(root, (store) => kubernetes.engine(store, 'k8s.io'), whole), 'delta', 3);
    const found = world.version(3);
    await inKubernetes(async (status) => {
      while ((await status(whole)) === undefined) await pause(20);
      expect(await status(whole)).toMatchObject({ id: found.configDigest, digests: expect.arrayContaining([whole, `${bare.repository}@${found.manifestDigest}`]) });
    });
    expect(await kubernetes.runContainer('k8s.io', whole, 'whole', '/bin/print', '/app/version')).toBe('version 3\n');
  } finally {
    await kubernetes.close();
  }
});

test('a chain of published deltas is followed from containerd\'s image, with links to what it has', async () => {
  const device = await Device.make();
  succeeded(await device.pullBare(bare.image(1)), 'layers', 1);
  const pulled = await pullToEngine(device.root, async (store) => {
    const engine = await containerd.engine(store, device.namespace);
    expect(await engine.storage()).toEqual({ path: join(containerd.root, 'io.containerd.snapshotter.v1.overlayfs'), layerCopies: 0 });
    return engine;
  }, bare.image(3));
  succeeded(pulled, 'delta', 3);
  expect(pulled.events.find(({ event }) => event === 'plan')).toMatchObject({ into: 'containerd', steps: [{ kind: 'delta' }, { kind: 'delta' }], downloadBytes: pulled.result?.figures.deltaBytes });
  expect(pulled.result?.figures.writtenBytes).toBeLessThan(2 * (changedBytes + 300_000));
  expect(await containerd.runContainer(device.namespace, bare.image(3), 'chain', '/bin/print', '/app/version')).toBe('version 3\n');
  expect((await device.ctr('images', 'ls', '-q')).trim().split('\n').sort()).toEqual([bare.image(1), bare.image(3)].sort());
  await device.expectNothingLeft();
});

test('an image that was pulled by an index is found by the index\'s digest, and runs', async () => {
  const device = await Device.make();
  const index = bare.putIndex(2, 'multi');
  const pinned = `${bare.repository}@${index}`;
  succeeded(await device.pullBare(bare.image(1)), 'layers', 1);
  succeeded(await device.pullBare(pinned), 'delta', 2);
  expect((await device.pullBare(pinned)).result?.outcome).toBe('current');
  containerd.collect(device.namespace);
  expect(await device.ctr('images', 'ls')).toMatch(new RegExp(`${pinned} +application/vnd.oci.image.index.v1\\+json +${index} `));
  expect(await containerd.runContainer(device.namespace, pinned, 'pinned', '/bin/print', '/app/version')).toBe('version 2\n');
  // The tag follows when the index changes, though this platform's image is the same.
  succeeded(await device.pullBare(`${bare.repository}:multi`), 'nothing', 2);
  const changed = bare.putIndex(2, 'multi-changed');
  bare.retag('multi', changed);
  succeeded(await device.pullBare(`${bare.repository}:multi`), 'nothing', 2);
  expect(await device.ctr('images', 'ls', `name==${bare.repository}:multi`)).toContain(changed);
  await device.expectNothingLeft();
});
