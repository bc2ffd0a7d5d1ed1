import type { BasisContent } from '../basis.js';
import type { DeflatedRange, Expansion, InflatedRange, Packing } from '../expansion.js';
import { deltaLimits } from '../limits.js';
import { inflatedContent, scratchFile, wholeFile } from '../inflated-content.js';
import { decidedPacking, decisionsFor, FormerContent } from './decided.js';
import { readContent } from './image-content.js';
import { brotliPacking, deflatePacking, digestOf, findStreams, inflateStream, mayHoldStreams, unpackBrotli, type FoundStream } from './streams.js';

/** Larger files are differenced as they are: both versions are held in memory while they are looked at. */
const largestFileBytes = 128 * 2 ** 20;

/**
 * What a brotli stream may hold for its encoder to be run again on the device. That costs no bytes, but ten times as much time as
 * making the stream of decisions, which take about a seventh of it.
 */
const mostAgainBytes = 2 ** 16;

/** A file that is one compressed stream, and the sha256 of what the stream holds. */
export interface PackedFile {
  readonly plainDigest: Buffer;
  /** How it is coded inflated; tries out the ways to compress it, so ask only when it pays. Null when none gives its bytes back. */
  expansion(): Promise<Expansion | null>;
}

/** A target file that may hold compressed streams. It is read, searched and (a lone stream) inflated once, when first asked for; the caller closes the content. */
export class ExpandableFile {
  #bytes: Buffer | null = null;
  #streams: FoundStream[] | null = null;
  #inflated: Buffer | null | undefined;

  constructor(private readonly target: BasisContent) {}

  /** This file as one gzip stream. What such a stream holds is often there as a file too. Null when it is none. */
  packed(): PackedFile | null {
    return this.#mayHoldStreams() ? this.#packedGzip() : null;
  }

  /**
   * Decides which compressed streams of the file are coded inflated: those whose bytes are not also in `source` (the
   * file's first source, if any) and that stock zlib or GNU gzip gives back bit for bit, or that are told by their encoder's decisions
   * where that pays; the latter hold `mostDecidedBytes` at most. Null when there are none.
   */
  async expansion(source: BasisContent | undefined, mostDecidedBytes: number): Promise<Expansion | null> {
    if (!this.#mayHoldStreams()) return null;
    const file = this.#content();
    const old = source === undefined || source.sizeBytes > largestFileBytes ? undefined : readContent(source);
    const oldStreams = new Map((old === undefined ? [] : findStreams(old)).map((stream) => [stream.name, stream]));
    const former = new FormerContent(old ?? Buffer.alloc(0), () => [...oldStreams.values()].map((stream) => inflateStream(bytesOf(old ?? Buffer.alloc(0), stream)) ?? Buffer.alloc(0)));
    let decidedBytes = 0;
    const deflated: DeflatedRange[] = [];
    const partners: FoundStream[] = [];
    let total = 0;
    for (const stream of this.#found()) {
      const partner = oldStreams.get(stream.name);
      const bytes = bytesOf(file, stream);
      if (old !== undefined && partner !== undefined && bytesOf(old, partner).equals(bytes)) continue;
      const range = await deflatedRange(stream, bytes, this.#inflate(stream), { former, mostDecidedBytes: mostDecidedBytes - decidedBytes });
      // Half of the limit is the sources'.
      if (range === null || total + range.sizeBytes > deltaLimits.expandedBytes / 2 || deflated.length === deltaLimits.expandedRanges) continue;
      total += range.sizeBytes;
      if (range.packing.kind === 'decisions') decidedBytes += range.sizeBytes;
      deflated.push(range);
      if (partner !== undefined) partners.push(partner);
    }
    return deflated.length === 0 ? null : { deflated, inflated: old === undefined ? [] : inflatedRanges(partners, old) };
  }

  #packedGzip(): PackedFile | null {
    const streams = this.#found();
    const [stream] = streams;
    if (stream === undefined || streams.length !== 1 || stream.name !== '') return null;
    const plain = this.#inflate(stream);
    if (plain === null || plain.length === 0 || plain.length > deltaLimits.expandedBytes / 2) return null;
    return {
      plainDigest: digestOf(plain),
      expansion: async () => {
        const range = await deflatedRange(stream, bytesOf(this.#content(), stream), plain, { former: null, mostDecidedBytes: deltaLimits.decidedBytes });
        return range === null ? null : { inflated: [], deflated: [range] };
      },
    };
  }

  #mayHoldStreams(): boolean {
    return this.target.sizeBytes <= largestFileBytes && mayHoldStreams(this.#bytes ?? readContent(this.target, 4));
  }

  #content(): Buffer {
    this.#bytes ??= readContent(this.target);
    return this.#bytes;
  }

  #found(): readonly FoundStream[] {
    this.#streams ??= findStreams(this.#content());
    return this.#streams;
  }

  /** A lone stream is kept, since it may be asked for twice; those of an archive are not all held at once. */
  #inflate(stream: FoundStream): Buffer | null {
    if (this.#found().length > 1) return inflateStream(bytesOf(this.#content(), stream));
    if (this.#inflated === undefined) this.#inflated = inflateStream(bytesOf(this.#content(), stream));
    return this.#inflated;
  }
}

/** A file as one brotli stream, which nothing but its name tells; null when it is none. */
export async function packedBrotli(content: BasisContent): Promise<PackedFile | null> {
  if (content.sizeBytes > deltaLimits.decidedBytes) return null;
  const file = readContent(content);
  const plain = await unpackBrotli(file);
  if (plain === null || plain.length === 0) return null;
  return {
    plainDigest: digestOf(plain),
    expansion: async () => {
      const packing = (await brotliPacking(file, plain, mostAgainBytes)) ?? (await decidedPacking('brotli', file, plain));
      return packing === null ? null : { inflated: [], deflated: [{ offset: 0, lengthBytes: file.length, sizeBytes: plain.length, packing }] };
    },
  };
}

function bytesOf(file: Buffer, stream: FoundStream): Buffer {
  return file.subarray(stream.offset, stream.offset + stream.lengthBytes);
}

/** Whether decisions may be told: of how much, and what they must pay against; null when all that the stream holds is there. */
interface Deciding {
  readonly former: FormerContent | null;
  readonly mostDecidedBytes: number;
}

async function deflatedRange({ offset, lengthBytes }: FoundStream, bytes: Buffer, inflated: Buffer | null, deciding: Deciding): Promise<DeflatedRange | null> {
  if (inflated === null || inflated.length === 0) return null;
  const packing = deflatePacking(bytes, inflated) ?? (await decidedDeflate(bytes, inflated, deciding));
  return packing === null ? null : { offset, lengthBytes, sizeBytes: inflated.length, packing };
}

async function decidedDeflate(bytes: Buffer, inflated: Buffer, { former, mostDecidedBytes }: Deciding): Promise<Packing | null> {
  // To look for decisions takes longer than to see that none would pay.
  if (inflated.length > mostDecidedBytes || former?.pays(bytes, inflated, 0) === false) return null;
  const packing = await decidedPacking('deflate', bytes, inflated);
  return packing === null || former?.pays(bytes, inflated, packing.decisionBytes) === false ? null : packing;
}

function inflatedRanges(streams: FoundStream[], file: Buffer): InflatedRange[] {
  let total = 0;
  return streams.sort((a, b) => a.offset - b.offset).flatMap((stream): InflatedRange[] => {
    const sizeBytes = inflateStream(bytesOf(file, stream))?.length ?? 0;
    if (sizeBytes === 0 || total + sizeBytes > deltaLimits.expandedBytes / 2) return [];
    total += sizeBytes;
    return [{ source: 0, offset: stream.offset, lengthBytes: stream.lengthBytes, sizeBytes }];
  });
}

function isBrotli(packing: Packing): boolean {
  return packing.kind === 'brotli' || (packing.kind === 'decisions' && packing.format === 'brotli');
}

/** The expanded form of a target, and the inflated streams of its sources, as contents in scratch files; the caller closes both. */
export async function expand(target: BasisContent, sources: readonly BasisContent[], expansion: Expansion, directory: string): Promise<{ target: BasisContent; inflated: BasisContent | null }> {
  const inflated = expansion.inflated.length === 0 ? null : await inflatedContent(expansion.inflated, sources, directory);
  const file = await scratchFile(directory);
  const bytes = readContent(target);
  let at = 0;
  let written = 0;
  const put = async (chunk: Buffer): Promise<void> => { written += (await file.write(chunk)).bytesWritten; };
  for (const range of expansion.deflated) {
    await put(bytes.subarray(at, range.offset));
    at = range.offset + range.lengthBytes;
    const packed = bytes.subarray(range.offset, at);
    const plain = (isBrotli(range.packing) ? await unpackBrotli(packed) : inflateStream(packed)) ?? Buffer.alloc(0);
    await put(plain);
    if (range.packing.kind === 'decisions') await put(decisionsFor(range.packing));
  }
  await put(bytes.subarray(at));
  return { target: wholeFile(file, written), inflated };
}
