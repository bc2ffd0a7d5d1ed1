import type { LayerEntry, LayerMeta } from '../../tar/types.js';
import { EntryCatalog } from '../catalog.js';
import type { ContentPlan, ContentRef } from '../plan.js';
import { applyRename, hiddenBy, renameRule, undoRename, type RenameRule } from '../rename-rule.js';
import type { ContentIndex } from './content-index.js';

/**
 * Chooses, entry by entry in the target's order, the basis entry that a header is predicted from. It follows the
 * same cursor and the same rename rule as MetaCoder, so that what it chooses is cheap to code.
 */
export class HeaderBases {
  readonly #catalog = new EntryCatalog();
  #cursor = 0;
  #rule: RenameRule | null = null;

  constructor(layers: readonly LayerMeta[], private readonly index: ContentIndex) {
    layers.forEach((meta, layer) => { this.#catalog.add(layer, meta); });
  }

  /** Of several basis entries the one that is cheapest to name: at `path` itself, else at its path before a rename, else the nearest to the cursor. */
  nearest(refs: readonly ContentRef[], path: Buffer): ContentRef | undefined {
    const before = undoRename(this.#rule, path);
    let best: ContentRef | undefined;
    let bestCost = Infinity;
    for (const ref of refs) {
      const ordinal = this.#catalog.ordinal(ref.layer, ref.entry);
      const own = this.#catalog.at(ordinal)?.record.header.path;
      const distance = Math.abs(ordinal - this.#cursor);
      const cost = own?.equals(path) === true ? distance - 2e12 : before !== null && own?.equals(before) === true ? distance - 1e12 : distance;
      if (cost < bestCost) [best, bestCost] = [ref, cost];
    }
    return best;
  }

  /** The basis entry for the next target entry, or null. Must be called once per entry, in order. */
  choose(record: LayerEntry, content: ContentPlan): ContentRef | null {
    const { path } = record.header;
    const hidden = this.#hidden(path);
    const chosen = hidden ?? this.#samePath(path) ?? this.#renamed(path) ?? this.#sameContent(path, content);
    if (chosen === null) return null;
    const ordinal = this.#catalog.ordinal(chosen.layer, chosen.entry);
    this.#cursor = ordinal + 1;
    if (hidden !== null) return chosen;
    const basePath = this.#catalog.at(ordinal)?.record.header.path ?? path;
    if (!basePath.equals(path) && applyRename(this.#rule, basePath)?.equals(path) !== true) this.#rule = renameRule(basePath, path) ?? this.#rule;
    return chosen;
  }

  /** For a whiteout, what it hides. */
  #hidden(path: Buffer): ContentRef | null {
    const hidden = hiddenBy(path)?.toString('latin1');
    if (hidden === undefined) return null;
    return this.nearest([...this.index.withPath(hidden), ...this.index.withPath(`${hidden}/`)], path) ?? null;
  }

  #samePath(path: Buffer): ContentRef | null {
    return this.nearest(this.index.withPath(path.toString('latin1')), path) ?? null;
  }

  #renamed(path: Buffer): ContentRef | null {
    const before = undoRename(this.#rule, path);
    return before === null ? null : (this.nearest(this.index.withPath(before.toString('latin1')), before) ?? null);
  }

  /** The entry that the content comes from, when its name is near enough to be worth predicting from. */
  #sameContent(path: Buffer, content: ContentPlan): ContentRef | null {
    const ref = content.kind === 'copy' ? content.origin : content.kind === 'patch' ? content.sources[0] : undefined;
    if (ref?.from !== 'basis') return null;
    const basePath = this.#catalog.at(this.#catalog.ordinal(ref.layer, ref.entry))?.record.header.path;
    if (basePath === undefined) return null;
    return sharedBytes(basePath, path) * 2 >= path.length ? ref : null;
  }
}

/** Bytes that two names share at their start and at their end. */
function sharedBytes(a: Buffer, b: Buffer): number {
  const limit = Math.min(a.length, b.length);
  let head = 0;
  while (head < limit && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < limit - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  return head + tail;
}
