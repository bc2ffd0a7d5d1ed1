import { serverAddon } from '../../core/native.js';
import { rebuildStream, type DecidedFormat, type Packing } from '../expansion.js';
import { deltaLimits } from '../limits.js';
import { SharedContent } from './shared-content.js';

/** The decisions of packings that were planned, which is where all of them come from: to find them again takes as long as the first time. */
const plannedDecisions = new WeakMap<Packing, Buffer>();

/** How `bytes` are made again of `plain` and the decisions of their encoder, whichever it was; null when they cannot. */
export async function decidedPacking(format: DecidedFormat, bytes: Buffer, plain: Buffer): Promise<Extract<Packing, { kind: 'decisions' }> | null> {
  if (plain.length > deltaLimits.decidedBytes) return null;
  const decisions = await (format === 'brotli' ? serverAddon().brotliDecisions(bytes, plain) : serverAddon().deflateDecisions(bytes, plain));
  if (decisions.length === 0 || decisions.length > bytes.length) return null;
  // The encoder compares every bit that it leaves out. This is the device's own word for it: were they to differ, a file would be larger, where no delta would pass its check.
  if (!(await rebuildStream(format, plain, decisions, bytes.length)).equals(bytes)) return null;
  const packing = { kind: 'decisions', format, decisionBytes: decisions.length } as const;
  plannedDecisions.set(packing, decisions);
  return packing;
}

/** What stands behind the text of a stream in the expanded target. */
export function decisionsFor(packing: Packing): Buffer {
  return plannedDecisions.get(packing) ?? Buffer.alloc(0);
}

/**
 * What a text takes of which nothing is there before, as a part of what it takes deflated: two thirds to three quarters for scripts, pages and
 * programs from 16 KiB on (measured), nine tenths for shorter ones. What hardly shrinks takes about as much either way.
 */
const newTextShare = { most: 0.95, large: 0.85, largeBytes: 16 * 1024, leastRatio: 1.5 } as const;

/** What the sources of a file have, as they are and inflated: whether streams of the new one are better told by what they hold. */
export class FormerContent {
  #whole: SharedContent | null = null;
  #plain: SharedContent | null = null;

  /** `streams`: those of `files`, of which what they hold is read one after the other when it is first needed. */
  constructor(private readonly files: readonly Buffer[], private readonly streams: HeldStreams) {}

  /** Whether a stream takes less as a difference of what it holds, with so many bytes of decisions, than as it is. */
  pays(bytes: Buffer, plain: Buffer, decisionBytes: number): boolean {
    this.#whole ??= sharedOf(this.files, sizeOf(this.files));
    this.#plain ??= sharedOf(chained(this.files, this.streams.plains()), sizeOf(this.files) + this.streams.sizeBytes);
    const asItIs = bytes.length * newPart(this.#whole, bytes);
    const isLarge = bytes.length >= newTextShare.largeBytes && plain.length >= newTextShare.leastRatio * bytes.length;
    return decisionBytes + bytes.length * (isLarge ? newTextShare.large : newTextShare.most) * newPart(this.#plain, plain) < asItIs;
  }
}

/** Content of compressed streams, which is not all held at once. */
export interface HeldStreams {
  /** About how much it is. */
  readonly sizeBytes: number;
  plains(): Iterable<Buffer>;
}

/** `sizeBytes`: about how much `contents` are. */
export function sharedOf(contents: Iterable<Buffer>, sizeBytes: number): SharedContent {
  const shared = new SharedContent(sizeBytes);
  for (const content of contents) shared.add(content);
  return shared;
}

function sizeOf(contents: readonly Buffer[]): number {
  return contents.reduce((sum, content) => sum + content.length, 0);
}

function* chained(...parts: readonly Iterable<Buffer>[]): Generator<Buffer> {
  for (const part of parts) yield* part;
}

function newPart(former: SharedContent, content: Buffer): number {
  return 1 - former.sharedPart(content);
}
