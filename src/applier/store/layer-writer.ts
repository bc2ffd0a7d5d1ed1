import { isSystemError, joinPath, removeTree, type Attributes, type BatchOp, type DurableFs, type FsPath } from '../../atomic/index.js';
import type { LayerMeta, TarHeader } from '../../tar/index.js';
import { attributesOf, impossibleAttribute, impliedDirectoryAttributes } from './attributes.js';
import { FileSink, smallFileBytes, type ContentTarget, type WriterCounters } from './file-sink.js';
import { encodeLayerFile } from './layer-file.js';
import { LayerTree, pathOf, unsafe, type TreeActions, type TreeNode } from './layer-tree.js';
import { linkMayBeCopied, OpQueue, outOfOrder } from './op-queue.js';
import { expandSparse, sparseLayout } from './sparse.js';

/** Where content that is to be copied lies: a whole file below the same root. */
export interface CopySource {
  readonly path: FsPath;
  readonly sizeBytes: number;
  /** The new name may be another name of the same inode. */
  readonly linkable: boolean;
  /** All of it, when it is in memory. */
  readonly content?: Buffer | undefined;
}

/** Where a layer is extracted to, and how. */
export interface LayerWriterOptions {
  readonly fs: DurableFs;
  /** The layer's directory, relative to the root; made when absent. */
  readonly path: string;
  readonly privileged: boolean;
  /** Nothing was there before: no step has to look first. */
  readonly fresh: boolean;
  readonly counters: WriterCounters;
}

type Pending = { readonly make: () => Promise<void> | undefined };

/**
 * Extracts one layer, entry by entry in order, into `fs/` and `shadow/` of a directory. Over the leftovers of an
 * interrupted extraction it keeps what is already right. Durable is nothing before the caller's syncfs; the layer
 * counts as whole once `finish` wrote its metadata file.
 */
export class LayerWriter {
  readonly tree: LayerTree;
  readonly #queue: OpQueue;
  readonly #steps: Pending[] = [];
  #lastHeader: TarHeader | undefined;
  readonly #blocks: Buffer[] = [];
  #shadowMade = false;
  #current: FileSink | null = null;
  #entry = -1;
  /** Cleared once a copy shows that the filesystem shares no blocks. */
  #canReflink = true;

  constructor(private readonly options: LayerWriterOptions) {
    this.tree = new LayerTree(this.#actions());
    this.#queue = new OpQueue(options.fs, (op, result) => { this.#count(op, result.kept); }, (op, error) => this.#retry(op, error));
  }

  /** Makes the layer's directory. */
  async begin(): Promise<void> {
    const { fs, path } = this.options;
    await fs.batch([{ op: 'mkdir', path, mode: 0o700, existOk: true }, { op: 'mkdir', path: `${path}/fs`, mode: 0o700, existOk: true }]);
  }

  /** The next entry. A promise only when there is something to wait for, which for most files there is not. Throws TAR_UNSAFE. */
  addEntry(entry: number, header: TarHeader): Promise<void> | undefined {
    if (entry !== this.#entry + 1) throw outOfOrder(`entry ${String(entry)} after ${String(this.#entry)}`);
    if (this.#current !== null) throw outOfOrder(`entry ${String(this.#entry)} is not whole`);
    const impossible = this.options.privileged ? impossibleAttribute(header) : undefined;
    if (impossible !== undefined) throw unsafe(entry, header, impossible);
    this.#entry = entry;
    this.#lastHeader = header;
    this.tree.add(entry, header);
    return this.#steps.length === 0 ? undefined : this.#takeSteps();
  }

  async #takeSteps(): Promise<void> {
    for (const step of this.#steps.splice(0)) await step.make();
  }

  /** The next bytes of the last entry's content. The chunk is not kept. */
  async write(chunk: Buffer): Promise<void> {
    this.#current ??= await this.#openSink();
    await this.#current.write(chunk);
  }

  /** The last entry's content is whole. Call it only for entries with content. */
  async endContent(): Promise<void> {
    const sink = this.#current ?? await this.#openSink();
    this.#current = null;
    await sink.end();
    const header = this.#header();
    if (sparseLayout(header)?.extents === null) await this.#expand(header);
  }

  /** The last entry's content is that of another file: named again, its blocks shared, or copied. A promise as with `addEntry`. */
  copy(source: CopySource): Promise<void> | undefined {
    const target = this.#namedTarget();
    if (target === undefined) return this.#copyTo(source, undefined);
    if (target.layout !== null || source.sizeBytes !== this.#header().sizeBytes) throw outOfOrder('a sparse file is written, not copied');
    if (source.linkable) return this.options.fresh ? this.#linkNew(source, target) : this.#linkOver(source, target);
    const kept = source.content?.length === source.sizeBytes && source.sizeBytes <= smallFileBytes ? this.#queue.keep(source.content) : undefined;
    return kept === undefined ? this.#copyTo(source, target) : this.#putSmall(target, kept);
  }

  /** A copy that takes more than a step of the queue. */
  async #copyTo(source: CopySource, named: ContentTarget | undefined): Promise<void> {
    const target = named ?? await this.#shadowTarget();
    if (source.linkable) {
      await (this.options.fresh ? this.#linkNew(source, target) : this.#linkOver(source, target));
      return;
    }
    const content = await this.#smallContent(source);
    await (content === undefined ? this.#cloneOrCopy(source, target) : this.#putSmall(target, content));
  }

  #putSmall({ path, attributes }: ContentTarget, content: Buffer): Promise<void> | undefined {
    return this.#queue.add({ op: 'putFile', path, content, attributes, reuse: !this.options.fresh });
  }

  /** Content that was given before: its file and where in it; after a flush. */
  async flush(): Promise<void> {
    await this.#queue.flush();
  }

  /** Writes attributes of directories and the metadata file. The layer is whole, though not durable. */
  async finish(meta: LayerMeta): Promise<void> {
    const { fs, path, privileged } = this.options;
    await this.#finishDirectories(meta);
    await this.#queue.flush();
    const file = encodeLayerFile({ meta, privileged, skipped: [...this.#queue.skipped].sort() });
    await fs.batch([{ op: 'putFile', path: `${path}/meta`, content: await file, attributes: { mode: 0o600 }, reuse: !this.options.fresh }]);
  }

  /** Gives up: closes what is open. Files stay for the caller to delete or resume. */
  async abandon(): Promise<void> {
    const sink = this.#current;
    this.#current = null;
    await sink?.abandon();
    try {
      await this.#queue.flush();
    } catch {
      // The error that led here is the one to report.
    }
  }

  #header(): TarHeader {
    const header = this.#lastHeader;
    if (header === undefined) throw outOfOrder('content without an entry');
    return header;
  }

  async #finishDirectories(meta: LayerMeta): Promise<void> {
    const { privileged, fresh } = this.options;
    if (!fresh) await this.#sweep(meta);
    for (const node of [this.tree.root, ...this.tree.nodes()]) {
      if (node.inode.kind !== 'directory') continue;
      const header = node.inode.entry < 0 ? undefined : meta.entries.at(node.inode.entry)?.header;
      const attributes = header === undefined ? impliedDirectoryAttributes(privileged) : this.#attributes(header, 'directory');
      const opaque = node.opaque && privileged ? { ...attributes, xattrs: [...(attributes.xattrs ?? []), opaqueXattr] } : attributes;
      await this.#queue.add({ op: 'attributes', path: this.#pathIn(node), attributes: fresh ? opaque : { ...opaque, onlyTheseXattrs: true } });
    }
  }

  /** What stays of an extraction that another tar, or an earlier moment of this one, led elsewhere. */
  async #sweep(meta: LayerMeta): Promise<void> {
    const { fs, path } = this.options;
    await this.#queue.flush();
    for (const node of [this.tree.root, ...this.tree.nodes()]) {
      if (node.inode.kind !== 'directory') continue;
      for (const { name } of await fs.readdir(this.#pathIn(node))) {
        const child = node.children?.get(name.toString('latin1'));
        if (child === undefined || !this.#exists(child)) await removeTree(fs, joinPath('', this.#pathIn(node), name));
      }
    }
    if ((await fs.stat(`${path}/shadow`)) === undefined) return;
    for (const { name } of await fs.readdir(`${path}/shadow`)) {
      const entry = Number(name.toString('latin1'));
      const header = meta.entries.at(entry)?.header;
      if (header === undefined || header.sizeBytes === 0 || this.tree.nodeOf(entry) !== undefined) await removeTree(fs, joinPath(`${path}/shadow`, name));
    }
  }

  #attributes(header: TarHeader, kind: 'file' | 'directory' | 'other'): Attributes {
    const attributes = attributesOf(header, kind, this.options.privileged);
    return this.options.fresh ? attributes : { ...attributes, onlyTheseXattrs: true };
  }

  #pathIn(node: TreeNode): FsPath {
    return joinPath(this.options.path, 'fs', pathOf(node));
  }

  #shadowPath(entry: number): string {
    return `${this.options.path}/shadow/${String(entry)}`;
  }

  /** Steps are taken down with the paths of this moment: a later entry may take the node out of the tree. */
  #actions(): TreeActions {
    const later = (make: Pending['make']): void => { this.#steps.push({ make }); };
    const add = (op: BatchOp): void => { later(() => (this.options.fresh ? this.#queue.add(op) : this.#putOver(op))); };
    return {
      unlink: (node) => { if (this.#exists(node)) add({ op: 'unlink', path: this.#pathIn(node) }); },
      rmdir: (node) => { add({ op: 'rmdir', path: this.#pathIn(node) }); },
      shadow: (node) => {
        const from = this.#pathIn(node);
        later(() => this.#makeShadowDirectory());
        add({ op: 'rename', from, path: this.#shadowPath(node.inode.entry) });
      },
      mkdir: (node) => { add({ op: 'mkdir', path: this.#pathIn(node), mode: 0o700, existOk: !this.options.fresh }); },
      link: (node, existing) => { if (this.#exists(existing)) add({ op: 'link', from: this.#pathIn(existing), path: this.#pathIn(node) }); },
      make: (node, header) => { if (this.#exists(node)) add(this.#special(node, header)); },
      file: (node, header) => {
        if (header.sizeBytes > 0 || sparseLayout(header) !== undefined) return;
        add({ op: 'putFile', path: this.#pathIn(node), content: Buffer.alloc(0), attributes: this.#attributes(header, 'file'), reuse: !this.options.fresh });
      },
    };
  }

  /** Without privilege there are no devices, and whiteouts are one. */
  #exists(node: TreeNode): boolean {
    return this.options.privileged || !['char', 'block', 'whiteout'].includes(node.inode.kind);
  }

  #special(node: TreeNode, header: TarHeader): BatchOp {
    const path = this.#pathIn(node);
    const attributes = this.#attributes(header, 'other');
    if (node.target !== null) return { op: 'symlink', path, target: Buffer.from(node.target, 'latin1'), attributes };
    const { kind } = node.inode;
    if (kind === 'whiteout') return { op: 'mknod', path, kind: 'char', deviceMajor: 0, deviceMinor: 0, attributes: { mode: 0 } };
    return { op: 'mknod', path, kind: kind === 'char' || kind === 'block' ? kind : 'fifo', deviceMajor: header.devMajor, deviceMinor: header.devMinor, attributes };
  }

  /** Over leftovers, a step first makes its place what it expects. */
  async #putOver(op: BatchOp): Promise<void> {
    if (op.op === 'rmdir') await this.#emptyDirectory(op.path);
    else if ((op.op === 'mkdir' || op.op === 'link' || op.op === 'symlink' || op.op === 'mknod') && (await this.#isThere(op))) return;
    await this.#queue.add(op);
  }

  /** Whether a leftover already is what the step would make; what is not is removed. */
  async #isThere(op: BatchOp): Promise<boolean> {
    const { fs } = this.options;
    await this.#queue.flush();
    const found = await fs.stat(op.path);
    if (found === undefined) return false;
    if (op.op === 'mkdir' && found.kind === 'directory') return true;
    if (op.op === 'link') {
      const source = await fs.stat(op.from);
      if (source !== undefined && source.inode === found.inode && source.device === found.device) return true;
    }
    await removeTree(fs, op.path);
    return false;
  }

  /** Names of a later moment may be left in a directory that the tar is about to replace. */
  async #emptyDirectory(path: FsPath): Promise<void> {
    const { fs } = this.options;
    await this.#queue.flush();
    for (const entry of await fs.readdir(path)) await removeTree(fs, joinPath('', path, entry.name));
  }

  async #makeShadowDirectory(): Promise<void> {
    if (this.#shadowMade) return;
    this.#shadowMade = true;
    await this.#queue.add({ op: 'mkdir', path: `${this.options.path}/shadow`, mode: 0o700, existOk: true });
  }

  /** Where the last entry's content goes when its file has a name. */
  #namedTarget(): ContentTarget | undefined {
    const header = this.#header();
    const node = this.tree.nodeOf(this.#entry);
    if (node === undefined) return undefined;
    return { path: this.#pathIn(node), attributes: this.#attributes(header, 'file'), layout: sparseLayout(header) ?? null };
  }

  /** Where it goes when it has none. */
  async #shadowTarget(): Promise<ContentTarget> {
    await this.#makeShadowDirectory();
    return { path: this.#shadowPath(this.#entry), attributes: { mode: 0o600 }, layout: null };
  }

  async #openSink(): Promise<FileSink> {
    const { fs, fresh, counters } = this.options;
    return new FileSink({ fs, fresh, counters, queue: this.#queue, blocks: this.#blocks, target: this.#namedTarget() ?? await this.#shadowTarget(), sizeBytes: this.#header().sizeBytes });
  }

  /** PAX 1.0 sparse files: the data section is in the shadow file, map and all; the file itself is made of it. */
  async #expand(header: TarHeader): Promise<void> {
    const { fs, path } = this.options;
    await this.#queue.flush();
    const node = this.#sparseNode();
    if (node === undefined) return;
    await removeTree(fs, this.#pathIn(node));
    await expandSparse(fs, `${path}/shadow/${String(this.#entry)}`, this.#pathIn(node), header);
    await this.#queue.add({ op: 'attributes', path: this.#pathIn(node), attributes: this.#attributes(header, 'file') });
  }

  #sparseNode(): TreeNode | undefined {
    for (const node of this.tree.nodes()) if (node.inode.entry === this.#entry && node.inode.kind === 'file') return node;
    return undefined;
  }

  /** Over leftovers: the link may be there. */
  async #linkOver(source: CopySource, target: ContentTarget): Promise<void> {
    const { fs, counters } = this.options;
    await this.#queue.flush();
    const [there, from] = await fs.statMany([target.path, source.path]);
    if (there !== undefined && from !== undefined && there.inode === from.inode && there.device === from.device) {
      counters.keptFiles++;
      counters.keptBytes += source.sizeBytes;
      return;
    }
    if (there !== undefined) await removeTree(fs, target.path);
    await this.#linkNew(source, target);
  }

  #linkNew(source: CopySource, target: ContentTarget): Promise<void> | undefined {
    this.options.counters.linkedFiles++;
    this.options.counters.linkedBytes += source.sizeBytes;
    return this.#queue.add({ op: 'link', from: source.path, path: target.path });
  }

  /** The content, if it is small, in memory that the queue may keep. */
  async #smallContent({ path, sizeBytes, content }: CopySource): Promise<Buffer | undefined> {
    if (sizeBytes > smallFileBytes) return undefined;
    if (content?.length === sizeBytes) {
      const kept = await this.#queue.allocate(sizeBytes);
      content.copy(kept);
      return kept;
    }
    const read = await this.options.fs.readFile(path, smallFileBytes);
    return read?.length === sizeBytes ? read : undefined;
  }

  async #cloneOrCopy(source: CopySource, target: ContentTarget): Promise<void> {
    const { fs, fresh, counters } = this.options;
    await this.#queue.flush();
    if (!fresh) await removeTree(fs, target.path);
    if (this.#canReflink && (await this.#clone(source, target))) {
      counters.linkedFiles++;
      counters.linkedBytes += source.sizeBytes;
    } else {
      await fs.copyFile(source.path, target.path, 0o600);
      counters.writtenFiles++;
      counters.writtenBytes += source.sizeBytes;
    }
    await this.#queue.add({ op: 'attributes', path: target.path, attributes: target.attributes });
  }

  async #clone(source: CopySource, target: ContentTarget): Promise<boolean> {
    try {
      await this.options.fs.reflink(source.path, target.path, 0o600);
      return true;
    } catch {
      // Whatever the reason, a copy tells more exactly what is wrong, if anything is.
      this.#canReflink = false;
      return false;
    }
  }

  /** A directory left where a file is to be makes way; a link that cannot be made (too many links, another owner) becomes a copy. */
  async #retry(op: BatchOp, error: unknown): Promise<boolean> {
    const { fs } = this.options;
    if (op.op === 'putFile' && op.reuse && isSystemError(error, 'EISDIR', 'EPERM')) {
      await removeTree(fs, op.path);
      await fs.batch([op]);
      return true;
    }
    if (op.op !== 'link' || !linkMayBeCopied(error)) return false;
    const stat = await fs.stat(op.from);
    if (stat?.kind !== 'file') return false;
    await fs.copyFile(op.from, op.path, 0o600);
    const xattrs = await fs.xattrs(op.from);
    await fs.setAttributes(op.path, {
      mode: stat.mode, ...(this.options.privileged ? { uid: stat.uid, gid: stat.gid } : {}), mtimeSec: stat.mtimeSec, mtimeNsec: stat.mtimeNsec,
      ...(xattrs.length === 0 ? {} : { xattrs }),
    });
    return true;
  }

  #count(op: BatchOp, kept: boolean): void {
    if (op.op !== 'putFile' || op.content.length === 0) return;
    const { counters } = this.options;
    if (kept) {
      counters.keptFiles++;
      counters.keptBytes += op.content.length;
    } else {
      counters.writtenFiles++;
      counters.writtenBytes += op.content.length;
    }
  }
}

/** What overlayfs reads as "nothing of lower layers shows here". */
export const opaqueXattr = { name: Buffer.from('trusted.overlay.opaque'), value: Buffer.from('y') };
