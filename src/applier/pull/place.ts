import { stat, statfs } from 'node:fs/promises';
import type { BasisOptions, Engine, HeldBasis, HeldImage, ImagePlace, LayerSink, PullStage, SpaceNeeds } from '../engines/types.js';
import type { LayerPlan } from '../../delta/plan.js';
import type { DurableFs } from '../../atomic/durable-fs.js';
import { requireFree } from '../free-space.js';
import type { CommitOptions, Stage, StageCounters, StageOptions, Store, TargetImage } from '../store/types.js';
import { ForwardedSink } from './forwarded-sink.js';

/** The device's own store as the place that a pull works on. */
export function storePlace(store: Store): ImagePlace {
  return {
    name: 'the store', fs: store.fs, passing: store,
    images: () => store.images(), resolve: (name) => store.resolve(name), damagedLayers: (image) => store.damagedLayers(image),
    basis: (image, options) => store.basis(image, options), stage: (target, options) => store.stage(target, options),
    hasLeftStage: (manifestDigest) => store.hasLeftStage(manifestDigest),
  };
}

/**
 * An engine as the place that a pull works on: layers are the engine's, while lock and spool are those of the device's store,
 * so that what was fetched is there after any interruption. The caller closes both store and engine.
 */
export function enginePlace(store: Store, engine: Engine): ImagePlace {
  return new EnginePlace(store, engine);
}

class EnginePlace implements ImagePlace {
  readonly passing = null;

  constructor(private readonly store: Store, private readonly engine: Engine) {}

  get name(): string {
    return this.engine.name;
  }

  get fs(): DurableFs {
    return this.store.fs;
  }

  images(): Promise<HeldImage[]> {
    return this.engine.images();
  }

  resolve(name: string): Promise<HeldImage | undefined> {
    return this.engine.resolve(name);
  }

  basis(image: HeldImage, options?: BasisOptions): Promise<HeldBasis> {
    return this.engine.basis(image, options);
  }

  hasLeftStage(manifestDigest: string): Promise<boolean> {
    return this.store.hasLeftStage(manifestDigest);
  }

  async stage(target: TargetImage, options: StageOptions = {}): Promise<PullStage> {
    const own = await this.store.stage(target, options);
    try {
      const scratchDirectory = own.spool.absolutePath;
      const sink = await this.engine.begin(target, { scratchDirectory, replaceLayers: options.replaceLayers ?? [], signal: options.signal, onNote: (note) => options.onNote?.(note) });
      return new EngineStage(own, sink, this.engine);
    } catch (error) {
      await own.close();
      throw error;
    }
  }
}

/** Which filesystem a directory is on, and what is free there; null when it cannot be seen. */
async function filesystemOf(path: string): Promise<{ readonly device: number; readonly freeBytes: number } | null> {
  try {
    const { bavail, bsize } = await statfs(path);
    return { device: (await stat(path)).dev, freeBytes: bavail * bsize };
  } catch {
    return null;
  }
}

/** Lock and spool of the device's store, layers to the engine. */
class EngineStage extends ForwardedSink<LayerSink> implements PullStage {
  constructor(private readonly own: Stage, sink: LayerSink, private readonly engine: Engine) {
    super(sink);
  }

  get intake(): LayerSink['intake'] {
    return this.sink.intake;
  }

  get diffIds(): readonly string[] {
    return this.own.diffIds;
  }

  get spool(): PullStage['spool'] {
    return this.own.spool;
  }

  get counters(): StageCounters {
    return this.sink.counters;
  }

  /** Spool and image may be on two filesystems. */
  async requireSpace(needs: SpaceNeeds): Promise<void> {
    const { spoolBytes, imageBytes, layerBytes } = needs;
    const storage = await this.engine.storage();
    const found = storage === null ? null : await filesystemOf(storage.path);
    if (storage === null || found === null) {
      await this.own.requireSpace({ ...needs, imageBytes: 0 });
      return;
    }
    const engineBytes = storage.layerCopies === 0 ? imageBytes : layerBytes * storage.layerCopies;
    if ((await filesystemOf(this.own.spool.absolutePath))?.device === found.device) {
      requireFree(storage.path, spoolBytes + engineBytes, found.freeBytes);
      return;
    }
    await this.own.requireSpace({ ...needs, imageBytes: 0 });
    requireFree(storage.path, engineBytes, found.freeBytes);
  }

  useBasis(basis: HeldBasis): void {
    this.sink.useBasis(basis);
  }

  planned(layer: number, plan: LayerPlan, isLast: boolean): void {
    this.sink.planned?.(layer, plan, isLast);
  }

  hasLayer(layer: number): Promise<boolean> {
    return this.sink.hasLayer(layer);
  }

  writeLayerTar(layer: number, chunks: AsyncIterable<Buffer>, sizeBytes?: number): Promise<void> {
    return this.sink.writeLayerTar(layer, chunks, sizeBytes);
  }

  checkpoint(): Promise<void> {
    return this.sink.checkpoint();
  }

  /** The spool goes only when the engine has the image. */
  async commit(options: CommitOptions): Promise<HeldImage> {
    const image = await this.sink.commit(options);
    await this.own.discard();
    return image;
  }

  async discard(): Promise<void> {
    try {
      await this.sink.discard();
    } finally {
      await this.own.discard();
    }
  }

  async close(): Promise<void> {
    try {
      await this.sink.close();
    } finally {
      await this.own.close();
    }
  }
}
