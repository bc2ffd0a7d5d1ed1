import { acquireLock, removeTree, storageError, type FsLock } from '../../atomic/index.js';
import { WhittleError } from '../../core/errors.js';
import { throwIfAborted } from '../../core/interruption.js';
import type { SpaceNeeds } from '../engines/types.js';
import { requireFree } from '../free-space.js';
import { LayersBasis } from './basis.js';
import { BuildingSink } from './building-sink.js';
import { checkLayer } from './check.js';
import { findDamaged, moveLayers, point, recordImage } from './commit.js';
import type { StoreContext } from './context.js';
import { Layer } from './layer.js';
import { LayerBuilder } from './layer-builder.js';
import { hexOf, layerPath, stageLockPath, stagePath } from './layout.js';
import { discardStage, forgetStageLock, mayMakeDevices, prepareStage } from './stage-directory.js';
import type { Target } from './target.js';
import type { CommitOptions, Stage, StageOptions, StoreBasis, StoredImage } from './types.js';

/** An uncommitted apply on disk, held by one process at a time. */
export class DiskStage extends BuildingSink implements Stage {
  readonly intake = 'kept';
  protected readonly builder: LayerBuilder;
  /** diffIDs known to be whole: staged here, or committed and not to be replaced. */
  readonly #whole = new Map<string, 'stage' | 'store'>();

  private constructor(
    private readonly context: StoreContext, private readonly target: Target, private readonly options: StageOptions,
    private readonly locks: { readonly stage: FsLock; readonly use: FsLock }, readonly resumed: boolean, private readonly privileged: boolean,
  ) {
    super();
    this.builder = new LayerBuilder({
      fs: context.fs, privileged, signal: options.signal, counters: this.counted,
      whole: async (diffId) => (await this.#isWhole(diffId)) ? this.#loadWhole(diffId) : undefined,
      room: (diffId) => this.#room(diffId), built: (diffId) => { this.#whole.set(diffId, 'stage'); },
      refused: (diffId) => removeTree(context.fs, this.#layerPath(diffId)),
    }, target.diffIds);
  }

  /** Opens the stage of `target`. On disk when it returns: its directory and record. */
  static async open(context: StoreContext, target: Target, options: StageOptions): Promise<DiskStage> {
    const { fs } = context;
    const path = stagePath(target.manifestDigest);
    const lock = await acquireLock(fs, stageLockPath(target.manifestDigest), {
      mode: 'exclusive', waitMs: options.waitMs ?? 0, signal: options.signal, what: `the stage of ${target.manifestDigest}`,
    });
    let use: FsLock | undefined;
    try {
      use = await context.use();
      const privileged = context.privileged && (await mayMakeDevices(context));
      const resumed = await prepareStage(context, path, target, privileged);
      return new DiskStage(context, target, options, { stage: lock, use }, resumed, privileged);
    } catch (error) {
      await lock.release();
      await use?.release();
      throw error;
    }
  }

  get manifestDigest(): string {
    return this.target.manifestDigest;
  }

  get configDigest(): string {
    return this.target.configDigest;
  }

  get diffIds(): readonly string[] {
    return this.target.diffIds;
  }

  get spool(): { readonly path: string; readonly absolutePath: string } {
    const path = `${this.#path}/spool`;
    return { path, absolutePath: `${this.context.fs.root}/${path}` };
  }

  get #path(): string {
    return stagePath(this.target.manifestDigest);
  }

  useBasis(basis: StoreBasis): void {
    if (!(basis instanceof LayersBasis)) throw new WhittleError('INTERNAL', 'a stage takes only its own store\'s basis');
    this.builder.useBasis(basis);
  }

  hasLayer(layer: number): Promise<boolean> {
    return this.guard('looking for a layer', () => this.#isWhole(this.builder.diffId(layer)));
  }

  async #isWhole(diffId: string): Promise<boolean> {
    if (this.#whole.has(diffId)) return true;
    const { context, options } = this;
    if (options.replaceLayers?.includes(diffId) !== true && (await context.loadHead(diffId)) !== undefined) {
      this.#whole.set(diffId, 'store');
      return true;
    }
    const left = await Layer.load(context.fs, this.#layerPath(diffId), diffId);
    if (left === undefined) return false;
    const { damageCount } = await checkLayer(context.fs, left, { signal: options.signal });
    if (damageCount > 0) return false;
    this.countKept(left.meta);
    this.#whole.set(diffId, 'stage');
    return true;
  }

  async #room(diffId: string): Promise<{ path: string; fresh: boolean }> {
    const { fs } = this.context;
    const path = this.#layerPath(diffId);
    const left = await fs.stat(path);
    // It is being changed, so it is not whole, whatever its metadata file says.
    if (left !== undefined) await removeTree(fs, `${path}/meta`);
    return { path, fresh: left === undefined };
  }

  #layerPath(diffId: string): string {
    return `${this.#path}/layers/${hexOf(diffId)}`;
  }

  async #loadWhole(diffId: string): Promise<Layer> {
    const path = this.#whole.get(diffId) === 'store' ? layerPath(diffId) : this.#layerPath(diffId);
    const layer = await Layer.load(this.context.fs, path, diffId);
    if (layer === undefined) throw new WhittleError('STORE_DAMAGED', `the metadata of layer ${diffId} is gone`, { data: { layers: diffId } });
    return layer;
  }

  async requireSpace({ spoolBytes, imageBytes }: SpaceNeeds): Promise<void> {
    const { freeBytes } = await this.guard('asking for free space', () => this.context.fs.space());
    requireFree(this.context.fs.root, spoolBytes + imageBytes, freeBytes);
  }

  async checkpoint(): Promise<void> {
    await this.guard('syncing the stage', () => this.context.fs.syncfs('stage.checkpoint'));
  }

  commit(options: CommitOptions): Promise<StoredImage> {
    return this.guard('committing', () => this.#commit(options));
  }

  /**
   * 1. every layer is there; 2. syncfs; 3. all is read back from disk and proven; then, with no other process in the way,
   * 4. layers are moved into place, and the moves synced; 5. the image record; 6. the reference: only now is it visible.
   */
  async #commit(options: CommitOptions): Promise<StoredImage> {
    const { context, target } = this;
    const distinct = [...new Set(target.diffIds)];
    for (const diffId of distinct) {
      if (!(await this.#isWhole(diffId))) throw new WhittleError('STAGE_INCOMPLETE', `layer ${diffId} is not there yet`, { data: { diffId } });
    }
    // What building them took is not needed to prove them, and a large image's would be in memory twice.
    this.builder.clear();
    await context.fs.syncfs('stage.commit');
    if (options.verify !== false) await this.#prove(distinct, options);
    throwIfAborted(options.signal);
    const staged = distinct.filter((diffId) => this.#whole.get(diffId) === 'stage').map((diffId) => ({
      diffId, path: this.#layerPath(diffId), replace: this.options.replaceLayers?.includes(diffId) === true,
    }));
    const record = await context.exclusively(async () => {
      await moveLayers(context, staged);
      await context.damage.clear(options.verify === false ? staged.map(({ diffId }) => diffId) : distinct);
      const image = await recordImage(context, target, options.source);
      if (options.name !== null) await point(context, options.name, target.manifestDigest);
      return image;
    }, options.signal);
    try {
      await this.#drop();
    } catch (error) {
      // The image is committed; what could not be removed here is removed by the next recovery.
      this.options.onNote?.(`the stage could not be removed: ${String(error)}`);
    }
    return { ...record, names: options.name === null ? [] : [options.name] };
  }

  /** Reads every layer back from disk. What turns out wrong in the stage is deleted, and named with what is wrong in the store. */
  async #prove(diffIds: readonly string[], options: CommitOptions): Promise<void> {
    const layers: Layer[] = [];
    for (const diffId of diffIds) layers.push(await this.#loadWhole(diffId));
    const { damaged, detail } = await findDamaged(this.context, layers, options);
    for (const layer of damaged) {
      this.#whole.delete(layer.meta.diffId);
      if (layer.path !== layerPath(layer.meta.diffId)) await removeTree(this.context.fs, layer.path);
    }
    if (damaged.length > 0) {
      throw new WhittleError('STORE_DAMAGED', `${String(damaged.length)} of the image's layers did not verify on disk: ${detail}`, { data: { layers: damaged.map((layer) => layer.meta.diffId).join(',') } });
    }
  }

  async discard(): Promise<void> {
    if (this.closed) return;
    await this.builder.abandon();
    try {
      await this.#drop();
    } catch (error) {
      throw storageError(error, 'discarding the stage');
    }
  }

  async #drop(): Promise<void> {
    let gone = false;
    try {
      await discardStage(this.context.fs, this.#path);
      gone = true;
    } finally {
      await this.#release(gone);
    }
  }

  async close(): Promise<void> {
    if (this.closed) return;
    await this.builder.abandon();
    // What a failing disk may have swallowed must be written anew, to new inodes.
    if (this.failed) await discardStage(this.context.fs, this.#path).catch(() => undefined);
    await this.#release(false);
  }

  /** `gone`: the stage is no more, and neither shall its lock be. */
  async #release(gone: boolean): Promise<void> {
    this.closed = true;
    const { stage, use } = this.locks;
    await (gone ? forgetStageLock(this.context.fs, this.target.manifestDigest, stage) : stage.release());
    await use.release();
  }
}
