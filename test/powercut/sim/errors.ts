import { isWhittleError } from '../../../src/core/errors.js';
import type { CampaignOptions } from '../campaign.js';
import type { Tally } from './campaign.js';
import { checkState } from './check.js';
import { CrashPlanner } from './crash.js';
import { storeRoot } from './device.js';
import { lookUp, type Disk, type DiskOp } from './disk.js';
import type { Expectation } from './expect.js';
import type { World } from './fixtures.js';
import type { Call, Machine, MachineOptions } from './machine.js';
import { Random, seedOf } from './random.js';
import { record, scenarios, type Recording, type Scenario } from './scenarios.js';

/** Which calls fail from the chosen one on. */
interface DiskError {
  readonly code: string;
  readonly name: string;
  /** Whether a call after the first failing one fails too. */
  lasts(call: Call): boolean;
}

const takesSpace = (call: Call): boolean => ['make', 'write', 'attributes'].includes(call.kind);

const diskErrors: readonly DiskError[] = [
  { code: 'EIO', name: 'EIO, once', lasts: () => false },
  { code: 'ENOSPC', name: 'ENOSPC, short writes', lasts: takesSpace },
  { code: 'EDQUOT', name: 'EDQUOT, short writes', lasts: takesSpace },
  { code: 'EROFS', name: 'EROFS', lasts: () => true },
];

/** Pulls and repairs, whose every step may meet a broken disk. */
const struck = scenarios.filter((each) => ['first pull', 'full pull', 'delta pull', 'rollback', 'collection', 'repair', 'checkpoints', 'download'].includes(each.name));

export interface ErrorRunOptions extends CampaignOptions {
  readonly world: World;
  readonly tally: Tally;
}

/** Lets a disk refuse at every step of a scenario, or at a sample of about `count` of all steps; after each, the store and what a cut then leaves are checked. */
export async function strikeAll(options: ErrorRunOptions, count: number): Promise<void> {
  const random = new Random(seedOf(options.seed, 'disk errors'));
  const points: { scenario: Scenario; error: DiskError; at: number }[] = [];
  for (const scenario of struck) {
    const { machine } = await record(options.world, scenario, options.seed);
    for (const error of diskErrors) for (let at = 0; at < machine.calls; at++) points.push({ scenario, error, at });
  }
  // All kinds alike when there is time for some only.
  const drawn = points.map((point) => ({ point, key: random.next() })).sort((a, b) => a.key - b.key).slice(0, Math.ceil(count / 3));
  for (const [done, { point }] of drawn.entries()) {
    if (options.signal.aborted) return;
    options.onProgress(done, drawn.length, 'disk errors');
    await strike(options, point.scenario, point.error, point.at, random);
  }
}

async function strike(options: ErrorRunOptions, scenario: Scenario, error: DiskError, at: number, random: Random): Promise<void> {
  const struckCalls: Call[] = [];
  const fault: MachineOptions['fault'] = (call) => {
    if (call.index !== at && !(call.index > at && error.lasts(call))) return null;
    struckCalls.push(call);
    return error.code;
  };
  const recording = await record(options.world, scenario, options.seed, { fault }, true);
  const violations = misbehaviour(recording, struckCalls[0], error);
  const { spooledFrames, ...kept } = lastMark(recording.trace);
  // A download whose file could not be written is begun again in a new one.
  const expectation: Expectation = error.code === 'EIO' || spooledFrames === undefined ? kept : { ...kept, spooledFrames };
  // A process that died, a machine that was switched off in that moment, and once more.
  const planner = new CrashPlanner(recording.disk);
  for (const op of recording.trace) planner.follow(op);
  const disks: Disk[] = [recording.machine.disk, ...[...planner.states(2, random)].map((state) => state.disk)];
  for (const disk of disks) {
    const verdict = await checkState(options.world, disk, expectation, { machine: { ...scenario.options }, pull: random.chance(0.1) });
    violations.push(...verdict.violations);
    options.tally.add(`disk errors: ${error.name}`, violations.length > 0);
    if (violations.length > 0) break;
  }
  if (violations.length === 0) return;
  options.onMessage([
    `VIOLATION (disk errors: ${error.name}; scenario "${scenario.name}", seed ${String(options.seed)}, call ${String(at)}: ${struckCalls[0]?.kind ?? ''} ${struckCalls[0]?.path ?? ''})`,
    ...violations.slice(0, 5).map((line) => `  ${line}`),
  ].join('\n'));
}

function lastMark(trace: readonly DiskOp[]): Expectation {
  let expectation: Expectation = { created: false, refs: {} };
  for (const op of trace) if (op.op === 'mark') expectation = op.note as Expectation;
  return expectation;
}

/** What the product did wrong when the disk refused. */
function misbehaviour(recording: Recording & { readonly machine: Machine }, call: Call | undefined, error: DiskError): string[] {
  const violations: string[] = [];
  const thrown = recording.error;
  if (thrown !== null && !(isWhittleError(thrown) && thrown.code.startsWith('STOR'))) violations.push(`the error is not one of the store's: ${String((thrown as { message?: unknown }).message)}`);
  const isSync = call?.kind === 'fsync' || call?.kind === 'syncfs';
  if (thrown === null && isSync && error.code === 'EIO') violations.push('a sync failed and nobody said so');
  const failed = new Set<number>();
  for (const op of recording.trace) {
    if (op.op === 'stuck' && op.ino !== null) failed.add(op.ino);
    if (op.op === 'fsync' && failed.has(op.ino)) violations.push(`${op.what} again, after it failed`);
  }
  // The next process knows nothing of the failure: only a file that is gone is never synced again.
  const { disk, links } = recording.machine;
  if (error.code === 'EIO') for (const ino of failed) if (disk.inode(ino).kind === 'file' && (links.get(ino) ?? 0) > 0) violations.push('a file is still there whose sync failed');
  if (isWhittleError(thrown) && thrown.code === 'STORAGE_FULL' && recording.scenario.name.endsWith('pull')) {
    const stages = lookUp(recording.machine.disk, `${storeRoot}/stages`)?.inode.entries.size ?? 0;
    if (stages > 0) violations.push('the disk is full and the stage was not given up');
  }
  return violations;
}
