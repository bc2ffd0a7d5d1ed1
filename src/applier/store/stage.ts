import { acquireLock, discardTree, removeTree, storageError, type FsLock } from '../../atomic/index.js';
import { isWhittleError, systemErrorCode, WhittleError } from '../../core/errors.js';
import type { BasisContent } from '../../delta/basis.js';
import type { ContentOrigin } from '../../delta/sink.js';
import { LayerMetaBuilder, type LayerMeta, type TarHeader } from '../../tar/index.js';
import { LayersBasis } from './basis.js';
import { checkLayer } from './check.js';
import { findDamaged, moveLayers, point, recordImage } from './commit.js';
import type { StoreContext } from './context.js';
import type { WriterCounters } from './file-sink.js';
import { contentPlace, Layer, throwIfAborted, type ContentPlace } from './layer.js';
import type { LayerTree } from './layer-tree.js';
import { LayerWriter } from './layer-writer.js';
import { hexOf, layerPath, layout, stageLockPath, stagePath } from './layout.js';
import { LinkRule, type CopyOrigin } from './link-rule.js';
import { sparseLayout } from './sparse.js';
import { mayMakeDevices, prepareStage } from './stage-directory.js';
import type { Target } from './target.js';
import type { CommitOptions, Stage, StageCounters, StageOptions, StoreBasis, StoredImage } from './types.js';

/** A layer of the target while and after it is rebuilt. */
interface StagedLayer {
  /** Null when the layer is whole. */
  writer: LayerWriter | null;
  readonly path: string;
  readonly tree: LayerTree;
  meta: LayerMeta;
  next: number;
}

/** An uncommitted apply on disk, held by one process at a time. */
export class DiskStage implements Stage {
  readonly intake = 'kept';
  readonly #counters: WriterCounters = { writtenBytes: 0, writtenFiles: 0, linkedBytes: 0, linkedFiles: 0, keptBytes: 0, keptFiles: 0 };
  readonly #staged = new Map<string, StagedLayer>();
  /** diffIDs known to be whole: staged here, or committed and not to be replaced. */
  readonly #whole = new Map<string, 'stage' | 'store'>();
  readonly #links: LinkRule;
  #basis: LayersBasis | null = null;
  #failed = false;
  #closed = false;

  private constructor(
    private readonly context: StoreContext, private readonly target: Target, private readonly options: StageOptions,
    private readonly locks: readonly FsLock[], readonly resumed: boolean, private readonly privileged: boolean,
  ) {
    this.#links = new LinkRule(target.diffIds, privileged);
  }

  /** Opens the stage of `target`. On disk when it returns: its directory and record. */
  static async open(context: StoreContext, target: Target, options: StageOptions): Promise<DiskStage> {
    const { fs } = context;
    const path = stagePath(target.manifestDigest);
    const lock = await acquireLock(fs, stageLockPath(target.manifestDigest), {
      mode: 'exclusive', waitMs: options.waitMs ?? 0, signal: options.signal, what: `the stage of ${target.manifestDigest}`,
    });
    const locks = [lock];
    try {
      locks.push(await context.use());
      const privileged = context.privileged && (await mayMakeDevices(context));
      const resumed = await prepareStage(context, path, target, privileged);
      return new DiskStage(context, target, options, locks, resumed, privileged);
    } catch (error) {
      for (const each of locks) await each.release();
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

  get counters(): StageCounters {
    return { ...this.#counters };
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
    this.#basis = basis;
  }

  hasLayer(layer: number): Promise<boolean> {
    return this.#guard('looking for a layer', () => this.#isWhole(this.#diffId(layer)));
  }

  async #isWhole(diffId: string): Promise<boolean> {
    if (this.#whole.has(diffId)) return true;
    const { context, options } = this;
    if (options.replaceLayers?.includes(diffId) !== true && (await context.loadLayer(diffId)) !== undefined) {
      this.#whole.set(diffId, 'store');
      return true;
    }
    const left = await Layer.load(context.fs, this.#layerPath(diffId), diffId);
    if (left === undefined) return false;
    const { damageCount } = await checkLayer(context.fs, left, { signal: options.signal });
    if (damageCount > 0) return false;
    for (const { header } of left.meta.entries) {
      this.#counters.keptBytes += header.sizeBytes;
      if (header.sizeBytes > 0) this.#counters.keptFiles++;
    }
    this.#whole.set(diffId, 'stage');
    return true;
  }

  async writeLayerTar(layer: number, chunks: AsyncIterable<Buffer>): Promise<void> {
    await this.#guard('extracting a layer', async () => {
      const diffId = this.#diffId(layer);
      const writer = await this.#newWriter(diffId);
      try {
        await this.#extract(writer, diffId, chunks);
      } catch (error) {
        await writer.abandon();
        if (isRefused(error)) await removeTree(this.context.fs, this.#layerPath(diffId));
        throw error;
      }
      this.#whole.set(diffId, 'stage');
    });
  }

  async #extract(writer: LayerWriter, diffId: string, chunks: AsyncIterable<Buffer>): Promise<void> {
    type Event = { readonly header: TarHeader; readonly index: number } | { readonly content: Buffer } | { readonly end: boolean };
    let events: Event[] = [];
    const builder = new LayerMetaBuilder({
      onEntry: (header, index) => { events.push({ header, index }); },
      onContent: (content) => { events.push({ content }); },
      onContentEnd: (digest) => { events.push({ end: digest !== null }); },
    });
    const drain = async (): Promise<void> => {
      const ready = events;
      events = [];
      for (const event of ready) {
        if ('header' in event) await writer.addEntry(event.index, event.header);
        else if ('content' in event) await writer.write(event.content);
        else if (event.end) await writer.endContent();
      }
    };
    await writer.begin();
    for await (const chunk of chunks) {
      throwIfAborted(this.options.signal);
      builder.write(chunk);
      await drain();
    }
    const meta = builder.finish();
    await drain();
    if (meta.diffId !== diffId) throw new WhittleError('LAYER_MISMATCH', `a layer has the diffID ${meta.diffId}, the image config declares ${diffId}`, { data: { found: meta.diffId, expected: diffId } });
    await writer.finish(meta);
  }

  async #newWriter(diffId: string): Promise<LayerWriter> {
    const { fs } = this.context;
    const path = this.#layerPath(diffId);
    const left = await fs.stat(path);
    // It is being changed, so it is not whole, whatever its metadata file says.
    if (left !== undefined) await removeTree(fs, `${path}/meta`);
    return new LayerWriter({ fs, path, privileged: this.privileged, fresh: left === undefined, counters: this.#counters });
  }

  #layerPath(diffId: string): string {
    return `${this.#path}/layers/${hexOf(diffId)}`;
  }

  #diffId(layer: number): string {
    const diffId = this.target.diffIds[layer];
    if (diffId === undefined) throw new WhittleError('INTERNAL', `the target has no layer ${String(layer)}`);
    return diffId;
  }

  async beginLayer(layer: number, meta: LayerMeta): Promise<void> {
    await this.#guard('starting a layer', async () => {
      const diffId = this.#diffId(layer);
      if (await this.#isWhole(diffId)) {
        // Content that is there already is taken, compared by nobody but the layer's own digest, and dropped.
        const there = await this.#loadWhole(diffId);
        this.#staged.set(diffId, { writer: null, path: there.path, tree: there.tree, meta: there.meta, next: meta.entries.length });
        return;
      }
      const writer = await this.#newWriter(diffId);
      await writer.begin();
      this.#staged.set(diffId, { writer, path: this.#layerPath(diffId), tree: writer.tree, meta, next: 0 });
    });
  }

  async #loadWhole(diffId: string): Promise<Layer> {
    const path = this.#whole.get(diffId) === 'store' ? layerPath(diffId) : this.#layerPath(diffId);
    const layer = await Layer.load(this.context.fs, path, diffId);
    if (layer === undefined) throw new WhittleError('STORE_DAMAGED', `the metadata of layer ${diffId} is gone`, { data: { layers: diffId } });
    return layer;
  }

  #layer(layer: number): StagedLayer {
    const staged = this.#staged.get(this.#diffId(layer));
    if (staged === undefined) throw new WhittleError('INTERNAL', `layer ${String(layer)} was not begun`);
    return staged;
  }

  /** Brings the writer up to `entry`: entries without content get no call of their own. */
  async #reach(staged: StagedLayer, entry: number): Promise<void> {
    for (; staged.next <= entry; staged.next++) {
      const header = staged.meta.entries.at(staged.next)?.header;
      if (header === undefined || staged.writer === null) return;
      await staged.writer.addEntry(staged.next, header);
    }
  }

  async copyEntry(layer: number, entry: number, origin: ContentOrigin): Promise<void> {
    await this.#guard('copying a file', async () => {
      const staged = this.#layer(layer);
      if (staged.writer === null) return;
      await this.#reach(staged, entry);
      const source = await this.#origin(origin);
      const header = staged.meta.entries.at(entry)?.header;
      if (header === undefined) throw new WhittleError('INTERNAL', `layer ${String(layer)} has no entry ${String(entry)}`);
      if (sparseLayout(header) !== undefined || !isWholeFile(source.place)) {
        await this.#copyByReading(staged.writer, origin);
        return;
      }
      const linkable = this.#links.mayLink(staged.tree.nodeOf(entry), header, source);
      await staged.writer.copy({ path: source.place.path, sizeBytes: header.sizeBytes, linkable });
    });
  }

  async #origin(origin: ContentOrigin): Promise<CopyOrigin> {
    if (origin.from === 'basis') {
      const basis = this.#basis?.storeLayers[origin.layer];
      if (basis === undefined) throw new WhittleError('INTERNAL', 'content of a basis that the stage was not told of');
      return { place: basis.place(origin.entry), header: basis.meta.entries.at(origin.entry)?.header, basis, entry: origin.entry, stat: this.#basis?.checkedStat(origin.layer, origin.entry) };
    }
    const from = this.#layer(origin.layer);
    await from.writer?.flush();
    return { place: contentPlace(from.path, from.tree, from.meta, origin.entry), header: from.meta.entries.at(origin.entry)?.header, basis: undefined, entry: origin.entry, stat: undefined };
  }

  async #copyByReading(writer: LayerWriter, origin: ContentOrigin): Promise<void> {
    const source = await this.#origin(origin);
    const file = await this.context.fs.open(source.place.path, 'read');
    try {
      const buffer = Buffer.allocUnsafe(128 * 1024);
      for (const { offset, lengthBytes } of source.place.extents) {
        for (let done = 0; done < lengthBytes;) {
          const wanted = buffer.subarray(0, Math.min(buffer.length, lengthBytes - done));
          if ((await file.read(wanted, offset + done)) !== wanted.length) throw new WhittleError('BASIS_DAMAGED', `${source.place.path.toString()} ends too early`);
          await writer.write(wanted);
          done += wanted.length;
        }
      }
    } finally {
      await file.close();
    }
    await writer.endContent();
  }

  async writeEntry(layer: number, entry: number, chunk: Buffer): Promise<void> {
    await this.#guard('writing a file', async () => {
      const staged = this.#layer(layer);
      await this.#reach(staged, entry);
      await staged.writer?.write(chunk);
    });
  }

  async endEntry(layer: number, entry: number): Promise<void> {
    await this.#guard('writing a file', async () => {
      const staged = this.#layer(layer);
      await this.#reach(staged, entry);
      await staged.writer?.endContent();
    });
  }

  async openContent(layer: number, entry: number): Promise<BasisContent> {
    return this.#guard('reading a staged file', async () => {
      const staged = this.#layer(layer);
      await staged.writer?.flush();
      const { path, extents } = contentPlace(staged.path, staged.tree, staged.meta, entry);
      const file = await this.context.fs.open(path, 'read');
      return { fd: file.fd, extents, sizeBytes: staged.meta.entries.at(entry)?.header.sizeBytes ?? 0, close: () => file.close() };
    });
  }

  async endLayer(layer: number, meta: LayerMeta): Promise<void> {
    await this.#guard('finishing a layer', async () => {
      const diffId = this.#diffId(layer);
      const staged = this.#layer(layer);
      if (meta.diffId !== diffId) throw new WhittleError('LAYER_MISMATCH', `a layer came out as ${meta.diffId}, the image config declares ${diffId}`);
      if (staged.writer === null) return;
      await this.#reach(staged, meta.entries.length - 1);
      await staged.writer.finish(meta);
      staged.writer = null;
      staged.meta = meta;
      this.#whole.set(diffId, 'stage');
    });
  }

  async requireSpace(sizeBytes: number): Promise<void> {
    const { freeBytes } = await this.#guard('asking for free space', () => this.context.fs.space());
    if (freeBytes >= sizeBytes) return;
    throw new WhittleError('STORAGE_FULL', `the pull needs ${String(sizeBytes)} bytes on the filesystem of ${this.context.fs.root}, ${String(freeBytes)} are free`, {
      data: { neededBytes: sizeBytes, freeBytes },
    });
  }

  async checkpoint(): Promise<void> {
    await this.#guard('syncing the stage', () => this.context.fs.syncfs('stage.checkpoint'));
  }

  commit(options: CommitOptions): Promise<StoredImage> {
    return this.#guard('committing', () => this.#commit(options));
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
    this.#staged.clear();
    this.#basis = null;
    await context.fs.syncfs('stage.commit');
    if (options.verify !== false) await this.#prove(distinct, options);
    throwIfAborted(options.signal);
    const staged = distinct.filter((diffId) => this.#whole.get(diffId) === 'stage').map((diffId) => ({
      diffId, path: this.#layerPath(diffId), replace: this.options.replaceLayers?.includes(diffId) === true,
    }));
    const record = await context.exclusively(async () => {
      await moveLayers(context, staged);
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
    if (this.#closed) return;
    await this.#abandonWriters();
    try {
      await this.#drop();
    } catch (error) {
      throw storageError(error, 'discarding the stage');
    }
  }

  async #drop(): Promise<void> {
    try {
      await discardTree(this.context.fs, this.#path, layout.trash);
    } finally {
      await this.#release();
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#abandonWriters();
    // What a failing disk may have swallowed must be written anew, to new inodes.
    if (this.#failed) await discardTree(this.context.fs, this.#path, layout.trash).catch(() => undefined);
    await this.#release();
  }

  async #abandonWriters(): Promise<void> {
    for (const [diffId, staged] of this.#staged) if (!this.#whole.has(diffId)) await staged.writer?.abandon();
  }

  async #release(): Promise<void> {
    this.#closed = true;
    for (const lock of this.locks) await lock.release();
  }

  async #guard<T>(what: string, body: () => Promise<T>): Promise<T> {
    if (this.#closed) throw new WhittleError('INTERNAL', 'the stage is closed');
    try {
      return await body();
    } catch (error) {
      if (systemErrorCode(error) === 'EIO' && !isWhittleError(error)) this.#failed = true;
      throw storageError(error, what);
    }
  }
}

/** Whether what arrived is to blame, so that keeping it would be of no use. */
function isRefused(error: unknown): boolean {
  return isWhittleError(error) && ['TAR_UNSAFE', 'TAR_CORRUPT', 'LAYER_MISMATCH', 'LIMIT_EXCEEDED'].includes(error.code);
}

function isWholeFile(place: ContentPlace): boolean {
  return place.extents.length === 1 && place.extents[0]?.offset === 0;
}
