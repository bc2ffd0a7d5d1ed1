import { rm } from 'node:fs/promises';
import { errorCodeOf, isWhittleError } from '../core/errors.js';
import { throwIfAborted } from '../core/interruption.js';
import type { ServedImage } from './catalog.js';
import type { DeltaFacts } from './delta-record.js';
import type { DeltaStore, FinishedDelta } from './delta-store.js';

/** What a computation came to. */
export type JobResult =
  | { readonly kind: 'delta'; readonly finished: FinishedDelta }
  | { readonly kind: 'not-smaller'; readonly facts: DeltaFacts };

/** Runs one computation in `directory`, off the event loop. Rejects with a WhittleError; ends promptly when `signal` aborts. */
export type JobRunner = (job: {
  readonly basis: ServedImage;
  readonly target: ServedImage;
  readonly directory: string;
  readonly signal: AbortSignal;
  /** Between 0 and 1. */
  readonly onProgress: (share: number) => void;
}) => Promise<JobResult>;

/** How a pair stands that has no record yet. */
export type JobState =
  | { readonly state: 'computing'; readonly progress: number; readonly retryAfterSec: number }
  | { readonly state: 'queued'; readonly ahead: number; readonly retryAfterSec: number }
  /** The queue is full: the pair was not taken; ask again later. */
  | { readonly state: 'busy'; readonly retryAfterSec: number }
  /** It was tried and failed; it is not tried again before `retryAfterSec` are over. */
  | { readonly state: 'failed'; readonly code: string; readonly message: string; readonly retryAfterSec: number };

/** Who computes, how many at a time, and how long failures are remembered. */
export interface DeltaJobsOptions {
  readonly store: DeltaStore;
  readonly run: JobRunner;
  /** Computations at a time. */
  readonly concurrency: number;
  /** Pairs that may wait. Default 256. */
  readonly maxQueued?: number;
  /** How long a failure is remembered after its first time; doubled each further time, up to a day. Default 10 minutes. */
  readonly failureMemoryMs?: number;
  /** Monotonic clock in ms; tests replace it. */
  readonly now?: () => number;
  readonly log?: (event: JobEvent) => void;
}

/** A pair of images, as the log names it. */
export interface LoggedPair {
  /** Digest of the target's manifest. */
  readonly target: string;
  /** The image IDs. */
  readonly targetConfig: string;
  readonly basis: string;
}

/** What the log says of computations. */
export type JobEvent = LoggedPair & (
  | { readonly event: 'started' | 'queued' }
  | { readonly event: 'finished'; readonly result: 'delta' | 'not-smaller'; readonly facts: DeltaFacts; readonly totalMs: number }
  | { readonly event: 'failed'; readonly code: string; readonly message: string }
);

interface Job {
  readonly key: string;
  readonly basis: ServedImage;
  readonly target: ServedImage;
  progress: number;
  startedMs: number | null;
}

function pairOf({ target, basis }: Pick<Job, 'target' | 'basis'>): LoggedPair {
  return { target: target.manifest.digest, targetConfig: target.configDigest, basis: basis.configDigest };
}

interface Failure {
  readonly code: string;
  readonly message: string;
  readonly times: number;
  readonly untilMs: number;
}

const maxFailureMemoryMs = 24 * 3600 * 1000;
/** Failures remembered at once; the oldest is forgotten first. */
const maxFailures = 1024;

/** The computations of a server: one per pair however many ask, a few at a time, the rest in a bounded queue. */
export class DeltaJobs {
  readonly #jobs = new Map<string, Job>();
  readonly #waiting: Job[] = [];
  readonly #running = new Map<string, Promise<void>>();
  readonly #failures = new Map<string, Failure>();
  readonly #abort = new AbortController();
  readonly #now: () => number;

  constructor(private readonly options: DeltaJobsOptions) {
    this.#now = options.now ?? (() => performance.now());
  }

  /**
   * Starts or joins the computation of a pair and says how it stands. Call it only for a pair that the store has
   * no record of.
   */
  ask(target: ServedImage, basis: ServedImage): JobState {
    const key = `${target.manifest.digest} ${basis.configDigest}`;
    const known = this.#jobs.get(key);
    if (known !== undefined) return this.#stateOf(known);
    const failure = this.#failures.get(key);
    if (failure !== undefined && failure.untilMs > this.#now()) {
      return { state: 'failed', code: failure.code, message: failure.message, retryAfterSec: Math.ceil((failure.untilMs - this.#now()) / 1000) };
    }
    if (this.#waiting.length >= (this.options.maxQueued ?? 256) || this.#abort.signal.aborted) return { state: 'busy', retryAfterSec: 30 };
    const job: Job = { key, basis, target, progress: 0, startedMs: null };
    this.#jobs.set(key, job);
    this.#waiting.push(job);
    this.#startNext();
    if (job.startedMs === null) this.options.log?.({ event: 'queued', ...pairOf(job) });
    return this.#stateOf(job);
  }

  /** Computations running and waiting now. */
  get counts(): { readonly running: number; readonly waiting: number } {
    return { running: this.#running.size, waiting: this.#waiting.length };
  }

  /** Stops everything: nothing new starts, what runs is aborted. Settles when the last computation has ended and cleaned up. */
  async close(): Promise<void> {
    this.#abort.abort();
    for (const job of this.#waiting.splice(0)) this.#jobs.delete(job.key);
    await Promise.all(this.#running.values());
  }

  #stateOf(job: Job): JobState {
    if (job.startedMs === null) {
      const ahead = this.#waiting.indexOf(job);
      return { state: 'queued', ahead, retryAfterSec: Math.min(30, 2 + 2 * ahead) };
    }
    const elapsedMs = this.#now() - job.startedMs;
    // Asking again at about the expected end costs one request; before there is progress to go by, soon.
    const leftMs = job.progress > 0.02 ? (elapsedMs / job.progress) * (1 - job.progress) : elapsedMs;
    return { state: 'computing', progress: job.progress, retryAfterSec: Math.max(1, Math.min(30, Math.ceil(leftMs / 1000))) };
  }

  #startNext(): void {
    while (this.#running.size < this.options.concurrency && !this.#abort.signal.aborted) {
      const job = this.#waiting.shift();
      if (job === undefined) return;
      job.startedMs = this.#now();
      this.#running.set(job.key, this.#perform(job));
    }
  }

  /** Never rejects. */
  async #perform(job: Job): Promise<void> {
    const pair = pairOf(job);
    this.options.log?.({ event: 'started', ...pair });
    try {
      const { result, facts } = await this.#compute(job);
      this.#failures.delete(job.key);
      this.options.log?.({ event: 'finished', ...pair, result, facts, totalMs: Math.round(this.#now() - (job.startedMs ?? 0)) });
    } catch (error) {
      if (!this.#abort.signal.aborted) this.#remember(job, error);
    } finally {
      this.#jobs.delete(job.key);
      this.#running.delete(job.key);
      this.#startNext();
    }
  }

  async #compute(job: Job): Promise<{ result: 'delta' | 'not-smaller'; facts: DeltaFacts }> {
    const { store } = this.options;
    const directory = await store.makeJobDirectory();
    try {
      throwIfAborted(this.#abort.signal);
      const onProgress = (share: number): void => { job.progress = Math.max(job.progress, Math.min(1, share)); };
      const result = await this.options.run({ basis: job.basis, target: job.target, directory, signal: this.#abort.signal, onProgress });
      if (result.kind === 'delta') await store.add(result.finished);
      else await store.addRefusal({ ...result.facts, result: 'not-smaller' });
      return { result: result.kind, facts: result.kind === 'delta' ? result.finished.record : result.facts };
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }

  #remember(job: Job, error: unknown): void {
    const code = errorCodeOf(error);
    const message = error instanceof Error || isWhittleError(error) ? error.message : String(error);
    const times = (this.#failures.get(job.key)?.times ?? 0) + 1;
    const memoryMs = Math.min(maxFailureMemoryMs, (this.options.failureMemoryMs ?? 600_000) * 2 ** (times - 1));
    this.#failures.delete(job.key);
    this.#failures.set(job.key, { code, message, times, untilMs: this.#now() + memoryMs });
    const [oldest] = this.#failures.keys();
    if (this.#failures.size > maxFailures && oldest !== undefined) this.#failures.delete(oldest);
    this.options.log?.({ event: 'failed', ...pairOf(job), code, message });
  }
}
