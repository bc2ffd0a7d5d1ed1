import { promisify } from 'node:util';
import { brotliCompress, constants } from 'node:zlib';
import { Deflate } from 'pako';
import { isWhittleError, systemErrorCode, WhittleError } from '../core/errors.js';
import { deviceAddon } from '../core/native.js';
import { GnuDeflate } from './gnu-deflate.js';
import { framedStreamBytes, PictureFramer, type PictureFrame } from './picture.js';

/** A raw deflate stream (RFC 1951) inside a source, which is read inflated. */
export interface InflatedRange {
  /** Index among the file's sources. */
  readonly source: number;
  readonly offset: number;
  readonly lengthBytes: number;
  /** Size when inflated. */
  readonly sizeBytes: number;
  /** 0; or how much of it each of the PNG chunks holds that the range consists of (see PictureFrame). */
  readonly chunkBytes: number;
}

/**
 * How a compressed stream is made of what it holds: by stock zlib (raw deflate; level and memory level from 1 to 9), by
 * GNU gzip (level from 1 to 9), by brotli (RFC 7932; window 22, no size hint), or by any encoder of brotli or deflate whose
 * decisions, so many bytes of them, are told.
 */
export type Packing =
  | { readonly kind: 'deflate'; readonly level: number; readonly memLevel: number }
  | { readonly kind: 'gnu'; readonly level: number }
  | { readonly kind: 'brotli'; readonly quality: number }
  | { readonly kind: 'decisions'; readonly format: DecidedFormat; readonly decisionBytes: number };

/** What streams are made again of their encoder's decisions. */
export type DecidedFormat = 'brotli' | 'deflate';

/** A compressed stream inside the target that is coded inflated. */
export interface DeflatedRange {
  /** Place in the target file. */
  readonly offset: number;
  readonly lengthBytes: number;
  /** Size when inflated. */
  readonly sizeBytes: number;
  readonly packing: Packing;
  /** How PNG chunks frame the stream, which the range then consists of; null when the range is the stream. */
  readonly picture: PictureFrame | null;
}

/**
 * How a file that holds compressed streams is differenced on what is inside them. What is
 * coded is the *expanded* target, in which every range of `deflated` stands inflated; its last source is all of
 * `inflated`, one after the other. Both lists ascend and do not overlap.
 */
export interface Expansion {
  readonly inflated: readonly InflatedRange[];
  readonly deflated: readonly DeflatedRange[];
}

/** Size of what stands for a range in the expanded target: what it holds, and behind that the decisions. */
export function standInSize({ sizeBytes, packing }: DeflatedRange): number {
  return sizeBytes + (packing.kind === 'decisions' ? packing.decisionBytes : 0);
}

/** Size of the compressed stream alone. */
export function streamBytes({ lengthBytes, picture }: DeflatedRange): number {
  return picture === null ? lengthBytes : framedStreamBytes(lengthBytes, picture.chunkBytes);
}

/** Size of the expanded form of a target of `sizeBytes`. */
export function expandedSize(sizeBytes: number, expansion: Expansion | null): number {
  return (expansion?.deflated ?? []).reduce((sum, range) => sum - range.lengthBytes + standInSize(range), sizeBytes);
}

/** Memory that making the file again takes beside its decoder: what the largest stream needs whose decisions are told. */
export function collapseBytes(expansion: Expansion | null): number {
  const each = (range: DeflatedRange): number => (range.packing.kind === 'decisions' ? standInSize(range) + range.lengthBytes + rebuilders[range.packing.format].bytes(range.sizeBytes) : 0);
  return (expansion?.deflated ?? []).reduce((most, range) => Math.max(most, each(range)), 0);
}

/** Makes one raw deflate stream of what is pushed. */
export interface Deflater {
  /** Takes the next bytes, and with `last` the end; gives what can be told of the stream. */
  push(part: Buffer, last: boolean): readonly Buffer[];
}

/** Makes what the packing says, of one stream. Stock zlib's bytes, which Node's own zlib does not give, or GNU gzip's. */
export function deflaterFor(packing: Extract<Packing, { kind: 'deflate' | 'gnu' }>): Deflater {
  if (packing.kind === 'gnu') {
    const gnu = new GnuDeflate(packing.level);
    return { push: (part, last) => [gnu.push(part, last)] };
  }
  const stock = new Deflate({ level: packing.level, memLevel: packing.memLevel, raw: true, legacyHash: true, chunkSize: 65536 });
  let out: Buffer[] = [];
  stock.onData = (bytes): void => { out.push(Buffer.from(bytes)); };
  stock.onEnd = (): void => undefined;
  return {
    push: (part, last) => {
      out = [];
      stock.push(part, last);
      return out;
    },
  };
}

const brotli = promisify(brotliCompress);

/** Makes the brotli stream of `plain`. All versions of brotli that were tried (1.0.9 to 1.1.0) give the same bytes. */
export function packBrotli(plain: Buffer, quality: number): Promise<Buffer> {
  return brotli(plain, { params: { [constants.BROTLI_PARAM_QUALITY]: quality } });
}

/** Makes one compressed stream of what is pushed, as a Deflater does. */
interface Packer {
  push(part: Buffer, last: boolean): Promise<readonly Buffer[]>;
}

/** Holds all of what the stream shall hold: deltaLimits.brotliBytes at most. */
function brotliPacker(quality: number): Packer {
  const held: Buffer[] = [];
  return {
    push: async (part, last) => {
      held.push(Buffer.from(part));
      return last ? [await packBrotli(Buffer.concat(held), quality)] : [];
    },
  };
}

/** Holds the text and the decisions behind it, and with the last of them the stream. */
function decisionsPacker(range: DeflatedRange, format: DecidedFormat): Packer {
  const held = Buffer.allocUnsafeSlow(standInSize(range));
  let at = 0;
  return {
    push: async (part, last) => {
      at += part.copy(held, at);
      return last ? [await rebuildStream(format, held.subarray(0, range.sizeBytes), held.subarray(range.sizeBytes), streamBytes(range))] : [];
    },
  };
}

/** What the addon has for each. */
const rebuilders = {
  brotli: {
    bytes: (textBytes: number) => deviceAddon().rebuildBrotliBytes(textBytes),
    rebuild: (text: Buffer, decisions: Buffer, out: Buffer) => deviceAddon().rebuildBrotli(text, decisions, out),
  },
  deflate: {
    bytes: (textBytes: number) => deviceAddon().rebuildDeflateBytes(textBytes),
    rebuild: (text: Buffer, decisions: Buffer, out: Buffer) => deviceAddon().rebuildDeflate(text, decisions, out),
  },
} as const satisfies Record<DecidedFormat, unknown>;

/** Makes the stream of `lengthBytes` of a text and its encoder's decisions. Throws DELTA_CORRUPT when they give none. */
export async function rebuildStream(format: DecidedFormat, text: Buffer, decisions: Buffer, lengthBytes: number): Promise<Buffer> {
  const out = Buffer.allocUnsafeSlow(lengthBytes);
  try {
    await rebuilders[format].rebuild(text, decisions, out);
  } catch (error) {
    if (!isWhittleError(error) && systemErrorCode(error) === 'DELTA_CORRUPT') throw new WhittleError('DELTA_CORRUPT', (error as Error).message, { cause: error });
    throw error;
  }
  return out;
}

/** Puts the stream that `packer` makes in its PNG chunks. */
function picturePacker(range: DeflatedRange, picture: PictureFrame, packer: Packer): Packer {
  const framer = new PictureFramer(picture, range.lengthBytes);
  let left = range.sizeBytes;
  return {
    push: async (part, last) => {
      const text = part.subarray(0, left);
      left -= text.length;
      framer.holds(text);
      const out = (await packer.push(part, last)).flatMap((bytes) => framer.push(bytes));
      return last ? [...out, ...framer.end()] : out;
    },
  };
}

function packerFor(range: DeflatedRange): Packer {
  const packer = streamPacker(range);
  return range.picture === null ? packer : picturePacker(range, range.picture, packer);
}

function streamPacker(range: DeflatedRange): Packer {
  const { packing } = range;
  if (packing.kind === 'brotli') return brotliPacker(packing.quality);
  if (packing.kind === 'decisions') return decisionsPacker(range, packing.format);
  const deflater = deflaterFor(packing);
  return { push: (part, last) => Promise.resolve(deflater.push(part, last)) };
}

/** Turns the expanded target, pushed in order, back into the target's own bytes. */
export class Collapser {
  #range = 0;
  /** Place in the target's own bytes, as far as plain stretches go. */
  #at = 0;
  #packer: Packer | null = null;
  #taken = 0;
  #given = 0;

  constructor(private readonly ranges: readonly DeflatedRange[], private readonly emit: (bytes: Buffer) => Promise<void>) {}

  /** Takes the next bytes of the expanded target. Throws DELTA_CORRUPT when a stream does not come out at its declared length. */
  async push(chunk: Buffer): Promise<void> {
    let rest = chunk;
    for (;;) {
      const range = this.ranges[this.#range];
      const plain = Math.min(rest.length, range === undefined ? rest.length : range.offset - this.#at);
      if (plain > 0) {
        await this.emit(rest.subarray(0, plain));
        this.#at += plain;
        rest = rest.subarray(plain);
      }
      if (range === undefined || rest.length === 0) return;
      const part = rest.subarray(0, standInSize(range) - this.#taken);
      await this.#push(range, part);
      rest = rest.subarray(part.length);
    }
  }

  async #push(range: DeflatedRange, part: Buffer): Promise<void> {
    this.#packer ??= packerFor(range);
    this.#taken += part.length;
    const last = this.#taken === standInSize(range);
    for (const bytes of await this.#packer.push(part, last)) {
      this.#given += bytes.length;
      if (this.#given > range.lengthBytes) throw new WhittleError('DELTA_CORRUPT', 'a compressed stream comes out too long');
      await this.emit(bytes);
    }
    if (!last) return;
    if (this.#given !== range.lengthBytes) throw new WhittleError('DELTA_CORRUPT', 'a compressed stream comes out too short');
    this.#at += range.lengthBytes;
    this.#range++;
    this.#packer = null;
    this.#taken = 0;
    this.#given = 0;
  }
}
