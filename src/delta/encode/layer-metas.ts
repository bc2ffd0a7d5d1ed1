import type { Basis } from '../basis.js';
import { expandedSize } from '../expansion.js';
import { MetaCoder, type LayerInput } from '../meta-coder.js';
import type { ContentPlan, ContentRef } from '../plan.js';
import { BitEncoder } from './bit-encoder.js';
import type { PlannedLayer } from './planner.js';

/** Codes the metadata of the layers of a whole plan. */
export class LayerMetas {
  #coder: MetaCoder | null = null;
  #planned: readonly PlannedLayer[] = [];
  #used: readonly number[] = [];
  #patchedBytes = 0;
  #metaBytes = 0;
  #largestBytes = 0;

  constructor(private readonly images: { readonly basis: Basis }) {}

  /** Takes the plan; `code` may be called from then on. */
  start(planned: readonly PlannedLayer[]): void {
    const { layers } = this.images.basis;
    this.#planned = planned;
    this.#used = usedLayers(planned, layers.length);
    this.#patchedBytes = planned.reduce((sum, layer) => sum + patchedBytes(layer), 0);
    this.#coder = new MetaCoder(this.#used.map((layer) => layers[layer]).filter((meta) => meta !== undefined));
  }

  /** The layers that are coded, as planned, in the target's order. */
  get planned(): readonly PlannedLayer[] {
    return this.#planned;
  }

  /** Basis layers that the plan reads or predicts from, ascending. */
  get used(): readonly number[] {
    return this.#used;
  }

  /** Size of all files that are differenced, expanded; 0 before the plan is there. */
  get patchedBytes(): number {
    return this.#patchedBytes;
  }

  /** Coded size of what was coded. */
  get metaBytes(): number {
    return this.#metaBytes;
  }

  /** Coded size of the largest layer's metadata so far. */
  get largestBytes(): number {
    return this.#largestBytes;
  }

  /** The coded metadata of the plan's layer number `at`. Layers come in order. */
  code(at: number): Buffer {
    const planned = this.#planned[at];
    if (this.#coder === null || planned === undefined) throw new RangeError(`no plan of layer ${String(at)}`);
    const bits = new BitEncoder();
    this.#coder.layer(bits, planned.layer, planned.plan.meta.diffId, this.#input(this.#coder, planned));
    const meta = bits.finish();
    this.#metaBytes += meta.length;
    this.#largestBytes = Math.max(this.#largestBytes, meta.length);
    return meta;
  }

  #input(coder: MetaCoder, { plan, bases }: PlannedLayer): LayerInput {
    const moved = (ref: ContentRef): ContentRef => (ref.from === 'basis' ? { ...ref, layer: this.#used.indexOf(ref.layer) } : ref);
    const content = plan.content.map((one): ContentPlan => {
      if (one.kind === 'copy') return { kind: 'copy', origin: moved(one.origin) };
      return one.kind === 'patch' ? { ...one, sources: one.sources.map(moved) } : one;
    });
    const ordinals = Int32Array.from(bases, (base) => (base === null ? -1 : coder.basis.ordinal(this.#used.indexOf(base.layer), base.entry)));
    return { plan: { meta: plan.meta, content }, bases: ordinals };
  }
}

/** Size of the files of a layer that are differenced, expanded. */
function patchedBytes({ plan }: PlannedLayer): number {
  return plan.content.reduce((sum, content, entry) => sum + (content.kind === 'patch' ? expandedSize(plan.meta.entries.at(entry)?.header.sizeBytes ?? 0, content.expansion) : 0), 0);
}

/** Basis layers that the plans read or predict from, ascending. */
function usedLayers(planned: readonly PlannedLayer[], count: number): number[] {
  const used = new Array<boolean>(count).fill(false);
  const mark = (ref: ContentRef | null): void => {
    if (ref?.from === 'basis') used[ref.layer] = true;
  };
  for (const { plan, bases } of planned) {
    bases.forEach(mark);
    for (const content of plan.content) {
      if (content.kind === 'copy') mark(content.origin);
      else if (content.kind === 'patch') content.sources.forEach(mark);
    }
  }
  return [...used.keys()].filter((layer) => used[layer] === true);
}
