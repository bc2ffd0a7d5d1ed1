import { setPriority } from 'node:os';
import { errorCodeOf } from '../core/errors.js';
import { peakRssBytes } from '../core/memory.js';
import { computeArtifact, writeArtifactFiles, type ComputePhase } from './compute.js';
import { inputOf, type WorkerAnswer, type WorkerJob } from './worker-protocol.js';

/**
 * The process that one computation of `delta-server serve` runs in, so that the service's event loop never waits
 * for it and its memory goes back to the system when it ends. It takes one job by IPC and ends with its parent.
 */
async function work(job: WorkerJob): Promise<void> {
  const artifact = await computeArtifact({
    basis: inputOf(job.basis), target: inputOf(job.target), directory: job.directory, profile: job.profile,
    memoryLimitBytes: job.memoryLimitBytes, threads: job.threads, onProgress: reportProgress,
  });
  const files = await writeArtifactFiles(artifact, job.directory);
  const { mediaType, digest, bytes, annotations, blobs } = artifact.manifest;
  await answer({
    kind: 'done', files: [...files], manifest: { mediaType, digest, sizeBytes: bytes.length }, annotations, blobs,
    report: artifact.report, peakRssBytes: peakRssBytes(),
  });
}

/** Where each phase stands in the whole, roughly as long as they take. */
const phaseShares: Readonly<Record<ComputePhase, readonly [from: number, to: number]>> = { unpack: [0, 0.25], compute: [0.25, 0.9], check: [0.9, 1] };
let lastShare = 0;

function reportProgress(phase: ComputePhase, done: number, total: number): void {
  const [from, to] = phaseShares[phase];
  const share = from + (to - from) * (total > 0 ? Math.min(1, done / total) : 1);
  if (share - lastShare < 0.01) return;
  lastShare = share;
  process.send?.({ kind: 'progress', share } satisfies WorkerAnswer);
}

function answer(message: WorkerAnswer): Promise<void> {
  return new Promise((resolve, reject) => {
    process.send?.(message, undefined, undefined, (error) => {
      if (error === null) resolve();
      else reject(error);
    });
  });
}

// Serving comes before computing.
setPriority(10);
// Without a parent there is nobody to take the result; the job's directory is emptied by the next start.
process.on('disconnect', () => process.exit(1));
process.once('message', (job: WorkerJob) => {
  work(job)
    .catch((error: unknown) => answer({ kind: 'failed', code: errorCodeOf(error), message: error instanceof Error ? error.message : String(error) }))
    .then(() => process.exit(0), () => process.exit(1));
});
