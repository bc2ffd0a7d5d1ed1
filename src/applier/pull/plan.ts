import type { Stage } from '../store/types.js';
import { spoolName, spooledBytes, type PullContext } from './context.js';
import type { LayerToPull } from './layers.js';
import { basisCandidates, findOffers, offerBytes, type DeltaOffer } from './offers.js';
import { repositoryName, type PullOptions } from './options.js';
import type { ResolvedImage } from './resolve.js';

/** What a pull is going to do. */
export interface PullPlan {
  /** Layers that are neither in the store nor whole in the stage, each diffID once. */
  readonly missing: readonly LayerToPull[];
  /** Deltas worth using, cheapest first; none means layers in full. */
  readonly offers: readonly DeltaOffer[];
  /** Why no delta is used. */
  readonly reason: string;
  /** Bytes of the missing layers, config and manifest: the price of a pull without deltas. */
  readonly layerPullBytes: number;
}

/** What a way costs: all its bytes, and those of them that an interrupted pull left here. */
export interface WayCost {
  readonly totalBytes: number;
  readonly heldBytes: number;
}

/** Finds out what is missing and the cheapest way to get it. Fetches lists and manifests of deltas, nothing larger. */
export async function makePlan(context: PullContext, stage: Stage, image: ResolvedImage, options: PullOptions): Promise<PullPlan> {
  const missing = await missingLayers(stage, image);
  const layerPullBytes = sumBytes(missing) + image.manifest.config.size + image.target.manifest.length;
  const without = (reason: string): PullPlan => ({ missing, offers: [], reason, layerPullBytes });
  if (missing.length === 0) return without('every layer is here');
  if (options.delta === 'never') return without('deltas are switched off');
  const images = await context.store.images();
  if (images.length === 0) return without('the store is empty, so there is nothing that a delta could start from');
  const candidates = basisCandidates(images, repositoryName(options.reference), image.config.diffIds);
  const found = await findOffers(context, image.manifestDigest, candidates, options.deltaWaitMs);
  if (found.offers.length === 0) return without(found.reason);
  const layers = await layersCost(context, stage, missing);
  const costs = await Promise.all(found.offers.map(async (offer) => ({ offer, left: left(await offerCost(context, stage, offer)) })));
  const cheaper = costs.filter((each) => each.left < left(layers)).sort((a, b) => a.left - b.left).map((each) => each.offer);
  if (cheaper.length > 0) return { missing, offers: cheaper, reason: '', layerPullBytes };
  return without(`the delta (${String(Math.min(...costs.map((each) => each.left)))} bytes) would not be smaller than the layers (${String(left(layers))} bytes)`);
}

async function missingLayers(stage: Stage, image: ResolvedImage): Promise<LayerToPull[]> {
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

/** What is still to be downloaded of a way. */
export function left(cost: WayCost): number {
  return Math.max(0, cost.totalBytes - cost.heldBytes);
}

/** The cost of fetching layers in full. */
export async function layersCost(context: PullContext, stage: Stage, layers: readonly LayerToPull[]): Promise<WayCost> {
  let heldBytes = 0;
  for (const { descriptor } of layers) heldBytes += Math.min(descriptor.size, await spooledBytes(context, stage.spool.path, spoolName('layer', descriptor.digest)));
  return { totalBytes: sumBytes(layers), heldBytes };
}

/** The cost of a delta. */
export async function offerCost(context: PullContext, stage: Stage, offer: DeltaOffer): Promise<WayCost> {
  const index = await spooledBytes(context, stage.spool.path, spoolName('index', offer.index.digest));
  const data = await spooledBytes(context, stage.spool.path, spoolName('data', offer.data.digest));
  return { totalBytes: offerBytes(offer), heldBytes: Math.min(index, offer.index.size) + Math.min(data, offer.data.size) };
}

function sumBytes(layers: readonly LayerToPull[]): number {
  return layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0);
}
