import type { DeltaProfile, ImageDigests } from '../../delta/index.js';

/**
 * What bytes of a delta are for, in the order in which they are shown. `literals`: bytes that nothing old gives;
 * `residue`: where and how copied bytes differ; `ops`: which old bytes are copied where to; `names`, `times`, `attributes`:
 * tar metadata, `metadata` where it is not told apart; `plan`: where content comes from; `expansion`: how compressed members were taken apart; `framing`: sizes and
 * counts between streams; `frames`: digests of frames in the index; `index`: the rest of it; `manifest`.
 */
export const partKinds = ['literals', 'residue', 'ops', 'names', 'times', 'attributes', 'metadata', 'plan', 'expansion', 'framing', 'frames', 'index', 'manifest'] as const;
/** One of `partKinds`. */
export type PartKind = (typeof partKinds)[number];

/** What each kind is called where people read it. */
export const kindLabels: Readonly<Record<PartKind, string>> = {
  literals: 'new bytes', residue: 'differences within copies', ops: 'which bytes are copied where to', names: 'names', times: 'times', attributes: 'modes, owners, other attributes',
  metadata: 'tar metadata', plan: 'where content comes from', expansion: 'compressed members taken apart', framing: 'sizes between streams', frames: 'digests of frames', index: 'index', manifest: 'manifest',
};

/** Bytes by what they are for. Multiples of 1/1024, so that sums of them are exact; kinds without a byte are left out. */
export type Parts = Partial<Record<PartKind, number>>;

/** Where content was taken from or compared with. */
export interface AccountSource {
  readonly image: 'basis' | 'target';
  /** Number of the layer in the basis or target image, from 0. */
  readonly layer: number;
  readonly path: string;
}

/** What one entry of a rebuilt layer costs. */
export interface FileAccount {
  /** The path, with what is no printable text escaped. */
  readonly path: string;
  readonly type: 'file' | 'directory' | 'link' | 'symlink' | 'special';
  /** Size of its content. */
  readonly sizeBytes: number;
  /** Its share of the delta: the sum of `parts`. */
  readonly deltaBytes: number;
  readonly how: 'none' | 'copy' | 'patch';
  readonly sources: readonly AccountSource[];
  /** Why these sources, in words. */
  readonly why: string;
  readonly parts: Parts;
}

/** What one layer of the target costs. */
export interface LayerAccount {
  readonly layer: number;
  readonly diffId: string;
  /** `basis`: the basis has it, it costs nothing. */
  readonly how: 'basis' | 'delta';
  /** Size of its tar; null where it is not known. */
  readonly tarBytes: number | null;
  readonly deltaBytes: number;
  /** What belongs to no entry of it. */
  readonly own: Parts;
  /** Every entry, in tar order; null where they are not known. */
  readonly files: readonly FileAccount[] | null;
}

/**
 * Where all bytes of a delta are. `deltaBytes` = manifest + index + data = the sum of `own`, of every layer's `deltaBytes`
 * and of `unknownBytes`; a layer's is the sum of its `own` and of every file's; exactly.
 */
export interface DeltaAccount {
  readonly profile: DeltaProfile;
  readonly basis: ImageDigests;
  readonly target: ImageDigests;
  readonly deltaBytes: number;
  readonly manifestBytes: number;
  readonly indexBytes: number;
  readonly dataBytes: number;
  readonly frames: number;
  /** Whether data is told apart file by file; otherwise `unknownBytes` of it are not told apart. */
  readonly complete: boolean;
  readonly unknownBytes: number;
  readonly own: Parts;
  /** All parts of the artifact by kind. */
  readonly totals: Parts;
  readonly layers: readonly LayerAccount[];
}

const unitsPerByte = 1024;

/**
 * Shares out `totalBytes` by `weights`: multiples of 1/1024 byte that add up to it exactly. Null when there is nothing to
 * share it by.
 */
export function shareOut(totalBytes: number, weights: readonly number[]): number[] | null {
  const whole = weights.reduce((sum, weight) => sum + weight, 0);
  if (!(whole > 0)) return totalBytes === 0 ? weights.map(() => 0) : null;
  const units = totalBytes * unitsPerByte;
  let reached = 0;
  let given = 0;
  return weights.map((weight, at) => {
    reached += weight;
    const upTo = at === weights.length - 1 ? units : Math.min(units, Math.round((reached / whole) * units));
    const share = Math.max(0, upTo - given);
    given += share;
    return share / unitsPerByte;
  });
}

/** Adds bytes of one kind to `parts`. */
export function addPart(parts: Parts, kind: PartKind, sizeBytes: number): void {
  if (sizeBytes !== 0) parts[kind] = (parts[kind] ?? 0) + sizeBytes;
}

/** Adds all of `more` to `parts`. */
export function addParts(parts: Parts, more: Parts): void {
  for (const kind of partKinds) addPart(parts, kind, more[kind] ?? 0);
}

/** The sum of all parts. */
export function sumParts(parts: Parts): number {
  return partKinds.reduce((sum, kind) => sum + (parts[kind] ?? 0), 0);
}
