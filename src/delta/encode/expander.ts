import type { BasisContent } from '../basis.js';
import type { DeflatedRange, Expansion, InflatedRange, Packing } from '../expansion.js';
import { deltaLimits } from '../limits.js';
import { inflatedContent, scratchFile, wholeFile } from '../inflated-content.js';
import { decidedPacking, decisionsFor, FormerContent, sharedOf, type HeldStreams } from './decided.js';
import { deflateBytes, findStreams, type FoundStream } from './find-streams.js';
import { readContent } from './image-content.js';
import type { SharedContent } from './shared-content.js';
import { brotliPacking, deflatePacking, digestOf, inflateStream, unpackBrotli } from './streams.js';

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

interface FoundBytes extends FoundStream {
  /** The compressed stream alone. */
  readonly bytes: Buffer;
}

/** A compressed stream in one of several files. */
interface SourceStream extends FoundBytes {
  readonly source: number;
  /** Equal only for streams that stand in their files in equal bytes. */
  readonly key: string;
}

/** What an expansion may take. */
export interface ExpansionOptions {
  /** What streams hold that are told by their encoder's decisions. */
  readonly mostDecidedBytes: number;
  /** Streams that are looked at at a time. */
  readonly threads: number;
}

/** A target file that may hold compressed streams. It is read and searched once, when first asked for; the caller closes the content. */
export class ExpandableFile {
  #bytes: Buffer | null = null;
  #streams: readonly SourceStream[] | null = null;

  constructor(private readonly target: BasisContent) {}

  /** This file as one gzip stream. What such a stream holds is often there as a file too. Null when it is none. */
  packed(): PackedFile | null {
    return this.#isSmallEnough() && beginsAsGzip(this.#bytes ?? readContent(this.target, 2)) ? this.#packedGzip() : null;
  }

  /**
   * Decides which compressed streams of the file are coded inflated: those whose bytes are not also in `sources` and that stock
   * zlib or GNU gzip gives back bit for bit, or that are told by their encoder's decisions where that pays; the latter hold as much as the options allow.
   * Such a stream amid other content must also share some with a stream that was there before: of what is all new, the codec makes more than
   * deflate does in pictures and where long stretches come again. Null when there are none.
   */
  async expansion(sources: readonly BasisContent[], options: ExpansionOptions): Promise<Expansion | null> {
    if (!this.#isSmallEnough() || this.#found().length === 0) return null;
    const files = sources.map((source) => (source.sizeBytes > largestFileBytes ? Buffer.alloc(0) : readContent(source)));
    const before = files.flatMap(streamsOf);
    const kept = new Set(before.map(({ key }) => key));
    const changed = this.#found().filter(({ key }) => !kept.has(key));
    if (changed.length === 0) return null;
    const has = new Set(this.#found().map(({ key }) => key));
    const gone = [...new Map(before.filter(({ key }) => !has.has(key)).map((stream) => [stream.key, stream])).values()];
    const former = new FormerContent(files, heldBy(before));
    const deflated = await new StreamTrials(changed.some(({ isEmbedded }) => isEmbedded) ? sharedContent(gone) : null, former, options).run(changed);
    return deflated.length === 0 ? null : { inflated: inflatedFor(deflated, gone), deflated: deflated.map(({ range }) => range) };
  }

  #packedGzip(): PackedFile | null {
    const streams = this.#found();
    const [stream] = streams;
    if (stream === undefined || streams.length !== 1 || stream.name !== '' || stream.isEmbedded) return null;
    const plain = inflated(stream);
    if (plain === null || plain.length === 0 || plain.length > deltaLimits.expandedBytes / 2) return null;
    return {
      plainDigest: digestOf(plain),
      expansion: async () => {
        const range = await deflatedRange(stream, plain, { former: null, mostDecidedBytes: deltaLimits.decidedBytes });
        return range === null ? null : { inflated: [], deflated: [range] };
      },
    };
  }

  #isSmallEnough(): boolean {
    return this.target.sizeBytes <= largestFileBytes;
  }

  #content(): Buffer {
    this.#bytes ??= readContent(this.target);
    return this.#bytes;
  }

  #found(): readonly SourceStream[] {
    this.#streams ??= streamsOf(this.#content(), 0);
    return this.#streams;
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
      return packing === null ? null : { inflated: [], deflated: [{ offset: 0, lengthBytes: file.length, sizeBytes: plain.length, packing, picture: null }] };
    },
  };
}

function beginsAsGzip(file: Buffer): boolean {
  return file[0] === 0x1f && file[1] === 0x8b;
}

function streamsOf(file: Buffer, source: number): SourceStream[] {
  return findStreams(file).map((stream) => {
    const key = digestOf(file.subarray(stream.offset, stream.offset + stream.lengthBytes)).toString('latin1');
    return { ...stream, source, bytes: deflateBytes(file, stream), key };
  });
}

/** Whether decisions may be told: of how much, and what they must pay against; null when all that the stream holds is there. */
interface Deciding {
  readonly former: FormerContent | null;
  readonly mostDecidedBytes: number;
}

/** A stream that is looked at before its turn, and how it is made again. */
interface TriedStream {
  readonly stream: SourceStream;
  readonly plainBytes: number;
  readonly range: Promise<DeflatedRange | null>;
}

/** Streams that are looked at before their turn hold so much together; one more may be begun then. */
const mostAheadBytes = 2 ** 24;

/** Finds out how changed streams are made again, several at a time. What is found does not depend on how many. */
class StreamTrials {
  readonly #deflated: ChangedStream[] = [];
  readonly #waiting: TriedStream[] = [];
  #total = 0;
  #decidedBytes = 0;
  #failures = 0;

  constructor(private readonly gone: SharedContent | null, private readonly former: FormerContent, private readonly options: ExpansionOptions) {}

  /** Those of them, in their order, that are coded inflated. Nothing runs any more when it returns or throws. */
  async run(streams: readonly SourceStream[]): Promise<readonly ChangedStream[]> {
    try {
      for (const stream of streams) {
        const plain = this.#isHopeless(stream) ? null : inflated(stream);
        if (plain === null || !this.#hasRoom(plain.length) || !this.#isShared(stream, plain)) continue;
        this.#begin(stream, plain);
        while (this.#isFull()) await this.#take();
      }
      while (this.#waiting.length > 0) await this.#take();
      return this.#deflated;
    } finally {
      await Promise.allSettled(this.#waiting.map(({ range }) => range));
    }
  }

  /** Whether it will be passed over whatever becomes of those that wait: only a member of an archive can still be a success. */
  #isHopeless({ isEmbedded }: SourceStream): boolean {
    return isEmbedded && this.#failures >= mostFailures && this.#waiting.every(({ stream }) => stream.isEmbedded);
  }

  /** Half of the limit is the sources'. */
  #hasRoom(plainBytes: number): boolean {
    return this.#total + plainBytes <= deltaLimits.expandedBytes / 2 && this.#deflated.length < deltaLimits.expandedRanges;
  }

  #isShared({ isEmbedded }: SourceStream, plain: Buffer): boolean {
    return !isEmbedded || (this.gone?.sharedPart(plain) ?? 0) >= leastSharedPart;
  }

  #begin(stream: SourceStream, plain: Buffer): void {
    const range = deflatedRange(stream, plain, { former: this.former, mostDecidedBytes: this.options.mostDecidedBytes - this.#decidedBytes });
    // The failure is reported when the stream's turn comes; until then it must not count as unhandled.
    range.catch(() => undefined);
    this.#waiting.push({ stream, plainBytes: plain.length, range });
  }

  #isFull(): boolean {
    const { length } = this.#waiting;
    return length >= this.options.threads || (length > 1 && this.#waiting.reduce((sum, { plainBytes }) => sum + plainBytes, 0) > mostAheadBytes);
  }

  /** The first that waits has its turn: now it is known what those before it took. */
  async #take(): Promise<void> {
    const [first] = this.#waiting;
    if (first === undefined) return;
    const range = await first.range;
    this.#waiting.shift();
    const { stream, plainBytes } = first;
    if ((stream.isEmbedded && this.#failures >= mostFailures) || !this.#hasRoom(plainBytes)) return;
    const decidedBytes = this.#decidedBytes + (range?.packing.kind === 'decisions' ? plainBytes : 0);
    if (range === null || decidedBytes > this.options.mostDecidedBytes) {
      this.#failures++;
      return;
    }
    this.#failures = 0;
    this.#total += plainBytes;
    this.#decidedBytes = decidedBytes;
    this.#deflated.push({ range, stream });
  }
}

async function deflatedRange({ offset, lengthBytes, picture, bytes }: FoundBytes, plain: Buffer, deciding: Deciding): Promise<DeflatedRange | null> {
  if (plain.length === 0) return null;
  const packing = (await deflatePacking(bytes, plain)) ?? (await decidedDeflate(bytes, plain, deciding));
  return packing === null ? null : { offset, lengthBytes, sizeBytes: plain.length, packing, picture };
}

async function decidedDeflate(bytes: Buffer, plain: Buffer, { former, mostDecidedBytes }: Deciding): Promise<Packing | null> {
  // To look for decisions takes longer than to see that none would pay.
  if (plain.length > mostDecidedBytes || former?.pays(bytes, plain, 0) === false) return null;
  const packing = await decidedPacking('deflate', bytes, plain);
  return packing === null || former?.pays(bytes, plain, packing.decisionBytes) === false ? null : packing;
}

/** A stream that is coded inflated. */
interface ChangedStream {
  readonly range: DeflatedRange;
  readonly stream: SourceStream;
}

/**
 * The part of its content that a stream must share with others to be expanded amid other content, and to be a source. Where a few
 * stretches of 32 bytes are the same, more are nearly so.
 */
const leastSharedPart = 1 / 64;

/** After so many streams in a row that no known compressor gives back, the rest of what a file embeds is taken for the same one's work. */
const mostFailures = 32;

/** How many times their size streams hold, mostly. */
const usualRatio = 4;

/** Looks up content in streams, as many of them as may be inflated for one file. */
function sharedContent(streams: readonly FoundBytes[]): SharedContent {
  const held = heldBy(streams);
  return sharedOf(held.plains(), held.sizeBytes);
}

function heldBy(streams: readonly FoundBytes[]): HeldStreams {
  return {
    sizeBytes: streams.reduce((sum, { lengthBytes }) => sum + lengthBytes * usualRatio, 0),
    *plains(): Generator<Buffer> {
      for (const { plain } of inflatedStreams(streams)) yield plain;
    },
  };
}

/** Of the streams that are gone those to be inflated as sources: of a changed member's name, or with content that what changed has. */
function inflatedFor(changed: readonly ChangedStream[], gone: readonly SourceStream[]): InflatedRange[] {
  const names = new Set(changed.filter(({ stream }) => !stream.isEmbedded).map(({ stream }) => stream.name));
  const ranges: InflatedRange[] = [];
  const isNamed = (stream: SourceStream): boolean => !stream.isEmbedded && names.has(stream.name);
  const others = gone.filter((stream) => !isNamed(stream));
  const shared = others.length === 0 ? null : sharedContent(changed.map(({ stream }) => stream));
  // Those of a name come first: the others have what is left of the limit.
  for (const { stream, plain } of inflatedStreams([...gone.filter(isNamed), ...others])) {
    if (!isNamed(stream) && (shared?.sharedPart(plain) ?? 0) < leastSharedPart) continue;
    ranges.push({ source: stream.source, offset: stream.offset, lengthBytes: stream.lengthBytes, sizeBytes: plain.length, chunkBytes: stream.picture?.chunkBytes ?? 0 });
  }
  return ranges.slice(0, deltaLimits.expandedRanges).sort((a, b) => a.source - b.source || a.offset - b.offset);
}

function inflated(stream: FoundBytes): Buffer | null {
  return stream.plain ?? inflateStream(stream.bytes);
}

function* inflatedStreams<T extends FoundBytes>(streams: readonly T[]): Generator<{ readonly stream: T; readonly plain: Buffer }> {
  let total = 0;
  for (const stream of streams) {
    const plain = inflated(stream);
    if (plain === null || plain.length === 0 || total + plain.length > deltaLimits.expandedBytes / 2) continue;
    total += plain.length;
    yield { stream, plain };
  }
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
    const packed = deflateBytes(bytes, range);
    const plain = (isBrotli(range.packing) ? await unpackBrotli(packed) : inflateStream(packed)) ?? Buffer.alloc(0);
    await put(plain);
    if (range.packing.kind === 'decisions') await put(decisionsFor(range.packing));
  }
  await put(bytes.subarray(at));
  return { target: wholeFile(file, written), inflated };
}
