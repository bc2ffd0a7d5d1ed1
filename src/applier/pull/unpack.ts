import { Readable, type Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { DecompressStream } from 'zstd-napi';
import { maxLayerTarBytes, maxZstdWindowLog } from '../../core/limits.js';
import { isWhittleError, WhittleError } from '../../core/errors.js';
import type { LayerCompression } from '../../oci/index.js';

/**
 * The uncompressed bytes of a layer blob, as they come. Ends when the compressed stream ends; what follows it is
 * left unread. Throws TAR_CORRUPT when it is no such stream, LIMIT_EXCEEDED when it unpacks to too much, and what
 * `packed` throws.
 */
export async function* unpackLayer(packed: AsyncIterable<Buffer>, compression: LayerCompression, what: string): AsyncGenerator<Buffer, void, void> {
  let total = 0;
  for await (const chunk of compression === 'none' ? packed : throughStream(packed, decompressor(compression), what)) {
    total += chunk.length;
    if (total > maxLayerTarBytes) throw new WhittleError('LIMIT_EXCEEDED', `${what} unpacks to more than ${String(maxLayerTarBytes)} bytes`);
    yield chunk;
  }
}

function decompressor(compression: 'gzip' | 'zstd'): Transform {
  return compression === 'gzip' ? createGunzip({ chunkSize: 64 * 1024 }) : new DecompressStream({ windowLogMax: maxZstdWindowLog });
}

async function* throughStream(packed: AsyncIterable<Buffer>, stream: Transform, what: string): AsyncGenerator<Buffer, void, void> {
  // One chunk in flight: the reader of this generator sets the pace of the whole chain.
  const feed: { error: unknown } = { error: undefined };
  const feeding = pipeline(Readable.from(packed, { highWaterMark: 1 }), stream).catch((error: unknown) => { feed.error = error; });
  try {
    for await (const chunk of stream) yield chunk as Buffer;
  } catch (error) {
    await feeding;
    if (isWhittleError(feed.error)) throw feed.error;
    if (isWhittleError(error)) throw error;
    throw new WhittleError('TAR_CORRUPT', `${what} cannot be unpacked: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  } finally {
    stream.destroy();
    await feeding;
  }
}
