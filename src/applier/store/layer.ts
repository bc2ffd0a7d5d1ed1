import { isSystemError, joinPath, type DurableFs, type FsPath } from '../../atomic/index.js';
import { WhittleError } from '../../core/errors.js';
import type { LayerMeta, LayerMetaHead } from '../../tar/index.js';
import { LayerContents, type ContentPlace } from './layer-contents.js';
import { decodeLayerFile, decodeLayerFileHead, type LayerFile } from './layer-file.js';
import { LayerTree, pathOf, type TreeNode } from './layer-tree.js';
import { storeLimits } from './limits.js';
import { sparseLayout } from './sparse.js';

export { unreadable, type ContentPlace } from './layer-contents.js';

/** An extracted layer on disk, in the store or in a stage. Holds no descriptors. */
export class Layer extends LayerContents {
  #tree: LayerTree | undefined;

  private constructor(fs: DurableFs, readonly path: string, private readonly file: LayerFile) {
    super(fs);
  }

  /** A layer at `path` whose metadata is known from elsewhere. */
  static of(fs: DurableFs, path: string, file: LayerFile): Layer {
    return new Layer(fs, path, file);
  }

  /** Reads the layer at `path`; undefined when it is not there or its metadata is damaged or that of another layer than `diffId`. */
  static async load(fs: DurableFs, path: string, diffId: string): Promise<Layer | undefined> {
    const bytes = await readMeta(fs, path);
    const file = bytes === undefined ? undefined : await decodeLayerFile(bytes);
    return file === undefined || file.meta.diffId !== diffId ? undefined : new Layer(fs, path, file);
  }

  /** What `load` says of the layer, without the entries: all of its metadata is read and compared with its checksum, and none decoded. */
  static async loadHead(fs: DurableFs, path: string, diffId: string): Promise<LayerMetaHead | undefined> {
    const bytes = await readMeta(fs, path);
    const head = bytes === undefined ? undefined : decodeLayerFileHead(bytes);
    return head?.diffId === diffId ? head : undefined;
  }

  override get meta(): LayerMeta {
    return this.file.meta;
  }

  get privileged(): boolean {
    return this.file.privileged;
  }

  get skipped(): readonly string[] {
    return this.file.skipped;
  }

  get tree(): LayerTree {
    if (this.#tree === undefined) {
      const tree = new LayerTree(null);
      let entry = 0;
      for (const { header } of this.meta.entries) tree.add(entry++, header);
      this.#tree = tree;
    }
    return this.#tree;
  }

  /** Path of a node's file, relative to the store's root. */
  nodePath(node: TreeNode): FsPath {
    return joinPath(this.path, 'fs', pathOf(node));
  }

  override place(entry: number): ContentPlace {
    return contentPlace(this.path, this.tree, this.meta, entry);
  }

  override contentPath(entry: number): FsPath {
    return contentPath(this.path, this.tree.nodeOf(entry), entry);
  }
}

/** The bytes of the metadata file of the layer at `path`; undefined when it is not there or cannot be read. */
async function readMeta(fs: DurableFs, path: string): Promise<Buffer | undefined> {
  try {
    return await fs.readFile(`${path}/meta`, storeLimits.maxMetaBytes);
  } catch (error) {
    if (!isSystemError(error, 'EIO', 'EUCLEAN', 'EFBIG', 'EISDIR', 'ELOOP', 'ENXIO')) throw error;
    return undefined;
  }
}

/** Where the content of `entry` of a layer at `path` is; `tree` must have seen the entry. */
export function contentPlace(path: string, tree: LayerTree, meta: LayerMeta, entry: number): ContentPlace {
  const header = meta.entries.at(entry)?.header;
  if (header === undefined) throw new WhittleError('INTERNAL', `layer ${meta.diffId} has no entry ${String(entry)}`);
  const node = tree.nodeOf(entry);
  const plain = [{ offset: 0, lengthBytes: header.sizeBytes }];
  // A sparse file keeps its holes when it is moved into the shadow; the form whose map is data never was anything but plain there.
  const extents = sparseLayout(header)?.extents ?? plain;
  return { path: contentPath(path, node, entry), extents, node };
}

function contentPath(path: string, node: TreeNode | undefined, entry: number): FsPath {
  return node === undefined ? `${path}/shadow/${String(entry)}` : joinPath(path, 'fs', pathOf(node));
}
