import { isWhittleError, systemErrorCode } from '../../core/errors.js';
import type { ErrorCode } from '../../core/error-codes.js';
import { peakRssBytes } from '../../core/memory.js';
import type { HeldImage, ImagePlace, PullStage } from '../engines/types.js';
import type { StageCounters, Store } from '../store/types.js';
import type { PullContext } from './context.js';
import { collectPassed, followWay } from './chain.js';
import type { PullFigures, PullWay } from './events.js';
import type { ImageSource } from './image-source.js';
import { pullLayers } from './layers.js';
import { Meter, WorkTimer } from './meter.js';
import { storeName, type PullOptions } from './options.js';
import { storePlace } from './place.js';
import { layersCost, makePlan, planSteps, type PullPlan } from './plan.js';
import { RateLimiter } from './rate.js';
import { requirePlatform, resolveConfig, resolveManifest, type ResolvedImage, type ResolvedManifest } from './resolve.js';
import { searchLimits } from './search-limits.js';
import { left, plannedBytes, wayCost, type DeltaWay } from './ways.js';

/** How a pull ended. `image` is null after a dry run. */
export interface PullResult {
  readonly image: HeldImage | null;
  /** `current`: the name already meant this image, and nothing was done. */
  readonly outcome: 'committed' | 'current' | 'planned';
  readonly way: PullWay;
  readonly figures: PullFigures;
}

/** Errors after which the same pull is worth running again as it is: what is fetched and built stays. No other way would fare better. */
const notTheDeltasFault: readonly ErrorCode[] = [
  'INTERRUPTED', 'BUDGET_EXCEEDED', 'FETCH_FAILED', 'STORAGE_FULL', 'STORAGE_IO', 'STORAGE_PERMISSION', 'STORAGE_READ_ONLY', 'STORAGE_UNSUPPORTED', 'STORE_BUSY',
  'REGISTRY_UNREACHABLE', 'REGISTRY_UNAVAILABLE', 'REGISTRY_RATE_LIMITED', 'REGISTRY_UNAUTHORIZED', 'REGISTRY_FORBIDDEN', 'REGISTRY_TLS',
  'ENGINE_UNREACHABLE', 'ENGINE_DENIED', 'ENGINE_UNSUPPORTED', 'ENGINE_FAILED',
];

/**
 * Pulls an image into the store: resolve, plan, fetch, apply, verify, commit. Each step leaves on disk what the next
 * run needs, so that after any interruption the same call continues. Throws what the steps throw; the store then still
 * has its old images, and the stage what was done so far (but after STORAGE_FULL, when it is removed).
 */
export async function pullImage(store: Store, source: ImageSource, options: PullOptions): Promise<PullResult> {
  return pullInto(storePlace(store), source, options);
}

/** `pullImage` into any place: the device's store, or a container engine (`enginePlace`), which then takes the layers and gives the basis. */
export async function pullInto(place: ImagePlace, source: ImageSource, options: PullOptions): Promise<PullResult> {
  return new Pull(place, source, options).run();
}

class Pull {
  readonly #context: PullContext;
  readonly #timer = new WorkTimer();
  readonly #startedMs = performance.now();
  readonly #name: string;
  #deltaBytes = 0;
  #layerPullBytes = 0;
  #commitMs = 0;
  #counters = { writtenBytes: 0, linkedBytes: 0, keptBytes: 0 };

  constructor(private readonly place: ImagePlace, source: ImageSource, private readonly options: PullOptions) {
    const { onEvent, signal, patience } = options;
    this.#name = storeName(options.reference);
    this.#context = { place, source, onEvent, signal, patience, limiter: new RateLimiter(options.limitRate), meter: new Meter(options.maxBytes, onEvent, () => source.receivedBytes?.() ?? 0) };
  }

  async run(): Promise<PullResult> {
    const { onEvent, source } = this.#context;
    const resolved = await resolveManifest(this.#context, this.options);
    const held = await this.#held(resolved);
    if (held !== null) requirePlatform(this.#context, this.options, held);
    const damaged = held === null ? [] : await this.#damaged(held);
    // A pull that was cut off at its very end may have left something: its stage, and what an engine holds for it, go below.
    if (held !== null && damaged.length === 0 && !(await this.place.hasLeftStage(resolved.served.digest))) {
      await this.#collect();
      return this.#current(held, resolved.served.digest);
    }
    const image = await resolveConfig(this.#context, this.options, resolved);
    onEvent({ event: 'resolved', image: this.#name, manifestDigest: image.manifestDigest, configDigest: image.manifest.config.digest, from: source.name });
    const stage = await this.#openStage(image, damaged);
    try {
      // Whoever held the stage before may have finished the job.
      const finished = await this.#held(resolved);
      if (finished !== null && (await this.#damaged(finished)).length === 0) {
        await stage.discard();
        await this.#collect();
        return this.#current(finished, image.manifestDigest);
      }
      if (damaged.length > 0) onEvent({ event: 'note', text: `${String(damaged.length)} of the layers that are here ${damaged.length === 1 ? 'is' : 'are'} damaged and will be fetched again` });
      return await this.#build(stage, image);
    } catch (error) {
      if (isWhittleError(error) && error.code === 'STORAGE_FULL') {
        await stage.discard();
        await this.#collect();
      }
      throw error;
    } finally {
      await stage.close();
    }
  }

  get #into(): { readonly into?: string } {
    return this.place.passing === null ? { into: this.place.name } : {};
  }

  /** The image, if the name means it already. */
  async #held({ served, manifest, index }: ResolvedManifest): Promise<HeldImage | null> {
    const image = await this.place.resolve(this.#name);
    // A place that keeps no manifests knows its images by their configs.
    if (image === undefined || (image.manifestDigest === null ? image.configDigest !== manifest.config.digest : image.manifestDigest !== served.digest)) return null;
    return image.indexDigest === undefined || image.indexDigest === (index?.digest ?? null) ? image : null;
  }

  async #damaged(image: HeldImage): Promise<readonly string[]> {
    return (await this.place.damagedLayers?.(image)) ?? [];
  }

  #current(image: HeldImage, manifestDigest: string): PullResult {
    this.#context.onEvent({ event: 'current', image: this.#name, manifestDigest, configDigest: image.configDigest, ...this.#into });
    return { image, outcome: 'current', way: 'nothing', figures: this.#figures() };
  }

  async #openStage(image: ResolvedImage, replaceLayers: readonly string[] = []): Promise<PullStage> {
    const { onEvent, signal } = this.#context;
    const open = (waitMs: number): Promise<PullStage> =>
      this.place.stage(image.target, { waitMs, signal, replaceLayers, onNote: (text) => { onEvent({ event: 'note', text }); } });
    try {
      return await open(0);
    } catch (error) {
      if (!isWhittleError(error) || error.code !== 'STORE_BUSY' || this.options.lockWaitMs === 0) throw error;
      onEvent({ event: 'waiting', reason: 'lock', waitMs: this.options.lockWaitMs });
      return open(this.options.lockWaitMs);
    }
  }

  async #build(stage: PullStage, image: ResolvedImage): Promise<PullResult> {
    const plan = await makePlan(this.#context, stage, image, this.options);
    this.#layerPullBytes = plan.layerPullBytes;
    const planned = await this.#announce(stage, image, plan);
    if (this.options.dryRun) return { image: null, outcome: 'planned', way: planned, figures: this.#figures() };
    const way = await this.#fill(stage, image, plan);
    this.#context.onEvent({ event: 'applied', way, layers: plan.missing.length, applyMs: Math.round(this.#timer.workMs) });
    const stored = await this.#commit(stage, image);
    await this.#collect();
    const figures = this.#figures();
    this.#context.onEvent({ event: 'committed', ...this.#into, image: this.#name, manifestDigest: image.manifestDigest, configDigest: stored.configDigest, way, ...figures });
    return { image: stored, outcome: 'committed', way, figures };
  }

  /** Says what will be downloaded, before it is, and refuses what the budget or the disk does not allow. */
  async #announce(stage: PullStage, image: ResolvedImage, plan: PullPlan): Promise<PullWay> {
    const [best] = plan.ways;
    const way: PullWay = plan.missing.length === 0 ? 'nothing' : best === undefined ? 'layers' : 'delta';
    const cost = best === undefined ? await layersCost(this.#context, stage, plan.missing) : await wayCost(this.#context, stage, best);
    // Manifests are counted already: they were fetched to know the price.
    const missingBytes = left(cost) - (best === undefined ? 0 : plannedBytes(best));
    this.#context.onEvent({
      event: 'plan', ...this.#into, way, downloadBytes: left(cost), receivedBytes: this.#context.meter.downloaded.total + missingBytes, heldBytes: cost.heldBytes, layerPullBytes: plan.layerPullBytes,
      missingLayers: plan.missing.length, totalLayers: image.config.diffIds.length, steps: await planSteps(this.#context, stage, image, plan),
      ...(best === undefined ? { reason: plan.reason } : { deltaDigest: best.steps.at(-1)?.offer.digest ?? '', ...(best.basis.manifestDigest === null ? {} : { basisManifest: best.basis.manifestDigest }), basisConfig: best.basis.configDigest }),
    });
    if (this.options.dryRun) return way;
    this.#context.meter.requireBudget(missingBytes);
    const layers = await layersCost(this.#context, stage, plan.missing);
    await stage.requireSpace({ spoolBytes: left(cost), imageBytes: cost.totalBytes, layerBytes: layers.totalBytes });
    return way;
  }

  async #fill(stage: PullStage, image: ResolvedImage, plan: PullPlan): Promise<PullWay> {
    const byDelta = await this.#applyDeltas(stage, image, plan);
    const rest = [];
    for (const each of plan.missing) if (!(await stage.hasLayer(each.layer))) rest.push(each);
    if (rest.length > 0) {
      const cost = await layersCost(this.#context, stage, rest);
      this.#context.meter.requireBudget(left(cost));
      this.#context.meter.begin(cost.totalBytes, cost.heldBytes);
      await pullLayers(this.#context, stage, rest, this.#timer);
    }
    return plan.missing.length === 0 ? 'nothing' : byDelta ? 'delta' : 'layers';
  }

  /** Tries the deltas of the plan in turn; whether one of them did it. */
  async #applyDeltas(stage: PullStage, image: ResolvedImage, plan: PullPlan): Promise<boolean> {
    for (const way of plan.ways.slice(0, searchLimits.waysTried)) {
      try {
        await this.#followWay(stage, image, way);
        return true;
      } catch (error) {
        if (!mayFallBack(error, this.#context.signal)) throw error;
        const code = isWhittleError(error) ? error.code : 'INTERNAL';
        this.#context.onEvent({ event: 'fallback', code, reason: error instanceof Error ? error.message : String(error) });
      }
    }
    return false;
  }

  async #followWay(stage: PullStage, image: ResolvedImage, way: DeltaWay): Promise<void> {
    const { meter } = this.#context;
    const cost = await wayCost(this.#context, stage, way);
    meter.requireBudget(left(cost) - plannedBytes(way));
    meter.begin(cost.totalBytes - plannedBytes(way), cost.heldBytes);
    await followWay(this.#context, stage, { way, image, timer: this.#timer, lockWaitMs: this.options.lockWaitMs, source: this.options.image, onPassed: (counters) => { this.#count(counters); } });
    this.#deltaBytes = cost.totalBytes;
  }

  async #collect(): Promise<void> {
    if (this.place.passing !== null) await collectPassed(this.place.passing, this.#context.onEvent);
  }

  async #commit(stage: PullStage, image: ResolvedImage): Promise<HeldImage> {
    try {
      return await this.#commitStage(stage);
    } catch (error) {
      if (!isWhittleError(error) || error.code !== 'STORE_DAMAGED' || typeof error.data['layers'] !== 'string') throw error;
      this.#context.onEvent({ event: 'fallback', code: error.code, reason: error.message });
      return this.#commitRepaired(stage, image, error.data['layers'].split(','));
    }
  }

  async #commitStage(stage: PullStage): Promise<HeldImage> {
    const { onEvent, signal } = this.#context;
    const startedMs = performance.now();
    try {
      return await stage.commit({
        name: this.#name, source: this.options.image, signal,
        onProgress: (doneBytes, totalBytes) => { onEvent({ event: 'progress', phase: 'verify', doneBytes, totalBytes }); },
      });
    } finally {
      this.#commitMs += performance.now() - startedMs;
      this.#count(stage.counters);
    }
  }

  /** Layers that were to be reused have rotted: they are fetched in full, and exchanged by the commit. */
  async #commitRepaired(stage: PullStage, image: ResolvedImage, damaged: readonly string[]): Promise<HeldImage> {
    await stage.close();
    const repair = await this.#openStage(image, damaged);
    try {
      const layers = [];
      const seen = new Set<string>();
      for (const [layer, descriptor] of image.manifest.layers.entries()) {
        const diffId = image.config.diffIds[layer] ?? '';
        // An engine that took a stream has forgotten what it was given before.
        if (!seen.has(diffId) && !(await repair.hasLayer(layer))) layers.push({ layer, descriptor });
        seen.add(diffId);
      }
      const cost = await layersCost(this.#context, repair, layers);
      this.#context.meter.requireBudget(left(cost));
      this.#context.meter.begin(cost.totalBytes, cost.heldBytes);
      await pullLayers(this.#context, repair, layers, this.#timer);
      return await this.#commitStage(repair);
    } finally {
      await repair.close();
    }
  }

  #count({ writtenBytes, linkedBytes, keptBytes }: StageCounters): void {
    this.#counters = { writtenBytes: this.#counters.writtenBytes + writtenBytes, linkedBytes: this.#counters.linkedBytes + linkedBytes, keptBytes: this.#counters.keptBytes + keptBytes };
  }

  #figures(): PullFigures {
    const { meter } = this.#context;
    return {
      downloadedBytes: meter.downloaded, refetchedBytes: meter.refetchedBytes, layerPullBytes: this.#layerPullBytes, deltaBytes: this.#deltaBytes,
      wallMs: Math.round(performance.now() - this.#startedMs), applyMs: Math.round(this.#timer.workMs), commitMs: Math.round(this.#commitMs),
      peakRssBytes: peakRssBytes(),
      writtenBytes: this.#counters.writtenBytes, reusedBytes: this.#counters.linkedBytes + this.#counters.keptBytes,
    };
  }
}

/** Whether another way to the image may succeed where this one failed. */
function mayFallBack(error: unknown, signal: AbortSignal): boolean {
  if (signal.aborted) return false;
  if (isWhittleError(error)) return !notTheDeltasFault.includes(error.code);
  // A system error is the machine's, whatever way is taken; anything else is a defect that a delta brought to light.
  return systemErrorCode(error) === undefined;
}
