import { readSync } from 'node:fs';
import type { BasisContent } from './basis.js';

/**
 * Content piece by piece in `buffer`, each good until the next. Throws what `tooShort` makes when the file ends before the content.
 * Synchronous reads: thousands of small files cost a tenth of what promises would.
 */
export function* chunksOf(content: BasisContent, buffer: Buffer, tooShort: () => Error): Generator<Buffer, void, void> {
  for (const extent of content.extents) {
    for (let done = 0; done < extent.lengthBytes; ) {
      const got = readSync(content.fd, buffer, 0, Math.min(buffer.length, extent.lengthBytes - done), extent.offset + done);
      if (got === 0) throw tooShort();
      done += got;
      yield buffer.subarray(0, got);
    }
  }
}
