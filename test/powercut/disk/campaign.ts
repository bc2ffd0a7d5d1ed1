import { join } from 'node:path';
import { BlockDevice, BlockDeviceError } from './block-device.js';
import { checkStore, pullNext, type Expectation } from './check-state.js';
import { below, crashStates, describeState, isTornWithinBlocks, piecesOf, seeded, type CrashState, type Random } from './crash-states.js';
import type { Filesystem } from './filesystems.js';
import { makeWorld, type World } from './fixtures.js';
import { recordScenarios, type Names, type Recorded, type Wrapper } from './scenarios.js';

/** What a run of the harness is to do. */
export interface DiskOptions {
  /** Crash states in all, over filesystems and scenarios, cuts within recoveries included; some more or fewer are checked. */
  readonly states: number;
  readonly seed: number;
  readonly filesystems: readonly Filesystem[];
  /** Names of scenarios; undefined: all. */
  readonly scenarios?: readonly string[] | undefined;
  /** Stop at the first violation of each recording. */
  readonly stopAtFirst?: boolean;
  /** Runs the program under something else while it is recorded. */
  readonly wrapper?: Wrapper;
  readonly onProgress?: (done: number, total: number, label: string) => void;
  readonly onMessage?: (text: string) => void;
  readonly signal?: AbortSignal | undefined;
}

/** A state that the filesystem refused to mount. */
export interface Unmountable {
  /** In words that are the same for the same reason. */
  readonly reason: string;
  /** Whether in it, or in one before it, a write is torn within 4 KiB. */
  readonly isTorn: boolean;
}

/** What came of one filesystem's crash states of one scenario. */
export interface DiskResult {
  readonly filesystem: string;
  readonly scenario: string;
  /** States that were mounted, recovered and checked, those within recoveries included. */
  readonly states: number;
  /** Of these, states of a cut within the recovery from another cut. */
  readonly secondCuts: number;
  /** Of these, states from which the next pull was made. */
  readonly nextPulls: number;
  readonly violations: readonly string[];
  /** The states that the filesystem itself refused to mount. */
  readonly unmountable: readonly Unmountable[];
  /** Bytes and writes that the device received during the scenario, and its flushes. */
  readonly writtenBytes: number;
  readonly writes: number;
  readonly flushes: number;
  /** Time spent on its states. */
  readonly elapsedMs: number;
}

/** From one in how many states the next pull is made; of how many the recovery is cut again. */
const pullEvery = 12;
const cutAgainEvery = 6;
/** In one of how many states a second recovery follows the first. */
const recoverTwiceEvery = 4;
/** Cuts within cuts. */
const maxDepth = 3;
/** Tries to make a failing state simpler. */
const maxSimplifications = 40;

/** Mutable tally of one recording. */
interface Tally {
  states: number;
  secondCuts: number;
  nextPulls: number;
  unmountable: Unmountable[];
  violations: string[];
}

/** The kernel's first complaint, without names of devices and numbers. */
function reasonOf({ errno, kernel }: BlockDeviceError): string {
  const complaint = kernel.find((text) => /invalid|mismatch|corrupt|error/i.test(text)) ?? kernel.at(-1) ?? '';
  return `errno ${String(errno)}, "${complaint.replaceAll(/\bloop\d+\b|\b0x[0-9a-f]+\b/g, '#').trim()}"`;
}

/** One filesystem with its disk: makes states and checks them, one after the other. */
class StateRunner {
  readonly #root: string;
  /** Whether in the state that the disk was brought to, or one before it, a write is torn within 4 KiB. */
  #isTorn = false;

  constructor(private readonly disk: BlockDevice, private readonly world: World, private readonly options: DiskOptions) {
    this.#root = join(disk.mountPoint, 'store');
  }

  async run(recorded: Recorded, count: number, onStates: (count: number) => void): Promise<DiskResult> {
    const startedMs = performance.now();
    const random = seeded(hashOf(`${String(this.options.seed)}/${recorded.name}`));
    const tally: Tally = { states: 0, secondCuts: 0, nextPulls: 0, unmountable: [], violations: [] };
    for (const state of crashStates(recorded.log, count, random)) {
      if (this.options.signal?.aborted === true || tally.states >= count || (tally.violations.length > 0 && this.options.stopAtFirst === true)) break;
      const thenPull = below(random, pullEvery) === 0;
      const again = !thenPull && below(random, cutAgainEvery) === 0;
      const before = tally.states;
      const problems = await this.#check(recorded, state, tally, thenPull, again ? 1 : 0, random);
      if (problems.length > 0) tally.violations.push(await this.#report(recorded, state, problems));
      onStates(tally.states - before);
    }
    const [filesystem = '', scenario = ''] = recorded.name.split('/');
    const writes = recorded.log.filter((entry) => entry.kind === 'write');
    return {
      filesystem, scenario, ...tally, elapsedMs: performance.now() - startedMs, writes: writes.length,
      writtenBytes: writes.reduce((sum, entry) => sum + entry.length, 0), flushes: recorded.log.filter((entry) => entry.kind === 'flush').length,
    };
  }

  /** Makes the state and checks what recovery makes of it; then, where asked, cuts the power within that recovery. */
  async #check(recorded: Recorded, state: CrashState, tally: Tally | null, thenPull: boolean, depth: number, random: Random): Promise<string[]> {
    const { count, pieces } = piecesOf(recorded.log, state);
    await this.disk.become(recorded.name, count, pieces);
    this.#isTorn = isTornWithinBlocks(recorded.log, state);
    const said = recorded.saidAt >= 0 && recorded.saidAt < state.cut;
    const names: Names[] = said ? [recorded.after] : [recorded.before, recorded.after];
    return this.#recover(recorded.filesystem, { names, damaged: said ? null : recorded.damaged }, tally, thenPull, depth, random);
  }

  async #recover(filesystem: Filesystem, expected: Expectation, tally: Tally | null, thenPull: boolean, depth: number, random: Random): Promise<string[]> {
    const recording = `${filesystem.name}/recovery-${String(depth)}`;
    if (depth > 0) await this.disk.record(recording);
    try {
      await this.disk.mount(filesystem.type, filesystem.options);
    } catch (error) {
      // EUCLEAN from our own reading back is a fault of the harness, not of the filesystem.
      if (!(error instanceof BlockDeviceError) || !error.message.startsWith('mount ')) throw error;
      const reason = reasonOf(error);
      tally?.unmountable.push({ reason, isTorn: this.#isTorn });
      this.options.onMessage?.(`${filesystem.name}: a state could not be mounted: ${reason}`);
      return [];
    }
    let problems: string[];
    try {
      problems = await checkStore(this.#root, this.world, expected, below(random, recoverTwiceEvery) === 0);
      if (problems.length === 0 && thenPull) {
        if (tally !== null) tally.nextPulls++;
        problems = await pullNext(this.#root, this.world, below(random, this.world.versions.length), expected.damaged);
      }
    } finally {
      await this.disk.unmount();
    }
    if (tally !== null) tally.states++;
    if (depth === 0) return problems;
    await this.disk.stop();
    return problems.length > 0 ? problems : this.#cutAgain(filesystem, recording, expected, tally, depth, random);
  }

  /** A cut within the recovery that was recorded: what it leaves must hold, too. */
  async #cutAgain(filesystem: Filesystem, recording: string, expected: Expectation, tally: Tally | null, depth: number, random: Random): Promise<string[]> {
    const log = await this.disk.log(recording);
    const wasTorn = this.#isTorn;
    for (const state of crashStates(log, 2, random)) {
      const { count, pieces } = piecesOf(log, state);
      await this.disk.become(recording, count, pieces);
      this.#isTorn = wasTorn || isTornWithinBlocks(log, state);
      if (tally !== null) tally.secondCuts++;
      const problems = await this.#recover(filesystem, expected, tally, false, depth < maxDepth && random() < 0.5 ? depth + 1 : 0, random);
      if (problems.length > 0) return problems.map((problem) => `after a cut within recovery (${describeState(log, state)}): ${problem}`);
    }
    await this.disk.forget(recording);
    return [];
  }

  /** The violation in words, with as few lost writes as still show it. */
  async #report(recorded: Recorded, state: CrashState, problems: readonly string[]): Promise<string> {
    let simple = state;
    let shown = problems;
    for (let at = 0, tries = 0; at < simple.losses.length && tries < maxSimplifications; tries++) {
      const fewer = { ...simple, losses: simple.losses.filter((_, index) => index !== at) };
      const still = await this.#check(recorded, fewer, null, false, 0, () => 0);
      if (still.length === 0) at++;
      else [simple, shown] = [fewer, still];
    }
    const entry = recorded.log[state.cut - 1];
    return [
      `${recorded.name}, seed ${String(this.options.seed)}: ${shown[0] ?? problems[0] ?? ''}`,
      `  ${describeState(recorded.log, simple)}; the last entry before the cut is a ${entry?.kind ?? 'beginning'}`,
      ...shown.slice(1, 5).map((problem) => `  ${problem}`),
    ].join('\n');
  }
}

/** A number from a text (FNV-1a, 32 bits). */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

/**
 * Records the scenarios on each filesystem and checks crash states of them. What is recorded depends on the scheduling of this very
 * run; which states are drawn from it depends on the seed alone. Throws only when the harness itself fails.
 */
export async function runDisks(options: DiskOptions): Promise<DiskResult[]> {
  const world = await makeWorld();
  const results: DiskResult[] = [];
  const failure = new AbortController();
  const signal = AbortSignal.any([failure.signal, ...(options.signal === undefined ? [] : [options.signal])]);
  let done = 0;
  try {
    // All disks at once: a mount waits for its device and for the kernel longer than anything is computed. None is left running when one fails.
    const outcomes = await Promise.allSettled(options.filesystems.map(async (filesystem) => {
      try {
        results.push(...(await runFilesystem(filesystem, world, { ...options, signal }, (count, label) => { done += count; options.onProgress?.(Math.min(done, options.states), options.states, label); })));
      } catch (error) {
        failure.abort();
        throw error;
      }
    }));
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  } finally {
    await world.close();
  }
  const order = options.filesystems.map(({ name }) => name);
  return results.sort((a, b) => order.indexOf(a.filesystem) - order.indexOf(b.filesystem));
}

async function runFilesystem(filesystem: Filesystem, world: World, options: DiskOptions, onStates: (count: number, label: string) => void): Promise<DiskResult[]> {
  const disk = await BlockDevice.start(filesystem.sizeBytes);
  const results: DiskResult[] = [];
  try {
    const recordings = await recordScenarios(disk, filesystem, world, { ...(options.scenarios === undefined ? {} : { recordOnly: options.scenarios }), wrapper: options.wrapper ?? [] });
    const runner = new StateRunner(disk, world, options);
    // What a short recording has not states enough for goes to those after it; the last one is long.
    let left = Math.ceil(options.states / options.filesystems.length);
    for (const [at, recorded] of recordings.entries()) {
      const share = Math.max(1, Math.ceil(left / (recordings.length - at)));
      const result = await runner.run(recorded, share, (count) => { onStates(count, recorded.name); });
      left -= result.states;
      for (const violation of result.violations) options.onMessage?.(violation);
      results.push(result);
      await disk.forget(recorded.name);
    }
  } finally {
    await disk.close();
  }
  return results;
}
