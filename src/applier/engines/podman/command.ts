import { spawn, type ChildProcess } from 'node:child_process';
import { systemErrorCode, WhittleError } from '../../../core/errors.js';
import { throwIfAborted } from '../../../core/interruption.js';
import type { EngineSettings } from '../types.js';

/** How much of what podman says is kept. */
const maxOutputBytes = 4 * 1024 * 1024;
const maxErrorBytes = 64 * 1024;
/** How long a podman that was told to end may take to do so. */
const graceMs = 5000;

/** What a run of podman gave. */
export interface PodmanOutcome {
  /** Null when a signal ended it. */
  readonly exitCode: number | null;
  readonly stdout: string;
  /** The last of what it said on its error output, which may name secrets of registries: none is ever given to it here. */
  readonly stderr: string;
}

/** A podman that runs. */
export interface PodmanRun {
  /** Resolves when it has ended, whichever way. Rejects with ENGINE_UNREACHABLE or ENGINE_DENIED when it cannot be started. */
  readonly outcome: Promise<PodmanOutcome>;
  /** Tells it to end, and makes it end when it does not; resolves when it has. Idempotent. */
  stop(): Promise<void>;
}

/** Runs the podman program. Arguments go to it as they are, through no shell. */
export class PodmanCommand {
  readonly #program: string;
  readonly #options: readonly string[];

  constructor({ address, root, runRoot }: EngineSettings) {
    this.#program = address ?? 'podman';
    this.#options = [...(root === undefined ? [] : ['--root', root]), ...(runRoot === undefined ? [] : ['--runroot', runRoot])];
  }

  /** Starts `podman <args>`. `environment` is added to this process's own. */
  start(args: readonly string[], environment: Readonly<Record<string, string>> = {}): PodmanRun {
    const child = spawn(this.#program, [...this.#options, ...args], { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...environment } });
    const outcome = this.#watch(child);
    // Who stops a run need not look at how it ended.
    outcome.catch(() => undefined);
    return { outcome, stop: () => stop(child, outcome) };
  }

  /** Runs it to its end and gives its output. Throws ENGINE_FAILED with its words when it does not end well, INTERRUPTED. */
  async run(args: readonly string[], signal?: AbortSignal): Promise<string> {
    throwIfAborted(signal);
    const run = this.start(args);
    const abort = (): void => { run.stop().catch(() => undefined); };
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const outcome = await run.outcome;
      throwIfAborted(signal);
      if (outcome.exitCode !== 0) throw podmanFailed(args[0] ?? '', outcome);
      return outcome.stdout;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  #watch(child: ChildProcess): Promise<PodmanOutcome> {
    const stdout = new Tail(maxOutputBytes);
    const stderr = new Tail(maxErrorBytes);
    child.stdout?.on('data', (chunk: Buffer) => { stdout.add(chunk); });
    child.stderr?.on('data', (chunk: Buffer) => { stderr.add(chunk); });
    return new Promise((settle, fail) => {
      child.once('error', (error) => { fail(this.#cannotStart(error)); });
      child.once('close', (exitCode) => { settle({ exitCode, stdout: stdout.text(), stderr: stderr.text() }); });
    });
  }

  #cannotStart(cause: Error): WhittleError {
    const code = systemErrorCode(cause);
    if (code === 'EACCES' || code === 'EPERM') return new WhittleError('ENGINE_DENIED', `${this.#program} may not be run`, { cause });
    return new WhittleError('ENGINE_UNREACHABLE', `${this.#program} cannot be run: ${code === 'ENOENT' ? 'it is not installed' : cause.message}`, { cause, hint: 'Install podman, or name its program in the settings of the engine.' });
  }
}

/** The last bytes of a stream. */
class Tail {
  #chunks: Buffer[] = [];
  #sizeBytes = 0;

  constructor(private readonly maxBytes: number) {}

  add(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#sizeBytes += chunk.length;
    while (this.#sizeBytes - (this.#chunks[0]?.length ?? 0) >= this.maxBytes) this.#sizeBytes -= this.#chunks.shift()?.length ?? 0;
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString();
  }
}

async function stop(child: ChildProcess, outcome: Promise<PodmanOutcome>): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
  const timer = setTimeout(() => { child.kill('SIGKILL'); }, graceMs);
  try {
    await outcome;
  } catch {
    // It never ran.
  } finally {
    clearTimeout(timer);
  }
}

/** ENGINE_FAILED, or STORAGE_FULL when that is why, with podman's last words. */
export function podmanFailed(what: string, { exitCode, stderr }: PodmanOutcome): WhittleError {
  const lines = stderr.split('\n').map((line) => line.trim()).filter((line) => line !== '');
  const words = lines.findLast((line) => line.startsWith('Error:')) ?? lines.at(-1) ?? '';
  const how = exitCode === null ? 'was ended by a signal' : `ended with ${String(exitCode)}`;
  const code = /no space left on device|disk quota exceeded/i.test(words) ? 'STORAGE_FULL' : 'ENGINE_FAILED';
  return new WhittleError(code, `podman ${what} ${how}${words === '' ? '' : `: ${words.slice(0, 500)}`}`, { retryable: exitCode === null });
}
