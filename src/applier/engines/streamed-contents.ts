import { WhittleError } from '../../core/errors.js';
import type { BasisContent } from '../../delta/basis.js';
import type { LayerPlan } from '../../delta/plan.js';
import type { ContentOrigin } from '../../delta/sink.js';
import { noCounters } from '../store/file-sink.js';
import type { StageCounters } from '../store/types.js';
import type { LayerStream } from './layer-stream.js';
import { ScratchContents } from './scratch-contents.js';
import type { HeldBasis, LayerSink } from './types.js';

/** A layer that is being sent. */
export interface StreamedLayer {
  readonly layer: number;
  /** Null where the receiver has the layer: then its bytes are dropped. */
  readonly stream: LayerStream | null;
}

/** What sinks have in common that send each layer away as a stream: only what a delta may still refer to is kept. */
export abstract class StreamedContents<L extends StreamedLayer> implements Pick<LayerSink, 'counters' | 'useBasis' | 'planned' | 'copyEntry' | 'writeEntry' | 'endEntry' | 'openContent'> {
  protected readonly scratch: ScratchContents;
  protected readonly tally = noCounters();
  /** The layer that is being sent; null between layers. */
  protected open: L | null = null;
  #basis: HeldBasis | null = null;
  #plan: { readonly layer: number; readonly plan: LayerPlan; readonly isLast: boolean } | null = null;

  constructor(scratchDirectory: string) {
    this.scratch = new ScratchContents(scratchDirectory);
  }

  get counters(): StageCounters {
    return { ...this.tally };
  }

  useBasis(basis: HeldBasis): void {
    this.#basis = basis;
  }

  planned(layer: number, plan: LayerPlan, isLast: boolean): void {
    // Taken in when the layer begins, for what a torn one left goes first.
    this.#plan = { layer, plan, isLast };
  }

  /** A layer begins, of which the scratch keeps what its plan, if it was told, says. */
  protected beginContents(layer: number): void {
    const plan = this.#plan?.layer === layer ? this.#plan : null;
    this.scratch.begin(layer, plan);
    if (plan !== null) this.#plan = null;
  }

  protected current(layer: number): L {
    if (this.open?.layer !== layer) throw new WhittleError('INTERNAL', `layer ${String(layer)} was not begun`);
    return this.open;
  }

  async copyEntry(layer: number, entry: number, origin: ContentOrigin): Promise<void> {
    const { stream } = this.current(layer);
    this.scratch.copied(layer, entry, origin);
    if (stream === null) return;
    const content = await this.openContent(layer, entry);
    try {
      await stream.copy(entry, content);
    } finally {
      await content.close();
    }
  }

  async writeEntry(layer: number, entry: number, chunk: Buffer): Promise<void> {
    const { stream } = this.current(layer);
    await this.scratch.write(layer, entry, chunk);
    await stream?.write(entry, chunk);
  }

  async endEntry(layer: number, entry: number): Promise<void> {
    await this.current(layer).stream?.endEntry(entry);
  }

  openContent(layer: number, entry: number): Promise<BasisContent> {
    return this.scratch.open(layer, entry, this.#basis);
  }
}
