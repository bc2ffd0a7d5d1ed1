import { serverAddon, type NativeContent, type PatchEncoder } from '../../core/native.js';
import type { BasisContent, FileExtent } from '../basis.js';
import type { DeltaProfile } from '../index-blob.js';
import { nativeContent } from '../segments.js';
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

/** A segment as it is gathered. */
interface Segment {
  readonly parts: { readonly sizeBytes: number; readonly file: Parameters<PatchEncoder['add']>[0] }[];
  /** Files to close once it is coded. */
  readonly files: MatchedFile[];
  literalBytes: number;
  targetBytes: number;
}

/** Gathers patched files into segments and writes them: one is coded while the next is gathered. */
export class SegmentWriter {
  /** Made with the first segment, which is when the largest files have mostly been matched: its models are large too. */
  #encoder: PatchEncoder | null = null;
  #gathered = newSegment();
  #coding: Promise<void> = Promise.resolve();
  #largestBytes = 0;
  readonly #stats: Record<string, number> = {};

  /** `write` appends numbers, then bytes, to the delta. */
  constructor(
    private readonly write: (numbers: readonly number[], bytes: Buffer) => Promise<void>,
    private readonly profile: DeltaProfile,
    private readonly threads: number,
  ) {}

  /** Size of the largest segment's streams so far: what a decoder must hold. Known after `finish()`. */
  get largestBytes(): number {
    return this.#largestBytes;
  }

  /** The encoder's counts and sizes by kind of stream, summed over all segments that are written. */
  get stats(): Readonly<Record<string, number>> {
    return this.#stats;
  }

  /** Adds a file and takes over closing it. Waits when a segment is full before the one before it is written. */
  async add(file: MatchedFile): Promise<void> {
    const parts = partsOf(file);
    this.#gathered.files.push(file);
    for (const part of parts) {
      const segment = this.#gathered;
      segment.parts.push({ sizeBytes: part.sizeBytes, file: { sources: file.sources, target: sliceContent(file.target, part.from, part.sizeBytes), ops: part.ops } });
      segment.literalBytes += part.sizeBytes - covered(part.ops);
      segment.targetBytes += part.sizeBytes;
      const full = segment.literalBytes >= segmentTuning.literalBytes || segment.targetBytes >= segmentTuning.targetBytes || segment.parts.length >= segmentTuning.parts;
      if (full) await this.#code(part === parts.at(-1));
    }
  }

  /** Writes what is left; all is written when this returns. */
  async finish(): Promise<void> {
    if (this.#gathered.parts.length > 0) await this.#code(true);
    await this.#coding;
  }

  /** Frees the encoder and closes the files that are still open, after an error too. */
  async close(): Promise<void> {
    await this.#coding.catch(() => undefined);
    this.#encoder?.close();
    await closeAll(this.#gathered.files);
  }

  /** Begins to code what was gathered, once what is being coded is written. */
  async #code(lastPart: boolean): Promise<void> {
    await this.#coding;
    const segment = this.#gathered;
    this.#gathered = newSegment();
    if (!lastPart) this.#gathered.files.push(...segment.files.splice(-1));
    this.#coding = this.#write(segment);
    // The failure is reported by whoever waits for it next; until then it must not count as unhandled.
    this.#coding.catch(() => undefined);
  }

  async #write({ parts, files }: Segment): Promise<void> {
    try {
      this.#encoder ??= makeEncoder(this.profile, this.threads);
      for (const { file } of parts) this.#encoder.add(file);
      const { streams, stats } = await this.#encoder.flush();
      for (const [name, value] of Object.entries(stats)) this.#stats[name] = (this.#stats[name] ?? 0) + value;
      this.#largestBytes = Math.max(this.#largestBytes, streams.length);
      await this.write([parts.length, ...parts.map((part) => part.sizeBytes), streams.length], streams);
    } finally {
      await closeAll(files);
    }
  }
}

/** Its tables do not come out of what the matches before it have left. */
function makeEncoder(profile: DeltaProfile, threads: number): PatchEncoder {
  serverAddon().returnFreeMemory();
  return new (serverAddon().PatchEncoder)({ profile, threads });
}

function newSegment(): Segment {
  return { parts: [], files: [], literalBytes: 0, targetBytes: 0 };
}

async function closeAll(files: MatchedFile[]): Promise<void> {
  for (const file of files.splice(0)) await file.close();
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
