import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The project's folder, whether this runs from source or from `bench/.built/bench`. */
export const projectRoot = findProjectRoot(dirname(fileURLToPath(import.meta.url)));

function findProjectRoot(from: string): string {
  return existsSync(join(from, 'package.json')) ? from : findProjectRoot(dirname(from));
}

/** Words of a command that runs `delta-server` or `device` of this checkout. */
export function program(name: 'delta-server' | 'device'): string[] {
  return [process.execPath, join(projectRoot, 'bin', `${name}.js`)];
}

/** Whether a program is on the PATH. */
export function hasProgram(name: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => existsSync(join(folder, name)));
}

/** What came of a command. */
export interface Outcome {
  /** Exit code, or null when a signal ended it. */
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Wall-clock time from start to exit. */
  readonly elapsedMs: number;
  /** Largest resident set of any one process of the command, read from /proc every 10 ms; 0 where nobody asked for it (`watchMemory`) or there is no /proc. */
  readonly peakRssBytes: number;
}

export interface RunOptions {
  /** The command is killed (SIGKILL) after this time. */
  readonly timeoutMs?: number;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Follow its memory. That costs as much processor time as a small program itself, so only who reports the figure asks for it. */
  readonly watchMemory?: boolean;
  /** Gets the child as soon as it runs. */
  readonly onStart?: (child: ChildProcess) => void;
}

const running = new Set<ChildProcess>();

/** Runs a command to its end, whatever its exit code; stdout and stderr are collected. Rejects only when it cannot be started. */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const [file, ...args] = command;
  if (file === undefined) throw new Error('an empty command');
  const beganMs = performance.now();
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: options.cwd ?? projectRoot, env: { ...process.env, ...options.env } });
  running.add(child);
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  const timer = options.timeoutMs === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), options.timeoutMs);
  const watch = new RssWatch(options.watchMemory === true ? child.pid : undefined);
  options.onStart?.(child);
  try {
    const exitCode = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    return {
      exitCode,
      stdout: Buffer.concat(stdout).toString('utf8'),
      stderr: Buffer.concat(stderr).toString('utf8'),
      elapsedMs: performance.now() - beganMs,
      peakRssBytes: await watch.stop(),
    };
  } finally {
    clearTimeout(timer);
    await watch.stop();
    running.delete(child);
  }
}

/** As `run`, and throws what the command said when its exit code is not 0. */
export async function runOk(command: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const outcome = await run(command, options);
  if (outcome.exitCode !== 0) {
    throw new Error(`${command.join(' ')}: exit code ${String(outcome.exitCode)}\n${outcome.stdout.slice(-2000)}${outcome.stderr.slice(-2000)}`);
  }
  return outcome;
}

/** Kills what `run` has started and what still runs; resolves when all of it is gone and writes no more. */
export async function killRunning(): Promise<void> {
  await Promise.all([...running].map(async (child) => {
    const gone = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await gone;
  }));
}

/**
 * Runs `main` with a new folder for its files. However it ends, Ctrl-C and SIGTERM included, its children are killed and the
 * folder is removed; an error is said by `complain` and gives exit code 1, a signal 130.
 */
export async function withScratch(prefix: string, main: (folder: string) => Promise<void>, complain: (message: string) => void): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), prefix));
  const signalled = new Promise<'signal'>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve('signal'));
  });
  // Whatever `main` throws after a signal is the doing of the signal.
  const outcome = await Promise.race([signalled, main(folder).then(() => null, (error: unknown) => ({ error }))]);
  await killRunning();
  await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  if (outcome === 'signal') {
    complain('stopped; everything is cleaned up.');
    process.exit(130);
  }
  if (outcome !== null) {
    complain(outcome.error instanceof Error ? outcome.error.message : String(outcome.error));
    process.exitCode = 1;
  }
}

/** Follows the peak memory of a process and of its descendants. */
class RssWatch {
  #peakBytes = 0;
  #stopped = false;
  readonly #done: Promise<void>;

  constructor(pid: number | undefined) {
    this.#done = pid === undefined ? Promise.resolve() : this.#follow(pid);
  }

  async #follow(pid: number): Promise<void> {
    while (!this.#stopped) {
      for (const one of await processTree(pid)) this.#peakBytes = Math.max(this.#peakBytes, await highWaterBytes(one));
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async stop(): Promise<number> {
    this.#stopped = true;
    await this.#done;
    return this.#peakBytes;
  }
}

async function highWaterBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${String(pid)}/status`, 'latin1').catch(() => '');
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

async function processTree(pid: number): Promise<number[]> {
  const found = [pid];
  for (const one of found) {
    const threads = await readdir(`/proc/${String(one)}/task`).catch(() => []);
    for (const thread of threads) {
      const children = await readFile(`/proc/${String(one)}/task/${thread}/children`, 'latin1').catch(() => '');
      for (const child of children.split(' ')) if (child !== '') found.push(Number(child));
    }
  }
  return found;
}
