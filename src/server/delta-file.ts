import { WhittleError } from '../core/errors.js';
import { deltaBlobs, deltaLimits, deltaMediaTypes, parseDeltaIndex, requireDeltaFormat, type DeltaIndex } from '../delta/index.js';
import { parseManifestOrIndex, type Descriptor, type Manifest } from '../oci/index.js';
import { LayoutReader } from '../registry/index.js';

/** A `.delta` file that is open, its manifest and index read and found to belong together. The opener closes it. */
export interface DeltaFile {
  readonly layout: LayoutReader;
  /** As the archive's own list has it. */
  readonly descriptor: Descriptor;
  readonly manifestContent: Buffer;
  readonly manifest: Manifest;
  readonly indexBlob: Descriptor;
  readonly data: Descriptor;
  readonly index: DeltaIndex;
  /** The data blob in order, verified by its digest at its end. */
  openData(): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

/** Opens a `.delta` file. Throws IMAGE_NOT_FOUND, IMAGE_INVALID, IMAGE_UNREADABLE, DIGEST_MISMATCH, DELTA_CORRUPT, DELTA_VERSION. */
export async function openDeltaFile(path: string): Promise<DeltaFile> {
  const layout = await LayoutReader.openArchive(path);
  try {
    for (const descriptor of layout.index.manifests) {
      const manifestContent = await layout.readManifest(descriptor);
      const manifest = parseManifestOrIndex(manifestContent, `manifest ${descriptor.digest} of ${layout.name}`, descriptor.mediaType);
      if (manifest.kind === 'manifest' && manifest.artifactType === deltaMediaTypes.artifact) return await read(layout, { descriptor, manifestContent, manifest });
    }
  } catch (error) {
    await layout.close();
    throw error;
  }
  await layout.close();
  throw new WhittleError('IMAGE_NOT_FOUND', `${layout.name} holds no delta`, { hint: 'Make one with: delta-server compute BASIS TARGET -o FILE.delta' });
}

async function read(layout: LayoutReader, listed: Pick<DeltaFile, 'descriptor' | 'manifestContent' | 'manifest'>): Promise<DeltaFile> {
  const blobs = deltaBlobs(listed.manifest.layers);
  if (blobs === null) throw notWhole(layout, 'its manifest does not list one index and one data blob');
  requireDeltaFormat(blobs.version);
  const { index: indexBlob, data } = blobs;
  const index = parseDeltaIndex(await layout.readBlob(indexBlob, deltaLimits.indexBytes));
  if (index.dataSizeBytes !== data.size) throw notWhole(layout, `its index speaks of ${String(index.dataSizeBytes)} bytes of data, its manifest of ${String(data.size)}`);
  return { ...listed, layout, indexBlob, data, index, openData: () => layout.openBlob(data), close: () => layout.close() };
}

/** The error for a `.delta` file whose parts do not belong together. */
export function notWhole(layout: LayoutReader, what: string): WhittleError {
  return new WhittleError('DELTA_CORRUPT', `${layout.name} is no whole .delta file: ${what}`, { hint: 'Make it again with: delta-server compute BASIS TARGET -o FILE.delta' });
}
