import { createGunzip, type Gunzip, type ZlibOptions } from 'node:zlib';
import type { TransformOptions } from 'node:stream';
import { once } from 'node:events';
import type zstd from 'zstd-napi/binding.js';
import { maxZstdWindowLog } from '../core/limits.js';
import { isWhittleError, WhittleError } from '../core/errors.js';

/** Output comes in pieces of at most this size: large enough that the cost of one is nothing, small enough for a device. */
const pieceBytes = 256 * 1024;

/** How packed bytes begin. */
export type Packing = 'gzip' | 'zstd' | 'bzip2' | 'xz' | 'none';

/** Tells by its first bytes how content is packed. `none` for anything unknown, tar included. */
export function sniffPacking(start: Buffer): Packing {
  if (start.length >= 2 && start[0] === 0x1f && start[1] === 0x8b) return 'gzip';
  if (start.length >= 4) {
    const magic = start.readUInt32LE(0);
    // A zstd frame, or one of the 16 kinds of skippable frame that may stand before it.
    if (magic === 0xfd2fb528 || (magic & 0xfffffff0) >>> 0 === 0x184d2a50) return 'zstd';
    if (start.subarray(0, 3).toString('latin1') === 'BZh') return 'bzip2';
  }
  if (start.length >= 6 && start.subarray(0, 6).equals(Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]))) return 'xz';
  return 'none';
}

function corrupt(what: string, packing: Packing, cause?: unknown): WhittleError {
  return new WhittleError('IMAGE_INVALID', `${what}: damaged ${packing} data`, { cause });
}

/** Writes `source` into `stream`; never rejects: a failure destroys the stream with it. Reads the source to its end even when the packed data ended before. */
async function feed(source: AsyncIterable<Buffer>, stream: Gunzip, state: { error?: unknown }): Promise<void> {
  const stop = new AbortController();
  const ended = (): void => stop.abort();
  stream.once('end', ended).once('close', ended).once('error', ended);
  try {
    for await (const chunk of source) {
      if (stream.destroyed && !stream.readableEnded) break;
      if (stop.signal.aborted || stream.write(chunk)) continue;
      await once(stream, 'drain', { signal: stop.signal }).catch(() => undefined);
    }
    if (!stop.signal.aborted) stream.end();
  } catch (error) {
    state.error = error;
    stream.destroy();
  }
}

/** Unpacks gzip of any number of members. Zeros after the last one are dropped; anything else there is IMAGE_INVALID. */
export async function* gunzip(source: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer, void, void> {
  const options: ZlibOptions & TransformOptions = { chunkSize: pieceBytes, writableHighWaterMark: 4 * pieceBytes, readableHighWaterMark: 2 * pieceBytes };
  const stream = createGunzip(options);
  const state: { error?: unknown } = {};
  const feeding = feed(source, stream, state);
  let failure: unknown;
  try {
    for await (const piece of stream as AsyncIterable<Buffer>) yield piece;
  } catch (error) {
    failure = error;
  } finally {
    stream.destroy();
    await feeding;
  }
  if (state.error !== undefined) throw state.error as Error;
  if (failure !== undefined) throw isWhittleError(failure) ? failure : corrupt(what, 'gzip', failure);
}

/** Unpacks any number of zstd frames, with a bounded window (IMAGE_INVALID when a frame wants more). */
export async function* unzstd(source: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer, void, void> {
  // Its library takes longer to load than all the rest of what reads images, and few are packed so.
  const { DCtx, DParameter } = (await import('zstd-napi/binding.js')).default;
  const context = new DCtx();
  context.setParameter(DParameter.windowLogMax, maxZstdWindowLog);
  let inFrame = false;
  let output = Buffer.allocUnsafe(pieceBytes);
  let filled = 0;
  for await (const chunk of source) {
    for (let input = chunk, more = true; more;) {
      const room = output.length - filled;
      const [hint, produced, consumed] = step(context, output.subarray(filled), input, what);
      input = input.subarray(consumed);
      filled += produced;
      inFrame = hint !== 0;
      // A full output may hide more; otherwise everything that this input gives was given.
      more = input.length > 0 || (produced === room && inFrame);
      if (filled < output.length) continue;
      yield output;
      output = Buffer.allocUnsafe(pieceBytes);
      filled = 0;
    }
  }
  if (inFrame) throw corrupt(what, 'zstd');
  if (filled > 0) yield output.subarray(0, filled);
}

function step(context: zstd.DCtx, output: Buffer, input: Buffer, what: string): readonly [number, number, number] {
  try {
    return context.decompressStream(output, input);
  } catch (error) {
    throw corrupt(what, 'zstd', error);
  }
}

/** Splits off the first bytes of a stream for `sniffPacking`, and gives the stream whole again. */
export async function peek(source: AsyncIterable<Buffer>, count: number): Promise<{ start: Buffer; whole: AsyncGenerator<Buffer, void, void> }> {
  const iterator = source[Symbol.asyncIterator]();
  const held: Buffer[] = [];
  let heldBytes = 0;
  let done = false;
  while (heldBytes < count && !done) {
    const next = await iterator.next();
    if (next.done === true) done = true;
    else {
      held.push(next.value);
      heldBytes += next.value.length;
    }
  }
  return { start: Buffer.concat(held).subarray(0, count), whole: replay(held, iterator) };
}

async function* replay(held: readonly Buffer[], rest: AsyncIterator<Buffer>): AsyncGenerator<Buffer, void, void> {
  try {
    yield* held;
    for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
  } finally {
    await rest.return?.();
  }
}
