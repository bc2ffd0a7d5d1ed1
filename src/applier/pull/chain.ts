import { isWhittleError, WhittleError } from '../../core/errors.js';
import { maxConfigBytes } from '../../core/limits.js';
import { parseConfig } from '../../oci/index.js';
import type { HeldImage, PullStage } from '../engines/types.js';
import type { StageCounters, Store } from '../store/types.js';
import { fetchSmall, spoolName, type PullContext } from './context.js';
import { applyFetchedDelta, feedDelta, feedingOf, fetchDeltaIndex, type DeltaTarget, type FetchedDelta } from './delta.js';
import type { PullListener } from './events.js';
import type { WorkTimer } from './meter.js';
import type { DeltaOffer } from './offers.js';
import { ChainEnd, ChainStart, PassedSink, type ChainBasis } from './passed.js';
import type { ResolvedImage } from './resolve.js';
import type { DeltaStep, DeltaWay, PassedImage } from './ways.js';

/** What following a way needs besides the pull's context. */
export interface WayToFollow {
  readonly way: DeltaWay;
  readonly image: ResolvedImage;
  readonly timer: WorkTimer;
  /** How long to wait for another pull that builds an image of the chain. */
  readonly lockWaitMs: number;
  /** What the user pulls, for the records of the images passed. */
  readonly source: string;
  /** Told of what building each image passed wrote and reused, when it is done with. */
  readonly onPassed: (counters: StageCounters) => void;
}

/**
 * Applies the deltas of a way, the last one into the target's stage. Images that a chain passes on its way into an engine are in
 * no place (`followThroughScratch`). For the device's own store every one of them is committed without
 * a name: no tag ever shows it, a pull that is cut off goes on from it, and `collectPassed` (or the next gc) removes it.
 * What is fetched is spooled in the target's stage, and given up there as soon as it has been used. Throws what fetching
 * and applying throw.
 */
export async function followWay(context: PullContext, stage: PullStage, what: WayToFollow): Promise<void> {
  const { way, image, timer } = what;
  if (context.place.passing === null && way.steps.length > 1) {
    await followThroughScratch(context, stage, what);
    return;
  }
  let from = way.basis;
  for (const step of way.steps) {
    if (step.makes === null) {
      const target = { configDigest: image.manifest.config.digest, diffIds: image.config.diffIds };
      await applyStep(context, { stage, place: stage.spool, offer: step.offer, from, target, timer });
    } else {
      from = await makePassed(context, stage, { step, makes: step.makes, from }, what);
    }
  }
}

interface StepToApply {
  readonly stage: PullStage;
  readonly place: PullStage['spool'];
  readonly offer: DeltaOffer;
  readonly from: HeldImage;
  readonly target: DeltaTarget;
  readonly timer: WorkTimer;
}

async function applyStep(context: PullContext, { stage, place, offer, from, target, timer }: StepToApply): Promise<void> {
  const index = await fetchDeltaIndex(context, place, offer, target);
  await applyFetchedDelta(context, stage, { offer, index, from, place }, timer);
}

/** The config of an image that a chain passes, as the target of a delta. Throws IMAGE_*, FETCH_*. */
async function fetchPassedConfig(context: PullContext, { manifest }: PassedImage): Promise<DeltaTarget & { readonly config: Buffer }> {
  const config = await fetchSmall(context, manifest.config, 'config', maxConfigBytes);
  const { diffIds } = parseConfig(config, manifest.layers.length, 'the config of an image within a chain');
  return { config, configDigest: manifest.config.digest, diffIds };
}

/** Builds an image that the chain passes, from the image before it. */
async function makePassed(context: PullContext, outer: PullStage, { step, makes, from }: { readonly step: DeltaStep; readonly makes: PassedImage; readonly from: HeldImage }, what: WayToFollow): Promise<HeldImage> {
  const { place: { passing: store }, signal, onEvent } = context;
  if (store === null) throw new WhittleError('INTERNAL', `a chain of deltas into ${context.place.name}`);
  const { config, diffIds } = await fetchPassedConfig(context, makes);
  const inner = await store.stage(
    { manifest: makes.served.bytes, manifestMediaType: makes.manifest.mediaType, config },
    { waitMs: what.lockWaitMs, signal, onNote: (text) => { onEvent({ event: 'note', text }); } },
  );
  try {
    const target = { configDigest: makes.manifest.config.digest, diffIds };
    await applyStep(context, { stage: inner, place: outer.spool, offer: step.offer, from, target, timer: what.timer });
    // Not read back now: the next delta proves each file that it reads, and the target is read back when it is committed.
    const stored = await inner.commit({ name: null, source: passedMark + what.source, verify: false, signal });
    what.onPassed(inner.counters);
    await dropSpooled(store, outer, step.offer);
    return stored;
  } catch (error) {
    if (isWhittleError(error) && error.code === 'STORAGE_FULL') await inner.discard();
    throw error;
  } finally {
    await inner.close();
  }
}

/** A step of a chain whose index is here. */
interface ReadyStep extends FetchedDelta {
  /** The image that it leads to; null for the target. */
  readonly makes: HeldImage | null;
}

/**
 * Applies a chain to an image of an engine, without a second copy of any image: of those on the way only the contents that are new with
 * them are kept, in files without names beside the spool, for as long as this takes. The deltas stay spooled until the target is committed, so a
 * pull that is cut off fetches nothing again.
 */
async function followThroughScratch(context: PullContext, stage: PullStage, what: WayToFollow): Promise<void> {
  const { way: { basis: from }, image: { config: { diffIds } }, timer } = what;
  const steps = await fetchIndexes(context, stage, what);
  const wanted = new Set(steps.flatMap(({ index }) => index.basisLayers));
  const layers = new Set([...steps[0]?.index.basisLayers ?? [], ...from.diffIds.filter((diffId) => wanted.has(diffId))]);
  const start = await context.place.basis(from, { layers: [...layers] });
  const passed: PassedSink[] = [];
  try {
    stage.useBasis(start);
    let basis: ChainBasis = new ChainStart(start);
    for (const step of steps) {
      if (step.makes === null) {
        const end = new ChainEnd(stage, diffIds, basis);
        await feedDelta(context, step, { basis, sink: end, ...feedingOf(stage, step.index) }, timer);
        await end.finish();
      } else {
        const sink = new PassedSink(stage.spool.absolutePath, basis);
        passed.push(sink);
        await feedDelta(context, step, { basis, sink, fetchFirst: false }, timer);
        what.onPassed(sink.counters);
        basis = sink.asBasis(step.makes);
      }
    }
  } finally {
    for (const sink of passed) await sink.close();
    await start.close();
  }
}

async function fetchIndexes(context: PullContext, { spool: place }: PullStage, { way, image }: WayToFollow): Promise<ReadyStep[]> {
  const steps: ReadyStep[] = [];
  for (const { offer, makes } of way.steps) {
    const passed = makes === null ? null : await fetchPassedConfig(context, makes);
    const target = passed ?? { configDigest: image.manifest.config.digest, diffIds: image.config.diffIds };
    const index = await fetchDeltaIndex(context, place, offer, target);
    steps.push({ offer, index, place, makes: makes === null || passed === null ? null : { ...passed, manifestDigest: makes.served.digest, names: [], sequence: 0 } });
  }
  return steps;
}

/** Gives back the space of a delta that has been used. */
async function dropSpooled(store: Store, stage: PullStage, { index, data }: DeltaOffer): Promise<void> {
  for (const name of [spoolName('index', index.digest), spoolName('data', data.digest)]) {
    const path = `${stage.spool.path}/${name}`;
    if ((await store.fs.stat(path)) !== undefined) await store.fs.unlink(path);
  }
}

/** How the record of an image that a chain passed begins to say where it came from. No image's name has a space. */
const passedMark = 'on the way to ';

/**
 * Removes the images that chains passed, this pull's and those of pulls that were killed, as gc would. Call it without an
 * open stage. Never fails: what another process keeps it from removing now is left to a later pull or `device gc`, which is said.
 */
export async function collectPassed(store: Store, onEvent: PullListener): Promise<void> {
  try {
    const passed = (await store.images()).filter((image) => image.source.startsWith(passedMark));
    if (passed.length === 0) return;
    const named = new Set((await store.references()).flatMap(({ current, previous }) => [current, previous]));
    if (passed.every((image) => named.has(image.manifestDigest))) return;
    await store.gc({ stageMaxAgeMs: Infinity });
  } catch (error) {
    if (!isWhittleError(error)) throw error;
    const why = error.code === 'STORE_BUSY' ? 'another process is at work on the store' : error.message;
    onEvent({ event: 'note', text: `the images between are left to the next pull or "device gc": ${why}` });
  }
}

