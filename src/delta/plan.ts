import type { LayerMeta } from '../tar/types.js';
import type { ChecksumList } from './checksum-list.js';
import type { Expansion } from './expansion.js';

/** Content that an entry may be copied from or differenced against: an entry of a basis layer, or an earlier entry of the target. */
export interface ContentRef {
  readonly from: 'basis' | 'target';
  /** Index among the delta's basis layers, or in the target's manifest. */
  readonly layer: number;
  readonly entry: number;
}

/** How the content of one entry comes about. With `checksums` there is a first source and no expansion. */
export type ContentPlan =
  | { readonly kind: 'none' }
  | { readonly kind: 'copy'; readonly origin: ContentRef }
  | { readonly kind: 'patch'; readonly sources: readonly ContentRef[]; readonly expansion: Expansion | null; readonly checksums: ChecksumList | null };

/** One target layer as a delta describes it: its tar metadata and, entry by entry, where content comes from. */
export interface LayerPlan {
  /** Digests of patched entries are null on the decoding side until they are rebuilt. */
  readonly meta: LayerMeta;
  readonly content: readonly ContentPlan[];
}
