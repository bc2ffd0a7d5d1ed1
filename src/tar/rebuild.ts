import { paddingBytes, tarCorrupt, zeroView } from './block.js';
import { joinHeader } from './header.js';
import type { LayerEntry, LayerMeta } from './types.js';

const zeroChunkBytes = 64 * 1024;

/** The raw bytes in front of an entry's content. Throws `TAR_CORRUPT` for a malformed style or residue. */
export function entryHeaderBytes(entry: LayerEntry): Buffer {
  return joinHeader(entry.header);
}

/** The bytes between an entry's content and the next header; may be a view of shared zeros: do not write into it. */
export function entryPadding(entry: LayerEntry): Buffer {
  return entry.padding ?? zeroView(paddingBytes(entry.header.sizeBytes));
}

/** The bytes after the last entry, in pieces of at most 64 KiB of shared zeros (do not write into them), or as one buffer. */
export function* trailerBytes(meta: Pick<LayerMeta, 'trailerZeroBytes' | 'trailer'>): Generator<Buffer, void, undefined> {
  if (meta.trailer !== null) {
    yield meta.trailer;
    return;
  }
  for (let left = meta.trailerZeroBytes; left > 0; left -= zeroChunkBytes) yield zeroView(Math.min(left, zeroChunkBytes));
}

async function* checkedContent(entry: LayerEntry, index: number, content: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  let seenBytes = 0;
  for await (const chunk of content) {
    seenBytes += chunk.length;
    if (seenBytes > entry.header.sizeBytes) break;
    yield chunk;
  }
  if (seenBytes !== entry.header.sizeBytes) {
    throw tarCorrupt(`content of entry ${String(index)} has ${seenBytes > entry.header.sizeBytes ? 'more' : 'fewer'} bytes than its header says`, { entry: index });
  }
}

/**
 * The tar that `meta` describes, in pieces. `content(entry)` gives the data section of an entry and is asked for those
 * with content only, in order, each when it is needed. Throws `TAR_CORRUPT` when a content has another size than its
 * header says; does not check digests: hash the pieces and compare with `meta.diffId`.
 */
export async function* rebuildTar(meta: LayerMeta, content: (entry: number) => AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, undefined> {
  for (const [index, entry] of meta.entries.entries()) {
    yield entryHeaderBytes(entry);
    if (entry.header.sizeBytes > 0) yield* checkedContent(entry, index, content(index));
    const padding = entryPadding(entry);
    if (padding.length > 0) yield padding;
  }
  yield* trailerBytes(meta);
}
