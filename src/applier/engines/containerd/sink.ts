import { isSystemError, removeTree, type BatchOp, type DurableFs } from '../../../atomic/index.js';
import { isWhittleError, WhittleError } from '../../../core/errors.js';
import { throwIfAborted } from '../../../core/interruption.js';
import { chainIds, parseManifest, type Manifest } from '../../../oci/index.js';
import { LayersBasis } from '../../store/basis.js';
import { BuildingSink } from '../../store/building-sink.js';
import { checkLayer } from '../../store/check.js';
import { Layer } from '../../store/layer.js';
import { LayerBuilder } from '../../store/layer-builder.js';
import { hexOf } from '../../store/layout.js';
import type { Target } from '../../store/target.js';
import type { CommitOptions } from '../../store/types.js';
import type { BeginOptions, HeldBasis, HeldImage, LayerSink } from '../types.js';
import type { ContainerdEngine } from './engine.js';
import { grpcStatus, isStatus } from './grpc.js';
import { layerLabel, type LayerAddress } from './images.js';
import { impliesDirectories, inheritDirectories } from './inherited.js';
import { snapshotKind } from './messages.js';
import { publishImage } from './publish.js';
import { layerDirectories } from './trees.js';

/**
 * Takes an image into containerd. Each layer is written into the directory of a snapshot that stands alone, since layers come in
 * any order; when all are there, they are moved, bottom first, into snapshots upon one another, which are committed under
 * their chainIDs. A lease of the target's holds all of it until the image's record does.
 */
export class ContainerdSink extends BuildingSink implements LayerSink {
  readonly intake = 'kept';
  protected readonly builder: LayerBuilder;
  readonly #manifest: Manifest;
  readonly #chain: readonly string[];
  /** Directories of snapshots that stand alone, by the name given to `#room`. */
  readonly #rooms = new Map<string, string>();
  /** Layers (by diffID) that are whole in a snapshot of their own, with the directory. */
  readonly #staged = new Map<string, string>();
  /** Layers whose tars have every directory that they put something into. */
  readonly #complete = new Set<string>();
  /** Layers that containerd has in another place, with that place; null when it has not. */
  readonly #elsewhere = new Map<string, LayerAddress | null>();
  /** Snapshots that the lease holds. */
  readonly #held = new Set<string>();
  /** Settles when what an interrupted pull committed was looked at. */
  #examined: Promise<void> | undefined;
  #leaseTaken = false;
  /** The lease was made by this sink, not by a pull that was interrupted. */
  #leaseIsNew = false;

  constructor(private readonly engine: ContainerdEngine, private readonly target: Target, private readonly lease: string, private readonly options: BeginOptions) {
    super(' for containerd');
    this.#manifest = parseManifest(target.manifest, 'image manifest', target.manifestMediaType);
    this.#chain = chainIds(target.diffIds);
    this.builder = this.#newBuilder('');
    for (const diffId of options.replaceLayers) this.#elsewhere.set(diffId, null);
  }

  /** A builder of layers in snapshots whose keys end in `suffix`. */
  #newBuilder(suffix: string): LayerBuilder {
    const { engine, options } = this;
    const fs = (): DurableFs => engine.trees.fs;
    return new LayerBuilder({
      get fs() { return fs(); },
      privileged: true, signal: options.signal, counters: this.counted,
      whole: async (diffId) => {
        const path = suffix === '' ? this.#staged.get(diffId) : undefined;
        return path === undefined ? undefined : Layer.load(fs(), path, diffId);
      },
      room: (diffId) => this.#room(diffId + suffix),
      built: (diffId) => { if (suffix === '') this.#staged.set(diffId, this.#rooms.get(diffId) ?? ''); },
      refused: async (diffId) => { await this.#dropRoom(diffId + suffix); },
    }, this.target.diffIds);
  }

  useBasis(basis: HeldBasis): void {
    if (!(basis instanceof LayersBasis)) throw new WhittleError('INTERNAL', 'containerd takes only its own basis');
    this.builder.useBasis(basis);
  }

  hasLayer(layer: number): Promise<boolean> {
    return this.guard('looking for a layer', async () => {
      await (this.#examined ??= this.#examineChain());
      const diffId = this.builder.diffId(layer);
      return this.#staged.has(diffId) || (await this.#isInChain(layer)) || (await this.#isStaged(diffId)) || (await this.#findElsewhere(diffId)) !== null;
    });
  }

  /**
   * Snapshots of this image that were filled here and that no image shows: a pull was cut off between their commit and its image's record, and
   * nobody has read them since. When one is damaged, all that the pull left goes, since containerd keeps what others stand on.
   */
  async #examineChain(): Promise<void> {
    const { engine, target } = this;
    const left: LayerAddress[] = [];
    for (const [layer, name] of this.#chain.entries()) {
      const info = await engine.api.snapshot(name);
      if (info?.kind === snapshotKind.committed && info.labels.get(layerLabel) === target.diffIds[layer]) left.push({ diffId: this.builder.diffId(layer), chain: this.#chain.slice(0, layer + 1), blob: undefined });
    }
    if (left.length === 0) return;
    const unshown = await engine.reader.unshown(left.map(({ chain }) => chain.at(-1) ?? ''), (name) => engine.isCommitted(name));
    for (const address of left) {
      const name = address.chain.at(-1) ?? '';
      if (!unshown.has(name) || (await this.#isWholeSnapshot(address))) continue;
      this.options.onNote(`containerd has layer ${address.diffId} from an interrupted pull, and it is not whole: what that pull left is removed`);
      await engine.api.deleteLease(this.lease, true);
      if (await engine.isCommitted(name)) throw new WhittleError('ENGINE_FAILED', `containerd keeps the snapshot ${name}, which is damaged: somebody else uses it`, { hint: 'See docs/engines.md.' });
      return;
    }
  }

  async #isWholeSnapshot(address: LayerAddress): Promise<boolean> {
    try {
      const basis = await this.engine.layers(this.#asHeld(), address.chain, [address]);
      try {
        for (const layer of basis.storeLayers) if ((await checkLayer(layer.fs, layer, { signal: this.options.signal, hasInherited: true })).damageCount > 0) return false;
        return true;
      } finally {
        await basis.close();
      }
    } catch (error) {
      if (isWhittleError(error) && error.code === 'BASIS_DAMAGED') return false;
      throw error;
    }
  }

  #isInChain(layer: number): Promise<boolean> {
    return this.#hold(this.#chain[layer] ?? '');
  }

  /** Whether a snapshot is there; if so, it stays: the image that it belongs to may go before this one comes. */
  async #hold(snapshot: string): Promise<boolean> {
    const { api } = this.engine;
    if (this.#held.has(snapshot)) return true;
    if (!(await this.engine.isCommitted(snapshot))) return false;
    await this.#takeLease();
    await api.hold(this.lease, { id: snapshot, type: `snapshots/${api.scope.snapshotter}` });
    if (!(await this.engine.isCommitted(snapshot))) return false;
    this.#held.add(snapshot);
    return true;
  }

  /** Whether an interrupted pull left the layer whole; it is read back from disk first. */
  async #isStaged(diffId: string): Promise<boolean> {
    const key = this.#key(diffId);
    if ((await this.engine.api.snapshot(key)) === undefined) return false;
    const path = await this.#directoryOf(key);
    const { fs } = this.engine.trees;
    const left = await Layer.load(fs, path, diffId);
    if (left === undefined || (await checkLayer(fs, left, { signal: this.options.signal })).damageCount > 0) return false;
    this.countKept(left.meta);
    this.#staged.set(diffId, path);
    return true;
  }

  /** Where else containerd has a layer: in this image's chain, or in another image. */
  async #findElsewhere(diffId: string): Promise<LayerAddress | null> {
    const known = this.#elsewhere.get(diffId);
    if (known !== undefined) return known;
    const found = await this.#search(diffId);
    this.#elsewhere.set(diffId, found);
    return found;
  }

  async #search(diffId: string): Promise<LayerAddress | null> {
    for (const image of await this.engine.images()) {
      const at = image.diffIds.indexOf(diffId);
      if (at >= 0 && (await this.#hold(image.chain[at] ?? ''))) return { diffId, chain: image.chain.slice(0, at + 1), blob: image.layers[at] };
    }
    return null;
  }

  #key(name: string): string {
    return `${this.lease}-layer-${hexOf(name.slice(0, 71))}${name.slice(71)}`;
  }

  /** A snapshot that stands alone, new or what an interrupted pull left; `name` is a diffID with a suffix or none. */
  async #room(name: string): Promise<{ path: string; fresh: boolean }> {
    await this.#takeLease();
    const key = this.#key(name);
    const fresh = await this.#prepare(key, '');
    const path = await this.#directoryOf(key);
    // It is being changed, so it is not whole, whatever its metadata file says.
    if (!fresh) await removeTree(this.engine.trees.fs, `${path}/meta`);
    this.#rooms.set(name, path);
    return { path, fresh };
  }

  /** Whether the snapshot is new; one that is there already stays. */
  async #prepare(key: string, parent: string): Promise<boolean> {
    try {
      await this.engine.api.prepare(this.lease, key, parent);
      return true;
    } catch (error) {
      if (!isStatus(error, grpcStatus.alreadyExists)) throw error;
      return false;
    }
  }

  async #directoryOf(key: string): Promise<string> {
    return (await this.#placeOf(key)).path;
  }

  /** Where a snapshot is filled, and the layers below it, topmost first. */
  async #placeOf(key: string): Promise<{ path: string; parents: readonly string[] }> {
    const { own, parents } = layerDirectories(await this.engine.api.mounts(key));
    if (own === undefined) throw new WhittleError('ENGINE_UNSUPPORTED', 'containerd\'s snapshotter gives a read-only mount for a snapshot that is to be filled');
    const [path = '', ...below] = await this.engine.trees.relative([own, ...parents]);
    return { path, parents: below };
  }

  async #dropRoom(name: string): Promise<void> {
    this.#rooms.delete(name);
    await this.engine.api.removeSnapshot(this.#key(name));
  }

  async #takeLease(): Promise<void> {
    if (this.#leaseTaken) return;
    this.#leaseIsNew = await this.engine.leases.take(this.lease);
    this.#leaseTaken = true;
  }

  checkpoint(): Promise<void> {
    return this.guard('syncing the layers', async () => {
      if (this.engine.trees.isOpen) await this.engine.trees.fs.syncfs('stage.checkpoint');
    });
  }

  commit(options: CommitOptions): Promise<HeldImage> {
    return this.guard('committing', () => this.#commit(options));
  }

  /**
   * 1. every layer is there, those that containerd has elsewhere included; 2. syncfs; 3. what was built is read back from disk and
   * proven; 4. snapshot by snapshot, bottom first: moved into place, synced, committed; 5. config and manifest; 6. the
   * image's record: only now is it visible. Then the lease goes.
   */
  async #commit(options: CommitOptions): Promise<HeldImage> {
    const { engine, target } = this;
    await (this.#examined ??= this.#examineChain());
    await this.#takeLease();
    await this.#gather();
    this.builder.clear();
    if (engine.trees.isOpen) await engine.trees.fs.syncfs('stage.commit');
    if (options.verify !== false) await this.#prove(options);
    throwIfAborted(options.signal);
    for (const [layer] of target.diffIds.entries()) await this.#commitLayer(layer);
    const names = await publishImage(engine.api, this.lease, { target, manifest: this.#manifest, chain: this.#chain, name: options.name });
    this.closed = true;
    try {
      await engine.api.deleteLease(this.lease, false);
    } catch (error) {
      if (!isWhittleError(error)) throw error;
      // The image is there; what the lease still holds is let go by the next pull, or when it expires.
      this.options.onNote(`containerd's lease ${this.lease} could not be removed: ${error.message}`);
    }
    return { manifestDigest: target.manifestDigest, configDigest: target.configDigest, config: target.config, diffIds: target.diffIds, names, sequence: Date.now() };
  }

  /** Brings layers that containerd has in other places to a snapshot of this target. Throws STAGE_INCOMPLETE, STORE_DAMAGED. */
  async #gather(): Promise<void> {
    for (const [layer, diffId] of this.target.diffIds.entries()) {
      if (this.#staged.has(diffId) || (await this.#isInChain(layer)) || (await this.#isStaged(diffId))) continue;
      const from = await this.#findElsewhere(diffId);
      if (from === null) throw new WhittleError('STAGE_INCOMPLETE', `layer ${diffId} is not there yet`, { data: { diffId } });
      await this.#adopt(layer, from, this.builder);
    }
  }

  /** Makes a layer anew from the same layer in another place: files are linked or copied, each one proven. */
  async #adopt(layer: number, from: LayerAddress, builder: LayerBuilder): Promise<void> {
    try {
      const basis = await this.engine.layers(this.#asHeld(), from.chain, [from]);
      try {
        builder.useBasis(basis);
        const meta = basis.layers[0]!;
        await builder.beginLayer(layer, meta);
        for (const [entry, { header }] of meta.entries.entries()) {
          throwIfAborted(this.options.signal);
          if (header.sizeBytes === 0) continue;
          await (await basis.openContent(0, entry)).close();
          await builder.copyEntry(layer, entry, { from: 'basis', layer: 0, entry });
        }
        await builder.endLayer(layer, meta);
      } finally {
        await basis.close();
      }
    } catch (error) {
      if (!isWhittleError(error) || error.code !== 'BASIS_DAMAGED') throw error;
      // The pull fetches it in full then, by `replaceLayers`.
      throw new WhittleError('STORE_DAMAGED', `a layer that containerd has cannot be used again: ${error.message}`, { cause: error, data: { layers: from.diffId } });
    }
  }

  #asHeld(): HeldImage {
    const { manifestDigest, configDigest, config, diffIds } = this.target;
    return { manifestDigest, configDigest, config, diffIds, names: [], sequence: 0 };
  }

  /** Reads every layer that was built back from disk. */
  async #prove(options: CommitOptions): Promise<void> {
    for (const [diffId, path] of this.#staged) {
      const { fs } = this.engine.trees;
      const layer = await Layer.load(fs, path, diffId);
      const damage = layer === undefined ? { path, detail: 'has lost its metadata' } : (await checkLayer(fs, layer, { signal: options.signal })).damages[0];
      if (layer !== undefined && !impliesDirectories(layer)) this.#complete.add(diffId);
      if (damage === undefined) continue;
      this.#staged.delete(diffId);
      await this.#dropRoom(diffId);
      throw new WhittleError('STORE_DAMAGED', `a layer did not verify on disk: ${damage.path} ${damage.detail}`, { data: { layers: diffId } });
    }
  }

  /** Moves a layer from where it was built into a snapshot upon the layer below, and commits that. Durable when it returns. */
  async #commitLayer(layer: number): Promise<void> {
    const { api, trees } = this.engine;
    const name = this.#chain[layer]!;
    if (await this.#hold(name)) return;
    const diffId = this.builder.diffId(layer);
    const from = await this.#takeStaged(layer, diffId);
    const key = `${this.lease}-chain-${String(layer)}`;
    await api.removeSnapshot(key);
    await this.#prepare(key, layer === 0 ? '' : this.#chain[layer - 1]!);
    const { path: to, parents } = await this.#placeOf(key);
    await moveLayer(trees.fs, from.path, to);
    if (parents.length > 0 && !this.#complete.has(diffId)) {
      const placed = await Layer.load(trees.fs, to, diffId);
      if (placed !== undefined) await inheritDirectories(trees.fs, placed, parents);
    }
    await trees.fs.syncfs('layers.name');
    try {
      await api.commitSnapshot(this.lease, name, key, new Map([[layerLabel, diffId]]));
    } catch (error) {
      if (!isStatus(error, grpcStatus.alreadyExists)) throw error;
      await api.removeSnapshot(key);
      if (!(await this.#hold(name))) throw error;
    }
    await api.removeSnapshot(from.key);
  }

  /** The directory of a layer's files. One that the image has twice is there once, so it is made again for the second time. */
  async #takeStaged(layer: number, diffId: string): Promise<{ path: string; key: string }> {
    const path = this.#staged.get(diffId);
    this.#staged.delete(diffId);
    if (path !== undefined) return { path, key: this.#key(diffId) };
    const before = this.target.diffIds.indexOf(diffId);
    const from = before < layer ? { diffId, chain: this.#chain.slice(0, before + 1), blob: this.#manifest.layers[before] } : await this.#findElsewhere(diffId);
    if (from === null) throw new WhittleError('STAGE_INCOMPLETE', `layer ${diffId} is gone from containerd`, { data: { diffId } });
    const suffix = `-${String(layer)}`;
    await this.#adopt(layer, from, this.#newBuilder(suffix));
    return { path: this.#rooms.get(diffId + suffix) ?? '', key: this.#key(diffId + suffix) };
  }

  async discard(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.builder.abandon();
    await this.engine.api.deleteLease(this.lease, true);
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.builder.abandon();
    // A pull that only looked leaves nothing; and what a failing disk may have swallowed must be written anew, to new inodes.
    if (this.failed || (this.#leaseIsNew && this.#rooms.size === 0)) await this.engine.api.deleteLease(this.lease, true).catch(() => undefined);
  }
}

/** Moves what was extracted from one snapshot's directory to that of another, which is empty. */
async function moveLayer(fs: DurableFs, from: string, to: string): Promise<void> {
  const moves: BatchOp[] = ['fs', 'meta'].map((name) => ({ op: 'rename', from: `${from}/${name}`, path: `${to}/${name}` }));
  await fs.batch(moves);
  try {
    await fs.batch([{ op: 'rename', from: `${from}/shadow`, path: `${to}/shadow` }]);
  } catch (error) {
    // Most layers have none.
    if (!isSystemError(error, 'ENOENT')) throw error;
  }
}
