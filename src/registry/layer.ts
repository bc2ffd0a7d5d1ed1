import { maxLayerTarBytes } from '../core/limits.js';
import { WhittleError } from '../core/errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import { DigestVerifier } from '../oci/digest.js';
import { gunzip, peek, sniffPacking, unzstd } from './decompress.js';
import { verifiedBytes } from './verify.js';

/** A layer of an image: the blob as it is carried, and the digest of the tar in it. */
export interface ImageLayer {
  readonly descriptor: Descriptor;
  readonly diffId: string;
}

/** How large a layer may be. */
export interface LayerTarOptions {
  /** Largest tar, in bytes; above it LIMIT_EXCEEDED. */
  readonly maxTarBytes?: number | undefined;
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

/**
 * The uncompressed bytes of a layer blob as they come, whatever its media type says of its packing. Reads `blob` to its
 * end. Throws IMAGE_INVALID for damaged packing, IMAGE_MEDIA_TYPE for one that is not read, LIMIT_EXCEEDED when it unpacks
 * to more than `maxTarBytes`, and what `blob` throws. Proves nothing: that is done by whoever knows the digests.
 */
export function unpackLayer(blob: AsyncIterable<Buffer>, what: string, maxTarBytes = maxLayerTarBytes): AsyncGenerator<Buffer, void, void> {
  return bounded(unpack(blob, what), what, maxTarBytes);
}

/**
 * The uncompressed tar of a layer out of the bytes of its blob, whatever its media type says of its packing. Verified
 * twice: the iteration ends normally only when the blob has its descriptor's size and digest and the tar has the
 * diffID. Throws DIGEST_MISMATCH, LAYER_MISMATCH, IMAGE_INVALID (damaged packing), IMAGE_MEDIA_TYPE, LIMIT_EXCEEDED.
 */
export async function* layerTar(blob: AsyncIterable<Buffer>, layer: ImageLayer, options: LayerTarOptions = {}): AsyncGenerator<Buffer, void, void> {
  const { descriptor, diffId } = layer;
  const what = `layer ${descriptor.digest}`;
  const maxBytes = options.maxTarBytes ?? maxLayerTarBytes;
  const verified = verifiedBytes(blob, descriptor, what);
  // A plain tar's digest is its diffID: proved once, and never mistaken for something packed.
  if (descriptor.digest === diffId) return yield* bounded(verified, what, maxBytes);
  const verifier = new DigestVerifier(diffId);
  for await (const piece of unpackLayer(verified, what, maxBytes)) {
    verifier.update(piece);
    yield piece;
  }
  if (!verifier.matches()) throw new WhittleError('LAYER_MISMATCH', `${what} does not unpack to its diffID ${diffId}`, { data: { digest: descriptor.digest, diffId } });
}

async function* bounded(source: AsyncIterable<Buffer>, what: string, maxBytes: number): AsyncGenerator<Buffer, void, void> {
  let sizeBytes = 0;
  for await (const piece of source) {
    sizeBytes += piece.length;
    if (sizeBytes > maxBytes) throw new WhittleError('LIMIT_EXCEEDED', `${what} unpacks to more than ${String(maxBytes)} bytes`);
    yield piece;
  }
}
