import { stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { maxManifestBytes } from '../core/limits.js';
import { WhittleError } from '../core/errors.js';
import { formatList } from '../core/format.js';
import type { Descriptor } from '../oci/descriptor.js';
import { parseDigest } from '../oci/digest.js';
import { parseJsonObject } from '../oci/json.js';
import { parseIndex, type ImageIndex } from '../oci/manifest.js';
import { mediaTypes } from '../oci/media-types.js';
import { hostPlatform, selectPlatform, type Platform } from '../oci/platform.js';
import { ArchiveIndex } from './archive-index.js';
import { sniffPacking } from './decompress.js';
import { fileBytes, fileError, fileRange, openFile, readAt } from './file-bytes.js';
import type { ContentReader } from './image-source.js';
import { collectVerified, verifiedBytes } from './verify.js';

/** A file of a layout: its size, and its bytes when wanted. */
interface LayoutFile {
  readonly sizeBytes: number;
  open(): AsyncIterable<Buffer>;
}

/** The files of a layout, in a directory or in an archive. */
interface LayoutFiles {
  /** A file by its path below the layout, or undefined. */
  find(path: string): Promise<LayoutFile | undefined>;
  close(): Promise<void>;
}

function directoryFiles(dir: string): LayoutFiles {
  return {
    find: async (path) => {
      const full = join(dir, path);
      try {
        const { size, isFile } = await stat(full).then((facts) => ({ size: facts.size, isFile: facts.isFile() }));
        return isFile ? { sizeBytes: size, open: () => fileBytes(full) } : undefined;
      } catch (error) {
        const failure = fileError(error, full);
        if (failure.code === 'IMAGE_NOT_FOUND') return undefined;
        throw failure;
      }
    },
    close: () => Promise.resolve(),
  };
}

/** An open tar archive with its index. The holder closes it. */
export interface OpenArchive {
  readonly handle: FileHandle;
  readonly index: ArchiveIndex;
}

/** Opens an uncompressed tar archive. Throws IMAGE_NOT_FOUND, IMAGE_UNREADABLE, IMAGE_INVALID. */
export async function openArchive(path: string): Promise<OpenArchive> {
  const handle = await openFile(path);
  try {
    const packing = sniffPacking(await readAt(handle, 0, 6, path));
    if (packing !== 'none') throw new WhittleError('IMAGE_INVALID', `${path} is packed with ${packing}`, { hint: `Unpack it first (${packing} -d).` });
    return { handle, index: await ArchiveIndex.read(handle, path) };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function archiveFiles(path: string): Promise<LayoutFiles> {
  const { handle, index } = await openArchive(path);
  return {
    find: (name) => {
      const file = index.find(name);
      return Promise.resolve(file === undefined ? undefined : { sizeBytes: file.sizeBytes, open: () => fileRange(handle, file.offset, file.sizeBytes, path) });
    },
    close: () => handle.close(),
  };
}

/** An OCI image layout that is open for reading. The opener calls `close()`. */
export class LayoutReader implements ContentReader {
  readonly #files: LayoutFiles;

  private constructor(
    /** How messages name it. */
    readonly name: string,
    files: LayoutFiles,
    /** What `index.json` lists. */
    readonly index: ImageIndex,
  ) {
    this.#files = files;
  }

  /** Opens the layout in a directory. Throws IMAGE_NOT_FOUND, IMAGE_INVALID, IMAGE_UNREADABLE. */
  static async openDirectory(dir: string): Promise<LayoutReader> {
    try {
      await stat(dir);
    } catch (error) {
      throw fileError(error, dir);
    }
    return LayoutReader.#open(`oci:${dir}`, directoryFiles(dir));
  }

  /** Opens the layout in a tar archive, which is read in place. A `.delta` file is one. Throws as `openDirectory`. */
  static async openArchive(path: string): Promise<LayoutReader> {
    const files = await archiveFiles(path);
    try {
      return await LayoutReader.#open(`oci-archive:${path}`, files);
    } catch (error) {
      await files.close();
      throw error;
    }
  }

  static async #open(name: string, files: LayoutFiles): Promise<LayoutReader> {
    const marker = parseJsonObject(await smallFile(files, 'oci-layout', name, 64 * 1024), `${name}: oci-layout`, 64 * 1024);
    const version = marker['imageLayoutVersion'];
    if (typeof version !== 'string' || !/^1\.[0-9]+\.[0-9]+/.test(version)) throw new WhittleError('IMAGE_INVALID', `${name}: not an OCI image layout of version 1`);
    const bytes = await smallFile(files, 'index.json', name, maxManifestBytes);
    return new LayoutReader(name, files, parseIndex(bytes, `${name}: index.json`, mediaTypes.ociIndex));
  }

  async readManifest(descriptor: Descriptor): Promise<Buffer> {
    return this.readBlob(descriptor, maxManifestBytes);
  }

  async readBlob(descriptor: Descriptor, maxBytes: number): Promise<Buffer> {
    return collectVerified(this.#bytes(descriptor), descriptor, this.#what(descriptor), maxBytes);
  }

  openBlob(descriptor: Descriptor): AsyncGenerator<Buffer, void, void> {
    return verifiedBytes(this.#bytes(descriptor), descriptor, this.#what(descriptor));
  }

  /** Size of a blob that the layout holds (unverified), or undefined. */
  async blobSize(digest: string): Promise<number | undefined> {
    return (await this.#files.find(blobPath(digest)))?.sizeBytes;
  }

  /**
   * The entry of `index.json` under a tag (`org.opencontainers.image.ref.name`, or the whole image name that
   * containerd notes there); without a tag the only entry. Of several that fit, the one for the platform.
   * Throws IMAGE_NOT_FOUND, listing the tags.
   */
  select(tag: string | undefined, platform?: Platform): Descriptor {
    const entries = tag === undefined ? this.index.manifests : entriesFor(this.index.manifests, tag);
    const [first] = entries;
    if (first === undefined || (tag === undefined && entries.length > 1)) {
      const tags = this.index.manifests.flatMap((entry) => entry.annotations?.['org.opencontainers.image.ref.name'] ?? []);
      const has = `it has ${formatList(tags, 'no tags')}`;
      throw new WhittleError('IMAGE_NOT_FOUND', tag === undefined ? `${this.name} holds ${String(entries.length)} images; name one by its tag (${has})` : `${this.name} has no tag ${tag}; ${has}`);
    }
    return entries.length === 1 ? first : selectPlatform(entries, platform ?? hostPlatform(), this.name);
  }

  async close(): Promise<void> {
    await this.#files.close();
  }

  #what(descriptor: Descriptor): string {
    return `blob ${descriptor.digest} of ${this.name}`;
  }

  async *#bytes(descriptor: Descriptor): AsyncGenerator<Buffer, void, void> {
    const file = await this.#files.find(blobPath(descriptor.digest));
    if (file === undefined) throw new WhittleError('BLOB_MISSING', `${this.name} lacks the blob ${descriptor.digest}`, { data: { digest: descriptor.digest } });
    yield* file.open();
  }
}

function blobPath(digest: string): string {
  const { algorithm, hex } = parseDigest(digest);
  return `blobs/${algorithm}/${hex}`;
}

function entriesFor(entries: readonly Descriptor[], tag: string): readonly Descriptor[] {
  const refName = (entry: Descriptor): string => entry.annotations?.['org.opencontainers.image.ref.name'] ?? '';
  const tests: readonly ((entry: Descriptor) => boolean)[] = [
    (entry) => refName(entry) === tag,
    (entry) => entry.annotations?.['io.containerd.image.name'] === tag,
    (entry) => refName(entry).endsWith(`:${tag}`),
  ];
  for (const test of tests) {
    const found = entries.filter(test);
    if (found.length > 0) return found;
  }
  return [];
}

async function smallFile(files: LayoutFiles, path: string, name: string, maxBytes: number): Promise<Buffer> {
  const file = await files.find(path);
  if (file === undefined) throw new WhittleError('IMAGE_INVALID', `${name}: not an OCI image layout (it has no ${path})`);
  if (file.sizeBytes > maxBytes) throw new WhittleError('LIMIT_EXCEEDED', `${name}: ${path} has ${String(file.sizeBytes)} bytes, the limit is ${String(maxBytes)}`);
  const chunks: Buffer[] = [];
  for await (const chunk of file.open()) chunks.push(chunk);
  return Buffer.concat(chunks);
}
