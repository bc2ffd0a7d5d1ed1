import type { FileStat } from '../../atomic/index.js';
import type { TarHeader } from '../../tar/index.js';
import { hasForbiddenXattr, sameInodeAttributes } from './attributes.js';
import type { ContentPlace, Layer } from './layer.js';
import { nameOf, type TreeNode } from './layer-tree.js';

/** Content that the target shall have again. */
export interface CopyOrigin {
  readonly place: ContentPlace;
  readonly header: TarHeader | undefined;
  /** The basis layer that it is in; undefined for content of the target itself. */
  readonly basis: Layer | undefined;
  readonly entry: number;
  /** What the file looked like when its content was checked. */
  readonly stat: FileStat | undefined;
}

/**
 * Whether a file of the target may be another name of a basis file's inode. It may when everything on the inode is the
 * same, on the disk too, and no two paths of the target would share it: programs take such files for hard links.
 */
export class LinkRule {
  /** Inodes given to the target, and the one path under which they may appear. */
  readonly #paths = new Map<string, string>();

  constructor(private readonly targetLayers: readonly string[], private readonly privileged: boolean) {}

  /** `node` is the target's file; undefined for a shadow file, which only the store ever sees. */
  mayLink(node: TreeNode | undefined, header: TarHeader, source: CopyOrigin): boolean {
    const { place, basis } = source;
    if (basis === undefined || source.header === undefined) return false;
    if (node === undefined) return place.node === undefined;
    if (place.node?.inode.names.length !== 1 || basis.privileged !== this.privileged) return false;
    if (hasForbiddenXattr(source.header) || !sameInodeAttributes(header, source.header) || !this.#isAsRecorded(header, source.stat)) return false;
    const path = nameOf(node);
    const key = `${basis.meta.diffId}:${String(source.entry)}`;
    const inTarget = this.targetLayers.includes(basis.meta.diffId) ? nameOf(place.node) : undefined;
    if ((this.#paths.get(key) ?? inTarget ?? path) !== path) return false;
    this.#paths.set(key, path);
    return true;
  }

  /** People change modes and owners; a link would take the change along. */
  #isAsRecorded(header: TarHeader, stat: FileStat | undefined): boolean {
    if (stat?.mtimeSec !== header.mtimeSec || stat.mtimeNsec !== header.mtimeNsec) return false;
    return !this.privileged || (stat.mode === (header.mode & 0o7777) && stat.uid === header.uid && stat.gid === header.gid);
  }
}
