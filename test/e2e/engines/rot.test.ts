import { lstat, readdir, readFile, rm, truncate, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect } from '@jest/globals';
import { projectRoot, runOk } from '../../../bench/process.js';
import { ContainerdEngine } from '../../../src/applier/engines/containerd/engine.js';
import { ContainersStorage, type StoredLayer } from '../../../src/applier/engines/podman/storage.js';
import type { Engine } from '../../../src/applier/engines/types.js';
import { openStore } from '../../../src/applier/store/open.js';
import { isWhittleError, WhittleError } from '../../../src/core/errors.js';
import { LayersBasis } from '../../../src/applier/store/basis.js';
import { startContainerd, type TestContainerd } from '../../support/engines/containerd.js';
import { makeEngineWorld, pullToEngine, type EnginePull, type EngineWorld } from '../../support/engines/containerd-world.js';
import { makePodman, podmanWanting, type TestPodman } from '../../support/engines/podman.js';
import { noise } from '../../support/images.js';
import { hasTool, testUnlessWanting } from '../../support/tools.js';

/**
 * Rot of what a pull that was cut off has left in a container engine: the next pull goes on with it, so it must find out, and end
 * with the right image or a clear error. What the image's layers are on disk is compared with those of a pull that nothing befell.
 */
const kinds = ['flip', 'truncate', 'delete', 'replace'] as const;
type Kind = (typeof kinds)[number];

let world: EngineWorld;

async function strike(path: string, kind: Kind): Promise<void> {
  const facts = await lstat(path);
  if (kind === 'delete' || !facts.isFile()) {
    await rm(path, { recursive: true });
    return;
  }
  const content = await readFile(path);
  const at = Math.floor(content.length / 3);
  if (kind === 'truncate') await truncate(path, at);
  else await writeFile(path, kind === 'replace' ? noise(content.length, 77) : content.fill((content[at] ?? 0) ^ 4, at, at + 1), { flag: 'r+' });
  // A disk that rots changes no times.
  await utimes(path, facts.atimeMs / 1000, facts.mtimeMs / 1000);
}

/**
 * What a layer's files are: names, kinds, modes, owners, times, attributes and contents. When a whiteout was made, and what is true of the
 * directory that holds the layer, is nobody's concern.
 */
async function treeOf(directory: string): Promise<string> {
  const { stdout } = await runOk(['python3', join(projectRoot, 'test/support/tree.py'), directory, String(2 ** 40)]);
  return stdout.replace(/^ 0o.*\n/m, '').replace(/ \d+ 0:0$/gm, ' 0:0');
}

/** Lets a layer of the image be cut off in its middle, once those below it are in place. */
function cutAt(engine: Engine, cutLayer: number): Engine {
  const begin = engine.begin.bind(engine);
  engine.begin = async (...what) => {
    const sink = await begin(...what);
    const write = sink.writeLayerTar.bind(sink);
    const below: Promise<void>[] = [];
    sink.writeLayerTar = async (layer, chunks, sizeBytes) => {
      if (layer < cutLayer) {
        const written = write(layer, chunks, sizeBytes);
        below.push(written);
        return written;
      }
      await Promise.all(below);
      expect(below).toHaveLength(cutLayer);
      return write(layer, halfOf(chunks, (world.version(1).layers[layer]?.tar.length ?? 0) / 2), sizeBytes);
    };
    return sink;
  };
  return engine;
}

async function* halfOf(chunks: AsyncIterable<Buffer>, sizeBytes: number): AsyncGenerator<Buffer> {
  let left = sizeBytes;
  for await (const chunk of chunks) {
    if (left > 0) yield chunk.subarray(0, left);
    left -= chunk.length;
    if (left <= 0) throw new WhittleError('INTERRUPTED', 'cut');
  }
}

/** The image is there and right, or a person can act upon what was said. */
function expectClear({ error, result }: EnginePull): boolean {
  if (error === null) {
    expect(result?.image?.configDigest).toBe(world.version(1).configDigest);
    return true;
  }
  if (!isWhittleError(error) || error.code === 'INTERNAL' || /\n/.test(error.message)) throw new Error('no clear error', { cause: error });
  return false;
}

async function eachKind(strikeAndPull: (kind: Kind) => Promise<void>, some: readonly Kind[] = kinds): Promise<void> {
  for (const kind of some) await strikeAndPull(kind).catch((error: unknown) => { throw new Error(`${kind}: ${String(error)}`, { cause: error }); });
}

const containerdWanting = [...['containerd', 'ctr', 'runc', 'cc', 'python3'].filter((name) => !hasTool(name)), ...(process.geteuid?.() === 0 ? [] : ['root'])];
const allWanting = [...new Set([...containerdWanting, ...podmanWanting])];

beforeAll(async () => {
  if (allWanting.length === 0) world = await makeEngineWorld();
});
afterAll(async () => {
  if (allWanting.length === 0) await world.close();
});

describe('containerd', () => {
  const test = testUnlessWanting(allWanting);
  let containerd: TestContainerd;
  let whole: readonly string[];
  let namespaces = 0;

  /** A namespace of its own. Where a cut pull's things are is seen by what is new in containerd's folders. */
  class Device {
    readonly namespace = `n${String(++namespaces)}`;

    constructor(readonly root: string) {}

    pull(change: (engine: Engine) => Engine = (engine) => engine): Promise<EnginePull> {
      return pullToEngine(this.root, async (store) => change(await containerd.engine(store, this.namespace)), world.image(1), { delta: 'never' });
    }

    /** The trees of the image's layers, as containerd has them. */
    async trees(): Promise<string[]> {
      const store = await openStore(this.root);
      const engine = await containerd.engine(store, this.namespace);
      try {
        const [image] = await engine.images();
        if (image === undefined) throw new Error('containerd has no image');
        const basis = await engine.basis(image);
        if (!(basis instanceof LayersBasis)) throw new Error('no layers');
        const trees: string[] = [];
        for (const { fs, path } of basis.storeLayers) trees.push(await treeOf(join(fs.root, path, 'fs')));
        await basis.close();
        return trees;
      } finally {
        await engine.close();
        await store.close();
      }
    }
  }

  async function newDevice(): Promise<Device> {
    return new Device(join(await world.folder('device'), 'store'));
  }

  const snapshotsFolder = (): string => join(containerd.root, 'io.containerd.snapshotter.v1.overlayfs/snapshots');
  const blobPath = (digest: string): string => join(containerd.root, 'io.containerd.content.v1.content/blobs/sha256', digest.slice('sha256:'.length));

  /** The directory of the newest snapshot that has a file. */
  async function snapshotWith(path: string): Promise<string> {
    const found: string[] = [];
    for (const name of (await readdir(snapshotsFolder())).sort((a, b) => Number(b) - Number(a))) {
      if ((await lstat(join(snapshotsFolder(), name, path)).catch(() => null)) !== null) found.push(join(snapshotsFolder(), name));
    }
    if (found[0] === undefined) throw new Error(`no snapshot has ${path}`);
    return found[0];
  }

  /** A pull that was cut off in its second layer. */
  const cutInLayer = (engine: Engine): Engine => cutAt(engine, 1);
  /** One whose snapshots, config and manifest are all there, and that was cut off before the image's record. */
  const cutBeforeRecord = (engine: Engine): Engine => {
    if (!(engine instanceof ContainerdEngine)) throw new Error('not containerd');
    engine.api.putImage = () => Promise.reject(new WhittleError('ENGINE_UNREACHABLE', 'cut'));
    return engine;
  };

  const parts: Readonly<Record<string, { readonly cut: (engine: Engine) => Engine; readonly path: () => Promise<string>; readonly kinds?: readonly Kind[] }>> = {
    'a file of a layer that is whole in a snapshot of its own': { cut: cutInLayer, path: async () => join(await snapshotWith('fs/bin/print'), 'fs/bin/print') },
    'the metadata of that layer': { cut: cutInLayer, path: async () => join(await snapshotWith('fs/bin/print'), 'meta'), kinds: ['flip', 'delete'] },
    'a file of the layer in which a pull was cut': { cut: cutInLayer, path: async () => join(await snapshotWith('fs/app/kept'), 'fs/app/kept'), kinds: ['flip', 'delete'] },
    'a file of a snapshot that is committed, without an image': { cut: cutBeforeRecord, path: async () => join(await snapshotWith('fs/bin/print'), 'fs/bin/print') },
    'a file of the top one': { cut: cutBeforeRecord, path: async () => join(await snapshotWith('fs/old/b'), 'fs/old/b'), kinds: ['flip'] },
    'the metadata of one that is committed, without an image': { cut: cutBeforeRecord, path: async () => join(await snapshotWith('fs/bin/print'), 'meta'), kinds: ['truncate', 'replace'] },
    'the config': { cut: cutBeforeRecord, path: () => Promise.resolve(blobPath(world.version(1).configDigest)) },
    'the manifest': { cut: cutBeforeRecord, path: () => Promise.resolve(blobPath(world.version(1).manifestDigest)), kinds: ['replace'] },
  };

  beforeAll(async () => {
    if (allWanting.length > 0) return;
    containerd = await startContainerd();
    const device = await newDevice();
    expect((await device.pull()).error).toBeNull();
    whole = await device.trees();
    expect(whole).toHaveLength(3);
    await containerd.ctr('-n', device.namespace, 'images', 'rm', '--sync', world.image(1));
  });
  afterAll(async () => {
    if (allWanting.length === 0) await containerd.close();
  });

  test.each(Object.keys(parts))('%s: flipped, truncated, deleted or replaced', async (part) => {
    const { cut, path, kinds: some } = parts[part] ?? { cut: cutInLayer, path: () => Promise.resolve('') };
    await eachKind(async (kind) => {
      const device = await newDevice();
      expect((await device.pull(cut)).error).toMatchObject({ message: 'cut' });
      await strike(await path(), kind);
      const pulled = await device.pull();
      // Nothing of this keeps a device from its image.
      expect({ said: pulled.error, clear: expectClear(pulled) }).toEqual({ said: null, clear: true });
      expect(await device.trees()).toEqual(whole);
      await containerd.ctr('-n', device.namespace, 'images', 'rm', '--sync', world.image(1));
    }, some);
  });
});

describe('podman', () => {
  const test = testUnlessWanting(allWanting);
  let podman: TestPodman;
  let root: string;
  let seed: string;
  let whole: readonly string[];
  const folders = ['overlay', 'overlay-images', 'overlay-layers'];

  const pull = (change: (engine: Engine) => Engine = (engine) => engine): Promise<EnginePull> => pullToEngine(root, async (store) => change(await podman.engine(store)), world.image(1), { delta: 'never' });

  async function layers(): Promise<StoredLayer[]> {
    const storage = await ContainersStorage.open(podman.graphRoot);
    const { layers: all } = await storage.view();
    await storage.close();
    return world.version(1).layers.flatMap(({ diffId }) => [...all.values()].filter((each) => each.diffId === diffId));
  }

  async function trees(): Promise<string[]> {
    const found: string[] = [];
    for (const { id } of await layers()) found.push(await treeOf(join(podman.graphRoot, 'overlay', id, 'diff')));
    return found;
  }

  /** Podman's own folder of a layer. */
  const overlayOf = async (layer: number, ...path: string[]): Promise<string> => join(podman.graphRoot, 'overlay', (await layers())[layer]?.id ?? '', ...path);

  /** What the cut pull has left, again; podman has `overlay` mounted upon itself. */
  async function restore(): Promise<void> {
    for (const folder of folders) {
      await runOk(['find', join(podman.graphRoot, folder), '-mindepth', '1', '-delete']);
      await runOk(['cp', '-a', `${join(seed, folder)}/.`, join(podman.graphRoot, folder)]);
    }
  }

  const parts: Readonly<Record<string, { readonly path: () => Promise<string>; readonly kinds?: readonly Kind[] }>> = {
    'a file of a layer': { path: () => overlayOf(0, 'diff/bin/print') },
    'a symbolic link of a layer': { path: () => overlayOf(1, 'diff/app/soft'), kinds: ['delete'] },
    'podman\'s metadata of a layer\'s tar': { path: async () => join(podman.graphRoot, 'overlay-layers', `${(await layers())[0]?.id ?? ''}.tar-split.gz`), kinds: ['flip'] },
    'the short name of a layer': { path: () => overlayOf(1, 'link'), kinds: ['truncate'] },
    'the list of layers below a layer': { path: () => overlayOf(1, 'lower'), kinds: ['delete'] },
    'what the short name of a layer leads to': { path: async () => join(podman.graphRoot, 'overlay/l', await readFile(await overlayOf(0, 'link'), 'utf8')), kinds: ['delete'] },
  };

  beforeAll(async () => {
    if (allWanting.length > 0) return;
    podman = await makePodman();
    root = join(await world.folder('device'), 'store');
    seed = await world.folder('seed');
    expect((await pull((engine) => cutAt(engine, 2))).error).toMatchObject({ message: 'cut' });
    for (const folder of folders) await runOk(['cp', '-a', join(podman.graphRoot, folder), seed]);
    expect((await pull()).error).toBeNull();
    whole = await trees();
    expect(whole).toHaveLength(3);
  });
  afterAll(async () => {
    if (allWanting.length === 0) await podman.close();
  });

  test.each(Object.keys(parts))('%s: flipped, truncated, deleted or replaced', async (part) => {
    const { path, kinds: some } = parts[part] ?? { path: () => Promise.resolve(''), kinds: [] };
    await eachKind(async (kind) => {
      await restore();
      await strike(await path(), kind);
      const pulled = await pull();
      expect({ said: pulled.error, clear: expectClear(pulled) }).toEqual({ said: null, clear: true });
      expect(await trees()).toEqual(whole);
      if (some !== undefined) expect(await podman.runContainer(world.image(1), '/bin/print', '/app/version')).toBe('version 1\n');
    }, some);
  });
});
