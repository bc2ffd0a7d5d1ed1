import { WhittleError } from '../../core/errors.js';
import { maxConfigBytes } from '../../core/limits.js';
import { deltaLimits, deltaMediaTypes, parseDeltaIndex, type DeltaIndex } from '../../delta/index.js';
import { parseManifestOrIndex, type Descriptor } from '../../oci/index.js';
import { LayoutReader } from '../../registry/index.js';

/** A `.delta` file that is open. The opener closes it. */
export interface DeltaFile {
  readonly index: DeltaIndex;
  readonly manifestBytes: number;
  readonly indexBytes: number;
  readonly dataBytes: number;
  /** The data blob in order, verified by its digest at its end. */
  openData(): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

/** Opens a `.delta` file. Throws IMAGE_NOT_FOUND, IMAGE_INVALID, IMAGE_UNREADABLE, DIGEST_MISMATCH, DELTA_CORRUPT, DELTA_VERSION. */
export async function openDeltaFile(path: string): Promise<DeltaFile> {
  const layout = await LayoutReader.openArchive(path);
  try {
    return await read(layout);
  } catch (error) {
    await layout.close();
    throw error;
  }
}

async function read(layout: LayoutReader): Promise<DeltaFile> {
  for (const descriptor of layout.index.manifests) {
    const bytes = await layout.readManifest(descriptor);
    const parsed = parseManifestOrIndex(bytes, `manifest ${descriptor.digest} of ${layout.name}`, descriptor.mediaType);
    if (parsed.kind !== 'manifest' || parsed.artifactType !== deltaMediaTypes.artifact) continue;
    const blob = (mediaType: string): Descriptor => {
      const found = parsed.layers.find((layer) => layer.mediaType === mediaType);
      if (found === undefined) throw new WhittleError('DELTA_CORRUPT', `${layout.name}: the delta's manifest names no ${mediaType}`);
      return found;
    };
    const data = blob(deltaMediaTypes.data);
    const indexBytes = await layout.readBlob(blob(deltaMediaTypes.index), Math.max(maxConfigBytes, deltaLimits.indexBytes));
    const index = parseDeltaIndex(indexBytes);
    if (index.dataSizeBytes !== data.size) throw new WhittleError('DELTA_CORRUPT', `${layout.name}: the delta's index speaks of ${String(index.dataSizeBytes)} bytes of data, its manifest of ${String(data.size)}`);
    return {
      index, manifestBytes: bytes.length, indexBytes: indexBytes.length, dataBytes: data.size,
      openData: () => layout.openBlob(data), close: () => layout.close(),
    };
  }
  throw new WhittleError('IMAGE_NOT_FOUND', `${layout.name} holds no delta`, { hint: 'Make one with: delta-server compute BASIS TARGET -o FILE.delta' });
}
