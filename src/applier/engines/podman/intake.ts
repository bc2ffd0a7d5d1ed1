import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DurableFs } from '../../../atomic/index.js';
import { isWhittleError, WhittleError } from '../../../core/errors.js';
import type { LayerMeta } from '../../../tar/index.js';
import { staleStageMs } from '../../store/limits.js';
import { diffIdAt, type Target } from '../../store/target.js';
import type { ProvenLayers } from '../extracted-layer.js';
import type { BeginOptions } from '../types.js';
import type { PodmanCommand } from './command.js';
import { plainManifest, unfinishedConfig, unfinishedIds, unfinishedName, unfinishedRepository } from './documents.js';
import { PodmanFeed } from './feed.js';
import { LayerPull } from './layer-pull.js';
import { chainOf, type ContainersStorage, type ListedImage, type PodmanImage, type StorageView, type StoredLayer } from './storage.js';
import { TemporaryDirectory } from './temporary-directory.js';

/**
 * What podman is asked while it takes in one target. Each layer comes by a `podman pull` from the feed, and makes an
 * unfinished image of the layers so far; the last pull is of the target itself, of which podman then has every layer.
 */
export class PodmanIntake {
  /** diffIDs of layers that podman has and that need no second look. */
  readonly #held = new Map<string, StoredLayer>();
  /** Layers that only unfinished images have, or none: a power cut may have torn their files. */
  readonly #doubtful = new Map<string, StoredLayer>();
  readonly #unfinished: ReadonlySet<string>;
  /** Settles when what an interrupted pull left was looked at. */
  #examined: Promise<void> | undefined;
  /** What podman had when it was looked at last. */
  #view: StorageView = { images: [], layers: new Map<string, StoredLayer>() };
  #feed: PodmanFeed | null = null;
  #temporary: TemporaryDirectory | null = null;

  private constructor(
    private readonly command: PodmanCommand, private readonly storage: ContainersStorage, private readonly target: Target,
    private readonly known: ProvenLayers, private readonly options: BeginOptions, private readonly fs: DurableFs,
  ) {
    this.#unfinished = unfinishedIds(target);
  }

  /** Looks at what podman has. Asks nothing of it. `fs`: the device's root. Throws ENGINE_FAILED, ENGINE_DENIED. */
  static async open(command: PodmanCommand, storage: ContainersStorage, target: Target, known: ProvenLayers, options: BeginOptions, fs: DurableFs): Promise<PodmanIntake> {
    const intake = new PodmanIntake(command, storage, target, known, options, fs);
    await intake.#look();
    return intake;
  }

  async #look(): Promise<void> {
    const view = this.#view = await this.storage.view();
    this.#held.clear();
    this.#doubtful.clear();
    for (const image of view.images) {
      if (this.#isUnfinished(image)) continue;
      for (const layer of chainOf(view, image.layer) ?? []) this.#held.set(layer.diffId, layer);
    }
    for (const layer of view.layers.values()) if (!this.#held.has(layer.diffId)) this.#doubtful.set(layer.diffId, layer);
  }

  #isUnfinished(image: ListedImage): boolean {
    return this.#unfinished.has(image.id) || image.names.some((name) => name.startsWith(`${unfinishedRepository}:`));
  }

  /** Whether podman has the layer, under whichever image. Those that an interrupted pull left are read through and proven first. */
  async hasLayer(layer: number): Promise<boolean> {
    await (this.#examined ??= this.#examine());
    return this.#held.has(this.#diffId(layer));
  }

  /**
   * Proves what an interrupted pull left, all of it before anything is said of any layer: a damaged one goes with those that came with it, for
   * podman removes layers only with an image that has them, and keeps one that others stand on.
   */
  async #examine(): Promise<void> {
    const torn = await this.#proveDoubtful();
    if (torn.length === 0) return;
    this.options.onNote(`podman has ${torn.length === 1 ? 'layer' : 'layers'} ${torn.join(', ')} from an interrupted pull, not whole: what that pull left is removed`);
    await this.removeUnfinished();
    await this.#look();
    const shared = await this.#proveDoubtful();
    if (shared.length === 0) return;
    await this.#removeUnfinishedWith(shared);
    if ((await this.#proveDoubtful()).length === 0) return;
    await this.#removeOrphans();
    const [stays] = await this.#proveDoubtful();
    if (stays !== undefined) throw new WhittleError('ENGINE_FAILED', `podman keeps layer ${stays}, which an interrupted pull left torn`, { hint: 'See docs/engines.md.' });
  }

  /** Counts on the doubtful layers of the target that are whole, and gives the diffIDs of those that are not. */
  async #proveDoubtful(): Promise<string[]> {
    const torn: string[] = [];
    for (const diffId of new Set(this.target.diffIds)) {
      const layer = this.#doubtful.get(diffId);
      if (layer === undefined) continue;
      if (await this.#isWhole(layer)) {
        this.#doubtful.delete(diffId);
        this.#held.set(diffId, layer);
      } else {
        torn.push(diffId);
      }
    }
    return torn;
  }

  /**
   * Removes whatever unfinished images have one of these layers: pulls of other images that were cut off too. One that is under way has proven what it
   * found before it stood anything on it, so it has none that is torn.
   */
  async #removeUnfinishedWith(torn: readonly string[]): Promise<void> {
    const ids = this.#view.images
      .filter((image) => this.#isUnfinished(image) && (chainOf(this.#view, image.layer) ?? []).some(({ diffId }) => torn.includes(diffId)))
      .map(({ id }) => id);
    if (ids.length === 0) return;
    await this.command.run(['rmi', ...ids], this.options.signal);
    await this.#look();
  }

  /** Layers of no image are given one, of all that are there, of which podman then asks no layer. */
  async #removeOrphans(): Promise<void> {
    const missing = this.target.diffIds.findIndex((diffId) => !this.#doubtful.has(diffId) && !this.#held.has(diffId));
    const pull = await this.pullLayer((missing < 0 ? this.target.diffIds.length : missing) - 1, null);
    try {
      await pull.end();
    } finally {
      await pull.abort();
    }
    await this.removeUnfinished();
    await this.#look();
  }

  #diffId(layer: number): string {
    return diffIdAt(this.target.diffIds, layer);
  }

  async #isWhole(layer: StoredLayer): Promise<boolean> {
    const { known } = this;
    const anew: ProvenLayers = { get: () => Promise.resolve(undefined), put: (meta: LayerMeta) => known.put(meta) };
    try {
      const proven = await this.storage.openLayer(layer, anew, this.options.signal);
      try {
        return (await proven.hasItsNames(this.options.signal)) && (await this.storage.isMountable(this.#view, layer));
      } finally {
        await proven.close();
      }
    } catch (error) {
      if (isWhittleError(error) && error.code === 'BASIS_DAMAGED') return false;
      throw error;
    }
  }

  /** Starts the pull that takes in a layer; all layers below it must be there. `sizeBytes` null where nobody knows. */
  async pullLayer(layer: number, sizeBytes: number | null): Promise<LayerPull> {
    const diffId = this.#diffId(layer);
    const config = unfinishedConfig(this.target, layer + 1);
    // The size is of no account: this manifest goes with the unfinished image.
    const layers = this.target.diffIds.slice(0, layer + 1).map((each) => ({ diffId: each, sizeBytes: this.#held.get(each)?.sizeBytes ?? sizeBytes ?? 1 }));
    return this.#pull({ ...plainManifest(this.target, config, layers), config, incoming: diffId }, sizeBytes);
  }

  async #pull(image: Parameters<PodmanFeed['offer']>[0], sizeBytes: number | null): Promise<LayerPull> {
    const { scratchDirectory, signal } = this.options;
    this.#feed ??= await PodmanFeed.open();
    this.#temporary ??= new TemporaryDirectory(this.fs, scratchDirectory);
    const registries = join(scratchDirectory, 'registries.conf');
    await writeFile(registries, `[[registry]]\nprefix = "${unfinishedRepository}"\nlocation = "${this.#feed.location}"\ninsecure = true\n`, { mode: 0o600 });
    const asked = this.#feed.offer(image);
    const environment = { CONTAINERS_REGISTRIES_CONF: registries, TMPDIR: await this.#temporary.forBytes(sizeBytes) };
    return new LayerPull(this.command.start(['pull', '--quiet', `docker://${unfinishedName(this.target)}`], environment), asked, signal);
  }

  /** The layer came in: podman says so, and its list must say it too. Throws ENGINE_FAILED. */
  async layerCame(layer: number): Promise<void> {
    const diffId = this.#diffId(layer);
    const found = [...(await this.storage.view()).layers.values()].find((each) => each.diffId === diffId);
    if (found === undefined) throw new WhittleError('ENGINE_FAILED', `podman took layer ${diffId} in, and does not have it`);
    this.#held.set(diffId, found);
  }

  /** Syncs the filesystem of podman's storage. */
  makeDurable(): Promise<void> {
    return this.storage.makeDurable();
  }

  /** The target becomes an image of podman's, under `name`; on disk when this returns. Throws STAGE_INCOMPLETE, ENGINE_FAILED. */
  async commit(name: string | null): Promise<PodmanImage> {
    const layers: { diffId: string; sizeBytes: number }[] = [];
    for (const [layer, diffId] of this.target.diffIds.entries()) {
      if (!(await this.hasLayer(layer))) throw new WhittleError('STAGE_INCOMPLETE', `layer ${diffId} is not there yet`, { data: { diffId } });
      layers.push({ diffId, sizeBytes: this.#held.get(diffId)?.sizeBytes ?? 0 });
    }
    await this.#requireAll();
    // Podman's records are durable at once: what they name must be on the disk before.
    await this.storage.makeDurable();
    const pull = await this.#pull({ ...plainManifest(this.target, this.target.config, layers), config: this.target.config, incoming: null }, 0);
    await pull.end();
    const id = this.target.configDigest.slice('sha256:'.length);
    await this.#name(id, name);
    const image = await this.#find(id, name);
    await this.storage.makeDurable();
    return image;
  }

  /** Somebody may have removed images since their layers were counted on. Throws STORE_DAMAGED with the layers that are gone. */
  async #requireAll(): Promise<void> {
    const present = new Set([...(await this.storage.view()).layers.values()].map(({ diffId }) => diffId));
    const gone = [...new Set(this.target.diffIds)].filter((diffId) => !present.has(diffId));
    if (gone.length > 0) throw new WhittleError('STORE_DAMAGED', `podman no longer has ${gone.join(', ')}: somebody removed images`, { data: { layers: gone.join(',') } });
  }

  async #name(id: string, name: string | null): Promise<void> {
    const { signal, onNote } = this.options;
    const tagged = name !== null && !name.includes('@');
    if (tagged) await this.command.run(['tag', id, name], signal);
    else if (name !== null) onNote('podman names images by tags: this one is there by its ID, without a name');
    await this.command.run(['untag', id, unfinishedName(this.target)], signal);
    try {
      await this.removeUnfinished();
    } catch (error) {
      if (!isWhittleError(error) || error.code === 'INTERRUPTED') throw error;
      onNote(`an unfinished image stays in podman's list, and can be removed: ${error.message}`);
    }
  }

  async #find(id: string, name: string | null): Promise<PodmanImage> {
    const view = await this.storage.view();
    const listed = view.images.find((image) => image.id === id);
    const image = listed === undefined ? undefined : await this.storage.image(view, listed);
    if (image === undefined || !(await this.storage.hasManifest(image)) || (name !== null && !name.includes('@') && !image.names.includes(name))) {
      throw new WhittleError('ENGINE_FAILED', `podman took the image in, but does not show ${id} as ${name ?? 'an image'}`);
    }
    return image;
  }

  /** Removes the unfinished images of this target, and those of others that nobody has gone on with for long. Throws ENGINE_FAILED. */
  async removeUnfinished(): Promise<void> {
    const { images } = await this.storage.view();
    const old = Date.now() - staleStageMs;
    const ids = images.filter((image) => this.#unfinished.has(image.id) || (this.#isUnfinished(image) && image.createdMs < old)).map(({ id }) => id);
    if (ids.length > 0) await this.command.run(['rmi', ...ids], this.options.signal);
  }

  /** Idempotent. */
  async close(): Promise<void> {
    await this.#feed?.close();
    this.#feed = null;
    await this.#temporary?.close();
    this.#temporary = null;
  }
}
