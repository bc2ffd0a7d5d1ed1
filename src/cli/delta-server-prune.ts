import { formatBytes, shortDigest } from '../core/format.js';
import { prune, type PruneResult, type StaleDelta } from '../server/publish/prune.js';
import { openRepository } from '../server/publish/repository.js';
import type { Output } from './output.js';

/** Flags of `delta-server prune` as commander gives them. */
export interface PruneFlags {
  readonly dryRun?: boolean;
  readonly targetsOnly?: boolean;
  readonly creds?: string;
}

/** `delta-server prune`: removes the deltas of a repository that lead from or to an image which is gone. */
export async function runPrune(repository: string, flags: PruneFlags, output: Output, signal: AbortSignal): Promise<void> {
  const where = openRepository(repository, 'prune', { creds: flags.creds, onRetry: (error) => { output.note(`trying again: ${error.message}`); } });
  try {
    const result = await prune(where, {
      dryRun: flags.dryRun === true, keepBasisGone: flags.targetsOnly === true, signal,
      onEvent: (event) => { if (event.event === 'stale') output.note(describe(event.delta)); },
    });
    output.json({ dryRun: flags.dryRun === true, ...result });
    output.print(summary(result, flags.dryRun === true));
    if (result.removed > 0) output.note('the registry frees the space at its next garbage collection');
  } finally {
    await where.client.close();
  }
}

function describe({ digest, basisConfig, targetManifest, deltaBytes, why }: StaleDelta): string {
  const reason = why === 'target-gone' ? `its target ${shortDigest(targetManifest)} is gone` : `its basis (image ${shortDigest(basisConfig)}) is gone`;
  return `delta ${shortDigest(digest)}, ${formatBytes(deltaBytes)}: ${reason}`;
}

function summary({ repository, deltas, stale, entriesRemoved }: PruneResult, dryRun: boolean): string {
  const entries = entriesRemoved > 0 ? `, ${String(entriesRemoved)} list entries that led nowhere removed` : '';
  return `${repository}: ${String(stale.length)} of ${String(deltas)} deltas ${dryRun ? 'would be removed' : 'removed'}${entries}`;
}
