import { existsSync } from 'node:fs';
import { lstat, mkdir, mkdtemp, open, readdir, readFile, rm, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { runOk } from '../../bench/process.js';
import { plainFrameBytes } from '../../src/applier/pull/context.js';
import { repairImage } from '../../src/applier/pull/repair.js';
import { registrySource } from '../../src/applier/pull/registry-source.js';
import { openStore } from '../../src/applier/store/open.js';
import type { Store } from '../../src/applier/store/types.js';
import { isWhittleError } from '../../src/core/errors.js';
import { parseReference } from '../../src/oci/index.js';
import { startFlakyProxy, type Fault, type FlakyProxy } from '../support/flaky-proxy.js';
import { digestOf, type MadeImage } from '../support/images.js';
import { makeMemoryRegistry, type MemoryRegistry } from '../support/memory-registry.js';
import { hurried, pullInto } from '../support/pull-world.js';
import { until } from '../support/until.js';

/**
 * Rot: files below a store's root are flipped, cut, grown, emptied, deleted and replaced by other things, and then the device
 * goes on: recovery, verify, pull, rollback, repair. Each kind of file meets each kind of rot before each of these; scripts with
 * several strikes anywhere are drawn. WHITTLE_ROT_SCRIPTS and WHITTLE_SEED change how many and which.
 */
const scripts = Number(process.env['WHITTLE_ROT_SCRIPTS'] ?? 120);
const seed = Number(process.env['WHITTLE_SEED'] ?? 20_260_102);

let folder: string;
let outside: string;
let registry: MemoryRegistry;
let proxy: FlakyProxy;
/** So much of what is large came: more than a frame of a layer. */
const cutAfterBytes = 300_000;
/** What the tag `now` means. */
let now = 'v1';

/**
 * Stores to be copied: one image; a name with a previous image; one image and a pull that was cut off, by delta and by layers; no
 * image, and a pull that was cut off in its last layer, the one before that being whole in the stage.
 */
const scenarios = ['one', 'previous', 'cut delta', 'cut layers', 'cut first'] as const;
type Scenario = (typeof scenarios)[number];

beforeAll(async () => {
  folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'whittle-rot-'));
  outside = join(folder, 'outside');
  await writeFile(outside, 'not the store\'s');
  registry = await makeMemoryRegistry(350_000);
  proxy = await startFlakyProxy({ cutAfterMs: 4, match: isLarge, upstream: (asked) => registry.answer({ ...asked, url: asked.url.replace('/manifests/now', `/manifests/${now}`) }) });
  for (const scenario of scenarios) await seedStore(scenario);
}, 60_000);

afterAll(async () => {
  await proxy.close();
  await rm(folder, { recursive: true, force: true });
});

const isLarge = (_method: string, url: string): boolean => [registry.delta.dataDigest, registry.v2.layers[1]?.digest ?? ''].some((digest) => url.includes(`/blobs/${digest}`));
const name = (tag: string): string => `127.0.0.1:${String(proxy.port)}/app:${tag}`;

async function withStore<T>(root: string, body: (store: Store) => Promise<T>): Promise<T> {
  const store = await openStore(root, { create: true });
  try {
    return await body(store);
  } finally {
    await store.close();
  }
}

/** Waits until a spooled file has so many bytes. */
async function spooled(root: string, sizeBytes: number): Promise<void> {
  const stages = join(root, 'stages');
  await until(async () => {
    const paths = (await readdir(stages, { recursive: true }).catch(() => [])).filter((path) => path.includes('/spool/'));
    const facts = await Promise.all(paths.map((path) => lstat(join(stages, path)).catch(() => null)));
    return facts.some((each) => each !== null && each.size >= sizeBytes);
  }, () => `no spooled file came to ${String(sizeBytes)} bytes`);
}

const wayOf = (scenario: Scenario): 'auto' | 'never' => (scenario === 'cut layers' || scenario === 'cut first' ? 'never' : 'auto');

async function seedStore(scenario: Scenario): Promise<void> {
  await withStore(join(folder, scenario), async (store) => {
    now = 'v1';
    if (scenario !== 'cut first') expect((await pullInto(store, name('now'))).error).toBeNull();
    now = 'v2';
    if (scenario === 'one') return;
    if (scenario !== 'previous') {
      // What is large is cut off after more than one frame, and then again and again.
      proxy.faults.push({ kind: 'cut', afterBytes: cutAfterBytes, arrived: () => spooled(store.root, scenario === 'cut delta' ? cutAfterBytes : plainFrameBytes) }, ...Array.from({ length: 400 }, (): Fault => ({ kind: 'cut', afterBytes: 0 })));
    }
    const { error } = await pullInto(store, name('now'), { delta: wayOf(scenario) });
    expect(error === null).toBe(scenario === 'previous');
    proxy.faults.length = 0;
  });
}

const kinds = ['flip', 'truncate', 'grow', 'empty', 'zeros', 'delete', 'swap', 'directory', 'symlink'] as const;
interface Rot {
  readonly kind: (typeof kinds)[number];
  /** What is struck, and where within it: places in what there is, whatever that may be. */
  readonly at: number;
  readonly where: number;
  /** Which part of the store; the many files of layers would leave the few others unharmed. */
  readonly below: 'layers' | 'images' | 'refs' | 'stages' | '';
  /** Only files whose paths match; there must be one. */
  readonly only?: RegExp;
}
const rot: fc.Arbitrary<Rot> = fc.record({ kind: fc.constantFrom(...kinds), at: fc.nat(), where: fc.nat(), below: fc.constantFrom('layers', 'layers', 'images', 'refs', 'stages', '') });
interface Script {
  readonly scenario: Scenario;
  readonly rots: readonly Rot[];
  readonly delta: 'auto' | 'never';
  /** What is pulled afterwards: a new name, or one that the store has. Both mean v2 by then. */
  readonly tag: string;
  /** What meets the rot first, after recovery; the others come after it. */
  readonly first: First;
}
const firsts = ['verify', 'rollback', 'pull'] as const;
type First = (typeof firsts)[number];
const script: fc.Arbitrary<Script> = fc.record({ scenario: fc.constantFrom(...scenarios), rots: fc.array(rot, { minLength: 1, maxLength: 3 }), delta: fc.constantFrom('auto' as const, 'never' as const), tag: fc.constantFrom('v2', 'now'), first: fc.constantFrom(...firsts) });

async function strike(root: string, { kind, at, where, below, only }: Rot): Promise<string> {
  const all = (await readdir(join(root, below), { recursive: true }).catch(() => [])).sort().map((path) => join(root, below, path)).filter((path) => only?.test(relative(root, path)) !== false);
  const path = all[at % Math.max(1, all.length)];
  if (path === undefined) {
    if (only !== undefined) throw new Error(`there is no file ${String(only)}`);
    return 'nothing there';
  }
  const facts = await lstat(path);
  const told = `${kind} ${relative(root, path)}`;
  if (kind === 'delete' || kind === 'directory' || kind === 'symlink' || !facts.isFile()) {
    await rm(path, { recursive: true, force: true });
    if (kind === 'directory') await mkdir(path);
    if (kind === 'symlink') await symlink(outside, path);
    return told;
  }
  const content = await readFile(path);
  await strikeContent(root, path, content, kind, where);
  // A disk that rots changes no times.
  await utimes(path, facts.atimeMs / 1000, facts.mtimeMs / 1000);
  if (only !== undefined && (await readFile(path)).equals(content)) throw new Error(`${told} changes nothing`);
  return told;
}

async function strikeContent(root: string, path: string, content: Buffer, kind: Rot['kind'], where: number): Promise<void> {
  const size = content.length;
  const place = size === 0 ? 0 : where % size;
  if (kind === 'flip' && size > 0) await overwrite(path, place, content.subarray(place, place + 1).map((byte) => byte ^ (1 << (where & 7))));
  if (kind === 'truncate') await truncate(path, place);
  if (kind === 'grow') await overwrite(path, size, Buffer.alloc(1 + (where % 5000), 0x61));
  if (kind === 'empty') await truncate(path, 0);
  if (kind === 'zeros') await overwrite(path, place, Buffer.alloc(Math.min(4096, size - place)));
  if (kind === 'swap') await writeFile(path, await otherContent(root, content, where));
}

/** What some other file of the store holds that is not the same. */
async function otherContent(root: string, content: Buffer, where: number): Promise<Buffer> {
  const all = (await readdir(root, { recursive: true })).sort();
  for (let tried = 0; tried < all.length; tried++) {
    const path = join(root, all[(where + tried) % all.length] ?? '');
    if (!(await lstat(path)).isFile()) continue;
    const other = await readFile(path);
    if (!other.equals(content)) return other;
  }
  return Buffer.alloc(0);
}

/** In place, as a disk rots: every hard link of the file has it. */
async function overwrite(path: string, at: number, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, at);
  await file.close();
}

/** An error that a person can act upon; anything else fails the test. */
function clear(error: unknown): null {
  if (!isWhittleError(error) || error.code === 'INTERNAL' || /\n/.test(error.message)) throw new Error(`no clear error: ${String(error)}`, { cause: error });
  return null;
}

/** Whether every layer of an image comes out of the store as it was published. */
async function isWhole(store: Store, image: MadeImage): Promise<boolean> {
  for (const { diffId } of image.layers) {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of store.layerTar(diffId)) chunks.push(chunk);
    } catch (error) {
      clear(error);
      return false;
    }
    if (digestOf(Buffer.concat(chunks)) !== diffId) throw new Error(`the store gave wrong bytes for ${diffId} without an error`);
  }
  return true;
}

const imageOf = (manifestDigest: string): MadeImage => (manifestDigest === registry.v1.manifestDigest ? registry.v1 : registry.v2);

/** Recovery, then what a device does, the chosen thing first; whether the pull succeeded. */
async function goOn(store: Store, { delta, tag, first }: Script, count: (what: string) => void): Promise<boolean> {
  let verified = false;
  let pulled = false;
  const verify = async (): Promise<void> => {
    const report = await store.verify().catch(clear);
    if (report === null) return;
    verified = true;
    // What verify passes, comes out right.
    const damaged = new Set(report.damagedLayers.map((layer) => layer.diffId));
    for (const image of await store.images()) {
      if (image.diffIds.every((diffId) => !damaged.has(diffId))) expect(await isWhole(store, imageOf(image.manifestDigest))).toBe(true);
    }
  };
  const rollBack = async (): Promise<void> => {
    const back = await store.rollback(name('now')).catch(clear);
    if (back === null) return;
    count('rolled back');
    expect(await isWhole(store, imageOf(back.current))).toBe(true);
  };
  const pull = async (): Promise<void> => {
    const { error, result } = await pullInto(store, name(tag), { delta, patience: { ...hurried, stallMs: 1000 } });
    pulled = error === null;
    if (error !== null) {
      count(`pull: ${isWhittleError(error) ? error.code : ''}`);
      clear(error);
      return;
    }
    count(result?.outcome === 'current' ? 'current' : 'pulled');
    expect(result?.image?.configDigest).toBe(registry.v2.configDigest);
    // Where the image was the current one already, only a verification before tells a pull what is damaged.
    if (verified || result?.outcome === 'committed') expect(await isWhole(store, registry.v2)).toBe(true);
  };
  const orders: Readonly<Record<First, readonly (() => Promise<void>)[]>> = { verify: [verify, rollBack, pull], rollback: [rollBack, verify, pull], pull: [pull, verify, rollBack, pull] };
  for (const step of orders[first]) await step();
  await repair(store);
  return pulled;
}

async function play(script: Script, tally: Map<string, number>): Promise<void> {
  const root = await mkdtemp(join(folder, 'device-'));
  const count = (what: string): void => { tally.set(what, (tally.get(what) ?? 0) + 1); };
  try {
    await runOk(['cp', '-a', `${join(folder, script.scenario)}/.`, root]);
    for (const each of script.rots) await strike(root, each);
    const pulled = await withStore(root, (store) => goOn(store, script, count)).catch((error: unknown) => {
      count(isWhittleError(error) ? `refused: ${error.code}` : 'refused');
      return clear(error);
    });
    if (pulled === null) return;
    // Recovery again, after all that: what was repaired stays so.
    await withStore(root, async (store) => {
      const report = await store.verify();
      if (pulled) {
        const wanted = new Set(registry.v2.layers.map((layer) => layer.diffId));
        expect(report.damagedLayers.filter((layer) => wanted.has(layer.diffId))).toEqual([]);
        expect((await store.resolve(name(script.tag)))?.configDigest).toBe(registry.v2.configDigest);
        expect(await isWhole(store, registry.v2)).toBe(true);
      }
    });
    expect(await readFile(outside, 'utf8')).toBe('not the store\'s');
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

/** What `device verify --repair` does. */
async function repair(store: Store): Promise<void> {
  const { damagedLayers } = await store.verify();
  for (const image of await store.images()) {
    const damaged = damagedLayers.map((layer) => layer.diffId).filter((diffId) => image.diffIds.includes(diffId));
    if (damaged.length === 0) continue;
    const source = registrySource(parseReference(name('v1')), null, {});
    try {
      await repairImage(store, source, image, damaged, { patience: hurried, limitRate: null, lockWaitMs: 0, onEvent: () => undefined, signal: new AbortController().signal });
      expect(await isWhole(store, imageOf(image.manifestDigest))).toBe(true);
    } finally {
      await source.close();
    }
  }
  expect((await store.verify()).damagedLayers).toEqual([]);
}

test(`${String(scripts)} scripts of rot: found before it is used, said clearly, repaired, and never activated`, async () => {
  const tally = new Map<string, number>();
  await fc.assert(fc.asyncProperty(script, (each) => play(each, tally)), { numRuns: scripts, seed, endOnFailure: true });
  console.log([...tally].sort((a, b) => b[1] - a[1]).map(([what, count]) => `${what} ${String(count)}`).join(', '));
  expect(tally.get('pulled')).toBeGreaterThan(scripts / 2);
  expect(tally.get('rolled back')).toBeGreaterThan(scripts / 50);
}, 400_000);

/** What a store keeps, by what it is there for; the stage is what a pull has instead of a journal. */
const parts: Readonly<Record<string, { readonly scenario: Scenario; readonly only: () => RegExp }>> = {
  'a basis file of the delta': { scenario: 'one', only: () => fileOf(registry.v1, 1, 'fs/app/data') },
  'the metadata of a basis layer': { scenario: 'one', only: () => fileOf(registry.v1, 1, 'meta') },
  'a committed layer that the next image shares': { scenario: 'one', only: () => fileOf(registry.v1, 0, 'fs/base') },
  'a committed layer of the current image': { scenario: 'previous', only: () => fileOf(registry.v2, 1, 'fs/app/data') },
  'the metadata of a committed layer': { scenario: 'previous', only: () => fileOf(registry.v2, 1, 'meta') },
  'a layer of the previous image': { scenario: 'previous', only: () => fileOf(registry.v1, 1, 'fs/app/data') },
  'an image record': { scenario: 'previous', only: () => /^images\/[0-9a-f]{64}$/ },
  'the reference, one slot': { scenario: 'previous', only: () => /^refs\/[0-9a-f]{64}\.a$/ },
  'the reference, the other slot': { scenario: 'previous', only: () => /^refs\/[0-9a-f]{64}\.b$/ },
  'a file of a layer that is whole in the stage of a cut pull': { scenario: 'cut first', only: () => stagedFile(0, 'fs/base') },
  'the metadata of a layer that is whole in the stage of a cut pull': { scenario: 'cut first', only: () => stagedFile(0, 'meta') },
  'a file of the layer in which a pull was cut': { scenario: 'cut layers', only: () => stagedFile(1, 'fs/lib/shared\\.so') },
  'a file of the layer in which a delta was cut, a link to the basis': { scenario: 'cut delta', only: () => stagedFile(1, 'fs/lib/shared\\.so') },
  'the record of a stage with a whole layer': { scenario: 'cut first', only: () => /^stages\/[0-9a-f]{64}\/stage$/ },
  'the spool of a layer that is whole in the stage': { scenario: 'cut first', only: () => new RegExp(`/spool/layer-sha256-${hexOf(registry.v2.layers[0]?.digest)}$`) },
  'the spool of the layer in which a first pull was cut': { scenario: 'cut first', only: () => new RegExp(`/spool/layer-sha256-${hexOf(registry.v2.layers[1]?.digest)}$`) },
  'the record of the stage': { scenario: 'cut delta', only: () => /^stages\/[0-9a-f]{64}\/stage$/ },
  'the spool of a delta': { scenario: 'cut delta', only: () => /\/spool\/data-/ },
  'the spool of a delta\'s index': { scenario: 'cut delta', only: () => /\/spool\/index-/ },
  'the spool of a layer': { scenario: 'cut layers', only: () => /\/spool\/layer-/ },
};

const hexOf = (digest: string | undefined): string => (digest ?? '').slice('sha256:'.length);
const stagedFile = (layer: number, path: string): RegExp => new RegExp(`^stages/[0-9a-f]{64}/layers/${hexOf(registry.v2.layers[layer]?.diffId)}/${path}$`);
const fileOf = (image: MadeImage, layer: number, path: string): RegExp => new RegExp(`^layers/${hexOf(image.layers[layer]?.diffId)}/${path}$`);

test.each(Object.keys(parts))('%s: flipped, truncated, deleted and replaced, met first by verify, rollback and pull, after recovery', async (part) => {
  const { scenario, only } = parts[part] ?? { scenario: 'one', only: () => /^$/ };
  const tally = new Map<string, number>();
  for (const [at, kind] of (['flip', 'truncate', 'delete', 'swap'] as const).entries()) {
    for (const first of firsts) {
      const script: Script = { scenario, rots: [{ kind, at, where: 10_007 * (at + 1), below: '', only: only() }], delta: wayOf(scenario), tag: 'v2', first };
      await play(script, tally).catch((error: unknown) => { throw new Error(`${part}, ${kind}, ${first} first: ${String(error)}`, { cause: error }); });
    }
  }
  // Nothing of this keeps a device from the image that it wants.
  expect(tally.get('pulled')).toBeGreaterThanOrEqual(12);
  expect([...tally.keys()].filter((what) => what.startsWith('refused'))).toEqual([]);
}, 120_000);

test('what a cut pull has left is what the next one goes on with: the rows above strike what is used', async () => {
  for (const scenario of ['cut delta', 'cut layers', 'cut first'] as const) {
    const root = await mkdtemp(join(folder, 'whole-'));
    await runOk(['cp', '-a', `${join(folder, scenario)}/.`, root]);
    const staged = new Map<string, number>();
    for (const path of await readdir(root, { recursive: true })) {
      const [, committed] = /^stages\/[0-9a-f]{64}\/(layers\/.*)$/.exec(path) ?? [];
      const facts = await lstat(join(root, path));
      if (committed !== undefined && facts.isFile() && facts.size > 0) staged.set(committed, facts.ino);
    }
    const before = proxy.requests.length;
    await withStore(root, async (store) => { expect((await pullInto(store, name('v2'), { delta: wayOf(scenario) })).error).toBeNull(); });
    const now = new Map<string, number>();
    for (const path of staged.keys()) now.set(path, (await lstat(join(root, path))).ino);
    expect({ scenario, now }).toEqual({ scenario, now: staged });
    expect(staged.size).toBeGreaterThan(0);
    // The download goes on, too.
    const ranges = proxy.requests.slice(before).filter(({ method, url }) => isLarge(method, url)).map(({ headers }) => headers.range);
    expect({ scenario, ranges }).toEqual({ scenario, ranges: [`bytes=${String(scenario === 'cut delta' ? cutAfterBytes : plainFrameBytes)}-`] });
    await rm(root, { recursive: true, force: true });
  }
}, 60_000);
