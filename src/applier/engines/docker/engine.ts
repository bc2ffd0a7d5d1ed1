import { isWhittleError, WhittleError } from '../../../core/errors.js';
import { maxConfigBytes, maxLayers } from '../../../core/limits.js';
import { LinuxFs, withStorageErrors, type DurableFs } from '../../../atomic/index.js';
import { isDigest, isJsonObject, parseConfig, parseJsonObject, parseReference, sha256Digest, type JsonObject } from '../../../oci/index.js';
import { storeName } from '../../pull/options.js';
import { parseTarget } from '../../store/target.js';
import type { TargetImage } from '../../store/types.js';
import { ArchiveSink, type ArchiveReceiver } from '../docker-archive.js';
import { extractedBasis, type ExtractedLayer } from '../extracted-layer.js';
import { LayerMetaCache } from '../layer-meta-cache.js';
import type { BasisOptions, BeginOptions, Engine, EngineContext, EngineStorage, HeldBasis, HeldImage, LayerSink, OpenEngine } from '../types.js';
import { DockerApi, defaultDockerSocket } from './api.js';
import { DockerLayers } from './layers.js';

/** Most images that are looked at. */
const maxImages = 4096;

/** What Docker says of itself. */
interface DockerInfo {
  /** Where it says that it keeps everything. */
  readonly root: string | null;
  /** Null where its layers cannot be read: another storage driver, or another machine. */
  readonly layers: DockerLayers | null;
  /** Whether a load may leave out layers that are there: not so for the containerd image store. */
  readonly leavesOut: boolean;
}

/**
 * Docker: images come in by a streamed `POST /images/load`, layers are read where the overlay2 driver keeps them. Throws
 * ENGINE_UNREACHABLE, ENGINE_DENIED.
 */
export class DockerEngine implements Engine {
  readonly name = 'docker';
  readonly #known: LayerMetaCache;

  private constructor(private readonly api: DockerApi, private readonly info: DockerInfo, private readonly context: EngineContext) {
    this.#known = new LayerMetaCache(context.fs);
  }

  /** Asks Docker what it is. */
  static async open(context: EngineContext): Promise<DockerEngine> {
    const { settings, signal, onNote } = context;
    const api = new DockerApi(settings.address ?? defaultDockerSocket);
    const about = await api.getObject('/info', signal);
    if (about === undefined) throw new WhittleError('ENGINE_FAILED', `what listens at ${api.socketPath} is not docker`);
    const { Driver: driver, DockerRootDir: rootDir, DriverStatus: status } = about;
    const root = settings.root ?? (typeof rootDir === 'string' && rootDir.startsWith('/') ? rootDir : undefined);
    const readable = driver === 'overlay2' && root !== undefined;
    if (!readable) onNote(`docker keeps its layers with the driver ${JSON.stringify(driver)}: nothing of it can be a basis, see docs/engines.md`);
    const leavesOut = !JSON.stringify(status ?? null).includes('io.containerd.snapshotter');
    return new DockerEngine(api, { root: root ?? null, layers: readable ? new DockerLayers(root) : null, leavesOut }, context);
  }

  async images(): Promise<HeldImage[]> {
    const { layers } = this.info;
    if (layers === null) return [];
    const found: HeldImage[] = [];
    try {
      for (const { id, tags, created } of await this.#list()) {
        const image = await this.#image(layers, id, tags, created);
        if (image !== undefined) found.push(image);
      }
    } catch (error) {
      if (!isWhittleError(error) || error.code !== 'ENGINE_DENIED') throw error;
      // Members of the group docker may load images; only root may read what is there.
      this.context.onNote(`${error.message}: nothing that docker holds can be a basis`);
      return [];
    }
    return found.sort((a, b) => b.sequence - a.sequence);
  }

  async #list(): Promise<{ readonly id: string; readonly tags: readonly string[]; readonly created: number }[]> {
    const list = await this.api.get('/images/json', this.context.signal);
    if (!Array.isArray(list)) throw new WhittleError('ENGINE_FAILED', 'docker answered with something that is no list of images');
    return list.slice(0, maxImages).filter(isJsonObject).flatMap((each) => {
      const { Id: id, RepoTags: tags, Created: created } = each;
      return typeof id === 'string' && isDigest(id) ? [{ id, tags: strings(tags), created: typeof created === 'number' && Number.isSafeInteger(created) ? created : 0 }] : [];
    });
  }

  /** An image with its config, when all of it can be read. One that cannot is none, which is no error. */
  async #image(layers: DockerLayers, id: string, tags: readonly string[], created: number): Promise<HeldImage | undefined> {
    const config = await layers.config(id, maxConfigBytes);
    if (config === undefined || sha256Digest(config) !== id) return undefined;
    try {
      const { diffIds } = parseConfig(config, rootLayers(config), `the config of docker's image ${id}`);
      if (!(await layers.areThere(diffIds))) return undefined;
      return { manifestDigest: null, configDigest: id, config, diffIds, names: tags.flatMap(fullName), sequence: created };
    } catch (error) {
      if (!isWhittleError(error) || error.code === 'ENGINE_DENIED') throw error;
      return undefined;
    }
  }

  async resolve(name: string): Promise<HeldImage | undefined> {
    const about = await this.api.inspectImage(name, this.context.signal);
    const id = about?.['Id'];
    if (about === undefined || typeof id !== 'string' || !isDigest(id)) return undefined;
    // What it is matters here, not whether it can be read.
    return { manifestDigest: null, configDigest: id, config: Buffer.alloc(0), diffIds: stackOf(about), names: [name], sequence: 0 };
  }

  async basis(image: HeldImage, options: BasisOptions = {}): Promise<HeldBasis> {
    const { layers } = this.info;
    if (layers === null) throw new WhittleError('BASIS_DAMAGED', 'docker\'s layers cannot be read here');
    return extractedBasis(image, options.layers ?? new Set(image.diffIds), async (diffId) => {
      const layer = image.diffIds.indexOf(diffId);
      if (layer < 0) throw new WhittleError('BASIS_DAMAGED', `the image ${image.configDigest} has no layer ${diffId}`, { data: { layers: diffId } });
      return layers.open(image.diffIds, layer, this.#known, this.context.signal);
    });
  }

  async begin(target: TargetImage, options: BeginOptions): Promise<LayerSink> {
    const parsed = parseTarget(target);
    const stacks = await this.#stacks();
    const receiver = new DockerReceiver(this.api, this.info, { config: parsed.config, configDigest: parsed.configDigest, diffIds: parsed.diffIds }, stacks, this.#known, options);
    return new ArchiveSink({
      target: parsed, receiver, known: this.#known, scratchDirectory: options.scratchDirectory, replaceLayers: options.replaceLayers, signal: options.signal,
      tagOf: (name) => {
        if (!name.includes('@')) return name;
        options.onNote('docker takes in an image under a tag only: this one will be there by its ID, without a name');
        return null;
      },
    });
  }

  /** The stacks of layers of all images, bottom first. */
  async #stacks(): Promise<(readonly string[])[]> {
    const stacks: (readonly string[])[] = [];
    for (const { id } of await this.#list()) {
      const about = await this.api.inspectImage(id, this.context.signal);
      if (about !== undefined) stacks.push(stackOf(about));
    }
    return stacks;
  }

  /** Docker unpacks what it is given beside what it becomes. */
  storage(): Promise<EngineStorage | null> {
    const { root } = this.info;
    return Promise.resolve(root === null ? null : { path: root, layerCopies: 2 });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Docker as the taker of an archive. */
class DockerReceiver implements ArchiveReceiver {
  constructor(
    private readonly api: DockerApi, private readonly info: DockerInfo, private readonly image: Pick<HeldImage, 'config' | 'configDigest' | 'diffIds'>,
    private readonly stacks: readonly (readonly string[])[], private readonly known: LayerMetaCache, private readonly options: BeginOptions,
  ) {}

  holdsStack(layer: number): boolean {
    const wanted = this.image.diffIds.slice(0, layer + 1);
    return this.info.leavesOut && this.stacks.some((stack) => wanted.every((diffId, at) => stack[at] === diffId));
  }

  hasElsewhere(diffId: string): boolean {
    return this.info.layers !== null && this.stacks.some((stack) => stack.includes(diffId));
  }

  openLayer(diffId: string): Promise<ExtractedLayer> {
    const stack = this.stacks.find((each) => each.includes(diffId));
    if (stack === undefined || this.info.layers === null) throw new WhittleError('BASIS_DAMAGED', `docker has no layer ${diffId}`, { data: { layers: diffId } });
    return this.info.layers.open(stack, stack.indexOf(diffId), this.known, this.options.signal);
  }

  open(): ReturnType<ArchiveReceiver['open']> {
    return Promise.resolve(this.api.load(this.options.signal));
  }

  /** Docker has proven the diffIDs; whether it means the same image by the name is asked. */
  async taken(name: string | null): Promise<HeldImage> {
    const { configDigest } = this.image;
    const tagged = name !== null && !name.includes('@');
    for (const what of tagged ? [configDigest, name] : [configDigest]) {
      const about = await this.api.inspectImage(what, this.options.signal);
      if (about?.['Id'] !== configDigest) throw new WhittleError('ENGINE_FAILED', `docker took the image, but does not show ${configDigest} as ${what}`);
    }
    await this.#sync();
    return { ...this.image, manifestDigest: null, names: name === null ? [] : [name], sequence: 0 };
  }

  /** Docker syncs its records, not the files of layers: what was fetched is given up only when those are on the disk too. */
  async #sync(): Promise<void> {
    const root = this.info.layers?.root;
    if (root === undefined) return;
    await withStorageErrors(`syncing ${root}`, async () => {
      const fs: DurableFs = await LinuxFs.open(root);
      try {
        await fs.syncfs('stage.checkpoint');
      } finally {
        await fs.close();
      }
    });
  }
}

function stackOf(about: JsonObject): readonly string[] {
  const rootFs = about['RootFS'];
  const layers = isJsonObject(rootFs) ? strings(rootFs['Layers']) : [];
  return layers.slice(0, maxLayers).filter(isDigest);
}

function strings(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((each): each is string => typeof each === 'string' && each.length <= 1024) : [];
}

/** How many layers the config itself lists: there is no manifest to compare it with. */
function rootLayers(config: Buffer): number {
  const { rootfs: rootFs } = parseJsonObject(config, 'an image config of docker', maxConfigBytes);
  return isJsonObject(rootFs) && Array.isArray(rootFs['diff_ids']) ? rootFs['diff_ids'].length : 0;
}

/** A tag of Docker's with every default written out; none for what is no name. */
function fullName(tag: string): string[] {
  if (tag.includes('<none>')) return [];
  try {
    return [storeName(parseReference(tag))];
  } catch {
    return [];
  }
}

/** Connects to Docker. */
export const openDocker: OpenEngine = (context) => DockerEngine.open(context);
