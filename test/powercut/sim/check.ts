import { createHash } from 'node:crypto';
import { Spool } from '../../../src/applier/pull/spool.js';
import { checkLayer } from '../../../src/applier/store/check.js';
import { Layer } from '../../../src/applier/store/layer.js';
import type { Store, StoredImage, StoreReference, VerifyReport } from '../../../src/applier/store/types.js';
import { openOn, pull, repository, storeRoot } from './device.js';
import { lookUp, type Disk, type DiskOp, type Inode } from './disk.js';
import { rottenFile, type Expectation } from './expect.js';
import { expectedTree, type ExpectedFile, type SimImage, type Tag, type World } from './fixtures.js';
import { Machine, type MachineOptions } from './machine.js';

const privileged = process.geteuid?.() === 0;

/** What came of one crash state. */
export interface Verdict {
  /** Promises that it breaks; none when it holds. */
  readonly violations: readonly string[];
  /** What recovery did to the disk. */
  readonly recovery: readonly DiskOp[];
  /** With `pull`: what the pull did, from where recovery ended; its last expectation is in its marks. */
  readonly pulled: readonly DiskOp[];
}

export interface CheckOptions {
  /** The machine that boots again. */
  readonly machine?: MachineOptions;
  /** Pull v2 afterwards, which must succeed. */
  readonly pull: boolean;
  /** The disk may have lost what it said it had: nothing need be there, but what is there must be whole or called damaged. */
  readonly lied?: boolean;
}

/** Boots from a disk: recovers, verifies, looks at every file, and compares all of it with what must hold. `disk` is not changed. */
export async function checkState(world: World, disk: Disk, expectation: Expectation, options: CheckOptions): Promise<Verdict> {
  const machine = new Machine(disk.clone(), options.machine);
  const violations: string[] = [];
  let recovery: readonly DiskOp[] = [];
  let pulled: readonly DiskOp[] = [];
  try {
    const store = await openOn(machine, !expectation.created || options.lied === true);
    recovery = machine.trace.slice();
    if (options.lied === true) await checkHonesty(world, machine, store, violations);
    else await checkStore(world, machine, store, expectation, violations);
    if (options.pull && violations.length === 0) {
      const from = machine.trace.length;
      await checkPull(world, machine, store, expectation, options.lied === true, violations);
      pulled = machine.trace.slice(from);
    }
    await store.close();
  } catch (error) {
    violations.push(`fails: ${describeError(error)}`);
  }
  return { violations, recovery, pulled };
}

function describeError(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return `${typeof code === 'string' ? `${code} ` : ''}${typeof message === 'string' ? message : String(error)}`;
}

async function checkStore(world: World, machine: Machine, store: Store, expectation: Expectation, violations: string[]): Promise<void> {
  const references = await store.references();
  const images = await store.images();
  violations.push(...wrongReferences(world, references, expectation));
  const report = await store.verify();
  for (const record of report.damagedRecords) violations.push(`the record ${record} is damaged`);
  if (expectation.rotten !== true) violations.push(...damages(report));
  for (const image of usedImages(world, images, references, violations)) violations.push(...wrongFiles(machine.disk, image, expectation.rotten === true));
  violations.push(...await strayThings(machine.disk, store, images));
  await checkStage(world, store, expectation, violations);
}

function damages(report: VerifyReport): string[] {
  return report.damagedLayers.map((layer) => `layer ${layer.diffId.slice(7, 15)} does not verify: ${layer.damages[0]?.path ?? ''} ${layer.damages[0]?.detail ?? ''}`);
}

function tagOf(world: World, digest: string | null): Tag | null | 'unknown' {
  if (digest === null) return null;
  for (const image of [world.v1, world.v2, world.other, world.large, world.c1, world.c2, world.c3]) if (image.made.manifestDigest === digest) return image.tag;
  return 'unknown';
}

function wrongReferences(world: World, references: readonly StoreReference[], expectation: Expectation): string[] {
  const violations: string[] = [];
  const found = new Map(references.map((each) => [each.name.slice(repository.length + 1), `${String(tagOf(world, each.current))} before ${String(tagOf(world, each.previous))}`]));
  for (const [name, allowed] of Object.entries(expectation.refs)) {
    const texts = allowed.map((value) => (value === null ? 'nothing' : `${value[0]} before ${String(value[1])}`));
    const is = found.get(name) ?? 'nothing';
    if (!texts.includes(is)) violations.push(`${name} stands for ${is} instead of ${[...new Set(texts)].join(' or ')}`);
    found.delete(name);
  }
  for (const [name, is] of found) violations.push(`there is a name ${name} that stands for ${is}`);
  return violations;
}

/** Every image that a name needs, now or for a rollback. */
function usedImages(world: World, images: readonly StoredImage[], references: readonly StoreReference[], violations: string[]): SimImage[] {
  const used: SimImage[] = [];
  for (const { name, current, previous } of references) {
    for (const digest of [current, previous]) {
      const tag = tagOf(world, digest);
      if (tag === null) continue;
      if (!images.some((image) => image.manifestDigest === digest)) violations.push(`${name} needs ${tag}, whose record is gone`);
      else if (tag !== 'unknown') used.push(world[tag]);
    }
  }
  return used;
}

const trees = new Map<string, ReadonlyMap<string, ExpectedFile>>();

/** Compares the files themselves with what the layers were made of; asks nothing of the product. */
function wrongFiles(disk: Disk, image: SimImage, rotten: boolean): string[] {
  const violations: string[] = [];
  for (const [at, made] of image.made.layers.entries()) {
    let tree = trees.get(made.diffId);
    if (tree === undefined) {
      tree = expectedTree(image.files[at] ?? [], privileged);
      trees.set(made.diffId, tree);
    }
    const root = lookUp(disk, `${storeRoot}/layers/${made.diffId.slice(7)}/fs`);
    if (root === undefined) {
      violations.push(`${image.tag}: layer ${String(at)} is gone`);
      continue;
    }
    const found = new Map<string, number>();
    collectFiles(disk, root.ino, '', found);
    for (const [path, expected] of tree) {
      const wrong = rotten && path === rottenFile ? null : wrongFile(disk, found, path, expected);
      if (wrong !== null) violations.push(`${image.tag}: ${path} ${wrong}`);
      found.delete(path);
    }
    for (const path of found.keys()) if (!tree.has(path)) violations.push(`${image.tag}: there is ${path}`);
  }
  return violations;
}

function collectFiles(disk: Disk, dir: number, prefix: string, found: Map<string, number>): void {
  for (const [name, ino] of disk.inode(dir).entries) {
    found.set(prefix + name, ino);
    if (disk.inode(ino).kind === 'directory') collectFiles(disk, ino, `${prefix}${name}/`, found);
  }
}

const hashes = new WeakMap<Buffer, string>();

function hashOf(content: Buffer): string {
  let hash = hashes.get(content);
  if (hash === undefined) {
    hash = createHash('sha256').update(content).digest('hex');
    hashes.set(content, hash);
  }
  return hash;
}

function wrongFile(disk: Disk, found: Map<string, number>, path: string, expected: ExpectedFile): string | null {
  const ino = found.get(path);
  if (ino === undefined) return 'is gone';
  const inode: Inode = disk.inode(ino);
  if (inode.kind !== expected.kind) return `is a ${inode.kind}`;
  if (expected.kind === 'file' && hashOf(inode.content) !== expected.sha256) return `has other content (${String(inode.content.length)} bytes)`;
  if (inode.target.toString() !== expected.target) return `points to ${inode.target.toString()}`;
  if (expected.mode !== null && inode.mode !== expected.mode) return `has the mode ${inode.mode.toString(8)}`;
  if (expected.mtimeSec !== null && inode.mtimeSec !== expected.mtimeSec) return `has the time ${String(inode.mtimeSec)}`;
  for (const [name, value] of Object.entries(expected.xattrs)) if (inode.xattrs.get(name)?.toString() !== value) return `lost its attribute ${name}`;
  // Expected files come in the tar's order: the other name was not taken off the list if it comes later.
  if (expected.sameAs !== null) {
    const other = found.get(expected.sameAs);
    if (other !== undefined && other !== ino) return `is no longer ${expected.sameAs}`;
  }
  return null;
}

/** Things that no name needs, which may be there or not: but a layer under a trusted name is whole, and recovery leaves no litter. */
async function strayThings(disk: Disk, store: Store, images: readonly StoredImage[]): Promise<string[]> {
  const violations: string[] = [];
  const verified = new Set(images.flatMap((image) => image.diffIds));
  for (const name of lookUp(disk, `${storeRoot}/layers`)?.inode.entries.keys() ?? []) {
    if (!/^[0-9a-f]{64}$/.test(name)) violations.push(`recovery left layers/${name}`);
    else if (!verified.has(`sha256:${name}`)) {
      const layer = await Layer.load(store.fs, `layers/${name}`, `sha256:${name}`);
      if (layer !== undefined && (await checkLayer(store.fs, layer)).damageCount > 0) violations.push(`the unused layer ${name.slice(0, 8)} is believed and is not whole`);
    }
  }
  if ((lookUp(disk, `${storeRoot}/trash`)?.inode.entries.size ?? 0) > 0) violations.push('recovery left things in the trash');
  for (const directory of ['', 'images', 'refs']) {
    for (const name of lookUp(disk, `${storeRoot}/${directory}`)?.inode.entries.keys() ?? []) if (name.startsWith('.tmp-')) violations.push(`recovery left ${directory}/${name}`);
  }
  return violations;
}

async function checkStage(world: World, store: Store, expectation: Expectation, violations: string[]): Promise<void> {
  const { staged, spooledFrames } = expectation;
  if (staged === undefined && spooledFrames === undefined) return;
  const stage = await store.stage(world[staged?.tag ?? 'v2'].target);
  for (const layer of staged?.layers ?? []) if (!(await stage.hasLayer(layer))) violations.push(`the staged layer ${String(layer)} is gone`);
  if (spooledFrames !== undefined) {
    const spool = await Spool.open(store.fs, stage.spool.path, 'data', world.delta.frames);
    if (spool.verifiedFrames < spooledFrames) violations.push(`${String(spooledFrames - spool.verifiedFrames)} downloaded frames of ${String(spooledFrames)} are gone`);
    await spool.close();
  }
  await stage.close();
}

/** After a cut, the next pull ends with the new image. */
async function checkPull(world: World, machine: Machine, store: Store, expectation: Expectation, lied: boolean, violations: string[]): Promise<void> {
  const before = (await store.references()).find((each) => each.name === `${repository}:latest`);
  const current = tagOf(world, before?.current ?? null);
  const previous = tagOf(world, before?.previous ?? null);
  if (current === 'unknown' || previous === 'unknown') throw new Error('an unknown image');
  const old = current === null ? null : [current, previous] as const;
  const now = current === 'v2' ? old : ['v2', current] as const;
  machine.mark({ ...expectation, created: true, staged: undefined, spooledFrames: undefined, refs: { ...expectation.refs, latest: [old, now] } });
  try {
    await pull(store, world);
  } catch (error) {
    violations.push(`the next pull fails: ${describeError(error)}`);
    return;
  }
  const after: Expectation = { created: true, refs: { ...expectation.refs, latest: [now] }, rotten: expectation.rotten ?? false };
  machine.mark(after);
  // A pull builds on what it finds: what a lying disk lost of the older image is for verify to say.
  if (!lied) await checkStore(world, machine, store, after, violations);
}

/** Of a disk that lied nothing need be left; but verify must know what is wrong with what is. */
async function checkHonesty(world: World, machine: Machine, store: Store, violations: string[]): Promise<void> {
  const report = await store.verify();
  const references = await store.references();
  const images = await store.images();
  for (const { name, current } of references) {
    const tag = tagOf(world, current);
    const image = images.find((each) => each.manifestDigest === current);
    if (tag === 'unknown' || tag === null) violations.push(`${name} stands for an unknown image`);
    else if (image === undefined) continue;
    else {
      const called = report.damagedLayers.some((layer) => layer.images.includes(current));
      const wrong = wrongFiles(machine.disk, world[tag], false);
      if (wrong.length > 0 && !called) violations.push(`verify calls ${tag} whole, but ${wrong[0] ?? ''}`);
    }
  }
}
