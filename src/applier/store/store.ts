import { createHash } from 'node:crypto';
import { isSystemError, withStorageErrors, type DurableFs } from '../../atomic/index.js';
import { isWhittleError, systemErrorCode, WhittleError } from '../../core/errors.js';
import { throwIfAborted } from '../../core/interruption.js';
import { LayersBasis } from './basis.js';
import { checkLayer } from './check.js';
import type { StoreContext } from './context.js';
import { collectGarbage, type GcOptions } from './gc.js';
import { unreadable, type Layer } from './layer.js';
import { hexName, imagePath, layerPath, layout, stageLockPath, stagePath } from './layout.js';
import { liveMounts, mountImage, unmountImage } from './mounts.js';
import { namedImages, readImage, readImages, References, withoutRecord, type ImageRecord, type Readable } from './records.js';
import { DiskStage } from './stage.js';
import { parseTarget } from './target.js';
import type { HeldImage } from '../engines/types.js';
import type {
  GcReport, LayerDamage, RecoveryReport, Stage, StageOptions, StageStatus, Store, StoreBasis, StoredImage, StoreReference, StoreStatus, TargetImage,
  VerifyOptions, VerifyReport,
} from './types.js';
import { sizeOnDisk } from './usage.js';

/** The store on disk; `openStore` makes it. */
export class DiskStore implements Store {
  readonly #references: References;

  constructor(private readonly context: StoreContext, readonly recovery: RecoveryReport) {
    this.#references = new References(context.fs);
  }

  get root(): string {
    return this.context.fs.root;
  }

  get privileged(): boolean {
    return this.context.privileged;
  }

  get fs(): DurableFs {
    return this.context.fs;
  }

  images(): Promise<StoredImage[]> {
    return withStorageErrors('reading the images', async () => {
      const [images, references] = [await readImages(this.fs), await this.#references.all()];
      return images.values.sort((a, b) => b.sequence - a.sequence).map((image) => withNames(image, references.values));
    });
  }

  references(): Promise<StoreReference[]> {
    return withStorageErrors('reading the names', async () => (await this.#references.all()).values);
  }

  resolve(name: string): Promise<StoredImage | undefined> {
    return withStorageErrors('reading a name', async () => {
      const reference = await this.#references.read(name);
      const image = reference === undefined ? undefined : await readImage(this.fs, reference.current);
      return image === undefined || image === 'damaged' ? undefined : withNames(image, await this.references());
    });
  }

  async findImage(digest: string): Promise<StoredImage | undefined> {
    const images = await this.images();
    return images.find((image) => image.manifestDigest === digest) ?? images.find((image) => image.configDigest === digest);
  }

  status(): Promise<StoreStatus> {
    return withStorageErrors('reading the status', async () => {
      const images = await readImages(this.fs);
      const references = await this.#references.all();
      const layers = (await this.fs.readdir(layout.layers)).filter((entry) => hexName.test(entry.name.toString('latin1')));
      return {
        root: this.root, privileged: this.privileged, imageCount: images.values.length, layerCount: layers.length,
        layerBytes: await sizeOnDisk(this.fs, layout.layers), freeBytes: await this.freeBytes(), references: references.values,
        stages: await this.#stages(), damagedRecords: await this.#damagedRecords(images, references), mounts: await liveMounts(this.context),
      };
    });
  }

  async #stages(): Promise<StageStatus[]> {
    const stages: StageStatus[] = [];
    for (const entry of await this.fs.readdir(layout.stages)) {
      const name = entry.name.toString('latin1');
      if (!hexName.test(name)) continue;
      const manifestDigest = `sha256:${name}`;
      stages.push({ manifestDigest, sizeBytes: await sizeOnDisk(this.fs, `${layout.stages}/${name}`), active: await this.#isHeld(stageLockPath(manifestDigest)) });
    }
    return stages;
  }

  async #isHeld(lockPath: string): Promise<boolean> {
    if (this.context.readOnly) return false;
    const lock = await this.fs.tryLock(lockPath, 'shared');
    await lock?.release();
    return lock === undefined;
  }

  hasLayer(diffId: string): Promise<boolean> {
    return withStorageErrors('reading a layer', async () => (await this.context.loadHead(diffId)) !== undefined);
  }

  damagedLayers(image: { readonly diffIds: readonly string[] }): Promise<string[]> {
    return withStorageErrors('looking for damaged layers', async () => {
      const marked = await this.context.damage.all();
      const damaged: string[] = [];
      for (const diffId of new Set(image.diffIds)) {
        if (marked.has(diffId) || (await this.context.loadHead(diffId)) === undefined) damaged.push(diffId);
      }
      return damaged;
    });
  }

  basis(image: HeldImage, options: { readonly layers?: readonly string[] } = {}): Promise<StoreBasis> {
    return withStorageErrors('opening the basis', async () => {
      const use = await this.context.use();
      try {
        const layers: Layer[] = [];
        for (const diffId of options.layers ?? new Set(image.diffIds)) {
          const layer = await this.context.loadLayer(diffId);
          if (layer === undefined) throw new WhittleError('BASIS_DAMAGED', `the metadata of basis layer ${diffId} is gone or damaged`, { data: { layers: diffId } });
          layers.push(layer);
        }
        return new LayersBasis(image, layers, () => use.release());
      } catch (error) {
        await use.release();
        throw error;
      }
    });
  }

  async stage(target: TargetImage, options: StageOptions = {}): Promise<Stage> {
    if (this.context.readOnly) throw new WhittleError('STORAGE_READ_ONLY', `the store at ${this.root} was opened for reading only`);
    const parsed = parseTarget(target);
    return withStorageErrors('opening a stage', () => DiskStage.open(this.context, parsed, options));
  }

  hasLeftStage(manifestDigest: string): Promise<boolean> {
    return withStorageErrors('looking for a stage', async () =>
      (await this.fs.stat(stagePath(manifestDigest))) !== undefined && !(await this.#isHeld(stageLockPath(manifestDigest))));
  }

  verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    return withStorageErrors('verifying', async () => {
      const use = await this.context.use();
      try {
        return await this.#verify(options);
      } finally {
        await use.release();
      }
    });
  }

  async #verify(options: VerifyOptions): Promise<VerifyReport> {
    const all = await readImages(this.fs);
    const references = await this.#references.all();
    const images: readonly { readonly manifestDigest: string; readonly diffIds: readonly string[] }[] = options.image === undefined ? all.values : [options.image];
    const diffIds = [...new Set(images.flatMap((image) => image.diffIds))];
    let totalBytes = 0;
    for (const diffId of diffIds) totalBytes += (await this.context.loadHead(diffId))?.sizeBytes ?? 0;
    const damagedLayers: LayerDamage[] = [];
    let checkedBytes = 0;
    const onBytes = (count: number): void => {
      checkedBytes += count;
      options.onProgress?.(checkedBytes, totalBytes);
    };
    for (const diffId of diffIds) {
      throwIfAborted(options.signal);
      const layer = await this.context.loadLayer(diffId);
      const found = layer === undefined
        ? { damages: [{ kind: 'record' as const, path: `${layerPath(diffId)}/meta`, detail: 'is gone or damaged' }], damageCount: 1 }
        : await checkLayer(this.fs, layer, { signal: options.signal, onBytes });
      await this.#mark(diffId, found.damageCount > 0);
      if (found.damageCount > 0) damagedLayers.push({ diffId, ...found, images: images.filter((image) => image.diffIds.includes(diffId)).map((image) => image.manifestDigest) });
    }
    return { imageCount: images.length, layerCount: diffIds.length, checkedBytes, damagedLayers, damagedRecords: await this.#damagedRecords(all, references) };
  }

  /** Records that cannot be read, and those of images that names mean and that are not there, as after a check of the filesystem. */
  async #damagedRecords(images: Readable<ImageRecord>, references: Readable<StoreReference>): Promise<string[]> {
    const gone: string[] = [];
    for (const digest of withoutRecord(namedImages(references.values), images.values)) {
      // Asked again: a pull may have committed since the images were read, and writes an image's record before its name.
      if ((await readImage(this.fs, digest)) === undefined) gone.push(imagePath(digest));
    }
    return [...images.damaged, ...references.damaged, ...gone];
  }

  /** Lets the next pull know. Only a hint: where it cannot be written, the report says what there is to say. */
  async #mark(diffId: string, isDamaged: boolean): Promise<void> {
    if (this.context.readOnly) return;
    try {
      await (isDamaged ? this.context.damage.set(diffId) : this.context.damage.clear([diffId]));
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
    }
  }

  rollback(name: string, options: { readonly signal?: AbortSignal } = {}): Promise<StoreReference> {
    return withStorageErrors('rolling back', async () => {
      const before = await this.#previous(name);
      const image = await readImage(this.fs, before.previous);
      if (image === undefined || image === 'damaged') throw new WhittleError('STORE_DAMAGED', `the record of the previous image ${before.previous} is gone or damaged`);
      const report = await this.verify({ image: withNames(image, []), ...options });
      if (report.damagedLayers.length > 0) {
        const layers = report.damagedLayers.map((layer) => layer.diffId).join(',');
        throw new WhittleError('STORE_DAMAGED', `the previous image of ${name} is damaged in ${String(report.damagedLayers.length)} layers`, { data: { layers } });
      }
      return this.context.exclusively(async () => {
        const now = await this.#previous(name);
        if (now.previous !== before.previous) throw new WhittleError('STORE_BUSY', `${name} changed meanwhile`);
        const after = { name, current: now.previous, previous: now.current };
        await this.#references.write(after);
        return after;
      }, options.signal);
    });
  }

  async #previous(name: string): Promise<StoreReference & { readonly previous: string }> {
    const reference = await this.#references.read(name);
    if (reference === undefined) throw new WhittleError('IMAGE_UNKNOWN', `the store has no image called ${name}`);
    if (reference.previous === null) throw new WhittleError('STORE_NO_PREVIOUS', `${name} has no previous image`);
    return { ...reference, previous: reference.previous };
  }

  removeReference(name: string): Promise<void> {
    return withStorageErrors('removing a name', () => this.context.exclusively(async () => {
      if ((await this.#references.read(name)) === undefined) throw new WhittleError('IMAGE_UNKNOWN', `the store has no image called ${name}`);
      await this.#references.remove(name);
    }));
  }

  gc(options: GcOptions = {}): Promise<GcReport> {
    return withStorageErrors('collecting garbage', () => collectGarbage(this.context, options));
  }

  async *layerTar(diffId: string): AsyncGenerator<Buffer, void, undefined> {
    const use = await withStorageErrors('reading a layer', () => this.context.use());
    try {
      const layer = await this.#wholeLayer(diffId);
      const hash = createHash('sha256');
      for await (const chunk of layer.tar()) {
        hash.update(chunk);
        yield Buffer.from(chunk);
      }
      if (`sha256:${hash.digest('hex')}` !== diffId) throw new WhittleError('STORE_DAMAGED', `content of layer ${diffId} is not what its record says`, { data: { layers: diffId } });
    } catch (error) {
      if (isSystemError(error, ...unreadable) && !isWhittleError(error)) throw new WhittleError('STORE_DAMAGED', `a file of layer ${diffId} cannot be read`, { cause: error, data: { layers: diffId } });
      throw error;
    } finally {
      await use.release();
    }
  }

  async layerTarSizeBytes(diffId: string): Promise<number> {
    const head = await withStorageErrors('reading a layer', () => this.context.loadHead(diffId));
    if (head === undefined) throw layerGone(diffId);
    return head.sizeBytes;
  }

  async #wholeLayer(diffId: string): Promise<Layer> {
    const layer = await this.context.loadLayer(diffId);
    if (layer === undefined) throw layerGone(diffId);
    return layer;
  }

  async mount(image: StoredImage, mountPoint: string, options: { readonly writable?: boolean } = {}): Promise<void> {
    await withStorageErrors('mounting', () => mountImage(this.context, image, mountPoint, options.writable ?? false));
  }

  async umount(mountPoint: string): Promise<void> {
    await withStorageErrors('unmounting', () => unmountImage(this.context, mountPoint));
  }

  async freeBytes(): Promise<number> {
    return (await withStorageErrors('asking for free space', () => this.fs.space())).freeBytes;
  }

  async close(): Promise<void> {
    await this.fs.close();
  }
}

function withNames(image: ImageRecord, references: readonly StoreReference[]): StoredImage {
  return { ...image, names: references.filter((reference) => reference.current === image.manifestDigest).map((reference) => reference.name) };
}

function layerGone(diffId: string): WhittleError {
  return new WhittleError('STORE_DAMAGED', `layer ${diffId} is not in the store, or its metadata is damaged`, { data: { layers: diffId } });
}
