import { isSystemError, LinuxFs, storageError, type DurableFs, type FileStat, type FsPath } from '../../atomic/index.js';
import { isWhittleError, WhittleError } from '../../core/errors.js';
import { throwIfAborted } from '../../core/interruption.js';
import { LayerMetaBuilder, type LayerMeta } from '../../tar/index.js';
import { ContentsBasis } from '../store/basis.js';
import { LayerContents, unreadable, type ContentPlace } from '../store/layer-contents.js';
import { LayerTree, pathOf, type NodeKind, type TreeNode } from '../store/layer-tree.js';
import { sparseLayout } from '../store/sparse.js';
import { readTarSplit } from './tar-split.js';
import type { HeldBasis, HeldImage } from './types.js';

const nodesPerHop = 256;
const provenKinds: ReadonlySet<NodeKind> = new Set(['file', 'directory', 'symlink']);

/** Where the metadata of layers is kept once it was proven, keyed by diffID. */
export interface ProvenLayers {
  /** The metadata of the layer, digests included; undefined when it is not known, or damaged. */
  get(diffId: string): Promise<LayerMeta | undefined>;
  put(meta: LayerMeta): Promise<void>;
}

/** Where an engine keeps one layer, and what is known of its layers already. */
export interface ExtractedLayerOptions {
  /** Absolute path of the directory that holds the layer's files and nothing else. */
  readonly directory: string;
  readonly diffId: string;
  /** The bytes of the layer's tar-split file; called only when the metadata is not known yet. */
  readonly tarSplit: () => AsyncIterable<Buffer>;
  readonly known: ProvenLayers;
  readonly signal?: AbortSignal | undefined;
}

/**
 * A layer that an engine keeps as a directory of files, with the metadata of its tar. Only contents are read from the
 * directory: what the files' names, owners and modes are there is of no account, nor are whiteouts in the engine's form.
 * Every file is opened beneath the directory, and no symbolic link is followed. Holds one descriptor until `close`.
 */
export class ExtractedLayer extends LayerContents {
  #tree: LayerTree | undefined;

  constructor(fs: DurableFs, override readonly meta: LayerMeta) {
    super(fs);
  }

  /** Throws BASIS_DAMAGED for content that the engine does not keep as it is in the tar. */
  override place(entry: number): ContentPlace {
    const node = this.#nodeOf(entry);
    const header = this.meta.entries.at(entry)?.header;
    if (header === undefined) throw this.#inNoFile(entry);
    return { path: pathOf(node), extents: sparseLayout(header)?.extents ?? [{ offset: 0, lengthBytes: header.sizeBytes }], node };
  }

  override contentPath(entry: number): FsPath {
    return pathOf(this.#nodeOf(entry));
  }

  #nodeOf(entry: number): TreeNode {
    this.#tree ??= treeOf(this.meta);
    const node = this.#tree.nodeOf(entry);
    if (node === undefined) throw this.#inNoFile(entry);
    return node;
  }

  #inNoFile(entry: number): WhittleError {
    return unusable(this.meta.diffId, `content of ${shown(this.meta, entry)} is in no file: it was replaced within the layer, or is a sparse file whose map is in its data`);
  }

  /**
   * Whether each name of the layer is there as its tar has it: kind, size, and the target of a symbolic link. The contents' digests do not
   * prove these. Whiteouts and devices are left out, and so are modes and owners: drivers keep them in forms of their own.
   */
  async hasItsNames(signal?: AbortSignal): Promise<boolean> {
    this.#tree ??= treeOf(this.meta);
    const nodes = [...this.#tree.nodes()].filter(({ inode }) => provenKinds.has(inode.kind));
    for (let at = 0; at < nodes.length; at += nodesPerHop) {
      throwIfAborted(signal);
      const group = nodes.slice(at, at + nodesPerHop);
      const stats = await this.fs.statMany(group.map(pathOf));
      for (const [index, node] of group.entries()) if (!(await this.#isAsInTar(node, stats[index]))) return false;
    }
    return true;
  }

  async #isAsInTar(node: TreeNode, stat: FileStat | undefined): Promise<boolean> {
    const { kind, entry } = node.inode;
    if (stat?.kind !== kind) return false;
    const header = this.meta.entries.at(entry)?.header;
    // A directory that the tar only implies.
    if (header === undefined) return true;
    if (kind === 'symlink') return (await this.fs.readlink(pathOf(node))).toString('latin1') === node.target;
    const sizeBytes = sparseLayout(header)?.sizeBytes ?? header.sizeBytes;
    return kind !== 'file' || stat.sizeBytes === sizeBytes;
  }

  /** Idempotent. */
  close(): Promise<void> {
    return this.fs.close();
  }
}

/**
 * Opens a layer that an engine keeps. When its metadata is not known yet, the tar-split is read, the whole layer is read
 * through once and proven against its diffID, and what was learned (the digest of each content) is kept in `known`. That
 * contents are still what they were is checked by whoever opens them, digest by digest. The caller closes the layer.
 * Throws BASIS_DAMAGED when the directory is gone or the files do not give the diffID, INTERRUPTED.
 */
export async function openExtractedLayer({ directory, diffId, tarSplit, known, signal }: ExtractedLayerOptions): Promise<ExtractedLayer> {
  const fs = await openDirectory(directory, diffId);
  try {
    let meta = await known.get(diffId);
    if (meta === undefined) {
      meta = await proveLayer(fs, await readTarSplit(tarSplit(), diffId), signal);
      await known.put(meta);
    }
    return new ExtractedLayer(fs, meta);
  } catch (error) {
    await fs.close();
    throw isSystemError(error, 'ENOENT', 'ENOTDIR', 'EISDIR', 'EIO', 'EUCLEAN') ? unusable(diffId, 'its tar-split is gone or unreadable', error) : storageError(error, `reading layer ${diffId}`);
  }
}

/**
 * Reads all contents of a layer whose files are beneath `fs`, in the order of its tar, and gives its metadata with the
 * digest of each. `skeleton` is what `readTarSplit` gave. Throws BASIS_DAMAGED unless the tar has the diffID; INTERRUPTED.
 */
async function proveLayer(fs: DurableFs, skeleton: LayerMeta, signal?: AbortSignal): Promise<LayerMeta> {
  const { diffId } = skeleton;
  const builder = new LayerMetaBuilder();
  try {
    for await (const piece of new ExtractedLayer(fs, skeleton).tar(signal)) {
      throwIfAborted(signal);
      builder.write(piece);
    }
    const meta = builder.finish();
    if (meta.diffId !== diffId) throw unusable(diffId, `the files of the engine give ${meta.diffId}: some were changed`);
    return meta;
  } catch (error) {
    if (isSystemError(error, ...unreadable)) throw unusable(diffId, 'a file of the engine is missing or unreadable', error);
    if (isWhittleError(error) && ['TAR_CORRUPT', 'TAR_UNSAFE', 'STORE_DAMAGED', 'LIMIT_EXCEEDED'].includes(error.code)) throw unusable(diffId, error.message, error);
    throw error;
  }
}

/** Opens layers one after another as a basis, which closes them. Throws what `openLayer` throws; those that were open are closed then. */
export async function extractedBasis(image: HeldImage, diffIds: Iterable<string>, openLayer: (diffId: string) => Promise<ExtractedLayer>): Promise<HeldBasis> {
  const open: ExtractedLayer[] = [];
  const release = async (): Promise<void> => { for (const each of open) await each.close(); };
  try {
    for (const diffId of diffIds) open.push(await openLayer(diffId));
    return new ContentsBasis(image, open, release);
  } catch (error) {
    await release();
    throw error;
  }
}

async function openDirectory(directory: string, diffId: string): Promise<DurableFs> {
  try {
    return await LinuxFs.open(directory);
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR', 'EIO', 'EUCLEAN')) throw unusable(diffId, `the engine no longer has its files (${directory})`, error);
    throw storageError(error, `opening ${directory}`);
  }
}

function treeOf(meta: LayerMeta): LayerTree {
  const tree = new LayerTree(null);
  for (const [entry, { header }] of meta.entries.entries()) tree.add(entry, header);
  return tree;
}

function shown(meta: LayerMeta, entry: number): string {
  return JSON.stringify(meta.entries.at(entry)?.header.path.subarray(0, 200).toString() ?? '');
}

function unusable(diffId: string, why: string, cause?: unknown): WhittleError {
  return new WhittleError('BASIS_DAMAGED', `layer ${diffId} cannot be a basis: ${why}`, {
    ...(cause === undefined ? {} : { cause }), data: { layers: diffId }, hint: 'The pull takes another way; to mend the engine\'s image, remove it there and pull it again.',
  });
}
