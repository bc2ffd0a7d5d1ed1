import { WhittleError } from '../../core/errors.js';
import type { PullStage } from '../engines/types.js';
import { spoolName, spooledBytes, type PullContext } from './context.js';
import type { PlanStep } from './events.js';
import type { ImageSource } from './image-source.js';
import type { LayerToPull } from './layers.js';
import { askForDeltas, basisCandidates } from './offers.js';
import { repositoryName, type PullOptions } from './options.js';
import type { ResolvedImage } from './resolve.js';
import { searchLimits } from './search-limits.js';
import { left, searchWays, stepCost, type DeltaWay, type WayCost } from './ways.js';

/** What a pull is going to do. */
export interface PullPlan {
  /** Layers that are neither in the store nor whole in the stage, each diffID once. */
  readonly missing: readonly LayerToPull[];
  /** Ways by deltas that are cheaper than the layers, cheapest first; none means layers in full. */
  readonly ways: readonly DeltaWay[];
  /** Why no delta is used. */
  readonly reason: string;
  /** Bytes of the missing layers, config and manifest: the price of a pull without deltas. */
  readonly layerPullBytes: number;
}

/**
 * Finds out what is missing and the cheapest way to get it. Fetches lists and manifests, nothing larger. Throws
 * BLOB_MISSING when the source has not all of the layers, as a .delta file has none, and no delta is a way either.
 */
export async function makePlan(context: PullContext, stage: PullStage, image: ResolvedImage, options: PullOptions): Promise<PullPlan> {
  const missing = await missingLayers(stage, image);
  const layerPullBytes = sumBytes(missing) + image.manifest.config.size + image.target.manifest.length;
  const absent = await firstAbsent(context.source, missing);
  const without = (reason: string): PullPlan => {
    if (absent !== null) throw noWay(context.source, absent, reason);
    return { missing, ways: [], reason, layerPullBytes };
  };
  if (missing.length === 0) return without('every layer is here');
  if (options.delta === 'never') return without('deltas are switched off');
  if (absent === null && sumBytes(missing) <= searchLimits.worthAskingBytes) return without('the layers are smaller than any delta');
  // Of this image itself there is nothing to start from: it is here, and damaged.
  const images = (await context.place.images()).filter((held) => held.configDigest !== image.manifest.config.digest);
  if (images.length === 0) return without(context.place.passing === null ? `${context.place.name} holds nothing that a delta could start from` : 'the store is empty, so there is nothing that a delta could start from');
  const candidates = basisCandidates(images, repositoryName(options.reference), image.config.diffIds);
  const { descriptors, reason } = await askForDeltas(context, image.manifestDigest, candidates, options.deltaWaitMs);
  if (descriptors.length === 0) return without(reason);
  // Where layers cannot be had, no delta is too dear.
  const layersLeft = absent === null ? left(await layersCost(context, stage, missing)) : Infinity;
  const found = await searchWays(context, stage, { subject: image.manifestDigest, descriptors, candidates, layersLeft });
  const cheaper = found.ways.filter((each) => left(each) < layersLeft);
  if (cheaper.length > 0) return { missing, ways: cheaper.map(({ way }) => way), reason: '', layerPullBytes };
  const [best] = found.ways;
  if (best === undefined) return without(found.reason);
  return without(`the delta (${String(left(best))} bytes) would not be smaller than the layers (${String(layersLeft)} bytes)`);
}

/** The first of these layers that the source is known not to have. */
async function firstAbsent(source: ImageSource, layers: readonly LayerToPull[]): Promise<string | null> {
  for (const { descriptor } of layers) if ((await source.holds?.(descriptor.digest)) === false) return descriptor.digest;
  return null;
}

function noWay(source: ImageSource, digest: string, reason: string): WhittleError {
  return new WhittleError('BLOB_MISSING', `${source.name} does not hold the layer ${digest}, and nothing else leads to it: ${reason}`, {
    data: { digest }, hint: 'Take a .delta file that starts from an image which "device images" shows, or pull the whole image, from a registry or an archive.',
  });
}

async function missingLayers(stage: PullStage, image: ResolvedImage): Promise<LayerToPull[]> {
  const missing: LayerToPull[] = [];
  const seen = new Set<string>();
  for (const [layer, descriptor] of image.manifest.layers.entries()) {
    const diffId = image.config.diffIds[layer] ?? '';
    if (seen.has(diffId)) continue;
    seen.add(diffId);
    if (!(await stage.hasLayer(layer))) missing.push({ layer, descriptor });
  }
  return missing;
}

/** The cost of fetching layers in full. */
export async function layersCost(context: PullContext, stage: PullStage, layers: readonly LayerToPull[]): Promise<WayCost> {
  let heldBytes = 0;
  for (const { descriptor } of layers) heldBytes += await heldOfLayer(context, stage, descriptor);
  return { totalBytes: sumBytes(layers), heldBytes };
}

async function heldOfLayer(context: PullContext, stage: PullStage, descriptor: LayerToPull['descriptor']): Promise<number> {
  return Math.min(descriptor.size, await spooledBytes(context, stage.spool.path, spoolName('layer', descriptor.digest)));
}

/** What the first way of a plan (or else the layers) fetches, step by step. */
export async function planSteps(context: PullContext, stage: PullStage, image: ResolvedImage, plan: PullPlan): Promise<PlanStep[]> {
  const [way] = plan.ways;
  const steps: PlanStep[] = [];
  for (const step of way?.steps ?? []) {
    const cost = await stepCost(context, stage, step);
    const makes = { manifest: step.makes?.served.digest ?? image.manifestDigest, config: (step.makes?.manifest ?? image.manifest).config.digest };
    steps.push({ kind: 'delta', digest: step.offer.digest, basisConfig: step.offer.basisConfig, targetManifest: makes.manifest, targetConfig: makes.config, downloadBytes: left(cost), heldBytes: cost.heldBytes });
  }
  if (way !== undefined) return steps;
  for (const { descriptor } of plan.missing) {
    const heldBytes = await heldOfLayer(context, stage, descriptor);
    steps.push({ kind: 'layer', digest: descriptor.digest, downloadBytes: descriptor.size - heldBytes, heldBytes });
  }
  return steps;
}

function sumBytes(layers: readonly LayerToPull[]): number {
  return layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0);
}
