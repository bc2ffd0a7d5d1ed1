import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { program, projectRoot } from '../../../bench/process.js';
import type { BlockDevice, LogEntry } from './block-device.js';
import { makeFilesystem, type Filesystem } from './filesystems.js';
import { chainVersions, imageName, type World } from './fixtures.js';

/** What `imageName` means: versions by index, null for none. */
export interface Names {
  readonly current: number | null;
  readonly previous: number | null;
}

/** A run of the real program on a filesystem, and what every crash state of it may hold. */
export interface Recorded {
  /** Also the recording's name in the block server. */
  readonly name: string;
  readonly filesystem: Filesystem;
  readonly log: readonly LogEntry[];
  readonly before: Names;
  readonly after: Names;
  /** Entry before which the program said that it was done: a later cut must find `after`. */
  readonly saidAt: number;
  /** A layer that was damaged on purpose and may be so until the program says that it is repaired. */
  readonly damaged: string | null;
}

/** How a scenario runs the program. */
export interface Runner {
  readonly root: string;
  readonly world: World;
  /** Runs `device WORDS` and waits for its end, which must be success; the mark is set when a line holds `said`, or else at the end. Gives its standard output. */
  device(words: readonly string[], said?: string): Promise<string>;
  /** Runs `device WORDS` and kills it (SIGKILL) when it makes this system call for the `count`th time. */
  killed(words: readonly string[], systemCall: string, count: number): Promise<void>;
}

/** One thing that a device does, with the names before and after it. Each starts where the one before it ended. */
export interface Scenario {
  readonly name: string;
  readonly before: Names;
  readonly after: Names;
  /** Changes the store while nothing is recorded. Returns the layer that it damaged, if any. */
  readonly prepare?: (runner: Runner) => Promise<string | null>;
  readonly run: (runner: Runner) => Promise<unknown>;
}

const committed = '"event":"committed"';

function pull(runner: Runner, version: number, ...flags: readonly string[]): readonly string[] {
  return ['pull', imageName, '--from', runner.world.versions[version]?.from ?? '', '--json', ...flags];
}

/** Damages one file of the app layer of the third version, in place, as rot does. */
async function rot(runner: Runner): Promise<string> {
  const diffId = runner.world.versions[2].image.layers[1]?.diffId ?? '';
  const path = join(runner.root, 'layers', diffId.slice('sha256:'.length), 'fs/app/data');
  const content = await readFile(path);
  content.writeUInt8(content.readUInt8(1000) ^ 1, 1000);
  await writeFile(path, content);
  return diffId;
}

/** Brings the device to where the chain begins: with the name alone, or as an update of what it has. */
async function goToStart(runner: Runner, anew: boolean): Promise<null> {
  if (anew) {
    await runner.device(['remove', imageName]);
    await runner.device(['gc']);
  }
  await runner.device(pull(runner, chainVersions.start));
  return null;
}

/** Pulls over the image between; throws when it went another way, for then the scenario would prove nothing. */
async function pullChain(runner: Runner): Promise<void> {
  const said = await runner.device(pull(runner, chainVersions.end, '--delta'), committed);
  const plan = said.split('\n').find((line) => line.includes('"event":"plan"')) ?? '';
  const { steps = [] } = JSON.parse(plan === '' ? '{}' : plan) as { steps?: unknown[] };
  if (steps.length !== 2) throw new Error(`the pull did not go over a chain of two deltas: ${plan.slice(0, 500)}`);
}

/** Everything that a device does to its disk, in the order in which it is recorded. */
export const scenarios: readonly Scenario[] = [
  { name: 'full-pull', before: { current: null, previous: null }, after: { current: 0, previous: null }, run: (runner) => runner.device(pull(runner, 0, '--no-delta'), committed) },
  { name: 'delta-pull', before: { current: 0, previous: null }, after: { current: 1, previous: 0 }, run: (runner) => runner.device(pull(runner, 1, '--delta'), committed) },
  { name: 'rollback', before: { current: 1, previous: 0 }, after: { current: 0, previous: 1 }, run: (runner) => runner.device(['rollback', imageName]) },
  { name: 'pull-of-what-is-here', before: { current: 0, previous: 1 }, after: { current: 1, previous: 0 }, run: (runner) => runner.device(pull(runner, 1), committed) },
  {
    name: 'killed-and-resumed', before: { current: 1, previous: 0 }, after: { current: 2, previous: 1 },
    run: async (runner) => {
      await runner.killed(pull(runner, 2, '--delta'), 'fsync', 4);
      await runner.killed(pull(runner, 2, '--delta'), 'syncfs', 1);
      await runner.killed(pull(runner, 2, '--delta'), 'renameat', 1);
      await runner.device(['status']);
      await runner.device(pull(runner, 2, '--delta'), committed);
    },
  },
  { name: 'gc', before: { current: 2, previous: 1 }, after: { current: 2, previous: 1 }, run: (runner) => runner.device(['gc']) },
  {
    name: 'repair', before: { current: 2, previous: 1 }, after: { current: 2, previous: 1 }, prepare: rot,
    run: (runner) => runner.device(['verify', '--repair', '--from', runner.world.versions[2].from]),
  },
  { name: 'chain', before: { current: 3, previous: 2 }, after: { current: 4, previous: 3 }, prepare: (runner) => goToStart(runner, false), run: pullChain },
  { name: 'rollback-of-chain', before: { current: 4, previous: 3 }, after: { current: 3, previous: 4 }, run: (runner) => runner.device(['rollback', imageName]) },
  {
    name: 'chain-killed-and-resumed', before: { current: 3, previous: null }, after: { current: 4, previous: 3 }, prepare: (runner) => goToStart(runner, true),
    run: async (runner) => {
      // In the middle of the image between, and between that and the end.
      await runner.killed(pull(runner, chainVersions.end, '--delta'), 'syncfs', 1);
      await runner.killed(pull(runner, chainVersions.end, '--delta'), 'syncfs', 2);
      await runner.device(pull(runner, chainVersions.end, '--delta'), committed);
    },
  },
];

/** Runs the program under something else, such as strace; empty for nothing. */
export type Wrapper = readonly string[];

class ProgramRunner implements Runner {
  constructor(readonly root: string, readonly world: World, private readonly disk: BlockDevice, private readonly wrapper: Wrapper) {}

  #command(words: readonly string[]): [string, ...string[]] {
    const [first, ...rest] = [...this.wrapper, ...program('device'), ...words, '--root', this.root];
    return [first, ...rest];
  }

  async device(words: readonly string[], said?: string): Promise<string> {
    const [file, ...args] = this.#command(words);
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: projectRoot });
    let errors = '';
    let told = '';
    let marked: Promise<void> | undefined;
    child.stderr.on('data', (chunk: Buffer) => { errors += chunk.toString(); });
    createInterface(child.stdout).on('line', (line) => {
      told += `${line}\n`;
      if (said !== undefined && line.includes(said)) marked = this.disk.mark('said');
    });
    const [code] = await once(child, 'close') as [number | null];
    if (code !== 0) throw new Error(`device ${words.join(' ')} ended with ${String(code)}: ${errors.slice(0, 500)}`);
    await (marked ?? this.disk.mark(said === undefined ? 'done' : 'said'));
    return told;
  }

  async killed(words: readonly string[], systemCall: string, count: number): Promise<void> {
    const args = ['-f', '-qq', '-o', '/dev/null', '-e', `trace=${systemCall}`, '-e', `inject=${systemCall}:signal=SIGKILL:when=${String(count)}`, ...program('device'), ...words, '--root', this.root];
    // strace counts the calls of each thread by themselves: with one worker thread the count means the same in each run.
    const child = spawn('strace', args, { stdio: 'ignore', cwd: projectRoot, env: { ...process.env, UV_THREADPOOL_SIZE: '1' } });
    await once(child, 'close');
    // strace ends as its child did.
    if (child.signalCode !== 'SIGKILL') throw new Error(`device ${words.join(' ')} was to be killed at a ${systemCall}, but ended with ${String(child.exitCode)}`);
  }
}

/** Mounts the disk for `body`, and unmounts it whatever happens. */
async function mounted(disk: BlockDevice, filesystem: Filesystem, body: () => Promise<void>): Promise<void> {
  await disk.mount(filesystem.type, filesystem.options);
  try {
    await body();
  } finally {
    await disk.unmount();
  }
}

/**
 * Makes the filesystem on the disk and runs the scenarios on it, each recorded from a freshly mounted filesystem to its
 * unmounting. `recordOnly` names those to record; the others still run.
 */
export async function recordScenarios(disk: BlockDevice, filesystem: Filesystem, world: World, options: { readonly recordOnly?: readonly string[]; readonly wrapper?: Wrapper } = {}): Promise<Recorded[]> {
  const plain = new ProgramRunner(join(disk.mountPoint, 'store'), world, disk, []);
  const wrapped = new ProgramRunner(plain.root, world, disk, options.wrapper ?? []);
  const recordings: Recorded[] = [];
  const last = options.recordOnly === undefined ? scenarios.length - 1 : scenarios.findLastIndex(({ name }) => options.recordOnly?.includes(name));
  await makeFilesystem(disk, filesystem);
  for (const scenario of scenarios.slice(0, last + 1)) {
    let damaged: string | null = null;
    await mounted(disk, filesystem, async () => { damaged = (await scenario.prepare?.(plain)) ?? null; });
    if (options.recordOnly?.includes(scenario.name) === false) {
      await mounted(disk, filesystem, async () => { await scenario.run(plain); });
      continue;
    }
    const name = `${filesystem.name}/${scenario.name}`;
    await disk.record(name);
    await mounted(disk, filesystem, async () => { await scenario.run(wrapped); });
    await disk.stop();
    const log = await disk.log(name);
    const saidAt = log.findLastIndex((entry) => entry.kind === 'mark');
    recordings.push({ name, filesystem, log, before: scenario.before, after: scenario.after, saidAt, damaged });
  }
  return recordings;
}
