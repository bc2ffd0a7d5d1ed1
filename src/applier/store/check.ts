import { createHash } from 'node:crypto';
import { isSystemError, type DirectoryEntry, type DurableFs, type FileStat, type Xattr } from '../../atomic/index.js';
import { isWhittleError } from '../../core/errors.js';
import { throwIfAborted } from '../../core/interruption.js';
import type { TarHeader } from '../../tar/index.js';
import { attributesOf, impliedDirectoryAttributes, xattrsOf } from './attributes.js';
import { unreadable, type Layer } from './layer.js';
import { isImplied, type LayerTree, type TreeNode } from './layer-tree.js';
import { opaqueXattr } from './layer-writer.js';
import { storeLimits } from './limits.js';
import { areHolesEmpty, isExpansion, sparseLayout } from './sparse.js';
import type { Damage } from './types.js';

const nodesPerHop = 256;
const scanBytes = 256 * 1024;
/** Times outside of what every filesystem keeps are not compared. */
const lastCommonSecond = 2 ** 31 - 1;

/** What is wrong with one layer. */
export interface LayerFindings {
  readonly damages: readonly Damage[];
  readonly damageCount: number;
}

class Findings implements LayerFindings {
  readonly damages: Damage[] = [];
  damageCount = 0;

  add(kind: Damage['kind'], path: string, detail: string): void {
    this.damageCount++;
    if (this.damages.length < storeLimits.maxListedDamages) this.damages.push({ kind, path, detail });
  }
}

/** How a layer is checked. */
export interface CheckOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told how many more bytes of tar were hashed. */
  readonly onBytes?: ((count: number) => void) | undefined;
  /** Directories that the tar only implies may have any attributes: those of layers below. */
  readonly hasInherited?: boolean | undefined;
}

/**
 * Rebuilds the layer's tar from disk and compares it with its diffID; then compares every file's kind, attributes and
 * name with what was extracted. Changes nothing.
 */
export async function checkLayer(fs: DurableFs, layer: Layer, options: CheckOptions = {}): Promise<LayerFindings> {
  const findings = new Findings();
  if (!(await hasDiffId(layer, options))) await findDamagedContent(layer, findings, options);
  await checkNodes(fs, layer, findings, options);
  return findings;
}

async function hasDiffId(layer: Layer, { signal, onBytes }: CheckOptions): Promise<boolean> {
  const hash = createHash('sha256');
  try {
    for await (const chunk of layer.tar(signal)) {
      hash.update(chunk);
      onBytes?.(chunk.length);
    }
  } catch (error) {
    if (isSystemError(error, ...unreadable) || (isWhittleError(error) && error.code === 'STORE_DAMAGED')) return false;
    throw error;
  }
  return `sha256:${hash.digest('hex')}` === layer.meta.diffId;
}

/** The tar came out wrong: says which contents are to blame. */
async function findDamagedContent(layer: Layer, findings: Findings, { signal }: CheckOptions): Promise<void> {
  const buffer = Buffer.allocUnsafe(scanBytes);
  for (const [index, { header }] of layer.meta.entries.entries()) {
    if (header.sizeBytes === 0) continue;
    throwIfAborted(signal);
    if (!(await layer.isContentWhole(index, buffer))) findings.add('content', header.path.toString(), 'content differs from its record, or cannot be read');
  }
  if (findings.damageCount === 0) findings.add('record', 'meta', 'the metadata does not give the diffID');
}

async function checkNodes(fs: DurableFs, layer: Layer, findings: Findings, { signal, hasInherited = false }: CheckOptions): Promise<void> {
  const { tree } = layer;
  const groups = groupsOf(layer, tree);
  const look = (): { nodes: readonly TreeNode[]; stats: Promise<(FileStat | undefined)[]> } | undefined => {
    const next = groups.next();
    if (next.done === true) return undefined;
    const stats = fs.statMany(next.value.map((node) => layer.nodePath(node)));
    // It may fail before it is waited for.
    stats.catch(() => undefined);
    return { nodes: next.value, stats };
  };
  let group = look();
  try {
    // While one group is compared, the next is looked at.
    while (group !== undefined) {
      throwIfAborted(signal);
      const { nodes } = group;
      const stats = await group.stats;
      group = look();
      let at = 0;
      for (const node of nodes) {
        const isInherited = hasInherited && isImplied(node);
        const rest = checkNode(fs, layer, node, { stat: stats[at++], isInherited }, findings);
        if (rest !== undefined) await rest;
      }
    }
  } finally {
    // Whoever gives up early may close the filesystem next.
    await group?.stats.catch(() => undefined);
  }
}

/** The nodes that are on disk, in groups for one hop each. */
function* groupsOf(layer: Layer, tree: LayerTree): Generator<TreeNode[], void, undefined> {
  let group: TreeNode[] = [];
  for (const node of withRoot(tree)) {
    if (!isOnDisk(layer, node)) continue;
    group.push(node);
    if (group.length < nodesPerHop) continue;
    yield group;
    group = [];
  }
  yield group;
}

function* withRoot(tree: LayerTree): Generator<TreeNode, void, undefined> {
  yield tree.root;
  yield* tree.nodes();
}

function isOnDisk(layer: Layer, node: TreeNode): boolean {
  return layer.privileged || !['char', 'block', 'whiteout'].includes(node.inode.kind);
}

/** Compares what `stat` says; the rest, if there is any, when it is awaited. Of most files there is none, and there are thousands. */
function checkNode(fs: DurableFs, layer: Layer, node: TreeNode, { stat, isInherited }: { readonly stat: FileStat | undefined; readonly isInherited: boolean }, findings: Findings): Promise<void> | undefined {
  if (stat === undefined) {
    findings.add('missing', layer.nodePath(node).toString(), 'is gone');
    return undefined;
  }
  const kind = node.inode.kind === 'whiteout' ? 'char' : node.inode.kind;
  if (stat.kind !== kind) {
    findings.add('metadata', layer.nodePath(node).toString(), `is a ${stat.kind} instead of a ${kind}`);
    return undefined;
  }
  const header = layer.meta.entries.at(node.inode.entry)?.header;
  const wrong = isInherited ? undefined : wrongAttributes(layer, node, header, stat);
  if (wrong !== undefined) findings.add('metadata', layer.nodePath(node).toString(), wrong);
  const isPlain = kind === 'file' && !node.opaque && header?.pax.length === 0 && stat.sizeBytes === header.sizeBytes && sparseLayout(header) === undefined;
  return isPlain ? undefined : checkRest(fs, layer, node, stat, findings);
}

async function checkRest(fs: DurableFs, layer: Layer, node: TreeNode, stat: FileStat, findings: Findings): Promise<void> {
  const { kind } = node.inode;
  const path = layer.nodePath(node);
  await checkXattrs(fs, layer, node, findings);
  if (kind === 'symlink' && (await fs.readlink(path)).toString('latin1') !== node.target) findings.add('metadata', path.toString(), 'points elsewhere');
  if (kind === 'directory') await checkNames(fs, layer, node, findings);
  if (kind === 'file' && !(await hasItsData(fs, layer, node, stat))) findings.add('content', path.toString(), 'is not what its entry makes');
}

/** What the tar's digest does not prove of a file: its size, and what a sparse file was made of the map and the data in its shadow. */
async function hasItsData(fs: DurableFs, layer: Layer, node: TreeNode, stat: FileStat): Promise<boolean> {
  const header = layer.meta.entries.at(node.inode.entry)?.header;
  if (header === undefined) return false;
  const sparse = sparseLayout(header);
  if (sparse === undefined) return stat.sizeBytes === header.sizeBytes;
  try {
    if (sparse.extents !== null) return stat.sizeBytes === sparse.sizeBytes && (await areHolesEmpty(fs, layer.nodePath(node), sparse));
    return await isExpansion(fs, layer.place(node.inode.entry).path, layer.nodePath(node), header);
  } catch (error) {
    if (isSystemError(error, ...unreadable)) return false;
    throw error;
  }
}

function wrongAttributes(layer: Layer, node: TreeNode, header: TarHeader | undefined, stat: FileStat): string | undefined {
  if (node.inode.kind === 'whiteout') return stat.deviceMajor === 0 && stat.deviceMinor === 0 ? undefined : 'is no whiteout any more';
  const kind = node.inode.kind === 'file' || node.inode.kind === 'directory' ? node.inode.kind : 'other';
  const expected = header === undefined ? impliedDirectoryAttributes(layer.privileged) : attributesOf(header, kind, layer.privileged);
  const skipped = (what: string): boolean => layer.skipped.includes(what);
  if (node.inode.kind !== 'symlink' && expected.mode !== stat.mode && !skipped('mode')) return `has mode ${stat.mode.toString(8)} instead of ${(expected.mode ?? 0).toString(8)}`;
  if (expected.uid !== undefined && (expected.uid !== stat.uid || expected.gid !== stat.gid) && !skipped('owner')) {
    return `belongs to ${String(stat.uid)}:${String(stat.gid)} instead of ${String(expected.uid)}:${String(expected.gid ?? -1)}`;
  }
  const isDevice = node.inode.kind === 'char' || node.inode.kind === 'block';
  if (isDevice && (stat.deviceMajor !== header?.devMajor || stat.deviceMinor !== header.devMinor)) return 'is another device';
  return isRightTime(expected.mtimeSec ?? 0, expected.mtimeNsec ?? 0, stat) || skipped('time') ? undefined : 'has another modification time';
}

function isRightTime(sec: number, nsec: number, stat: FileStat): boolean {
  if (sec < 0 || sec > lastCommonSecond) return true;
  // Some filesystems keep whole seconds, or parts of microseconds.
  return stat.mtimeSec === sec && (stat.mtimeNsec === nsec || stat.mtimeNsec === 0 || stat.mtimeNsec === nsec - (nsec % 100));
}

async function checkXattrs(fs: DurableFs, layer: Layer, node: TreeNode, findings: Findings): Promise<void> {
  const header = node.inode.kind === 'whiteout' ? undefined : layer.meta.entries.at(node.inode.entry)?.header;
  const expected: Xattr[] = header === undefined ? [] : xattrsOf(header);
  if (node.opaque && layer.privileged) expected.push(opaqueXattr);
  const wanted = expected.filter(({ name }) => !layer.skipped.includes(`xattr:${name.toString('latin1')}`));
  if (wanted.length === 0) return;
  const found = await fs.xattrs(layer.nodePath(node));
  for (const { name, value } of wanted) {
    const same = found.some((xattr) => xattr.name.equals(name) && xattr.value.equals(value));
    if (!same) findings.add('metadata', layer.nodePath(node).toString(), `lost the extended attribute ${name.toString()}`);
  }
}

async function checkNames(fs: DurableFs, layer: Layer, node: TreeNode, findings: Findings): Promise<void> {
  let names: DirectoryEntry[];
  try {
    names = await fs.readdir(layer.nodePath(node));
  } catch (error) {
    if (!isSystemError(error, ...unreadable, 'EACCES')) throw error;
    findings.add('content', layer.nodePath(node).toString(), 'cannot be listed');
    return;
  }
  for (const { name } of names) {
    const child = node.children?.get(name.toString('latin1'));
    if (child === undefined || !isOnDisk(layer, child)) findings.add('extra', `${layer.nodePath(node).toString()}/${name.toString()}`, 'is not part of the layer');
  }
}
