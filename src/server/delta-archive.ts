import { createReadStream } from 'node:fs';
import { deltaMediaTypes } from '../delta/index.js';
import { mediaTypes, parseDigest } from '../oci/index.js';
import { emptyConfig } from './artifact.js';
import type { ComputedArtifact } from './compute.js';
import { writeStreamDurably } from './durable.js';
import type { OpenedImage } from './sources.js';

/** The tag that the delta has within its `.delta` file. */
export const deltaArchiveTag = 'delta';

/** One file of an archive. */
interface ArchiveFile {
  readonly path: string;
  readonly sizeBytes: number;
  chunks(): AsyncIterable<Buffer> | Iterable<Buffer>;
}

/**
 * Writes a `.delta` file: an OCI archive with the delta's artifact (its `index.json` entry is tagged `delta`) and the
 * target's manifest and config. The file appears under its name only when it is whole and on disk. The same delta
 * gives the same bytes. Returns its size.
 */
export async function writeDeltaArchive(path: string, artifact: ComputedArtifact, target: OpenedImage, signal?: AbortSignal): Promise<number> {
  const { manifest, config } = target.source;
  const [emptyBlob, indexBlob, dataBlob] = artifact.manifest.blobs;
  const blobs: ArchiveFile[] = [
    blobFile(artifact.manifest.digest, artifact.manifest.bytes),
    blobFile(emptyBlob.digest, emptyConfig),
    blobFile(indexBlob.digest, artifact.index),
    { path: blobPath(dataBlob.digest), sizeBytes: artifact.dataSizeBytes, chunks: () => createReadStream(artifact.dataPath, { highWaterMark: 1 << 18 }) as AsyncIterable<Buffer> },
    blobFile(manifest.descriptor.digest, manifest.bytes),
    blobFile(config.descriptor.digest, config.bytes),
  ];
  const files = [
    memoryFile('oci-layout', Buffer.from(JSON.stringify({ imageLayoutVersion: '1.0.0' }))),
    memoryFile('index.json', layoutIndex(artifact, target)),
    ...[...new Map(blobs.map((file) => [file.path, file])).values()].sort((a, b) => (a.path < b.path ? -1 : 1)),
  ];
  return await writeStreamDurably(path, tarOf(files, signal));
}

function layoutIndex(artifact: ComputedArtifact, target: OpenedImage): Buffer {
  const { mediaType, digest, bytes, annotations } = artifact.manifest;
  const { descriptor } = target.source.manifest;
  return Buffer.from(JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    manifests: [
      { mediaType, digest, size: bytes.length, annotations: { ...annotations, 'org.opencontainers.image.ref.name': deltaArchiveTag }, artifactType: deltaMediaTypes.artifact },
      { mediaType: descriptor.mediaType, digest: descriptor.digest, size: target.source.manifest.bytes.length },
    ],
  }));
}

function blobPath(digest: string): string {
  const { algorithm, hex } = parseDigest(digest);
  return `blobs/${algorithm}/${hex}`;
}

function blobFile(digest: string, bytes: Buffer): ArchiveFile {
  return memoryFile(blobPath(digest), bytes);
}

function memoryFile(path: string, bytes: Buffer): ArchiveFile {
  return { path, sizeBytes: bytes.length, chunks: () => [bytes] };
}

const blockBytes = 512;

async function* tarOf(files: readonly ArchiveFile[], signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
  for (const file of files) {
    yield tarHeader(file);
    for await (const chunk of file.chunks()) {
      signal?.throwIfAborted();
      yield chunk;
    }
    yield Buffer.alloc((blockBytes - (file.sizeBytes % blockBytes)) % blockBytes);
  }
  yield Buffer.alloc(2 * blockBytes);
}

/** A ustar header with no owner and no time. Sizes above 8 GiB are written in base 256, as GNU tar and Go do. */
function tarHeader({ path, sizeBytes }: ArchiveFile): Buffer {
  const header = Buffer.alloc(blockBytes);
  header.write(path, 0, 100, 'latin1');
  header.write('0000644\0' + '0000000\0' + '0000000\0', 100, 'latin1');
  if (sizeBytes < 8 ** 11) {
    header.write(`${sizeBytes.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
  } else {
    header[124] = 0x80;
    header.writeBigUInt64BE(BigInt(sizeBytes), 128);
  }
  header.write('00000000000\0', 136, 'latin1');
  header.write('        0', 148, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  const checksum = header.reduce((sum, byte) => sum + byte, 0);
  header.write(`${checksum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}
