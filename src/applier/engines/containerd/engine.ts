import { isWhittleError, WhittleError } from '../../../core/errors.js';
import type { Descriptor } from '../../../oci/index.js';
import { unpackLayer } from '../../../registry/index.js';
import { LayerMetaBuilder, type LayerMeta } from '../../../tar/index.js';
import { LayersBasis } from '../../store/basis.js';
import { Layer } from '../../store/layer.js';
import { parseTarget } from '../../store/target.js';
import type { TargetImage } from '../../store/types.js';
import { LayerMetaCache } from '../layer-meta-cache.js';
import type { BasisOptions, BeginOptions, Engine, EngineContext, EngineStorage, HeldBasis, HeldImage, LayerSink, OpenEngine } from '../types.js';
import { ContainerdApi, type Mount, type SnapshotInfo } from './api.js';
import { ImageReader, layerLabel, type LayerAddress, type UnpackedImage } from './images.js';
import { Leases } from './leases.js';
import { snapshotKind } from './messages.js';
import { ContainerdSink } from './sink.js';
import { layerDirectories, SnapshotRoot } from './trees.js';

/** Where containerd listens when nobody says otherwise. */
const defaultAddress = '/run/containerd/containerd.sock';
/** The namespace of `ctr`; that of Kubernetes is "k8s.io". */
const defaultNamespace = 'default';
const defaultSnapshotter = 'overlayfs';

/** Connects to containerd. */
export const openContainerd: OpenEngine = async (context) => {
  const { address = defaultAddress, namespace = defaultNamespace, snapshotter = defaultSnapshotter } = context.settings;
  return new ContainerdEngine(context, await ContainerdApi.open(address, { namespace, snapshotter }, context.signal));
};

/** containerd, by its API, and the directories of its snapshots, which are on this machine. */
export class ContainerdEngine implements Engine {
  readonly name = 'containerd';
  readonly reader: ImageReader;
  readonly leases: Leases;
  readonly trees = new SnapshotRoot();
  readonly #known: LayerMetaCache;
  #closed = false;

  constructor(private readonly context: EngineContext, readonly api: ContainerdApi) {
    this.reader = new ImageReader(api);
    this.leases = new Leases(api, context.fs);
    this.#known = new LayerMetaCache(context.fs);
  }

  async images(): Promise<UnpackedImage[]> {
    const snapshots = new Map((await this.api.snapshots()).map((info) => [info.name, info]));
    const isCommitted = (name: string): boolean => isCommittedSnapshot(snapshots.get(name));
    const images = await this.reader.all(isCommitted, this.context.onNote);
    if (images.length === 0) return [];
    const blobs = new Set((await this.api.contents()).map(({ digest }) => digest));
    return images.filter((image) => {
      const lost = image.chain.findIndex((name, at) => snapshots.get(name)?.labels.get(layerLabel) !== image.diffIds[at] && !blobs.has(image.layers[at]?.digest ?? ''));
      if (lost >= 0) this.context.onNote(`containerd's ${image.names[0] ?? image.configDigest} cannot be a basis: it was not put there by this program, and the blob of its layer ${String(lost)} is gone`);
      return lost < 0;
    });
  }

  async resolve(name: string): Promise<HeldImage | undefined> {
    const record = await this.api.image(name);
    return record === undefined ? undefined : this.reader.read(record, (snapshot) => this.isCommitted(snapshot));
  }

  /** Whether a layer's snapshot is there, whole. */
  async isCommitted(snapshot: string): Promise<boolean> {
    return isCommittedSnapshot(await this.api.snapshot(snapshot));
  }

  async basis(image: HeldImage, options: BasisOptions = {}): Promise<HeldBasis> {
    const unpacked = await this.#unpacked(image);
    const layers = (options.layers ?? [...new Set(unpacked.diffIds)]).map((diffId): LayerAddress => {
      const at = unpacked.diffIds.indexOf(diffId);
      if (at < 0) throw new WhittleError('BASIS_DAMAGED', `containerd's image ${image.configDigest} has no layer ${diffId}`, { data: { layers: diffId } });
      return { diffId, chain: unpacked.chain.slice(0, at + 1), blob: unpacked.layers[at] };
    });
    return this.layers(image, unpacked.chain, layers);
  }

  async #unpacked(image: HeldImage): Promise<UnpackedImage> {
    if ('chain' in image && 'layers' in image) return image as UnpackedImage;
    const found = (await this.images()).find(({ manifestDigest, configDigest }) => (image.manifestDigest ?? manifestDigest) === manifestDigest && configDigest === image.configDigest);
    if (found === undefined) throw new WhittleError('BASIS_DAMAGED', `containerd has no image ${image.configDigest} any more`);
    return found;
  }

  /** Layers within one chain of snapshots, held until they are closed. Throws BASIS_DAMAGED when one is gone or its metadata cannot be had. */
  async layers(image: HeldImage, chain: readonly string[], wanted: readonly LayerAddress[]): Promise<LayersBasis> {
    const lease = await this.leases.takeForNow();
    const view = `${lease}-view`;
    const release = async (): Promise<void> => {
      await this.api.removeSnapshot(view);
      await this.api.deleteLease(lease, false);
    };
    try {
      const directories = await this.#directories(lease, view, chain);
      const layers: Layer[] = [];
      for (const each of wanted) layers.push(await this.#layer(directories[each.chain.length - 1] ?? '', each));
      return new LayersBasis(image, layers, release);
    } catch (error) {
      await release().catch(() => undefined);
      throw error;
    }
  }

  /** The directories of a chain's layers below the snapshots' root, bottom first. */
  async #directories(lease: string, view: string, chain: readonly string[]): Promise<string[]> {
    const top = chain.at(-1);
    if (top === undefined) return [];
    if (!(await this.isCommitted(top))) throw new WhittleError('BASIS_DAMAGED', `containerd no longer has the snapshot ${top}`, { data: { chainId: top } });
    const { parents } = layerDirectories(await this.#view(lease, view, top));
    if (parents.length !== chain.length) throw new WhittleError('ENGINE_UNSUPPORTED', `containerd's snapshotter shows ${parents.length} directories for ${chain.length} layers`);
    return this.trees.relative([...parents].reverse());
  }

  /** containerd looks at the top layer's directory, and says so in its own words when that is gone. */
  async #view(lease: string, view: string, top: string): Promise<readonly Mount[]> {
    try {
      return await this.api.view(lease, view, top);
    } catch (error) {
      if (!isWhittleError(error) || error.code !== 'ENGINE_FAILED') throw error;
      throw new WhittleError('BASIS_DAMAGED', `the snapshot ${top} cannot be read: ${error.message}`, { cause: error, data: { chainId: top } });
    }
  }

  async #layer(path: string, { diffId, blob }: LayerAddress): Promise<Layer> {
    const { fs } = this.trees;
    const own = await Layer.load(fs, path, diffId);
    if (own !== undefined) return own;
    let meta = await this.#known.get(diffId);
    if (meta === undefined) {
      meta = await this.#scan(diffId, blob);
      await this.#known.put(meta);
    }
    return Layer.of(fs, path, { meta, privileged: true, skipped: [] });
  }

  /** A layer's metadata, from its blob. */
  async #scan(diffId: string, blob: Descriptor | undefined): Promise<LayerMeta> {
    if (blob === undefined || (await this.api.contentInfo(blob.digest)) === undefined) {
      throw new WhittleError('BASIS_DAMAGED', `containerd no longer has the blob of layer ${diffId}, and nobody else knows its tar`, { data: { layers: diffId } });
    }
    const what = `containerd's blob ${blob.digest}`;
    const builder = new LayerMetaBuilder();
    for await (const chunk of unpackLayer(this.api.content(blob.digest), what)) builder.write(chunk);
    const meta = builder.finish();
    if (meta.diffId !== diffId) throw new WhittleError('BASIS_DAMAGED', `${what} gives the layer ${meta.diffId} instead of ${diffId}`, { data: { layers: diffId } });
    return meta;
  }

  async begin(target: TargetImage, options: BeginOptions): Promise<LayerSink> {
    if (process.geteuid?.() !== 0) throw new WhittleError('ENGINE_DENIED', 'only root can fill containerd\'s snapshots');
    const parsed = parseTarget(target);
    const lease = this.leases.targetId(parsed.manifestDigest);
    await this.leases.clear(lease);
    return new ContainerdSink(this, parsed, lease, options);
  }

  /** The snapshotter says itself where it keeps snapshots. */
  async storage(): Promise<EngineStorage | null> {
    const path = await this.api.snapshotterRoot();
    return path?.startsWith('/') === true ? { path, layerCopies: 0 } : null;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.leases.close();
    await this.trees.close();
    await this.api.close();
  }
}

function isCommittedSnapshot(info: SnapshotInfo | undefined): boolean {
  return info?.kind === snapshotKind.committed;
}
