import { isWhittleError, systemErrorCode, WhittleError } from '../core/errors.js';
import { deviceAddon, type NativeContent, type PatchDecoder } from '../core/native.js';
import type { BasisContent } from './basis.js';
import type { DataReader } from './data-reader.js';
import type { DeltaProfile } from './index-blob.js';
import { deltaLimits } from './limits.js';

/** Content comes in chunks of at most this size. */
const chunkBytes = 256 * 1024;
/** Parts up to this size are decoded at once: most changed files are small, and each cost two hops between threads. A slow device takes some 50 ms for it. */
const quickBytes = 8 * 1024;

/** Content in the form that native code reads. */
export function nativeContent(content: BasisContent): NativeContent {
  const extents = new Float64Array(content.extents.length * 2);
  content.extents.forEach((extent, index) => {
    extents[index * 2] = extent.offset;
    extents[index * 2 + 1] = extent.lengthBytes;
  });
  return { fd: content.fd, extents, sizeBytes: content.sizeBytes };
}

/** What decodes the streams of segments. */
export type SegmentCodec = Pick<PatchDecoder, 'segment' | 'begin' | 'next' | 'nextNow'>;

/**
 * Rebuilds patched files from the segments of the data blob, one after the other. A file is coded in one or more
 * parts; a segment holds whole parts and is read when its first part is wanted.
 */
export class SegmentDecoder {
  readonly #decoder: SegmentCodec;
  readonly #budgetBytes: number;
  #parts: number[] = [];
  #chunk = Buffer.allocUnsafeSlow(chunkBytes);
  #spare = Buffer.allocUnsafeSlow(chunkBytes);

  /** `memoryBytes` is what the delta declared; DELTA_CORRUPT when the decoder needs more. `codec`: another decoder than the device's. */
  constructor(private readonly reader: DataReader, profile: DeltaProfile, memoryBytes: number, codec?: SegmentCodec) {
    const addon = deviceAddon();
    const needBytes = addon.PatchDecoder.memoryBytes(profile);
    this.#budgetBytes = memoryBytes - needBytes;
    if (this.#budgetBytes < 0) throw new WhittleError('DELTA_CORRUPT', `the delta declares ${String(memoryBytes)} bytes of memory; its decoder needs ${String(needBytes)}`);
    this.#decoder = codec ?? new addon.PatchDecoder({ profile });
  }

  /** Bytes that one segment or one layer's metadata may take. */
  get budgetBytes(): number {
    return this.#budgetBytes;
  }

  async #nextPart(remainingBytes: number): Promise<number> {
    if (this.#parts.length === 0) {
      const count = await this.reader.varint(deltaLimits.segmentParts, 'number of parts in a segment');
      for (let index = 0; index < count; index++) this.#parts.push(await this.reader.varint(Number.MAX_SAFE_INTEGER, 'part size'));
      this.#parts.reverse();
      const size = await this.reader.varint(Math.min(deltaLimits.segmentBytes, this.#budgetBytes), 'segment size');
      const streams = await this.reader.bytes(size);
      guard(() => { this.#decoder.segment(streams); });
    }
    const part = this.#parts.pop();
    if (part === undefined || part === 0 || part > remainingBytes) throw new WhittleError('DELTA_CORRUPT', 'a part of the delta does not fit its file');
    return part;
  }

  /**
   * Rebuilds a file of `sizeBytes` from `sources`, handing out its content in order, each chunk good until the next.
   * `sources` are not read any more when it returns. Throws DELTA_CORRUPT or BASIS_DAMAGED.
   */
  async file(sources: readonly BasisContent[], sizeBytes: number, onChunk: (chunk: Buffer) => Promise<void>): Promise<void> {
    const natives = sources.map(nativeContent);
    let remaining = sizeBytes;
    while (remaining > 0) {
      const part = await this.#nextPart(remaining);
      remaining -= part;
      guard(() => { this.#decoder.begin({ sources: natives, sizeBytes: part }); });
      if (part <= quickBytes) await onChunk(this.#smallPart(part));
      else await this.#part(part, onChunk);
    }
  }

  /** All of the part that was begun. */
  #smallPart(sizeBytes: number): Buffer {
    const got = guard(() => this.#decoder.nextNow(this.#chunk));
    if (got !== sizeBytes) throw wrongSize();
    return this.#chunk.subarray(0, got);
  }

  /** Hands out the part that was begun; while one chunk is taken, the next is decoded. */
  async #part(sizeBytes: number, onChunk: (chunk: Buffer) => Promise<void>): Promise<void> {
    let left = sizeBytes;
    let ahead = this.#decoder.next(this.#chunk);
    try {
      for (;;) {
        const chunk = this.#chunk;
        const got = await ahead;
        if (got === 0 || got > left) throw wrongSize();
        left -= got;
        [this.#chunk, this.#spare] = [this.#spare, this.#chunk];
        if (left > 0) ahead = this.#decoder.next(this.#chunk);
        // It may fail before it is waited for.
        ahead.catch(ignore);
        await onChunk(chunk.subarray(0, got));
        if (left === 0) return;
      }
    } catch (error) {
      // The thread that decodes reads the sources, which the caller closes.
      await ahead.catch(ignore);
      return wrap(error);
    }
  }

  /** Throws DELTA_CORRUPT unless every part was used. */
  end(): void {
    if (this.#parts.length > 0) throw new WhittleError('DELTA_CORRUPT', 'the delta has parts that no file uses');
  }
}

function ignore(): void {
  // Whoever waits for it is told.
}

function wrongSize(): WhittleError {
  return new WhittleError('DELTA_CORRUPT', 'a part of the delta gives too few or too many bytes');
}

function guard<T>(action: () => T): T {
  try {
    return action();
  } catch (error) {
    return wrap(error);
  }
}

function wrap(error: unknown): never {
  if (isWhittleError(error)) throw error;
  const code = systemErrorCode(error);
  if (code === 'DELTA_CORRUPT' || code === 'BASIS_DAMAGED') throw new WhittleError(code, (error as Error).message, { cause: error });
  throw error;
}
