import type { Annotations, Descriptor } from '../oci/descriptor.js';
import { sha256Digest } from '../oci/digest.js';
import { mediaTypes } from '../oci/media-types.js';
import { fileRange, openFile } from './file-bytes.js';

/** A blob to write into an archive. Its bytes are checked against the descriptor while they are written. */
export interface BlobInput {
  readonly descriptor: Descriptor;
  /** The bytes, from the beginning. Called once. */
  open(): AsyncIterable<Buffer>;
}

/** What an archive shall hold. */
export interface LayoutContents {
  /** Every blob, manifests and configs included, in the order in which they are to lie. A digest that comes again is written once. */
  readonly blobs: Iterable<BlobInput> | AsyncIterable<BlobInput>;
  /** Entries of `index.json`. */
  readonly manifests: readonly Descriptor[];
  /** Annotations of `index.json`. */
  readonly annotations?: Annotations | undefined;
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer, void, void> {
  yield await Promise.resolve(bytes);
}

/** A blob that is in memory. */
export function bufferBlob(mediaType: string, bytes: Buffer): BlobInput {
  return { descriptor: { mediaType, digest: sha256Digest(bytes), size: bytes.length }, open: () => once(bytes) };
}

/** A blob that is a file, opened when it is written. */
export function fileBlob(descriptor: Descriptor, path: string): BlobInput {
  return {
    descriptor,
    open: async function* () {
      const handle = await openFile(path);
      try {
        // One byte more than expected, so that a file that has grown is noticed.
        yield* fileRange(handle, 0, descriptor.size + 1, path);
      } finally {
        await handle.close();
      }
    },
  };
}

/** The bytes of `oci-layout`. */
export function layoutMarker(): Buffer {
  return Buffer.from('{"imageLayoutVersion":"1.0.0"}');
}

/** The bytes of `index.json`. */
export function layoutIndex({ manifests, annotations }: LayoutContents): Buffer {
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests, ...(annotations === undefined ? {} : { annotations }) }));
}
