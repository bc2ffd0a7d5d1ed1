import type { LayerEntry, LayerMeta } from '../tar/types.js';

/** Entries of several layers counted through: entry e of layer l has the ordinal start(l) + e. */
export class EntryCatalog {
  readonly #layers: { readonly layer: number; readonly meta: LayerMeta; readonly start: number }[] = [];
  #size = 0;

  /** Number of entries in all layers. */
  get size(): number {
    return this.#size;
  }

  /** Appends a layer; `entries` of it may still grow only through `grow`. */
  add(layer: number, meta: LayerMeta): void {
    this.#layers.push({ layer, meta, start: this.#size });
    this.#size += meta.entries.length;
  }

  /** Counts one entry that was pushed to the last added layer's `entries` after `add`. */
  grow(): void {
    this.#size++;
  }

  /** The layer and entry of an ordinal, or undefined when there is none. */
  at(ordinal: number): { layer: number; entry: number; record: LayerEntry } | undefined {
    if (ordinal < 0 || ordinal >= this.#size) return undefined;
    let low = 0;
    let high = this.#layers.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >>> 1;
      if ((this.#layers[mid]?.start ?? 0) <= ordinal) low = mid;
      else high = mid - 1;
    }
    const found = this.#layers[low];
    if (found === undefined) return undefined;
    const entry = ordinal - found.start;
    const record = found.meta.entries.at(entry);
    return record === undefined ? undefined : { layer: found.layer, entry, record };
  }

  /** The ordinal of an entry; -1 for a layer that is not here. */
  ordinal(layer: number, entry: number): number {
    const found = this.#layers.find((known) => known.layer === layer);
    return found === undefined ? -1 : found.start + entry;
  }
}
