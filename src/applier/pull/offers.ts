import { setTimeout as sleep } from 'node:timers/promises';
import { isWhittleError, WhittleError } from '../../core/errors.js';
import { deltaAnnotations, deltaMediaTypes } from '../../delta/index.js';
import { parseManifest, type Descriptor, type Manifest } from '../../oci/index.js';
import type { StoredImage } from '../store/types.js';
import type { PullContext } from './context.js';
import type { DeltaAnswer } from './image-source.js';
import { basisFor } from './delta.js';

/** A delta that leads from an image in the store to the target. */
export interface DeltaOffer {
  readonly basis: StoredImage;
  /** Digest of the delta's manifest. */
  readonly digest: string;
  readonly manifestBytes: number;
  readonly index: Descriptor;
  readonly data: Descriptor;
}

/** The deltas that there are, or in one sentence why there is none. */
export interface Offers {
  /** Cheapest first. */
  readonly offers: readonly DeltaOffer[];
  readonly reason: string;
}

/** Basis images named in one question, and manifests of deltas looked at for their sizes. */
const maxBasisAsked = 8;
const maxManifestsRead = 16;
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
export function basisCandidates(images: readonly StoredImage[], repository: string, diffIds: readonly string[]): StoredImage[] {
  const wanted = new Set(diffIds);
  const inRepository = (image: StoredImage): number => (image.names.some((name) => name.startsWith(`${repository}:`) || name.startsWith(`${repository}@`)) ? 1 : 0);
  const shared = (image: StoredImage): number => image.diffIds.filter((diffId) => wanted.has(diffId)).length;
  return [...images].sort((a, b) => inRepository(b) - inRepository(a) || shared(b) - shared(a) || b.sequence - a.sequence);
}

/**
 * Asks the source for deltas from any of `candidates` to the manifest `subject`, waiting up to `waitMs` while a
 * server makes one. Having none is no error. Throws INTERRUPTED, BUDGET_EXCEEDED.
 */
export async function findOffers(context: PullContext, subject: string, candidates: readonly StoredImage[], waitMs: number): Promise<Offers> {
  const asked = candidates.slice(0, maxBasisAsked);
  const basis = [...new Set(asked.map((image) => image.configDigest))];
  let answer: ReadyAnswer | null;
  try {
    answer = await waitForDeltas(context, subject, basis, waitMs);
  } catch (error) {
    if (!isWhittleError(error) || ['INTERRUPTED', 'BUDGET_EXCEEDED'].includes(error.code)) throw error;
    return { offers: [], reason: `the question for deltas failed: ${error.message}` };
  }
  if (answer === null) return { offers: [], reason: `the server was still making the delta after ${String(Math.round(waitMs / 1000))} s` };
  const fitting = answer.descriptors.filter((each) => mayFit(each, candidates)).slice(0, maxManifestsRead);
  if (fitting.length > 0) return readOffers(context, fitting, candidates);
  return { offers: [], reason: answer.note ?? (answer.descriptors.length === 0 ? 'there is no delta for this image' : noneFromHere) };
}

type ReadyAnswer = Extract<DeltaAnswer, { kind: 'ready' }>;

const noneFromHere = 'there is no delta from an image that is here';

/** Lists need not repeat what the manifests say: only a listed basis that is not here rules a delta out. */
function mayFit(descriptor: Descriptor, candidates: readonly StoredImage[]): boolean {
  if ((descriptor.artifactType ?? deltaMediaTypes.artifact) !== deltaMediaTypes.artifact) return false;
  const listed = descriptor.annotations?.[deltaAnnotations.basisConfig];
  return listed === undefined || basisFor(candidates, listed, undefined) !== undefined;
}

async function waitForDeltas(context: PullContext, subject: string, basis: readonly string[], waitMs: number): Promise<ReadyAnswer | null> {
  const deadlineMs = performance.now() + waitMs;
  for (;;) {
    const answer = await context.source.deltas(subject, basis, context.signal);
    context.meter.add('referrers', answer.sizeBytes);
    if (answer.kind === 'ready') return answer;
    const leftMs = deadlineMs - performance.now();
    if (leftMs <= 0) return null;
    const pauseMs = Math.min(answer.retryAfterMs > 0 ? answer.retryAfterMs : defaultPollMs, maxPollMs, leftMs);
    context.onEvent({ event: 'waiting', reason: 'delta', waitMs: Math.round(pauseMs) });
    await pause(pauseMs, context.signal);
  }
}

async function pause(pauseMs: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(pauseMs, undefined, { signal });
  } catch (error) {
    if (isWhittleError(signal.reason)) throw signal.reason;
    throw new WhittleError('INTERRUPTED', 'stopped while waiting', { cause: error });
  }
}

async function readOffers(context: PullContext, fitting: readonly Descriptor[], candidates: readonly StoredImage[]): Promise<Offers> {
  const offers: DeltaOffer[] = [];
  let reason = noneFromHere;
  for (const descriptor of fitting) {
    try {
      const served = await context.source.manifest(descriptor.digest, context.signal);
      context.meter.add('manifest', served.bytes.length);
      const offer = readOffer(parseManifest(served.bytes, 'the delta', served.mediaType), candidates, served.digest, served.bytes.length);
      if (offer !== null) offers.push(offer);
    } catch (error) {
      if (!isWhittleError(error) || ['INTERRUPTED', 'BUDGET_EXCEEDED'].includes(error.code)) throw error;
      reason = `the delta cannot be used: ${error.message}`;
    }
  }
  return { offers: offers.sort((a, b) => offerBytes(a) - offerBytes(b)), reason };
}

/** Null when the delta starts from an image that is not here, or is something else altogether. */
function readOffer(manifest: Manifest, candidates: readonly StoredImage[], digest: string, manifestBytes: number): DeltaOffer | null {
  const basis = basisFor(candidates, manifest.annotations[deltaAnnotations.basisConfig], manifest.annotations[deltaAnnotations.basisManifest]);
  if (basis === undefined || manifest.artifactType !== deltaMediaTypes.artifact) return null;
  const [index, data] = manifest.layers;
  if (manifest.layers.length !== 2 || index?.mediaType !== deltaMediaTypes.index || data?.mediaType !== deltaMediaTypes.data) {
    throw new WhittleError('DELTA_CORRUPT', 'its manifest does not list one index and one data blob');
  }
  return { basis, digest, manifestBytes, index, data };
}
