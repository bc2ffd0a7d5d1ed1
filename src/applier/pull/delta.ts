import { WhittleError } from '../../core/errors.js';
import type { DecodeObserver } from '../../delta/apply.js';
import type { Basis } from '../../delta/basis.js';
import { applyDelta, deltaLimits, parseDeltaIndex, type DeltaIndex } from '../../delta/index.js';
import type { TargetSink } from '../../delta/sink.js';
import type { HeldImage, PullStage } from '../engines/types.js';
import { fetchWhole, plainFrameBytes, requireSize, spoolName, type PullContext } from './context.js';
import { fetchFrames } from './fetch.js';
import type { WorkTimer } from './meter.js';
import type { DeltaOffer } from './offers.js';
import { plainFrames, Spool } from './spool.js';

/** The image that a delta shall make, to hold the delta to. */
export interface DeltaTarget {
  readonly configDigest: string;
  readonly diffIds: readonly string[];
}

/** Where the blobs of deltas are kept while they arrive: a stage's spool. */
export type SpoolPlace = PullStage['spool'];

/**
 * Fetches a delta's index through its spool (it stays there for a later run), verifies and reads it, and checks
 * that it leads from its basis to `target`. Throws DELTA_*, LIMIT_EXCEEDED, FETCH_*.
 */
export async function fetchDeltaIndex(context: PullContext, place: SpoolPlace, offer: DeltaOffer, target: DeltaTarget): Promise<DeltaIndex> {
  requireSize(offer.index, deltaLimits.indexBytes);
  const spool = await Spool.open(context.place.fs, place.path, spoolName('index', offer.index.digest), plainFrames(offer.index.size, plainFrameBytes));
  try {
    const index = parseDeltaIndex(await fetchWhole(context, offer.index, spool, 'index'));
    checkIndex(index, offer, target);
    return index;
  } finally {
    await spool.close();
  }
}

/** A delta is only a guess that the diffIDs prove; this finds the wrong guess before its data is paid for. */
function checkIndex(index: DeltaIndex, offer: DeltaOffer, target: DeltaTarget): void {
  if (index.basis.configDigest !== offer.basisConfig) {
    throw new WhittleError('DELTA_WRONG_BASIS', `the delta was made for the basis ${index.basis.configDigest}, not for ${offer.basisConfig}`);
  }
  if (index.target.configDigest !== target.configDigest) {
    throw new WhittleError('DELTA_CORRUPT', `the delta makes the image ${index.target.configDigest}, not ${target.configDigest}`);
  }
  const same = index.layers.length === target.diffIds.length && index.layers.every((layer, at) => layer.diffId === target.diffIds[at]);
  if (!same) throw new WhittleError('DELTA_CORRUPT', 'the delta lists other layers than the image has');
  if (index.dataSizeBytes !== offer.data.size) throw new WhittleError('DELTA_CORRUPT', `the delta's index describes ${String(index.dataSizeBytes)} bytes of data, its manifest ${String(offer.data.size)}`);
}

async function exhaust(frames: AsyncGenerator<Buffer, void, void>): Promise<void> {
  while ((await frames.next()).done !== true);
}

/** Lets a stage that wants to know see the plan of each layer. */
function planObserver(stage: PullStage, index: DeltaIndex): { readonly observer?: DecodeObserver } {
  if (stage.planned === undefined) return {};
  const last = index.layers.findLastIndex(({ how }) => how === 'delta');
  return { observer: { planned: (layer, plan) => { stage.planned?.(layer, plan, layer === last); } } };
}

/** A delta that is to be applied: what was published, what its index says, and where it is spooled. */
export interface FetchedDelta {
  readonly offer: DeltaOffer;
  readonly index: DeltaIndex;
  readonly place: SpoolPlace;
}

/** A delta that is to be applied, and the image that it starts from. */
export interface DeltaToApply extends FetchedDelta {
  readonly from: HeldImage;
}

/**
 * Fetches a delta's data and applies it while it arrives: every layer that it carries is in the stage when this
 * returns. The data stays spooled for a later run when it is interrupted. Throws DELTA_*, BASIS_DAMAGED, FETCH_*, STORAGE_*, INTERRUPTED.
 */
export async function applyFetchedDelta(context: PullContext, stage: PullStage, delta: DeltaToApply, timer: WorkTimer): Promise<void> {
  const basis = await context.place.basis(delta.from, { layers: delta.index.basisLayers });
  try {
    stage.useBasis(basis);
    await feedDelta(context, delta, { basis, sink: stage, ...feedingOf(stage, delta.index) }, timer);
  } finally {
    await basis.close();
  }
}

/** What a delta is applied to. */
export interface DeltaFeed {
  readonly basis: Basis;
  readonly sink: TargetSink;
  /** Everything is fetched before the first byte is given. */
  readonly fetchFirst: boolean;
  readonly observer?: DecodeObserver;
}

/** How a stage wants to be fed with a delta. */
export function feedingOf(stage: PullStage, index: DeltaIndex): Pick<DeltaFeed, 'fetchFirst' | 'observer'> {
  // What nobody keeps is better not begun before all of it is here.
  return { fetchFirst: stage.intake === 'streamed', ...planObserver(stage, index) };
}

/** The same for any basis and sink, which stay the caller's. */
export async function feedDelta(context: PullContext, { offer, index, place }: FetchedDelta, { basis, sink, fetchFirst, ...observing }: DeltaFeed, timer: WorkTimer): Promise<void> {
  const { signal } = context;
  const spool = await Spool.open(context.place.fs, place.path, spoolName('data', offer.data.digest), index.frames);
  try {
    const fetch = { ...context, source: context.source.blob(offer.data), spool, events: context.meter.transfer('data', true) };
    if (fetchFirst) await exhaust(fetchFrames(fetch));
    timer.start();
    await applyDelta({ index, data: context.meter.applied(timer.watch(fetchFrames(fetch)), offer.data.size), basis, sink, scratchDir: place.absolutePath, signal, ...observing });
  } finally {
    timer.stop();
    await spool.close();
  }
}
