import { setImmediate as nextTurn } from 'node:timers/promises';
import { fetchFrames } from '../../../src/applier/pull/fetch.js';
import { RateLimiter } from '../../../src/applier/pull/rate.js';
import { repairImage } from '../../../src/applier/pull/repair.js';
import { Spool } from '../../../src/applier/pull/spool.js';
import type { Stage, Store } from '../../../src/applier/store/types.js';
import { digestOf } from '../../support/images.js';
import { openOn, patience, pull, storeRoot } from './device.js';
import { Disk, lookUp, type DiskOp } from './disk.js';
import { Expecting, rottenFile, type Expectation } from './expect.js';
import type { Tag, World } from './fixtures.js';
import { Machine, type MachineOptions } from './machine.js';
import { Random } from './random.js';

/** What a scenario works with. */
export interface Stageplay {
  readonly world: World;
  readonly machine: Machine;
  readonly expecting: Expecting;
  readonly random: Random;
}

/** Something that a device does, from a disk on which everything is durable. */
export interface Scenario {
  readonly name: string;
  readonly options?: MachineOptions;
  /** The images pulled as `latest`, one after the other, before it begins; `other` is pulled under its own name. */
  readonly before: readonly Tag[];
  readonly rotten?: boolean;
  /** A layer was set aside when the power went. */
  readonly aside?: boolean;
  /** Mixes processes anew in each round. */
  readonly mixed?: boolean;
  run(play: Stageplay): Promise<void>;
}

/** A recorded scenario: the disk it began with and everything that happened. Marks are expectations. */
export interface Recording {
  readonly scenario: Scenario;
  readonly disk: Disk;
  readonly trace: readonly DiskOp[];
  /** What the run threw, when it was allowed to. */
  readonly error: unknown;
}

const open = async (play: Stageplay): Promise<Store> => {
  const store = await openOn(play.machine, true);
  play.expecting.set({ created: true });
  return store;
};

const updateTo = (tag: Tag, options: Parameters<typeof pull>[3] = {}) => async (play: Stageplay): Promise<void> => {
  const previous = play.expecting.now.refs['latest']?.[0]?.[0] ?? null;
  const store = await open(play);
  await play.expecting.becomes('latest', [tag, previous], () => pull(store, play.world, 'latest', { latest: tag, ...options }));
};

/** Over an image between, which is committed without a name and collected when the target is there. */
async function chain(play: Stageplay): Promise<void> {
  const store = await open(play);
  const { figures } = await play.expecting.becomes('latest', ['c3', 'c1'], () => pull(store, play.world, 'latest', { latest: 'c3' }));
  // A layer pull would be green for nothing.
  if (figures.downloadedBytes.layers > 0 || figures.deltaBytes === 0) throw new Error('the chain was not followed');
  if ((await store.images()).length !== 2) throw new Error('the image between is still there');
}

async function resumedChain(play: Stageplay): Promise<void> {
  const first = await open(play);
  await play.expecting.becomes('latest', ['c3', 'c1'], async () => {
    const cutAfterBytes = 300 + play.random.below(2500);
    if (!(await pull(first, play.world, 'latest', { latest: 'c3', cutAfterBytes }).then(() => false, () => true))) return;
    await first.close();
    await pull(await open(play), play.world, 'latest', { latest: 'c3' });
  });
}

async function resumed(play: Stageplay): Promise<void> {
  const first = await open(play);
  await play.expecting.becomes('latest', ['v2', 'v1'], async () => {
    for (const cutAfterBytes of [1200, 4200]) {
      const cut = await pull(first, play.world, 'latest', { cutAfterBytes, delta: play.random.chance(0.5) ? 'auto' : 'never' }).then(() => false, () => true);
      if (!cut) return;
    }
    await first.close();
    await pull(await open(play), play.world);
  });
}

async function twoAtOnce(play: Stageplay): Promise<void> {
  const [one, two] = [await open(play), await openOn(play.machine, true)];
  await Promise.all([
    play.expecting.becomes('latest', ['v2', 'v1'], () => pull(one, play.world)),
    play.expecting.becomes('other', ['other', null], () => pull(two, play.world, 'other')),
  ]);
}

async function sameTwice(play: Stageplay): Promise<void> {
  const [one, two] = [await open(play), await openOn(play.machine, true)];
  await play.expecting.becomes('latest', ['v2', 'v1'], () => Promise.all([pull(one, play.world), pull(two, play.world, 'latest', { delta: 'never' })]));
}

async function rollBack(play: Stageplay): Promise<void> {
  const store = await open(play);
  const name = (await store.references())[0]?.name ?? '';
  await play.expecting.becomes('latest', ['v1', 'v2'], () => store.rollback(name));
  await play.expecting.becomes('latest', ['v2', 'v1'], () => store.rollback(name));
}

async function removeAndCollect(play: Stageplay): Promise<void> {
  const store = await open(play);
  const name = (await store.references()).find((each) => each.name.endsWith(':latest'))?.name ?? '';
  await play.expecting.becomes('latest', null, () => store.removeReference(name));
  await store.gc({ stageMaxAgeMs: 0 });
}

async function collect(play: Stageplay): Promise<void> {
  const store = await open(play);
  const left = await store.stage(play.world.other.target);
  await left.close();
  await store.gc({ stageMaxAgeMs: 0 });
}

async function repair(play: Stageplay): Promise<void> {
  const store = await open(play);
  const image = (await store.images())[0];
  const damaged = (await store.verify()).damagedLayers.map((layer) => layer.diffId);
  if (image === undefined || damaged.length !== 1) throw new Error('nothing to repair');
  await repairImage(store, play.world.source(), image, damaged, { patience, limitRate: null, lockWaitMs: 0, onEvent: () => undefined, signal: new AbortController().signal });
  play.expecting.set({ rotten: false });
}

/** The download alone, frame by frame: what was received is there after a cut. */
async function fetchOnly(play: Stageplay): Promise<void> {
  const { world, machine } = play;
  const store = await open(play);
  const stage = await store.stage(world.v2.target);
  const spool = await Spool.open(store.fs, stage.spool.path, 'data', world.delta.frames);
  const descriptor = { mediaType: 'application/octet-stream', digest: digestOf(world.delta.data), size: world.delta.data.length };
  let frames = 0;
  const abort = new AbortController();
  for await (const frame of fetchFrames({ source: world.source().blob(descriptor), spool, limiter: new RateLimiter(null), patience, signal: abort.signal })) {
    if (frame.length > 0) frames++;
    // What was appended is durable, also where the reader lags behind.
    play.expecting.set({ spooledFrames: frames });
  }
  await spool.close();
  await stage.close();
  if (machine.trace.length === 0 || frames < 2) throw new Error('too few frames');
}

/** Layers that were checkpointed are found again: their downloads are deleted then. */
async function checkpoints(play: Stageplay): Promise<void> {
  const store = await open(play);
  const stage: Stage = await store.stage(play.world.v2.target);
  for (const [layer, made] of play.world.v2.made.layers.entries()) {
    await stage.writeLayerTar(layer, pieces(made.tar));
    await stage.checkpoint();
    play.expecting.set({ staged: { tag: 'v2', layers: Array.from({ length: layer + 1 }, (_, at) => at) } });
  }
  await stage.close();
}

async function* pieces(bytes: Buffer): AsyncGenerator<Buffer, void, undefined> {
  for (let at = 0; at < bytes.length; at += 4000) yield await Promise.resolve(bytes.subarray(at, at + 4000));
}

const noExchange: MachineOptions = { exchange: false };

/** Everything that the campaign does to a device. */
export const scenarios: readonly Scenario[] = [
  { name: 'first pull', before: [], run: updateTo('v1') },
  { name: 'full pull', before: ['v1'], run: updateTo('v2', { delta: 'never' }) },
  { name: 'delta pull', before: ['v1'], run: updateTo('v2') },
  { name: 'delta pull, no reflinks', before: ['v1'], options: { reflink: false }, run: updateTo('v2') },
  { name: 'pull of a large file', before: ['v1'], run: updateTo('large') },
  { name: 'pull of an older image', before: ['v1', 'v2'], run: updateTo('v1') },
  { name: 'resumed pull', before: ['v1'], mixed: true, run: resumed },
  { name: 'two pulls at once', before: ['v1'], mixed: true, run: twoAtOnce },
  { name: 'one image pulled twice at once', before: ['v1'], mixed: true, run: sameTwice },
  { name: 'pull over a chain of deltas', before: ['c1'], run: chain },
  { name: 'resumed pull over a chain', before: ['c1'], mixed: true, run: resumedChain },
  { name: 'rollback', before: ['v1', 'v2'], run: rollBack },
  { name: 'removal and collection', before: ['v1', 'v2', 'other'], run: removeAndCollect },
  { name: 'collection', before: ['v1', 'v2', 'large'], run: collect },
  { name: 'repair', before: ['v1'], rotten: true, run: repair },
  { name: 'repair, no exchange', before: ['v1'], rotten: true, options: noExchange, run: repair },
  { name: 'recovery of a layer that was set aside', before: ['v1'], aside: true, run: async (play) => { await open(play); } },
  { name: 'download', before: [], run: fetchOnly },
  { name: 'checkpoints', before: [], run: checkpoints },
];

/** A disk on which these images were pulled, all durable. */
async function diskWith(world: World, { before: tags, rotten = false, aside = false }: Scenario): Promise<{ disk: Disk; expectation: Expectation }> {
  const machine = new Machine(new Disk());
  const refs: Record<string, readonly (readonly [Tag, Tag | null])[]> = {};
  if (tags.length > 0) {
    const store = await openOn(machine, true);
    let previous: Tag | null = null;
    for (const tag of tags) {
      const name = tag === 'other' ? 'other' : 'latest';
      await pull(store, world, name, { latest: tag });
      refs[name] = [[tag, name === 'latest' ? previous : null]];
      if (name === 'latest') previous = tag;
    }
    await store.close();
  }
  if (rotten) rot(machine.disk, world);
  if (aside) setAside(machine.disk, world);
  return { disk: machine.disk, expectation: { created: tags.length > 0, refs, rotten } };
}

/** As a cut leaves it where names cannot be swapped. */
function setAside(disk: Disk, world: World): void {
  const hex = world.v1.made.layers[1]?.diffId.slice(7) ?? '';
  const layers = lookUp(disk, `${storeRoot}/layers`);
  const layer = layers?.inode.entries.get(hex);
  if (layers === undefined || layer === undefined) throw new Error('nothing to set aside');
  disk.setNames([{ dir: layers.ino, name: hex, ino: null }, { dir: layers.ino, name: `${hex}.old`, ino: layer }]);
}

/** Flash forgets: one file's bytes change, with nobody writing. */
function rot(disk: Disk, world: World): void {
  const hex = world.v1.made.layers[1]?.diffId.slice(7) ?? '';
  const found = lookUp(disk, `${storeRoot}/layers/${hex}/fs/${rottenFile}`);
  if (found === undefined) throw new Error('nothing to rot');
  disk.setContent(found.ino, Buffer.concat([Buffer.from('rotten'), found.inode.content.subarray(6)]));
}

const starts = new WeakMap<World, Map<string, Promise<{ disk: Disk; expectation: Expectation }>>>();

/** The disk that a scenario begins with; made once. */
function startOf(world: World, scenario: Scenario): Promise<{ disk: Disk; expectation: Expectation }> {
  const known = starts.get(world) ?? new Map<string, Promise<{ disk: Disk; expectation: Expectation }>>();
  starts.set(world, known);
  const key = JSON.stringify([scenario.before, scenario.rotten, scenario.aside]);
  const start = known.get(key) ?? diskWith(world, scenario);
  known.set(key, start);
  return start;
}

/** Runs a scenario once and keeps what it did. `more` is added to its machine. What it throws is kept when `mayFail`, else thrown. */
export async function record(world: World, scenario: Scenario, seed: number, more: MachineOptions = {}, mayFail = false): Promise<Recording & { machine: Machine }> {
  const { disk, expectation } = await startOf(world, scenario);
  const random = new Random(seed);
  const mixing: MachineOptions = scenario.mixed === true ? { pause: () => (random.chance(0.2) ? nextTurn(undefined) : null) } : {};
  const machine = new Machine(disk.clone(), { ...scenario.options, ...mixing, ...more });
  const expecting = new Expecting(expectation, (now) => { machine.mark(now); });
  let error: unknown = null;
  try {
    await scenario.run({ world, machine, expecting, random });
  } catch (thrown) {
    if (!mayFail) throw thrown;
    error = thrown;
  }
  return { scenario, disk, trace: machine.trace, error, machine };
}
