import { randomUUID } from 'node:crypto';
import { read } from 'node:fs';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { createInflateRaw } from 'node:zlib';
import { WhittleError } from '../core/errors.js';
import type { BasisContent } from './basis.js';
import type { InflatedRange } from './expansion.js';
import { framedStretches } from './picture.js';

const readAsync = promisify(read);

/** A file without a name in `directory`: gone when it is closed or the process ends. The caller closes it. */
export async function scratchFile(directory: string): Promise<FileHandle> {
  const path = join(directory, `.whittle-scratch-${randomUUID()}`);
  const file = await open(path, 'wx+', 0o600);
  await unlink(path);
  return file;
}

const readBytes = 256 * 1024;

/** The error for content of the basis that is shorter than it says. */
export function basisTooShort(): WhittleError {
  return new WhittleError('BASIS_DAMAGED', 'content of the basis ends too early');
}

/** A stretch of a content, piece by piece. */
async function* stretch(content: BasisContent, offset: number, lengthBytes: number): AsyncGenerator<Buffer> {
  let at = 0;
  for (const extent of content.extents) {
    let from = Math.max(offset, at);
    const to = Math.min(offset + lengthBytes, at + extent.lengthBytes);
    while (from < to) {
      const { bytesRead, buffer } = await readAsync(content.fd, Buffer.allocUnsafe(readBytes), 0, Math.min(readBytes, to - from), extent.offset + from - at);
      if (bytesRead === 0) throw basisTooShort();
      yield buffer.subarray(0, bytesRead);
      from += bytesRead;
    }
    at += extent.lengthBytes;
  }
}

/**
 * The inflated ranges of `sources`, one after the other, as content in a scratch file in `directory`, which goes
 * with `close()`. Throws DELTA_CORRUPT when a range is no deflate stream of its size, BASIS_DAMAGED when a source ends
 * too early.
 */
export async function inflatedContent(ranges: readonly InflatedRange[], sources: readonly BasisContent[], directory: string): Promise<BasisContent> {
  const file = await scratchFile(directory);
  try {
    await inflateRanges(ranges, sources, file);
  } catch (error) {
    await file.close();
    throw error;
  }
  return wholeFile(file, ranges.reduce((sum, range) => sum + range.sizeBytes, 0));
}

/** `bytes` as content in a scratch file in `directory`, which goes with `close()`. */
export async function scratchContent(bytes: Buffer, directory: string): Promise<BasisContent> {
  const file = await scratchFile(directory);
  try {
    await file.writeFile(bytes);
  } catch (error) {
    await file.close();
    throw error;
  }
  return wholeFile(file, bytes.length);
}

/** All of a file as content; `close()` closes the file. */
export function wholeFile(file: FileHandle, sizeBytes: number): BasisContent {
  return { fd: file.fd, extents: [{ offset: 0, lengthBytes: sizeBytes }], sizeBytes, close: () => file.close() };
}

/** The compressed stream of a range, piece by piece. */
async function* streamOf({ offset, lengthBytes, chunkBytes }: InflatedRange, source: BasisContent): AsyncGenerator<Buffer> {
  const stretches = chunkBytes === 0 ? [{ offset: 0, lengthBytes }] : framedStretches(lengthBytes, chunkBytes);
  for (const part of stretches) yield* stretch(source, offset + part.offset, part.lengthBytes);
}

/**
 * Writes the inflated ranges, one after the other, to `out`. Throws DELTA_CORRUPT when a range is no deflate stream
 * of the declared size: never more than that size is written.
 */
async function inflateRanges(ranges: readonly InflatedRange[], sources: readonly BasisContent[], out: FileHandle): Promise<void> {
  for (const range of ranges) {
    const source = sources[range.source];
    if (source === undefined || range.offset + range.lengthBytes > source.sizeBytes) throw notDeflate();
    let size = 0;
    const inflate = createInflateRaw({ chunkSize: readBytes });
    const input = Readable.from(streamOf(range, source));
    input.on('error', (error) => { inflate.destroy(error); });
    input.pipe(inflate);
    try {
      for await (const chunk of inflate as AsyncIterable<Buffer>) {
        size += chunk.length;
        if (size > range.sizeBytes) throw notDeflate();
        await out.write(chunk);
      }
    } catch (error) {
      throw String((error as { code?: unknown }).code).startsWith('Z_') ? notDeflate(error) : error;
    } finally {
      input.destroy();
    }
    if (size !== range.sizeBytes) throw notDeflate();
  }
}

function notDeflate(cause?: unknown): WhittleError {
  return new WhittleError('DELTA_CORRUPT', 'the delta inflates content that is no compressed stream of that size', { cause });
}
