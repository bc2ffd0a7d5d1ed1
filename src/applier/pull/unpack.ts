import { maxLayerTarBytes } from '../../core/limits.js';
import { WhittleError } from '../../core/errors.js';
import { gunzip, peek, sniffPacking, unzstd } from '../../registry/index.js';

/**
 * The uncompressed bytes of a layer blob as they come, whatever its media type says of its packing. Reads `blob` to its
 * end. Throws IMAGE_INVALID for damaged packing, IMAGE_MEDIA_TYPE for one that is not read, LIMIT_EXCEEDED when it unpacks
 * to too much, and what `blob` throws. Proves nothing: that is done by whoever knows the digests.
 */
export async function* unpackLayer(blob: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer, void, void> {
  let sizeBytes = 0;
  for await (const chunk of unpack(blob, what)) {
    sizeBytes += chunk.length;
    if (sizeBytes > maxLayerTarBytes) throw new WhittleError('LIMIT_EXCEEDED', `${what} unpacks to more than ${String(maxLayerTarBytes)} bytes`);
    yield chunk;
  }
}

async function* unpack(blob: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer, void, void> {
  const { start, whole } = await peek(blob, 6);
  const packing = sniffPacking(start);
  switch (packing) {
    case 'gzip': return yield* gunzip(whole, what);
    case 'zstd': return yield* unzstd(whole, what);
    case 'none': return yield* whole;
    case 'bzip2':
    case 'xz':
      await whole.return();
      throw new WhittleError('IMAGE_MEDIA_TYPE', `${what}: layers packed with ${packing} are not supported`);
  }
}
