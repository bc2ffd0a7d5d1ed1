import type { DurableFs, FsPath } from '../../atomic/index.js';
import { headerSparseMap, sparseMap, type SparseExtent, type TarHeader } from '../../tar/index.js';

const gnuSparse = 0x53;
const copyBytes = 256 * 1024;

/** How the data section of a sparse entry makes a file. */
export interface SparseLayout {
  /** Size of the expanded file; 0 when only the data section tells. */
  readonly sizeBytes: number;
  /** Where the data goes, ascending, not overlapping; null when the data section itself starts with the map (PAX form 1.0). */
  readonly extents: readonly SparseExtent[] | null;
}

/** The layout of a sparse entry; undefined for all others. Throws TAR_CORRUPT. */
export function sparseLayout(header: TarHeader): SparseLayout | undefined {
  if (header.pax.length === 0 && header.typeflag !== gnuSparse) return undefined;
  const map = headerSparseMap(header);
  if (map === null) return undefined;
  return map === 'inData' ? { sizeBytes: 0, extents: null } : { sizeBytes: map.realSizeBytes, extents: map.extents };
}

/** Makes the file `to` of a PAX 1.0 sparse entry from its data section in the file `from`. Throws TAR_CORRUPT. */
export async function expandSparse(fs: DurableFs, from: FsPath, to: FsPath, header: TarHeader): Promise<void> {
  const source = await fs.open(from, 'read');
  try {
    const map = await sparseMap(header, async (count) => {
      const prefix = Buffer.alloc(count);
      return prefix.subarray(0, await source.read(prefix, 0));
    });
    if (map === null) return;
    const target = await fs.open(to, 'create');
    try {
      await target.truncate(map.realSizeBytes);
      const buffer = Buffer.allocUnsafe(copyBytes);
      let at = map.dataPrefixBytes;
      for (const { offset, lengthBytes } of map.extents) {
        for (let done = 0; done < lengthBytes;) {
          const got = await source.read(buffer.subarray(0, Math.min(copyBytes, lengthBytes - done)), at);
          if (got === 0) return;
          await target.write(buffer.subarray(0, got), offset + done);
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
