import { serverAddon, type NativeContent, type PatchEncoder } from '../../core/native.js';
import type { BasisContent, FileExtent } from '../basis.js';
import type { DeltaProfile } from '../index-blob.js';
import { nativeContent } from '../segments.js';
import type { DataWriter } from './data-writer.js';
import type { MatchedFile } from './match-queue.js';

/** When a segment is full; bounds the decoder's memory and the encoder's delay. */
const segmentTuning = {
  literalBytes: 4 * 2 ** 20,
  targetBytes: 64 * 2 ** 20,
  parts: 4096,
  /** A file with more literals than `partLiterals` is coded in parts of `partBytes`. */
  partLiterals: 8 * 2 ** 20,
  partBytes: 8 * 2 ** 20,
} as const;

interface Part {
  readonly from: number;
  readonly sizeBytes: number;
  readonly ops: Float64Array;
}

/** Gathers patched files into segments and writes them. */
export class SegmentWriter {
  readonly #encoder: PatchEncoder;
  #open: MatchedFile[] = [];
  #sizes: number[] = [];
  #literalBytes = 0;
  #targetBytes = 0;
  #largestBytes = 0;
  readonly #stats: Record<string, number> = {};

  constructor(private readonly data: DataWriter, profile: DeltaProfile, threads: number) {
    this.#encoder = new (serverAddon().PatchEncoder)({ profile, threads });
  }

  /** Size of the largest segment's streams so far: what a decoder must hold. */
  get largestBytes(): number {
    return this.#largestBytes;
  }

  /** The encoder's counts and sizes by kind of stream, summed over all segments. */
  get stats(): Readonly<Record<string, number>> {
    return this.#stats;
  }

  /** Adds a file and takes over closing it. */
  async add(file: MatchedFile): Promise<void> {
    const parts = partsOf(file);
    this.#open.push(file);
    for (const part of parts) {
      this.#encoder.add({ sources: file.sources, target: sliceContent(file.target, part.from, part.sizeBytes), ops: part.ops });
      this.#sizes.push(part.sizeBytes);
      this.#literalBytes += part.sizeBytes - covered(part.ops);
      this.#targetBytes += part.sizeBytes;
      const full = this.#literalBytes >= segmentTuning.literalBytes || this.#targetBytes >= segmentTuning.targetBytes || this.#sizes.length >= segmentTuning.parts;
      if (full) await this.#flush(part === parts.at(-1));
    }
  }

  /** Writes what is left. */
  async finish(): Promise<void> {
    if (this.#sizes.length > 0) await this.#flush(true);
    await this.close();
  }

  /** Closes the files that are still open. */
  async close(): Promise<void> {
    for (const file of this.#open.splice(0)) await file.close();
  }

  async #flush(lastPart: boolean): Promise<void> {
    const { streams, stats } = await this.#encoder.flush();
    for (const [name, value] of Object.entries(stats)) this.#stats[name] = (this.#stats[name] ?? 0) + value;
    this.#largestBytes = Math.max(this.#largestBytes, streams.length);
    await this.data.write([this.#sizes.length, ...this.#sizes, streams.length], streams);
    this.#sizes = [];
    this.#literalBytes = 0;
    this.#targetBytes = 0;
    const keep = lastPart ? [] : this.#open.splice(-1);
    await this.close();
    this.#open = keep;
  }
}

function covered(ops: Float64Array): number {
  let sum = 0;
  for (let at = 2; at < ops.length; at += 3) sum += ops[at] ?? 0;
  return sum;
}

function partsOf(file: MatchedFile): Part[] {
  const size = file.task.sizeBytes;
  if (size - covered(file.ops) <= segmentTuning.partLiterals) return [{ from: 0, sizeBytes: size, ops: file.ops }];
  const parts: Part[] = [];
  for (let from = 0; from < size; from += segmentTuning.partBytes) {
    const sizeBytes = Math.min(segmentTuning.partBytes, size - from);
    parts.push({ from, sizeBytes, ops: clipOps(file.ops, from, from + sizeBytes) });
  }
  return parts;
}

/** The ops inside [from, to) of the new content, with new positions counted from `from`. */
function clipOps(ops: Float64Array, from: number, to: number): Float64Array {
  const out: number[] = [];
  for (let at = 0; at + 2 < ops.length; at += 3) {
    const [newPos = 0, oldPos = 0, length = 0] = [ops[at], ops[at + 1], ops[at + 2]];
    const start = Math.max(newPos, from);
    const end = Math.min(newPos + length, to);
    if (start < end) out.push(start - from, oldPos + start - newPos, end - start);
  }
  return Float64Array.from(out);
}

function sliceContent(content: BasisContent, from: number, sizeBytes: number): NativeContent {
  const extents: FileExtent[] = [];
  let at = 0;
  for (const extent of content.extents) {
    const start = Math.max(from, at);
    const end = Math.min(from + sizeBytes, at + extent.lengthBytes);
    if (start < end) extents.push({ offset: extent.offset + start - at, lengthBytes: end - start });
    at += extent.lengthBytes;
  }
  return nativeContent({ ...content, extents, sizeBytes });
}
