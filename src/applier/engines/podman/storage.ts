import { createReadStream } from 'node:fs';
import { isSystemError, LinuxFs, storageError, type DurableFs } from '../../../atomic/index.js';
import { isWhittleError, WhittleError } from '../../../core/errors.js';
import { maxConfigBytes, maxLayers, maxManifestBytes } from '../../../core/limits.js';
import { isDigest, isJsonObject, parseConfig, parseJsonObject, sha256Digest } from '../../../oci/index.js';
import { openExtractedLayer, type ExtractedLayer, type ProvenLayers } from '../extracted-layer.js';
import type { HeldImage } from '../types.js';

/** Largest of podman's lists of images and layers that is read. */
const maxListBytes = 64 * 1024 * 1024;
/** Longest list of the layers below one that is read: short names have 26 characters. */
const maxLineBytes = 64 * 1024;
const shortNameForm = /^[A-Z0-9]{1,64}$/;
const idForm = /^[0-9a-f]{64}$/;

/** A layer as containers-storage lists it. */
export interface StoredLayer {
  readonly id: string;
  readonly parent: string | null;
  readonly diffId: string;
  readonly sizeBytes: number;
}

/** An image as containers-storage lists it. */
export interface ListedImage {
  readonly id: string;
  readonly names: readonly string[];
  readonly layer: string | null;
  readonly createdMs: number;
}

/** An image whose layers were found. Which manifest it has in podman says nothing: that of unpacked layers is not the published one. */
export interface PodmanImage extends HeldImage {
  readonly id: string;
  /** In manifest order. */
  readonly layers: readonly StoredLayer[];
}

/** What containers-storage held at one moment. */
export interface StorageView {
  readonly images: readonly ListedImage[];
  readonly layers: ReadonlyMap<string, StoredLayer>;
}

/**
 * Reads what podman and its kin keep in containers-storage with the overlay driver: `overlay-images/images.json`,
 * `overlay-layers/layers.json` and `volatile-layers.json` there, a tar-split beside them for each layer, and the files of a
 * layer in `overlay/<id>/diff`. The lists are replaced as a whole by whoever changes them, so that each is read whole
 * without podman's locks; that the two fit together, and that files are what they should be, is checked. Changes nothing.
 */
export class ContainersStorage {
  private constructor(readonly root: string, private readonly fs: DurableFs) {}

  /** Opens the storage at `root`, an absolute path. Throws ENGINE_DENIED, ENGINE_FAILED. */
  static async open(root: string): Promise<ContainersStorage> {
    try {
      return new ContainersStorage(root, await LinuxFs.open(root));
    } catch (error) {
      if (isSystemError(error, 'EACCES', 'EPERM')) throw new WhittleError('ENGINE_DENIED', `podman's storage at ${root} may not be read`, { cause: error });
      throw new WhittleError('ENGINE_FAILED', `podman's storage at ${root} cannot be opened`, { cause: error });
    }
  }

  /** The lists as they are now. Throws ENGINE_FAILED when one is malformed, ENGINE_DENIED. */
  async view(): Promise<StorageView> {
    const images = (await this.#list('overlay-images/images.json')).flatMap(readListedImage);
    const layers = new Map<string, StoredLayer>();
    for (const name of ['layers.json', 'volatile-layers.json']) {
      for (const value of await this.#list(`overlay-layers/${name}`)) {
        const layer = readLayer(value);
        if (layer !== undefined) layers.set(layer.id, layer);
      }
    }
    return { images, layers };
  }

  async #list(path: string): Promise<readonly Readonly<Record<string, unknown>>[]> {
    let bytes: Buffer | undefined;
    try {
      bytes = await this.fs.readFile(path, maxListBytes);
    } catch (error) {
      if (isSystemError(error, 'EACCES', 'EPERM')) throw new WhittleError('ENGINE_DENIED', `${this.root}/${path} may not be read`, { cause: error });
      throw new WhittleError('ENGINE_FAILED', `${this.root}/${path} cannot be read`, { cause: error });
    }
    if (bytes === undefined || bytes.length === 0) return [];
    try {
      const list: unknown = JSON.parse(bytes.toString());
      if (list === null) return [];
      if (!Array.isArray(list)) throw new WhittleError('ENGINE_FAILED', `${this.root}/${path} is no list`);
      return list.filter((value): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null);
    } catch (error) {
      if (isWhittleError(error)) throw error;
      throw new WhittleError('ENGINE_FAILED', `${this.root}/${path} is not JSON`, { cause: error });
    }
  }

  /** An image with its config and its layers; undefined when something of it is missing or does not fit together. */
  async image(view: StorageView, listed: ListedImage): Promise<PodmanImage | undefined> {
    const config = await this.#bigData(listed.id, `sha256:${listed.id}`, maxConfigBytes);
    if (config === undefined || sha256Digest(config) !== `sha256:${listed.id}`) return undefined;
    const layers = chainOf(view, listed.layer);
    if (layers === undefined) return undefined;
    try {
      const { diffIds } = parseConfig(config, layers.length, 'the config of an image of podman');
      if (!diffIds.every((diffId, index) => layers[index]?.diffId === diffId)) return undefined;
      return { id: listed.id, manifestDigest: null, configDigest: `sha256:${listed.id}`, config, diffIds, names: listed.names, sequence: listed.createdMs, layers };
    } catch (error) {
      if (!isWhittleError(error)) throw error;
      return undefined;
    }
  }

  /**
   * Whether podman can work with the image: it writes an image's name before its manifest, and one that it was killed over in between
   * is listed and has all its files, but can be neither run nor copied. Such an image is no less of a basis.
   */
  async hasManifest(image: PodmanImage): Promise<boolean> {
    const manifest = await this.#bigData(image.id, 'manifest', maxManifestBytes);
    if (manifest === undefined) return false;
    try {
      const { config } = parseJsonObject(manifest, 'the manifest of an image of podman', maxManifestBytes);
      // The first form of manifests names no config.
      return config === undefined || (isJsonObject(config) && config['digest'] === image.configDigest);
    } catch (error) {
      if (!isWhittleError(error)) throw error;
      return false;
    }
  }

  /** Data of an image; keys that are no plain name are kept under their base64. */
  async #bigData(id: string, key: string, maxBytes: number): Promise<Buffer | undefined> {
    const name = /^[A-Za-z0-9.-]+$/.test(key) ? key : `=${Buffer.from(key).toString('base64')}`;
    try {
      return await this.fs.readFile(`overlay-images/${id}/${name}`, maxBytes);
    } catch (error) {
      if (isSystemError(error, 'EFBIG', 'EISDIR', 'ELOOP', 'EIO', 'ENXIO')) return undefined;
      throw storageError(error, 'reading an image of podman');
    }
  }

  /** Opens the files of a layer. The caller closes it. Throws BASIS_DAMAGED, INTERRUPTED. */
  openLayer(layer: StoredLayer, known: ProvenLayers, signal?: AbortSignal): Promise<ExtractedLayer> {
    return openExtractedLayer({
      directory: `${this.root}/overlay/${layer.id}/diff`, diffId: layer.diffId, known, signal,
      tarSplit: () => createReadStream(`${this.root}/overlay-layers/${layer.id}.tar-split.gz`),
    });
  }

  /**
   * Whether podman can mount the layer upon those below: the short names that it gave them, and the list of them beside the layer. It
   * syncs these as little as the layers' files, writes them once, and says of a broken one no more than that a link cannot be read.
   */
  async isMountable(view: StorageView, layer: StoredLayer): Promise<boolean> {
    const chain = chainOf(view, layer.id)?.reverse() ?? [];
    const names: string[] = [];
    for (const { id } of chain) {
      const name = (await this.#line(`overlay/${id}/link`)) ?? '';
      if (!shortNameForm.test(name) || (await this.#target(`overlay/l/${name}`)) !== `../${id}/diff`) return false;
      names.push(name);
    }
    return (await this.#line(`overlay/${layer.id}/lower`) ?? '') === names.slice(1).map((name) => `l/${name}`).join(':');
  }

  async #line(path: string): Promise<string | undefined> {
    try {
      return (await this.fs.readFile(path, maxLineBytes))?.toString();
    } catch (error) {
      if (isSystemError(error, 'EFBIG', 'EISDIR', 'ELOOP', 'EIO', 'ENXIO', 'ENOTDIR')) return undefined;
      throw storageError(error, 'reading how podman keeps a layer');
    }
  }

  /** Where a symbolic link leads. */
  async #target(path: string): Promise<string | undefined> {
    try {
      return (await this.fs.readlink(path)).toString();
    } catch (error) {
      if (isSystemError(error, 'ENOENT', 'ENOTDIR', 'EINVAL', 'ELOOP', 'EIO')) return undefined;
      throw storageError(error, 'reading how podman keeps a layer');
    }
  }

  /** Makes everything that podman wrote so far durable: it syncs its lists, not the files of layers. Throws STORAGE_IO. */
  async makeDurable(): Promise<void> {
    try {
      await this.fs.syncfs('stage.checkpoint');
    } catch (error) {
      throw storageError(error, `syncing ${this.root}`);
    }
  }

  /** Idempotent. */
  close(): Promise<void> {
    return this.fs.close();
  }
}

/** The layers below and with `top`, lowest first; undefined when one is not there. An image may have none. */
export function chainOf(view: StorageView, top: string | null): StoredLayer[] | undefined {
  const chain: StoredLayer[] = [];
  for (let id = top; id !== null;) {
    const layer = view.layers.get(id);
    if (layer === undefined || chain.length >= maxLayers) return undefined;
    chain.unshift(layer);
    id = layer.parent;
  }
  return chain;
}

function readListedImage(value: Readonly<Record<string, unknown>>): ListedImage[] {
  const { id, names, layer, created } = value;
  if (typeof id !== 'string' || !idForm.test(id)) return [];
  const createdMs = typeof created === 'string' ? Date.parse(created) : Number.NaN;
  return [{
    id, names: Array.isArray(names) ? names.filter((name): name is string => typeof name === 'string' && name.length <= 1024) : [],
    layer: typeof layer === 'string' && idForm.test(layer) ? layer : null, createdMs: Number.isFinite(createdMs) ? createdMs : 0,
  }];
}

/** Layers that are not whole, or are known by no sha256 diffID, are none. */
function readLayer(value: Readonly<Record<string, unknown>>): StoredLayer | undefined {
  const { id, parent, flags } = value;
  const diffId = value['diff-digest'];
  const sizeBytes = value['diff-size'];
  if (typeof id !== 'string' || !idForm.test(id) || typeof diffId !== 'string' || !isDigest(diffId) || !diffId.startsWith('sha256:')) return undefined;
  if (typeof flags === 'object' && flags !== null && (flags as Readonly<Record<string, unknown>>)['incomplete'] === true) return undefined;
  if (typeof parent === 'string' && parent !== '' && !idForm.test(parent)) return undefined;
  return { id, parent: typeof parent === 'string' && parent !== '' ? parent : null, diffId, sizeBytes: typeof sizeBytes === 'number' && Number.isSafeInteger(sizeBytes) && sizeBytes > 0 ? sizeBytes : 0 };
}
