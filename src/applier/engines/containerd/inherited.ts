import { isSystemError, joinPath, type Attributes, type BatchOp, type DurableFs } from '../../../atomic/index.js';
import type { Layer } from '../../store/layer.js';
import { isImplied, pathOf, type TreeNode } from '../../store/layer-tree.js';

/** Overlayfs's own marks say something of the layer that they are in. */
const overlayMark = /^(trusted|user)\.overlay\./;

/** Whether a layer's tar puts something into a directory that it does not have, other than its root. */
export function impliesDirectories(layer: Layer): boolean {
  for (const node of layer.tree.nodes()) if (isImplied(node)) return true;
  return false;
}

/**
 * Gives the directories that a layer's tar only implies the attributes of what lies below them, as containerd does when it unpacks:
 * overlayfs shows those of the topmost layer, and a tar that brings `tmp/x` without `tmp/` would make a /tmp that nobody may write to.
 * `parents` are the directories of the layers below, topmost first. What a layer below hides is not looked for further down.
 */
export async function inheritDirectories(fs: DurableFs, layer: Layer, parents: readonly string[]): Promise<void> {
  if (parents.length === 0) return;
  const ops: BatchOp[] = [];
  for (const node of layer.tree.nodes()) {
    if (!isImplied(node)) continue;
    const attributes = await attributesBelow(fs, node, parents);
    if (attributes !== undefined) ops.push({ op: 'attributes', path: layer.nodePath(node), attributes });
  }
  if (ops.length > 0) await fs.batch(ops);
}

async function attributesBelow(fs: DurableFs, node: TreeNode, parents: readonly string[]): Promise<Attributes | undefined> {
  for (const parent of parents) {
    const path = joinPath(parent, 'fs', pathOf(node));
    try {
      const stat = await fs.stat(path);
      if (stat === undefined) continue;
      if (stat.kind !== 'directory') return undefined;
      const { mode, uid, gid, mtimeSec, mtimeNsec } = stat;
      const xattrs = (await fs.xattrs(path)).filter(({ name }) => !overlayMark.test(name.toString('latin1')));
      return { mode, uid, gid, mtimeSec, mtimeNsec, ...(xattrs.length === 0 ? {} : { xattrs }) };
    } catch (error) {
      // On the way there is a link, a whiteout or a file: another thing than the directory that this one is in.
      if (isSystemError(error, 'ENOTDIR', 'ELOOP')) return undefined;
      throw error;
    }
  }
  return undefined;
}
