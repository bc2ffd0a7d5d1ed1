import type { DurableFile, DurableFs, FsPath } from '../../atomic/index.js';
import { headerSparseMap, sparseMap, type SparseExtent, type SparseMap, type TarHeader } from '../../tar/index.js';
import { storeLimits } from './limits.js';

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

/** The map of a PAX 1.0 sparse entry, from the start of its data section. Throws TAR_CORRUPT. */
function mapOf(source: DurableFile, header: TarHeader): Promise<SparseMap | null> {
  return sparseMap(header, async (count) => {
    const prefix = Buffer.alloc(count);
    return prefix.subarray(0, await source.read(prefix, 0));
  });
}

/** Makes the file `to` of a PAX 1.0 sparse entry from its data section in the file `from`. Throws TAR_CORRUPT. */
export async function expandSparse(fs: DurableFs, from: FsPath, to: FsPath, header: TarHeader): Promise<void> {
  const source = await fs.open(from, 'read');
  try {
    const map = await mapOf(source, header);
    if (map === null) return;
    const target = await fs.open(to, 'create');
    try {
      await target.truncate(map.realSizeBytes);
      for await (const { offset, data } of extentsOf(source, map)) await target.write(data, offset);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** Whether the file `to` is what `expandSparse` made of `from`: its size, its extents and its holes (see `areHolesEmpty`). System errors pass. */
export async function isExpansion(fs: DurableFs, from: FsPath, to: FsPath, header: TarHeader): Promise<boolean> {
  const source = await fs.open(from, 'read');
  try {
    const map = await mapOf(source, header).catch(() => null);
    const target = await fs.open(to, 'read');
    try {
      if (map === null || (await target.stat()).sizeBytes !== map.realSizeBytes) return false;
      const there = Buffer.allocUnsafe(copyBytes);
      for await (const { offset, data } of extentsOf(source, map)) {
        const got = await target.read(there.subarray(0, data.length), offset);
        if (got !== data.length || !there.subarray(0, got).equals(data)) return false;
      }
      return await holesAreEmpty(target, map.realSizeBytes, map.extents);
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** Whether the holes of an expanded file read as zeros; true without a look when there is more of them than storeLimits.maxReadHoleBytes. System errors pass. */
export async function areHolesEmpty(fs: DurableFs, path: FsPath, { sizeBytes, extents }: SparseLayout): Promise<boolean> {
  const file = await fs.open(path, 'read');
  try {
    return await holesAreEmpty(file, sizeBytes, extents ?? []);
  } finally {
    await file.close();
  }
}

async function holesAreEmpty(file: DurableFile, sizeBytes: number, extents: readonly SparseExtent[]): Promise<boolean> {
  const dataBytes = extents.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  if (sizeBytes - dataBytes > storeLimits.maxReadHoleBytes) return true;
  const zeros = Buffer.alloc(copyBytes);
  const there = Buffer.allocUnsafe(copyBytes);
  let at = 0;
  for (const { offset, lengthBytes } of [...extents, { offset: sizeBytes, lengthBytes: 0 }]) {
    while (at < offset) {
      const wanted = Math.min(copyBytes, offset - at);
      const got = await file.read(there.subarray(0, wanted), at);
      if (got !== wanted || !there.subarray(0, got).equals(zeros.subarray(0, got))) return false;
      at += got;
    }
    at = offset + lengthBytes;
  }
  return true;
}

/** The data of a data section with its place in the expanded file. Valid until the next is asked for. */
async function* extentsOf(source: DurableFile, map: SparseMap): AsyncGenerator<{ offset: number; data: Buffer }, void, undefined> {
  const buffer = Buffer.allocUnsafe(copyBytes);
  let at = map.dataPrefixBytes;
  for (const { offset, lengthBytes } of map.extents) {
    for (let done = 0; done < lengthBytes;) {
      const got = await source.read(buffer.subarray(0, Math.min(copyBytes, lengthBytes - done)), at);
      if (got === 0) return;
      yield { offset: offset + done, data: buffer.subarray(0, got) };
      done += got;
      at += got;
    }
  }
}
