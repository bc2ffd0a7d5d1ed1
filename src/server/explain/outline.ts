import { DataReader } from '../../delta/data-reader.js';
import { deltaLimits } from '../../delta/limits.js';
import { addPart, type Parts } from './account.js';
import type { DeltaFile } from '../delta-file.js';
import { streamKinds, streamSizes } from './meter.js';

/** Bytes of the index that one frame takes: its digest. */
export const deltaFrameDigestBytes = 32;

/**
 * What a delta's data tells without its basis. Where it rebuilds one layer, the sizes of metadata and of all streams;
 * where it rebuilds several, nothing marks the place where one ends and the next begins but what only the basis lets one
 * read. Throws DELTA_CORRUPT.
 */
export async function outlineData(delta: DeltaFile): Promise<{ readonly own: Parts; readonly unknownBytes: number }> {
  const rebuilt = delta.index.layers.filter((layer) => layer.how === 'delta').length;
  if (rebuilt !== 1) return { own: {}, unknownBytes: delta.data.size };
  const own: Parts = {};
  let known = 0;
  const reader = new DataReader(delta.openData());
  try {
    const metaBytes = await reader.varint(deltaLimits.metaBytes, 'tar metadata size');
    await reader.bytes(metaBytes);
    addPart(own, 'metadata', metaBytes);
    known += metaBytes;
    while (!(await reader.atEnd())) {
      const streams = await segment(reader);
      for (const [at, kind] of streamKinds.entries()) {
        addPart(own, kind, streams[at] ?? 0);
        known += streams[at] ?? 0;
      }
    }
  } finally {
    await reader.close();
  }
  addPart(own, 'framing', delta.data.size - known);
  return { own, unknownBytes: 0 };
}

async function segment(reader: DataReader): Promise<readonly number[]> {
  const parts = await reader.varint(deltaLimits.segmentParts, 'number of parts in a segment');
  for (let part = 0; part < parts; part++) await reader.varint(Number.MAX_SAFE_INTEGER, 'part size');
  return streamSizes(await reader.bytes(await reader.varint(deltaLimits.segmentBytes, 'segment size')));
}
