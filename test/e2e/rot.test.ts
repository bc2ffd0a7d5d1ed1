import { existsSync } from 'node:fs';
import { lstat, mkdir, mkdtemp, open, readdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { runOk } from '../../bench/process.js';
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

/**
 * Rot: files below a store's root are flipped, cut, grown, emptied, deleted and replaced by other things, and then the device
 * goes on: recovery, verify, pull, rollback, repair. WHITTLE_ROT_SCRIPTS and WHITTLE_SEED change how many and which.
 */
const scripts = Number(process.env['WHITTLE_ROT_SCRIPTS'] ?? 150);
const seed = Number(process.env['WHITTLE_SEED'] ?? 20_260_102);

let folder: string;
let outside: string;
let registry: MemoryRegistry;
let proxy: FlakyProxy;
/** What the tag `now` means. */
let now = 'v1';

/** Stores to be copied: one image; a name with a previous image; one image and a pull that was cut off, by delta and by layers. */
const scenarios = ['one', 'previous', 'cut delta', 'cut layers'] as const;
type Scenario = (typeof scenarios)[number];

beforeAll(async () => {
  folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'whittle-rot-'));
  outside = join(folder, 'outside');
  await writeFile(outside, 'not the store\'s');
  registry = await makeMemoryRegistry();
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

async function seedStore(scenario: Scenario): Promise<void> {
  await withStore(join(folder, scenario), async (store) => {
    now = 'v1';
    expect((await pullInto(store, name('now'))).error).toBeNull();
    now = 'v2';
    if (scenario === 'one') return;
    if (scenario !== 'previous') {
      // What is large is cut off again and again.
      proxy.faults.push({ kind: 'cut', afterBytes: 20_000 }, ...Array.from({ length: 400 }, (): Fault => ({ kind: 'cut', afterBytes: 0 })));
    }
    const { error } = await pullInto(store, name('now'), { delta: scenario === 'cut layers' ? 'never' : 'auto' });
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
}
const rot: fc.Arbitrary<Rot> = fc.record({ kind: fc.constantFrom(...kinds), at: fc.nat(), where: fc.nat(), below: fc.constantFrom('layers', 'layers', 'images', 'refs', 'stages', '') });
interface Script {
  readonly scenario: Scenario;
  readonly rots: readonly Rot[];
  readonly delta: 'auto' | 'never';
  /** What is pulled afterwards: a new name, or one that the store has. Both mean v2 by then. */
  readonly tag: string;
}
const script: fc.Arbitrary<Script> = fc.record({ scenario: fc.constantFrom(...scenarios), rots: fc.array(rot, { minLength: 1, maxLength: 3 }), delta: fc.constantFrom('auto' as const, 'never' as const), tag: fc.constantFrom('v2', 'now') });

async function strike(root: string, { kind, at, where, below }: Rot): Promise<string> {
  const all = (await readdir(join(root, below), { recursive: true }).catch(() => [])).sort().map((path) => join(root, below, path));
  const path = all[at % Math.max(1, all.length)];
  if (path === undefined) return 'nothing there';
  const facts = await lstat(path);
  const told = `${kind} ${relative(root, path)}`;
  if (kind === 'delete' || kind === 'directory' || kind === 'symlink' || !facts.isFile()) {
    await rm(path, { recursive: true, force: true });
    if (kind === 'directory') await mkdir(path);
    if (kind === 'symlink') await symlink(outside, path);
    return told;
  }
  const place = facts.size === 0 ? 0 : where % facts.size;
  if (kind === 'flip' && facts.size > 0) await overwrite(path, place, (await readFile(path)).subarray(place, place + 1).map((byte) => byte ^ (1 << (where & 7))));
  if (kind === 'truncate') await truncate(path, place);
  if (kind === 'grow') await overwrite(path, facts.size, Buffer.alloc(1 + (where % 5000), 0x61));
  if (kind === 'empty') await truncate(path, 0);
  if (kind === 'zeros') await overwrite(path, place, Buffer.alloc(Math.min(4096, facts.size - place)));
  if (kind === 'swap') {
    const other = all[where % all.length] ?? path;
    if ((await lstat(other).catch(() => facts)).isFile()) await writeFile(path, await readFile(other).catch(() => Buffer.alloc(0)));
  }
  return told;
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

async function play({ scenario, rots, delta, tag }: Script, tally: Map<string, number>): Promise<void> {
  const root = await mkdtemp(join(folder, 'device-'));
  const count = (what: string): void => { tally.set(what, (tally.get(what) ?? 0) + 1); };
  try {
    await runOk(['cp', '-a', `${join(folder, scenario)}/.`, root]);
    for (const each of rots) await strike(root, each);
    const opened = await withStore(root, async (store) => {
      const before = await store.verify().catch(clear);
      // What verify passes, comes out right.
      const damaged = new Set(before?.damagedLayers.map((layer) => layer.diffId));
      for (const image of await store.images()) {
        if (before !== null && image.diffIds.every((diffId) => !damaged.has(diffId))) expect(await isWhole(store, imageOf(image.manifestDigest))).toBe(true);
      }
      const back = await store.rollback(name('now')).catch(clear);
      if (back !== null) {
        count('rolled back');
        expect(await isWhole(store, imageOf(back.current))).toBe(true);
      }
      const { error, result } = await pullInto(store, name(tag), { delta, patience: { ...hurried, stallMs: 1000 } });
      if (error !== null) {
        count(`pull: ${isWhittleError(error) ? error.code : ''}`);
        clear(error);
      } else {
        count(result?.outcome === 'current' ? 'current' : 'pulled');
        expect(result?.image?.configDigest).toBe(registry.v2.configDigest);
        // Verification told the pull what was damaged, also where the image was the current one already.
        if (before !== null || result?.outcome === 'committed') expect(await isWhole(store, registry.v2)).toBe(true);
      }
      await repair(store);
      return error === null;
    }).catch((error: unknown) => {
      count(isWhittleError(error) ? `refused: ${error.code}` : 'refused');
      return clear(error);
    });
    if (opened === null) return;
    // Recovery again, after all that: what was repaired stays so.
    await withStore(root, async (store) => {
      const report = await store.verify();
      if (opened) {
        const wanted = new Set(registry.v2.layers.map((layer) => layer.diffId));
        expect(report.damagedLayers.filter((layer) => wanted.has(layer.diffId))).toEqual([]);
        expect((await store.resolve(name(tag)))?.configDigest).toBe(registry.v2.configDigest);
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
