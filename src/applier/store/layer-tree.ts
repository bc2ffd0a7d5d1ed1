import type { FsPath } from '../../atomic/index.js';
import { WhittleError } from '../../core/errors.js';
import { filePath, type TarHeader } from '../../tar/index.js';
import { storeLimits } from './limits.js';
import { sparseLayout } from './sparse.js';

/** What a name of a layer's tree is. A whiteout is a name that hides one of the layers below. */
export type NodeKind = 'file' | 'directory' | 'symlink' | 'char' | 'block' | 'fifo' | 'whiteout';

/** What names of the tree stand for; several names share one when the tar has hard links. */
export interface TreeInode {
  readonly kind: NodeKind;
  /** The entry that made it; -1 for directories that the tar only implies. Directories take the last entry that names them. */
  entry: number;
  /** Whether its file holds the data section of `entry`: not so for empty files, and for sparse ones whose map is part of the data. */
  readonly holdsContent: boolean;
  names: TreeNode[];
}

/** One name in a layer's tree. Names are latin1 strings: one character for each byte. */
export interface TreeNode {
  readonly name: string;
  readonly parent: TreeNode | null;
  inode: TreeInode;
  /** Of a directory. */
  children: Map<string, TreeNode> | null;
  /** A directory that hides what lower layers have under its path. */
  opaque: boolean;
  /** Of a symbolic link. */
  readonly target: string | null;
  /** Of a directory: its path with a slash behind, once somebody asked for that of something in it. */
  prefix: string | null;
}

/** Whether a directory, other than the layer's root, has no entry of its own: the tar only puts something into it. */
export function isImplied({ inode, parent }: TreeNode): boolean {
  return inode.kind === 'directory' && inode.entry < 0 && parent !== null;
}

/** What has to be done to the files when an entry is added. All calls come before `add` returns, in order. */
export interface TreeActions {
  /** The name goes; its inode has another. */
  unlink(node: TreeNode): void;
  /** The last name of a file whose content must stay readable goes. */
  shadow(node: TreeNode): void;
  rmdir(node: TreeNode): void;
  mkdir(node: TreeNode): void;
  /** A new name of an existing inode. */
  link(node: TreeNode, existing: TreeNode): void;
  /** A symbolic link, device, pipe or whiteout. */
  make(node: TreeNode, header: TarHeader): void;
  /** A regular file; its content, if any, follows. */
  file(node: TreeNode, header: TarHeader): void;
}

const typeflagKinds = new Map<number, NodeKind | 'link'>([
  [0, 'file'], [0x30, 'file'], [0x37, 'file'], [0x53, 'file'], [0x31, 'link'], [0x32, 'symlink'], [0x33, 'char'], [0x34, 'block'], [0x35, 'directory'], [0x36, 'fifo'],
]);
const whiteoutPrefix = '.wh.';
const specialPrefix = '.wh..wh.';
const opaqueMarker = '.wh..wh..opq';

/**
 * The tree that a layer's tar makes, worked out from headers alone and always in the same way: extraction, reading and
 * verification all ask it where an entry's content is. Paths are resolved within this tree, never on the disk, so no
 * entry can reach out of it. Whiteouts are nodes; opaque markers are a property of their directory.
 */
export class LayerTree {
  readonly root: TreeNode;
  /** Content-bearing entry -> its inode; absent when it never had a name (its content is in a shadow file). */
  readonly #inodes: (TreeInode | undefined)[] = [];
  #implied = 0;
  /** The directory that the last entry was in, under the path that it was found by: entries come directory by directory. */
  #lastPath: string | null = null;
  #lastDirectory: TreeNode;

  constructor(private readonly actions: TreeActions | null) {
    this.root = makeNode('', null, 'directory', -1);
    this.#lastDirectory = this.root;
  }

  /** Adds the next entry. Throws TAR_UNSAFE when it would reach out of the tree or cannot be represented. */
  add(entry: number, header: TarHeader): void {
    this.#inodes[entry] = undefined;
    const path = latin1(header.pax.length === 0 ? header.path : filePath(header));
    const kind = kindOf(header, path);
    const { before, last } = splitPath(path);
    if (before === this.#lastPath && isPlainName(last) && path.length <= storeLimits.maxPathBytes) {
      if (kind !== undefined) this.#addTo(this.#lastDirectory, last, kind, entry, header);
      return;
    }
    const parts = plainParts(entry, header, path);
    const name = parts.pop();
    if (name === undefined) {
      if (kind !== 'directory') throw unsafe(entry, header, 'replaces the root directory of the layer');
      this.root.inode.entry = entry;
      return;
    }
    if (kind === undefined || [name, ...parts].some((part) => part.startsWith(specialPrefix) && part !== opaqueMarker)) return;
    const parent = this.#directory(entry, header, parts);
    if (name === last) [this.#lastPath, this.#lastDirectory] = [before, parent];
    this.#addTo(parent, name, kind, entry, header);
  }

  #addTo(parent: TreeNode, name: string, kind: NodeKind | 'link', entry: number, header: TarHeader): void {
    if (name === opaqueMarker) parent.opaque = true;
    else if (name.startsWith(whiteoutPrefix)) this.#whiteout(entry, header, parent, name.slice(whiteoutPrefix.length));
    else if (kind === 'link') this.#link(entry, header, parent, name);
    else this.#place(entry, header, parent, name, kind);
  }

  /** The node whose file holds the content of `entry`; undefined when that is in the shadow file `shadow/<entry>`. */
  nodeOf(entry: number): TreeNode | undefined {
    return this.#inodes[entry]?.names[0];
  }

  /** Every node but the root, parents before their children. */
  *nodes(): Generator<TreeNode, void, undefined> {
    const stack: Iterator<TreeNode>[] = [(this.root.children ?? new Map<string, TreeNode>()).values()];
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const next = top.next();
      if (next.done === true) {
        stack.pop();
        continue;
      }
      yield next.value;
      if (next.value.children !== null) stack.push(next.value.children.values());
    }
  }

  #directory(entry: number, header: TarHeader, parts: readonly string[]): TreeNode {
    let steps = 0;
    let links = 0;
    let node = this.root;
    const queue = [...parts].reverse();
    for (let part = queue.pop(); part !== undefined; part = queue.pop()) {
      if (++steps > storeLimits.maxResolveSteps) throw unsafe(entry, header, 'has a path with too many parts');
      if (part === '' || part === '.') continue;
      if (part === '..') {
        node = node.parent ?? this.root;
        continue;
      }
      const child = node.children?.get(part);
      if (child === undefined || child.inode.kind === 'whiteout') {
        node = this.#newDirectory(node, part, -1, child);
        continue;
      }
      if (child.inode.kind === 'directory') {
        node = child;
        continue;
      }
      if (child.target === null) throw unsafe(entry, header, 'lies below something that is no directory');
      if (++links > storeLimits.maxSymlinkHops) throw unsafe(entry, header, 'lies behind too many symbolic links');
      if (child.target.startsWith('/')) node = this.root;
      queue.push(...child.target.split('/').reverse());
    }
    return node;
  }

  #newDirectory(parent: TreeNode, name: string, entry: number, whiteout: TreeNode | undefined): TreeNode {
    if (entry < 0 && ++this.#implied > storeLimits.maxImpliedDirectories) {
      throw new WhittleError('LIMIT_EXCEEDED', `layer implies more than ${String(storeLimits.maxImpliedDirectories)} directories (maxImpliedDirectories)`);
    }
    if (whiteout !== undefined) this.#displace(whiteout);
    const node = makeNode(name, parent, 'directory', entry);
    // Both a whiteout and a directory: what lower layers have below the name stays hidden.
    node.opaque = whiteout !== undefined;
    parent.children?.set(name, node);
    this.actions?.mkdir(node);
    return node;
  }

  #place(entry: number, header: TarHeader, parent: TreeNode, name: string, kind: NodeKind): void {
    const existing = parent.children?.get(name);
    if (kind === 'directory') {
      if (existing?.inode.kind === 'directory') existing.inode.entry = entry;
      else {
        const whiteout = existing?.inode.kind === 'whiteout' ? existing : undefined;
        if (existing !== undefined && whiteout === undefined) this.#displace(existing);
        this.#newDirectory(parent, name, entry, whiteout);
      }
      return;
    }
    if (existing !== undefined) this.#displace(existing);
    const target = kind === 'symlink' ? symlinkTarget(entry, header) : null;
    const holdsContent = kind === 'file' && header.sizeBytes > 0 && sparseLayout(header)?.extents !== null;
    const node = makeNode(name, parent, kind, entry, target, holdsContent);
    parent.children?.set(name, node);
    if (kind === 'file') {
      if (holdsContent) this.#inodes[entry] = node.inode;
      this.actions?.file(node, header);
    } else {
      this.actions?.make(node, header);
    }
  }

  #link(entry: number, header: TarHeader, parent: TreeNode, name: string): void {
    const parts = plainParts(entry, header, latin1(header.linkPath));
    const last = parts.pop();
    const existing = last === undefined ? undefined : this.#find(entry, header, parts)?.children?.get(last);
    if (existing === undefined || existing.inode.kind === 'whiteout') throw unsafe(entry, header, `is a hard link to ${shown(header.linkPath)}, which is not in the layer`);
    if (existing.inode.kind === 'directory') throw unsafe(entry, header, `is a hard link to the directory ${shown(header.linkPath)}`);
    const replaced = parent.children?.get(name);
    if (replaced === existing) throw unsafe(entry, header, 'is a hard link to itself');
    if (replaced !== undefined) this.#displace(replaced);
    // The link's target may have stood below what was just replaced.
    if (!existing.inode.names.includes(existing)) throw unsafe(entry, header, 'is a hard link to something that it replaces');
    const node: TreeNode = { name, parent, inode: existing.inode, children: null, opaque: false, target: existing.target, prefix: null };
    existing.inode.names.push(node);
    parent.children?.set(name, node);
    this.actions?.link(node, existing);
  }

  /** The directory at `parts`, or undefined when something on the way is missing. Makes nothing. */
  #find(entry: number, header: TarHeader, parts: readonly string[]): TreeNode | undefined {
    let links = 0;
    let steps = 0;
    let node = this.root;
    const queue = [...parts].reverse();
    for (let part = queue.pop(); part !== undefined; part = queue.pop()) {
      if (++steps > storeLimits.maxResolveSteps) throw unsafe(entry, header, 'has a link target with too many parts');
      if (part === '' || part === '.') continue;
      if (part === '..') {
        node = node.parent ?? this.root;
        continue;
      }
      const child = node.children?.get(part);
      if (child === undefined) return undefined;
      if (child.target !== null) {
        if (++links > storeLimits.maxSymlinkHops) throw unsafe(entry, header, 'links through too many symbolic links');
        if (child.target.startsWith('/')) node = this.root;
        queue.push(...child.target.split('/').reverse());
      } else if (child.inode.kind === 'directory') {
        node = child;
      } else {
        return undefined;
      }
    }
    return node;
  }

  #whiteout(entry: number, header: TarHeader, parent: TreeNode, name: string): void {
    if (name === '' || name === '.' || name === '..') throw unsafe(entry, header, 'is a whiteout of nothing');
    const existing = parent.children?.get(name);
    if (existing?.inode.kind === 'directory') existing.opaque = true;
    if (existing !== undefined) return;
    const node = makeNode(name, parent, 'whiteout', entry);
    parent.children?.set(name, node);
    this.actions?.make(node, header);
  }

  /** Takes a node and all below it out of the tree. */
  #displace(top: TreeNode): void {
    // The path may lead elsewhere from now on.
    this.#lastPath = null;
    const order: TreeNode[] = [top];
    for (let at = 0; at < order.length; at++) {
      for (const child of order[at]?.children?.values() ?? []) order.push(child);
    }
    for (const node of order.reverse()) this.#removeName(node);
    top.parent?.children?.delete(top.name);
  }

  #removeName(node: TreeNode): void {
    const { inode } = node;
    inode.names.splice(inode.names.indexOf(node), 1);
    if (inode.kind === 'directory') {
      this.actions?.rmdir(node);
    } else if (inode.holdsContent && inode.names.length === 0) {
      this.#inodes[inode.entry] = undefined;
      this.actions?.shadow(node);
    } else {
      this.actions?.unlink(node);
    }
  }
}

function makeNode(name: string, parent: TreeNode | null, kind: NodeKind, entry: number, target: string | null = null, holdsContent = false): TreeNode {
  const inode: TreeInode = { kind, entry, holdsContent, names: [] };
  const node: TreeNode = { name, parent, inode, children: kind === 'directory' ? new Map<string, TreeNode>() : null, opaque: false, target, prefix: null };
  // An array that begins empty takes room for seventeen at the first push, and an image has tens of thousands of them.
  inode.names = [node];
  return node;
}

/** The path of a node below the layer's root, one character for each byte; empty for the root itself. */
export function nameOf(node: TreeNode): string {
  return node.parent === null ? '' : prefixOf(node.parent) + node.name;
}

/** The same for the filesystem. Nearly all are ASCII and can stay text, which takes a fraction of a buffer's time to make. */
export function pathOf(node: TreeNode): FsPath {
  const name = nameOf(node);
  return isAscii(name) ? name : Buffer.from(name, 'latin1');
}

function prefixOf(directory: TreeNode): string {
  return directory.prefix ??= directory.parent === null ? '' : `${prefixOf(directory.parent)}${directory.name}/`;
}

function isAscii(text: string): boolean {
  return !/[^\0-\x7f]/.test(text);
}

function latin1(bytes: Buffer): string {
  return bytes.toString('latin1');
}

function shown(path: Buffer): string {
  return JSON.stringify(path.subarray(0, 200).toString());
}

/** The error for an entry that cannot be made. */
export function unsafe(entry: number, header: TarHeader, what: string): WhittleError {
  return new WhittleError('TAR_UNSAFE', `tar entry ${String(entry)} ${shown(header.path)} ${what}`, { data: { entry, path: header.path.subarray(0, 4096).toString() } });
}

/** The components of a path: leading slashes and '.' mean nothing here, '..' and what no filesystem takes is refused. */
function plainParts(entry: number, header: TarHeader, path: string): string[] {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  for (const part of parts) {
    if (part === '..') throw unsafe(entry, header, 'has ".." in its path or link target');
    if (part.length > storeLimits.maxNameBytes) throw unsafe(entry, header, `has a name of more than ${String(storeLimits.maxNameBytes)} bytes`);
  }
  if (path.includes('\0')) throw unsafe(entry, header, 'has a zero byte in its path or link target');
  if (path.length > storeLimits.maxPathBytes) throw unsafe(entry, header, `has a path or link target of more than ${String(storeLimits.maxPathBytes)} bytes`);
  return parts;
}

/** A path's last component and what stands before it, as text; a slash at its end aside. */
function splitPath(path: string): { before: string; last: string } {
  const end = path.endsWith('/') ? path.length - 1 : path.length;
  const slash = path.lastIndexOf('/', end - 1);
  return { before: path.slice(0, slash + 1), last: path.slice(slash + 1, end) };
}

/** Whether nothing has to be looked at or refused in a component. Those that mean something else than a name begin with a dot. */
function isPlainName(name: string): boolean {
  return name !== '' && !name.startsWith('.') && name.length <= storeLimits.maxNameBytes && !name.includes('\0');
}

/** Undefined for types that make no file: their content, if any, is kept aside. */
function kindOf(header: TarHeader, path: string): NodeKind | 'link' | undefined {
  if (header.typeflag === 0 && path.endsWith('/')) return 'directory';
  return typeflagKinds.get(header.typeflag);
}

function symlinkTarget(entry: number, header: TarHeader): string {
  const target = latin1(header.linkPath);
  if (target === '' || target.includes('\0') || target.length > storeLimits.maxPathBytes) throw unsafe(entry, header, 'has a link target that no filesystem takes');
  return target;
}
