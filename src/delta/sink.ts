import type { LayerMeta } from '../tar/types.js';
import type { BasisContent } from './basis.js';

/** Where an entry's content already is: in the basis, or in an earlier entry of the target. */
export type ContentOrigin =
  | { readonly from: 'basis'; readonly layer: number; readonly entry: number }
  | { readonly from: 'target'; readonly layer: number; readonly entry: number };

/**
 * Receives a target image, layer by layer, while a delta is applied. The decoder hashes everything it hands
 * over and calls `endLayer` only after the layer's tar had its diffID. Calls are strictly sequential.
 * The device's sink writes into a stage; the server's self-check keeps nothing.
 */
export interface TargetSink {
  /** Starts a layer that this delta rebuilds. `meta` is complete: every header, size and digest but those of written entries, whose `digest` is null until `endLayer`. `layer` is the index in the target's manifest. */
  beginLayer(layer: number, meta: LayerMeta): Promise<void>;
  /**
   * Content of `entry` equals `origin`'s: link, reflink or copy it. The decoder itself reads that content to hash the tar; what is small
   * enough to be in memory is `content`, good until the promise settles.
   */
  copyEntry(layer: number, entry: number, origin: ContentOrigin, content?: Buffer): Promise<void>;
  /** Content of `entry` follows in order, `sizeBytes` in all. The chunk's memory is reused after the promise settles. */
  writeEntry(layer: number, entry: number, chunk: Buffer): Promise<void>;
  /** Content of `entry` is whole; `digest` is its sha256. */
  endEntry(layer: number, entry: number, digest: Buffer): Promise<void>;
  /** Opens content that was given earlier for `entry` of `layer` (a later entry copies from or is differenced against it). */
  openContent(layer: number, entry: number): Promise<BasisContent>;
  /** The layer's tar had its diffID. `meta` now has every digest. */
  endLayer(layer: number, meta: LayerMeta): Promise<void>;
}
