import { serverAddon, type NativeContent, type PatchMeter } from '../../core/native.js';
import type { DecodeObserver } from '../../delta/apply.js';
import type { BitDecoder, BitPort, MetaPart } from '../../delta/bits.js';
import type { DeltaProfile } from '../../delta/index.js';
import type { LayerPlan } from '../../delta/plan.js';
import { addPart, shareOut, type PartKind, type Parts } from './account.js';

/** What a meter found in one rebuilt layer. */
export interface MeteredLayer {
  readonly plan: LayerPlan;
  /** What belongs to no entry. */
  readonly own: Parts;
  /** Of each entry. */
  readonly entries: Parts[];
}

const metaKinds: Readonly<Record<MetaPart, PartKind>> = {
  layer: 'attributes', name: 'names', plan: 'plan', expansion: 'expansion', attributes: 'attributes', time: 'times',
};
/** What the streams of a segment hold, in their order. */
export const streamKinds = ['ops', 'residue', 'literals'] as const;

/** A run of bits for one purpose. `entry` is -1 for the layer as a whole. */
interface Cost {
  readonly entry: number;
  readonly kind: PartKind;
  bits: number;
}

/** Reads tar metadata through to a decoder and adds up what each part of each entry costs. */
class MeteredPort implements BitPort {
  readonly decoding = true;
  readonly costs: Cost[] = [{ entry: -1, kind: 'attributes', bits: 0 }];
  #entry = -1;

  constructor(private readonly bits: BitDecoder) {}

  get overrun(): boolean {
    return this.bits.overrun;
  }

  code(one16: number): number {
    const bit = this.bits.code(one16);
    const cost = this.costs.at(-1);
    if (cost !== undefined) cost.bits += 16 - Math.log2(bit === 1 ? one16 : 65536 - one16);
    return bit;
  }

  enter(part: MetaPart): void {
    if (part === 'name') this.#entry++;
    this.costs.push({ entry: part === 'layer' ? -1 : this.#entry, kind: metaKinds[part], bits: 0 });
  }
}

/** A part of a file in the segment at hand. */
interface MeteredPart {
  readonly layer: MeteredLayer;
  readonly entry: number;
  readonly sizeBytes: number;
  /** Bits that the decoder had read when the part began: ops, residue, literals. */
  readonly before: Float64Array;
}

/**
 * Keeps account of a delta while it is decoded: the cost of a bit is -log2 of the probability that the decoder gave it;
 * the bytes of each stream are shared out by cost. Call `finish` after the last layer.
 */
export class DeltaMeter implements DecodeObserver {
  /** By the number of the target's layer. */
  readonly layers = new Map<number, MeteredLayer>();
  /** Bytes of data that are accounted for. */
  accountedBytes = 0;
  readonly codec = {
    segment: (streams: Buffer): void => { this.#segment(streams); },
    begin: (file: { readonly sources: readonly NativeContent[]; readonly sizeBytes: number }): void => { this.#begin(file); },
    next: (out: Buffer): Promise<number> => this.#decoder.next(out),
    nextNow: (out: Buffer): number => this.#decoder.nextNow(out),
  };
  readonly #decoder: PatchMeter;
  #coded: { readonly port: MeteredPort; readonly sizeBytes: number } | null = null;
  #streams: Buffer | null = null;
  #parts: MeteredPart[] = [];
  #at: { readonly layer: MeteredLayer; readonly entry: number } | null = null;

  constructor(profile: DeltaProfile) {
    this.#decoder = new (serverAddon().PatchMeter)({ profile });
  }

  metadata(_layer: number, bits: BitDecoder, sizeBytes: number): BitPort {
    const port = new MeteredPort(bits);
    this.#coded = { port, sizeBytes };
    return port;
  }

  planned(layer: number, plan: LayerPlan): void {
    this.finish();
    const metered: MeteredLayer = { plan, own: {}, entries: [...plan.meta.entries].map(() => ({})) };
    this.layers.set(layer, metered);
    if (this.#coded === null) return;
    const { port, sizeBytes } = this.#coded;
    const shares = shareOut(sizeBytes, port.costs.map((cost) => cost.bits));
    port.costs.forEach(({ entry, kind }, at) => { addPart(metered.entries[entry] ?? metered.own, kind, shares?.[at] ?? 0); });
    if (shares === null) addPart(metered.own, 'framing', sizeBytes);
    addPart(metered.own, 'framing', varintBytes(sizeBytes));
    this.accountedBytes += sizeBytes + varintBytes(sizeBytes);
  }

  entry(layer: number, entry: number): void {
    const metered = this.layers.get(layer);
    this.#at = metered === undefined ? null : { layer: metered, entry };
  }

  /** Settles the last segment. */
  finish(): void {
    const streams = this.#streams;
    const [first] = this.#parts;
    if (streams === null || first === undefined) return;
    this.#streams = null;
    const ends = [...this.#parts.slice(1).map((part) => part.before), this.#decoder.bits()];
    const sizes = streamSizes(streams);
    sizes.forEach((sizeBytes, stream) => {
      const shares = shareOut(sizeBytes, this.#parts.map((part, at) => (ends[at]?.[stream] ?? 0) - (part.before[stream] ?? 0)));
      this.#parts.forEach((part, at) => { addPart(part.layer.entries[part.entry] ?? part.layer.own, streamKinds[stream] ?? 'ops', shares?.[at] ?? 0); });
      if (shares === null) addPart(first.layer.own, 'framing', sizeBytes);
    });
    for (const part of this.#parts) addPart(part.layer.entries[part.entry] ?? part.layer.own, 'framing', varintBytes(part.sizeBytes));
    const header = varintBytes(this.#parts.length) + varintBytes(streams.length) + streams.length - sizes.reduce((sum, size) => sum + size, 0);
    addPart(first.layer.own, 'framing', header);
    this.accountedBytes += varintBytes(this.#parts.length) + varintBytes(streams.length) + streams.length;
    this.accountedBytes += this.#parts.reduce((sum, part) => sum + varintBytes(part.sizeBytes), 0);
    this.#parts = [];
  }

  #segment(streams: Buffer): void {
    this.finish();
    this.#decoder.segment(streams);
    this.#streams = streams;
  }

  #begin(file: { readonly sources: readonly NativeContent[]; readonly sizeBytes: number }): void {
    if (this.#at !== null) this.#parts.push({ ...this.#at, sizeBytes: file.sizeBytes, before: this.#decoder.bits() });
    this.#decoder.begin(file);
  }
}

/** Sizes of the three streams that a segment begins with (docs/format-codec.md). */
export function streamSizes(streams: Uint8Array): [number, number, number] {
  const sizes: [number, number, number] = [0, 0, 0];
  let at = 0;
  for (let stream = 0; stream < 3; stream++) {
    let scale = 1;
    for (let byte = 0x80; byte >= 0x80 && at < streams.length; scale *= 128) {
      byte = streams[at++] ?? 0;
      sizes[stream] = (sizes[stream] ?? 0) + (byte & 127) * scale;
    }
  }
  return sizes;
}

/** Bytes that `value` takes as LEB128. */
function varintBytes(value: number): number {
  let count = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) count++;
  return count;
}
