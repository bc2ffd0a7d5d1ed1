import { fork, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { errorCodes, type ErrorCode } from '../core/error-codes.js';
import { WhittleError } from '../core/errors.js';
import type { DeltaProfile } from '../delta/index-blob.js';
import type { Catalog, ServedImage } from './catalog.js';
import type { JobResult, JobRunner } from './jobs.js';
import type { LocalImage, WorkerAnswer, WorkerJob } from './worker-protocol.js';

/** What computations work on, and what each may take. */
export interface WorkerRunnerOptions {
  readonly catalog: Catalog;
  readonly profile: DeltaProfile;
  readonly memoryLimitBytes: number;
  readonly threads: number;
  /** A computation that takes longer is ended and counts as failed. Default one hour. */
  readonly timeoutMs?: number;
  /** The worker's program. Default: worker.js beside this module. */
  readonly workerPath?: string;
}

/** What a computation that succeeded says. */
export type WorkerDone = Extract<WorkerAnswer, { kind: 'done' }>;

/** Runs each computation in a process of its own, which is killed when the job is aborted or takes too long. */
export function workerRunner(options: WorkerRunnerOptions): JobRunner {
  return async ({ basis, target, directory, signal, onProgress }) => {
    const job: WorkerJob = {
      basis: localImage(options.catalog, basis), target: localImage(options.catalog, target), directory,
      profile: options.profile, memoryLimitBytes: options.memoryLimitBytes, threads: options.threads,
    };
    const done = await computeInWorker(job, { signal, onProgress, timeoutMs: options.timeoutMs, workerPath: options.workerPath });
    return resultOf(done, target, basis);
  };
}

/** How one computation's process is watched. */
export interface WorkerWatch {
  readonly signal: AbortSignal;
  /** Between 0 and 1. */
  readonly onProgress: (share: number) => void;
  /** Default one hour. */
  readonly timeoutMs?: number | undefined;
  /** Default: worker.js beside this module. */
  readonly workerPath?: string | undefined;
}

/** What `keepYoungHeapSmall` and the native addon do for `delta-server compute`, from the first moment on: then it holds for V8's own threads too. */
const workerFlags = ['--max-semi-space-size=2'];
const workerEnvironment = { MALLOC_ARENA_MAX: '1' };

/**
 * Computes one delta in a process of its own; its files are in `job.directory` when this returns. Throws what the computation
 * throws, COMPUTE_FAILED when the process ends otherwise, INTERRUPTED when `signal` aborts. The process is gone then, whatever happened.
 */
export async function computeInWorker(job: WorkerJob, watch: WorkerWatch): Promise<WorkerDone> {
  const child = fork(watch.workerPath ?? fileURLToPath(new URL('worker.js', import.meta.url)), [], {
    serialization: 'advanced', stdio: ['ignore', 'ignore', 'pipe', 'ipc'], execArgv: workerFlags, env: { ...process.env, ...workerEnvironment },
  });
  return converse(child, job, { signal: watch.signal, onProgress: watch.onProgress, timeoutMs: watch.timeoutMs ?? 3_600_000 });
}

function localImage(catalog: Catalog, image: ServedImage): LocalImage {
  const { digest, mediaType, bytes } = image.manifest;
  return {
    manifest: { digest, mediaType, sizeBytes: bytes.length }, configDigest: image.configDigest,
    layers: image.layers.map((layer) => {
      const place = catalog.anyBlob(layer.descriptor.digest);
      if (place === undefined) throw new WhittleError('INTERNAL', `layer ${layer.descriptor.digest} is not in the catalog`);
      return { ...layer, place };
    }),
  };
}

interface Conversation {
  readonly signal: AbortSignal;
  readonly onProgress: (share: number) => void;
  readonly timeoutMs: number;
}

/** Sends the job, hears the answer, and waits for the process to be gone whatever happens. */
async function converse(child: ChildProcess, job: WorkerJob, { signal, onProgress, timeoutMs }: Conversation): Promise<WorkerDone> {
  const kill = (): void => { child.kill('SIGKILL'); };
  const limit = AbortSignal.timeout(timeoutMs);
  for (const reason of [signal, limit]) reason.addEventListener('abort', kill, { once: true });
  if (signal.aborted) kill();
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => { stderr = (stderr + chunk.toString('utf8')).slice(-4000); });
  let answer: WorkerAnswer | null = null;
  child.on('message', (message: WorkerAnswer) => {
    if (message.kind === 'progress') onProgress(message.share);
    else answer = message;
  });
  try {
    const ended = await new Promise<string>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signalName) => { resolve(signalName ?? `code ${String(code)}`); });
      child.send(job, (error) => { if (error !== null) kill(); });
    });
    return doneOrThrow(answer, ended, { stderr, stopped: signal.aborted, timedOut: limit.aborted });
  } finally {
    for (const reason of [signal, limit]) reason.removeEventListener('abort', kill);
  }
}

function doneOrThrow(answer: WorkerAnswer | null, ended: string, facts: { stderr: string; stopped: boolean; timedOut: boolean }): WorkerDone {
  if (answer?.kind === 'done') return answer;
  if (answer?.kind === 'failed') throw new WhittleError(isErrorCode(answer.code) ? answer.code : 'INTERNAL', answer.message);
  if (facts.stopped) throw new WhittleError('INTERRUPTED', 'the computation was stopped');
  if (facts.timedOut) throw new WhittleError('COMPUTE_FAILED', 'the computation took too long');
  const last = facts.stderr.trim().split('\n').at(-1) ?? '';
  throw new WhittleError('COMPUTE_FAILED', `the computation's process ended with ${ended}${last === '' ? '' : `: ${last}`}`, { data: { stderr: facts.stderr } });
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorCodes, code);
}

function resultOf(done: WorkerDone, target: ServedImage, basis: ServedImage): JobResult {
  const { layerPullBytes, deltaBytes, computeMs } = done.report;
  const facts = { targetManifest: target.manifest.digest, basisConfig: basis.configDigest, layerPullBytes, deltaBytes, computeMs };
  if (deltaBytes >= layerPullBytes) return { kind: 'not-smaller', facts };
  const record = { ...facts, result: 'delta' as const, manifest: done.manifest, annotations: done.annotations, blobs: done.blobs };
  return { kind: 'delta', finished: { record, files: new Map(done.files) } };
}
