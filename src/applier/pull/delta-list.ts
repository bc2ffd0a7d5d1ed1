import { deltaMediaTypes } from '../../delta/index.js';
import { listReferrers, type RegistryClient } from '../../registry/index.js';
import type { DeltaAnswer, DeltaListBounds } from './image-source.js';

/**
 * Asks a registry for the deltas to the manifest `subject`. A `delta-server` takes `basis` (config digests) as an order
 * and may ask to come again; another registry ignores it. Throws REGISTRY_*, IMAGE_INVALID, INTERRUPTED.
 */
export async function listDeltas(client: RegistryClient, repository: string, subject: string, options: DeltaListBounds & { readonly basis: readonly string[]; readonly signal: AbortSignal }): Promise<DeltaAnswer> {
  let sizeBytes = 0;
  let note: string | undefined;
  const answer = await listReferrers(client, repository, subject, {
    ...options, artifactType: deltaMediaTypes.artifact,
    onAnswer: (head, bodyBytes) => {
      sizeBytes += bodyBytes;
      note ??= standing(head.header('whittle-delta'), head.header('whittle-problem'));
    },
  });
  if (answer.status === 'pending') return { kind: 'pending', retryAfterMs: answer.retryAfterMs, sizeBytes };
  return { kind: 'ready', descriptors: answer.manifests, sizeBytes, ...(note === undefined ? {} : { note }) };
}

/** Why a `delta-server` has no delta for this pair, in words. */
function standing(word: string | undefined, problem: string | undefined): string | undefined {
  switch (word) {
    case 'not-smaller': return 'the server found that a delta would not be smaller than the layers';
    case 'unknown-basis': return 'the server does not have the image that is here, to make a delta from it';
    case 'unknown-target': return 'the server does not serve this image';
    case 'failed': return `the server could not make the delta (${(problem ?? 'it does not say why').replace(/[^\x20-\x7e]/g, '?').slice(0, 300)})`;
    default: return undefined;
  }
}
