import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Barrier } from '../../../src/atomic/index.js';
import type { CampaignOptions, CampaignRow } from '../campaign.js';
import { checkState, type Verdict } from './check.js';
import { CrashPlanner, shrink, type CrashState } from './crash.js';
import { fingerprint, type Disk, type DiskOp } from './disk.js';
import type { Expectation } from './expect.js';
import type { World } from './fixtures.js';
import type { MachineOptions } from './machine.js';
import { Random, seedOf } from './random.js';
import { dumpState } from './replay.js';
import { record, type Recording, type Scenario } from './scenarios.js';

const inFlight = 8;
const shrinkTries = 200;
/** Failures that are shrunk and told; the rest is only counted. */
const maxTold = 10;
const deepest = 3;

const depthNames = ['', '', 'second cut, within recovery', 'third cut, within that recovery'];

/** Counts by fault class, in the order of their first appearance. */
export class Tally {
  readonly #rows = new Map<string, { states: number; violations: number }>();

  add(faultClass: string, violated: boolean): void {
    const row = this.#rows.get(faultClass) ?? { states: 0, violations: 0 };
    row.states++;
    if (violated) row.violations++;
    this.#rows.set(faultClass, row);
  }

  get rows(): CampaignRow[] {
    return [...this.#rows].map(([faultClass, row]) => ({ faultClass, ...row }));
  }

  get states(): number {
    return this.rows.reduce((sum, row) => sum + row.states, 0);
  }
}

/** What a campaign needs to know of where a state comes from. */
interface Origin {
  readonly scenario: Scenario;
  readonly faultClass: string;
  readonly depth: number;
  readonly expectation: Expectation;
  readonly machine: MachineOptions;
  /** Number of the last operation before the cut. */
  readonly cut: number;
  /** The planner as it was at the cut. */
  readonly planner: () => CrashPlanner;
}

export interface HuntOptions extends CampaignOptions {
  readonly world: World;
  readonly tally: Tally;
  /** A barrier that does nothing, on the machine that is cut and on the one that boots again. */
  readonly broken?: Barrier;
  readonly lies?: boolean;
  /** Ends at the first violation. */
  readonly firstOnly?: boolean;
  /** Of how many states one is pulled from; default 25. */
  readonly pullEvery?: number;
}

/** Where a cut makes a difference: after a change, and once more is promised. */
function isCut(op: DiskOp | undefined): boolean {
  return op !== undefined && ['names', 'data', 'size', 'attr', 'mark'].includes(op.op);
}

function hashKey(text: string): string {
  return createHash('sha1').update(text).digest('base64');
}

function plannerAt(disk: Disk, trace: readonly DiskOp[], cut: number, lies = false): CrashPlanner {
  const planner = new CrashPlanner(disk, lies);
  for (const op of trace.slice(0, cut + 1)) planner.follow(op);
  return planner;
}

/** Builds and checks crash states of recorded scenarios. */
export class Hunt {
  readonly #seen = new Set<string>();
  readonly #running = new Set<Promise<void>>();
  #told = 0;
  #failure: Error | null = null;
  first: string | null = null;

  constructor(private readonly options: HuntOptions) {}

  /** Whether it is time to stop. */
  get over(): boolean {
    return this.options.signal.aborted || this.#failure !== null || (this.options.firstOnly === true && this.first !== null);
  }

  /** States of `scenario`: about `count` of them, fewer when there are no more. */
  async scenario(scenario: Scenario, count: number): Promise<void> {
    const target = this.options.tally.states + count;
    let recording: Recording | null = null;
    for (let round = 0; round < 200 && this.options.tally.states < target && !this.over; round++) {
      const seed = seedOf(this.options.seed, `${scenario.name}/${String(round)}`);
      // A process alone does the same each time; several are mixed anew.
      if (recording === null || scenario.mixed === true) recording = await record(this.options.world, scenario, seed, this.#machine(scenario), this.options.broken !== undefined);
      const before = this.options.tally.states;
      await this.#cutAll(recording, target, new Random(seed));
      if (this.options.tally.states === before) break;
    }
  }

  #machine(scenario: Scenario): MachineOptions {
    return { ...scenario.options, ...(this.options.broken === undefined ? {} : { without: new Set([this.options.broken]) }) };
  }

  async #cutAll(recording: Recording, target: number, random: Random): Promise<void> {
    const { scenario, trace } = recording;
    const planner = new CrashPlanner(recording.disk, this.options.lies);
    const cuts = trace.filter(isCut).length;
    const perCut = Math.min(400, Math.max(4, Math.ceil((target - this.options.tally.states) / cuts / 2)));
    let expectation: Expectation = { created: false, refs: {} };
    for (const [cut, op] of trace.entries()) {
      planner.follow(op);
      if (op.op === 'mark') expectation = op.note as Expectation;
      if (!isCut(op)) continue;
      const again = (): CrashPlanner => plannerAt(recording.disk, trace, cut, this.options.lies);
      const origin = { scenario, faultClass: this.options.lies === true ? 'a disk that lies' : scenario.name, depth: 1, expectation, machine: this.#machine(scenario), cut, planner: again };
      await this.#statesOf(planner, perCut, random, origin);
      if (this.over || this.options.tally.states >= target) break;
    }
    await this.settle();
  }

  async #statesOf(planner: CrashPlanner, count: number, random: Random, origin: Origin): Promise<void> {
    for (const state of planner.states(count, random)) {
      if (this.over) return;
      const key = `${origin.scenario.name}\n${JSON.stringify(origin.expectation)}\n${fingerprint(state.disk)}`;
      const short = hashKey(key);
      if (this.#seen.has(short)) continue;
      this.#seen.add(short);
      while (this.#running.size >= inFlight) await Promise.race(this.#running);
      this.#start(this.#check(state, origin, random.seed()));
    }
  }

  #start(work: Promise<void>): void {
    const running: Promise<void> = work.catch((error: unknown) => { this.#failure ??= error instanceof Error ? error : new Error(String(error)); }).finally(() => { this.#running.delete(running); });
    this.#running.add(running);
  }

  /** Waits for the checks under way. Throws what the harness itself stumbled over. */
  async settle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
    if (this.#failure !== null) throw this.#failure;
  }

  async #check(state: CrashState, origin: Origin, seed: number): Promise<void> {
    const random = new Random(seed);
    const { tally, world, lies } = this.options;
    const withPull = random.below(this.options.pullEvery ?? 40) === 0;
    const verdict = await checkState(world, state.disk, origin.expectation, { machine: origin.machine, pull: withPull, ...(lies === true ? { lied: true } : {}) });
    tally.add(origin.faultClass, verdict.violations.length > 0);
    this.options.onProgress(tally.states, this.options.states, 'states');
    if (verdict.violations.length > 0) await this.#tell(state, origin, verdict);
    else if (lies !== true) await this.#cutAgain(state, origin, verdict, random);
  }

  /** Cuts the power again while the machine recovers, or pulls. */
  async #cutAgain(state: CrashState, origin: Origin, verdict: Verdict, random: Random): Promise<void> {
    if (origin.depth < deepest && verdict.recovery.some(isCut) && random.chance(0.5)) {
      await this.#cutWithin(state.disk, verdict.recovery, { ...origin, depth: origin.depth + 1, faultClass: depthNames[origin.depth + 1] ?? '' }, random, 2);
    }
    if (verdict.pulled.some(isCut) && origin.depth < deepest) {
      await this.#cutWithin(state.disk, [...verdict.recovery, ...verdict.pulled], { ...origin, depth: deepest, faultClass: 'cut within the pull after a cut' }, random, 4);
    }
  }

  async #cutWithin(disk: Disk, trace: readonly DiskOp[], origin: Origin, random: Random, count: number): Promise<void> {
    const cuts = [...trace.keys()].filter((at) => isCut(trace[at]));
    for (let drawn = 0; drawn < count && !this.over; drawn++) {
      const cut = cuts[random.below(cuts.length)] ?? 0;
      const planner = (): CrashPlanner => plannerAt(disk, trace, cut, this.options.lies);
      let { expectation } = origin;
      for (const op of trace.slice(0, cut + 1)) if (op.op === 'mark') expectation = op.note as Expectation;
      const [state] = planner().states(1, random);
      if (state === undefined) continue;
      const short = hashKey(`${origin.scenario.name}\n${JSON.stringify(expectation)}\n${fingerprint(state.disk)}`);
      if (this.#seen.has(short)) continue;
      this.#seen.add(short);
      await this.#check(state, { ...origin, expectation, planner, cut }, random.seed());
    }
  }

  /** Shrinks what was lost, writes the state down, and tells. */
  async #tell(state: CrashState, origin: Origin, verdict: Verdict): Promise<void> {
    const what = verdict.violations[0] ?? '';
    this.first ??= `${origin.scenario.name}: ${what}`;
    if (this.options.firstOnly === true || this.#told >= maxTold) return;
    const number = ++this.#told;
    const { world, lies } = this.options;
    const check = (disk: Disk): Promise<Verdict> => checkState(world, disk, origin.expectation, { machine: origin.machine, pull: false, ...(lies === true ? { lied: true } : {}) });
    const small = await shrink(origin.planner(), state.choice, async (each) => (await check(each.disk)).violations.length > 0, shrinkTries);
    const lines = origin.planner().describe(small.choice);
    await mkdir(this.options.reportDir, { recursive: true });
    const file = join(this.options.reportDir, `sim-${String(this.options.seed)}-${String(number)}.json`);
    await writeFile(file, dumpState(small.disk, origin.expectation, origin.machine, { scenario: origin.scenario.name, cut: origin.cut, violations: verdict.violations, lost: lines, lied: lies === true }));
    this.options.onMessage([
      `VIOLATION (${origin.faultClass}; scenario "${origin.scenario.name}", seed ${String(this.options.seed)}, cut after operation ${String(origin.cut)}):`,
      ...verdict.violations.slice(0, 5).map((line) => `  ${line}`), '  what was lost, no more than it takes:', ...lines.slice(0, 20).map((line) => `    ${line}`),
      `  again: npm run test:powercut -- --harness sim --replay ${file}`,
    ].join('\n'));
  }
}
