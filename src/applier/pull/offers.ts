import { WhittleError } from '../../core/errors.js';
import { pause } from '../../core/interruption.js';
import { deltaAnnotations, deltaBlobs, deltaMediaTypes, requireDeltaFormat } from '../../delta/index.js';
import { isDigest, parseManifest, type Descriptor, type Manifest } from '../../oci/index.js';
import type { HeldImage } from '../engines/types.js';
import { fetchManifest, isPassing, type PullContext } from './context.js';
import type { DeltaAnswer } from './image-source.js';
import { searchLimits } from './search-limits.js';

/** A delta that was published: what it costs, and which image it starts from. */
export interface DeltaOffer {
  /** Config digest of its basis. */
  readonly basisConfig: string;
  /** Manifest digest of its basis; null when the delta does not say it. */
  readonly basisManifest: string | null;
  /** Digest of the delta's manifest. */
  readonly digest: string;
  readonly manifestBytes: number;
  readonly index: Descriptor;
  readonly data: Descriptor;
}

/** The entries of an image's list that are deltas, or in one sentence why there is none. */
export interface DeltaList {
  readonly descriptors: readonly Descriptor[];
  readonly reason: string;
}

/** When a server does not say when to ask again. */
const defaultPollMs = 2000;
const maxPollMs = 30_000;

/** All that an offer costs to download. */
export function offerBytes(offer: DeltaOffer): number {
  return offer.manifestBytes + offer.index.size + offer.data.size;
}

/**
 * Images of the store that may serve as a basis, likeliest first: those of the same repository, then those that
 * share most layers, then the newest.
 */
export function basisCandidates(images: readonly HeldImage[], repository: string, diffIds: readonly string[]): HeldImage[] {
  const wanted = new Set(diffIds);
  const inRepository = (image: HeldImage): number => (image.names.some((name) => name.startsWith(`${repository}:`) || name.startsWith(`${repository}@`)) ? 1 : 0);
  const shared = (image: HeldImage): number => image.diffIds.filter((diffId) => wanted.has(diffId)).length;
  return [...images].sort((a, b) => inRepository(b) - inRepository(a) || shared(b) - shared(a) || b.sequence - a.sequence);
}

/** The stored image with this config, as a delta's annotation names its basis. */
export function basisFor(images: readonly HeldImage[], configDigest: string | undefined, manifestDigest: string | null | undefined): HeldImage | undefined {
  const same = images.filter((image) => image.configDigest === configDigest);
  return same.find((image) => image.manifestDigest === manifestDigest) ?? same[0];
}

/**
 * Asks the source for deltas to the manifest `subject`, waiting up to `waitMs` while a server makes one from any of
 * `candidates`. Having none is no error. Throws INTERRUPTED, BUDGET_EXCEEDED.
 */
export async function askForDeltas(context: PullContext, subject: string, candidates: readonly HeldImage[], waitMs: number): Promise<DeltaList> {
  const asked = candidates.slice(0, searchLimits.basisAsked);
  const basis = [...new Set(asked.map((image) => image.configDigest))];
  let answer: ReadyAnswer | null;
  try {
    answer = await waitForDeltas(context, subject, basis, waitMs);
  } catch (error) {
    if (!isPassing(error)) throw error;
    return { descriptors: [], reason: `the question for deltas failed: ${error.message}` };
  }
  if (answer === null) return { descriptors: [], reason: `the server was still making the delta after ${String(Math.round(waitMs / 1000))} s` };
  const descriptors = answer.descriptors.filter(isDelta);
  return { descriptors, reason: answer.note ?? (answer.descriptors.length === 0 ? 'there is no delta for this image' : noneFromHere) };
}

type ReadyAnswer = Extract<DeltaAnswer, { kind: 'ready' }>;

/** Why no offer is of use when none starts from a stored image, directly or by a chain. */
export const noneFromHere = 'there is no delta from an image that is here';

function isDelta(descriptor: Descriptor): boolean {
  return (descriptor.artifactType ?? deltaMediaTypes.artifact) === deltaMediaTypes.artifact;
}

async function waitForDeltas(context: PullContext, subject: string, basis: readonly string[], waitMs: number): Promise<ReadyAnswer | null> {
  const deadlineMs = performance.now() + waitMs;
  for (;;) {
    const answer = await listOnce(context, subject, basis, searchLimits.listBytes);
    if (answer.kind === 'ready') return answer;
    const leftMs = deadlineMs - performance.now();
    if (leftMs <= 0) return null;
    const pauseMs = Math.min(answer.retryAfterMs > 0 ? answer.retryAfterMs : defaultPollMs, maxPollMs, leftMs);
    context.onEvent({ event: 'waiting', reason: 'delta', waitMs: Math.round(pauseMs) });
    await pause(pauseMs, context.signal);
  }
}

async function listOnce(context: PullContext, subject: string, basis: readonly string[], allowedBytes: number): Promise<DeltaAnswer> {
  return context.meter.affordable('referrers', allowedBytes, async (allowed) => {
    const answer = await context.source.deltas(subject, basis, context.signal, { allowedBytes: allowed, enoughEntries: searchLimits.referrersPerImage, idlePages: searchLimits.idlePages });
    return { value: answer, sizeBytes: answer.sizeBytes };
  });
}

/** The deltas to an image within a chain: nothing is ordered by the question. Throws as the source does, LIMIT_EXCEEDED above `allowedBytes`. */
export async function listDeltasTo(context: PullContext, subject: string, allowedBytes: number): Promise<readonly Descriptor[]> {
  const answer = await listOnce(context, subject, [], allowedBytes);
  return answer.kind === 'ready' ? answer.descriptors.filter(isDelta) : [];
}

/** Reads a delta's manifest for what it costs and starts from. Null when it is no delta to `subject`. Throws DELTA_CORRUPT, DELTA_VERSION, and as `fetchManifest`. */
export async function readOffer(context: PullContext, descriptor: Descriptor, subject: string, allowedBytes: number): Promise<DeltaOffer | null> {
  const served = await fetchManifest(context, descriptor.digest, allowedBytes);
  const manifest = parseManifest(served.bytes, 'the delta', served.mediaType);
  if (manifest.artifactType !== deltaMediaTypes.artifact || manifest.subject?.digest !== subject) return null;
  return offerOf(manifest, served.digest, served.bytes.length);
}

function offerOf(manifest: Manifest, digest: string, manifestBytes: number): DeltaOffer | null {
  const basisConfig = manifest.annotations[deltaAnnotations.basisConfig];
  const basisManifest = manifest.annotations[deltaAnnotations.basisManifest];
  if (basisConfig === undefined || !isDigest(basisConfig)) return null;
  const blobs = deltaBlobs(manifest.layers);
  if (blobs === null) throw new WhittleError('DELTA_CORRUPT', 'its manifest does not list one index and one data blob');
  requireDeltaFormat(blobs.version);
  const { index, data } = blobs;
  return { basisConfig, basisManifest: basisManifest !== undefined && isDigest(basisManifest) ? basisManifest : null, digest, manifestBytes, index, data };
}
