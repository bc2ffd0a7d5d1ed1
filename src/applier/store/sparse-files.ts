import type { DurableFs, FsPath } from '../../atomic/index.js';
import type { TarHeader } from '../../tar/index.js';
import { readSparseMap, sparseLayout } from './sparse.js';

const copyBytes = 256 * 1024;

/**
 * Makes the file `to` of a PAX 1.0 sparse entry from its data section in the file `from`. A section whose map makes no
 * sense is itself the file.
 */
export async function expandSparse(fs: DurableFs, from: FsPath, to: FsPath, header: TarHeader): Promise<void> {
  const sizeBytes = sparseLayout(header)?.sizeBytes ?? 0;
  const source = await fs.open(from, 'read');
  try {
    const map = await readSparseMap((buffer, offset) => source.read(buffer, offset), header.sizeBytes, sizeBytes);
    const target = await fs.open(to, 'create');
    try {
      await target.truncate(map === undefined ? header.sizeBytes : sizeBytes);
      const buffer = Buffer.allocUnsafe(copyBytes);
      let at = map?.dataOffset ?? 0;
      for (const extent of map?.extents ?? [{ offset: 0, lengthBytes: header.sizeBytes }]) {
        for (let done = 0; done < extent.lengthBytes;) {
          const got = await source.read(buffer.subarray(0, Math.min(copyBytes, extent.lengthBytes - done)), at);
          if (got === 0) return;
          await target.write(buffer.subarray(0, got), extent.offset + done);
          done += got;
          at += got;
        }
      }
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}
