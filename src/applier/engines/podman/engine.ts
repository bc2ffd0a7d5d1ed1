import { WhittleError } from '../../../core/errors.js';
import { isJsonObject, parseJsonObject } from '../../../oci/index.js';
import { parseTarget } from '../../store/target.js';
import type { TargetImage } from '../../store/types.js';
import { extractedBasis } from '../extracted-layer.js';
import { LayerMetaCache } from '../layer-meta-cache.js';
import type { BasisOptions, BeginOptions, Engine, EngineContext, EngineStorage, HeldBasis, HeldImage, LayerSink, OpenEngine } from '../types.js';
import { PodmanCommand } from './command.js';
import { unfinishedRepository } from './documents.js';
import { PodmanIntake } from './intake.js';
import { PodmanSink } from './sink.js';
import { ContainersStorage, type PodmanImage } from './storage.js';
import { sweepMemory } from './temporary-directory.js';

/** Most images that are looked at. */
const maxImages = 4096;
const maxInfoBytes = 1024 * 1024;

/**
 * Podman: images come in by `podman pull` from a registry on the loopback interface that exists for this alone, and layers
 * are read where containers-storage keeps them.
 */
export class PodmanEngine implements Engine {
  readonly name = 'podman';
  readonly #known: LayerMetaCache;

  private constructor(private readonly command: PodmanCommand, private readonly stored: ContainersStorage, private readonly context: EngineContext) {
    this.#known = new LayerMetaCache(context.fs);
  }

  /** Asks podman where its storage is. Throws ENGINE_UNREACHABLE, ENGINE_UNSUPPORTED, ENGINE_DENIED, ENGINE_FAILED. */
  static async open(context: EngineContext): Promise<PodmanEngine> {
    await sweepMemory(context.fs);
    const command = new PodmanCommand(context.settings);
    const { store } = parseJsonObject(Buffer.from(await command.run(['info', '--format', 'json'], context.signal)), 'what podman says of itself', maxInfoBytes);
    const { graphRoot: root, graphDriverName: driver } = isJsonObject(store) ? store : {};
    if (typeof root !== 'string' || !root.startsWith('/')) throw new WhittleError('ENGINE_FAILED', 'podman does not say where its storage is');
    if (driver !== 'overlay') throw new WhittleError('ENGINE_UNSUPPORTED', `podman keeps its layers at ${root} with the driver ${JSON.stringify(driver)}; only overlay is supported`);
    return new PodmanEngine(command, await ContainersStorage.open(root), context);
  }

  async images(): Promise<HeldImage[]> {
    const view = await this.stored.view();
    const found: PodmanImage[] = [];
    for (const listed of view.images.slice(0, maxImages)) {
      if (listed.names.some((name) => name.startsWith(`${unfinishedRepository}:`))) continue;
      const image = await this.stored.image(view, listed);
      if (image !== undefined) found.push(image);
    }
    return found.sort((a, b) => b.sequence - a.sequence);
  }

  async resolve(name: string): Promise<HeldImage | undefined> {
    const view = await this.stored.view();
    const listed = view.images.find((image) => image.names.includes(name));
    const image = listed === undefined ? undefined : await this.stored.image(view, listed);
    return image !== undefined && (await this.stored.hasManifest(image)) ? image : undefined;
  }

  async basis(image: HeldImage, options: BasisOptions = {}): Promise<HeldBasis> {
    const view = await this.stored.view();
    const listed = view.images.find(({ id }) => `sha256:${id}` === image.configDigest);
    const stored = listed === undefined ? undefined : await this.stored.image(view, listed);
    if (stored === undefined) throw new WhittleError('BASIS_DAMAGED', `podman no longer has the image ${image.configDigest}, or not whole`, { data: { layers: image.diffIds.join(',') } });
    return extractedBasis(image, options.layers ?? new Set(stored.diffIds), async (diffId) => {
      const layer = stored.layers.find((each) => each.diffId === diffId);
      if (layer === undefined) throw new WhittleError('BASIS_DAMAGED', `the image ${image.configDigest} has no layer ${diffId}`, { data: { layers: diffId } });
      return this.stored.openLayer(layer, this.#known, this.context.signal);
    });
  }

  async begin(target: TargetImage, options: BeginOptions): Promise<LayerSink> {
    const parsed = parseTarget(target);
    return new PodmanSink(parsed, await PodmanIntake.open(this.command, this.stored, parsed, this.#known, options, this.context.fs), this.#known, options);
  }

  storage(): Promise<EngineStorage> {
    return Promise.resolve({ path: this.stored.root, layerCopies: 1 });
  }

  close(): Promise<void> {
    return this.stored.close();
  }
}

/** Finds podman and its storage. */
export const openPodman: OpenEngine = (context) => PodmanEngine.open(context);
