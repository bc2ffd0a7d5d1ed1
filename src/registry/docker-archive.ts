import { createHash } from 'node:crypto';
import { maxConfigBytes, maxLayers, maxManifestBytes } from '../core/limits.js';
import { WhittleError } from '../core/errors.js';
import { formatList } from '../core/format.js';
import type { Descriptor } from '../oci/descriptor.js';
import { sha256Digest } from '../oci/digest.js';
import { JsonFields, parseJsonObject } from '../oci/json.js';
import { parseConfig } from '../oci/manifest.js';
import { mediaTypes } from '../oci/media-types.js';
import { formatReference, isTag, parseReference, referenceTag } from '../oci/reference.js';
import type { ArchiveFile } from './archive-index.js';
import { sniffPacking } from './decompress.js';
import { fileRange, readAt } from './file-bytes.js';
import type { ContentReader } from './image-source.js';
import { openArchive, type OpenArchive } from './layout-reader.js';
import { collectVerified, verifiedBytes } from './verify.js';

const maxImages = 4096;

/** One image of `manifest.json`. */
interface SavedImage {
  readonly config: string;
  readonly tags: readonly string[];
  readonly layers: readonly string[];
}

/** What `docker save` wrote, open for reading, with a manifest made for it. */
export interface DockerArchive {
  readonly content: ContentReader;
  /** Descriptor of the manifest that was made; `content` holds its bytes. */
  readonly manifest: Descriptor;
}

function parseSaved(bytes: Buffer, path: string): readonly SavedImage[] {
  const what = `${path}: manifest.json`;
  // The document is an array; wrapped in an object it goes through the same checks as every other.
  const wrapped = Buffer.concat([Buffer.from('{"images":'), bytes, Buffer.from('}')]);
  const fields = new JsonFields(parseJsonObject(wrapped, what, maxManifestBytes + 16), what);
  return fields.objects('images', maxImages).map((image) => ({
    config: image.string('Config'), tags: image.strings('RepoTags', maxImages), layers: image.strings('Layers', maxLayers),
  }));
}

/** The full form of an image name, `latest` included; a name that is none stays as it is. */
function fullName(name: string): string {
  try {
    const reference = parseReference(name);
    return formatReference({ ...reference, tag: referenceTag(reference) });
  } catch {
    return name;
  }
}

function selectSaved(images: readonly SavedImage[], wanted: string | undefined, path: string): SavedImage {
  const named = (name: string): readonly SavedImage[] => images.filter((image) => image.tags.some((tag) => fullName(tag) === fullName(name)));
  const tagged = (tag: string): readonly SavedImage[] => images.filter((image) => image.tags.some((each) => each.endsWith(`:${tag}`)));
  const exact = wanted === undefined ? images : named(wanted);
  const found = exact.length === 0 && wanted !== undefined && isTag(wanted) ? tagged(wanted) : exact;
  const [only, ...others] = found;
  if (only !== undefined && others.length === 0) return only;
  const has = formatList(images.flatMap((image) => image.tags), 'no names');
  const problem = found.length === 0 ? `has no image ${wanted ?? ''}` : `holds ${String(found.length)} images that fit; name one`;
  throw new WhittleError('IMAGE_NOT_FOUND', `docker-archive:${path} ${problem} (it has ${has})`);
}

class Saved {
  readonly #files = new Map<string, ArchiveFile>();
  readonly #manifests = new Map<string, Buffer>();

  constructor(
    private readonly archive: OpenArchive,
    private readonly path: string,
  ) {}

  file(name: string): ArchiveFile {
    const file = this.archive.index.find(name);
    if (file === undefined) throw new WhittleError('BLOB_MISSING', `docker-archive:${this.path} lacks ${JSON.stringify(name.slice(0, 200))}`);
    return file;
  }

  async read(name: string, maxBytes: number): Promise<Buffer> {
    const { offset, sizeBytes } = this.file(name);
    if (sizeBytes > maxBytes) throw new WhittleError('LIMIT_EXCEEDED', `${this.path}: ${name} has ${String(sizeBytes)} bytes, the limit is ${String(maxBytes)}`);
    return readAt(this.archive.handle, offset, sizeBytes, this.path);
  }

  /** The descriptor of a layer file. Plain tars have their diffID for a digest; packed ones are hashed here. */
  async layer(name: string, diffId: string): Promise<Descriptor> {
    const file = this.file(name);
    const packing = sniffPacking(await readAt(this.archive.handle, file.offset, Math.min(6, file.sizeBytes), this.path));
    const type = packing === 'gzip' ? mediaTypes.ociLayerGzip : packing === 'zstd' ? mediaTypes.ociLayerZstd : mediaTypes.ociLayerTar;
    const digest = packing === 'none' ? diffId : await this.#hash(file);
    this.#files.set(digest, file);
    return { mediaType: type, digest, size: file.sizeBytes };
  }

  async #hash(file: ArchiveFile): Promise<string> {
    const hash = createHash('sha256');
    for await (const chunk of fileRange(this.archive.handle, file.offset, file.sizeBytes, this.path)) hash.update(chunk);
    return `sha256:${hash.digest('hex')}`;
  }

  addFile(digest: string, name: string): void {
    this.#files.set(digest, this.file(name));
  }

  addManifest(bytes: Buffer): Descriptor {
    const digest = sha256Digest(bytes);
    this.#manifests.set(digest, bytes);
    return { mediaType: mediaTypes.ociManifest, digest, size: bytes.length };
  }

  reader(): ContentReader {
    const what = (descriptor: Descriptor): string => `blob ${descriptor.digest} of docker-archive:${this.path}`;
    const bytes = (descriptor: Descriptor): AsyncIterable<Buffer> => this.#bytes(descriptor);
    return {
      readManifest: (descriptor) => collectVerified(bytes(descriptor), descriptor, what(descriptor), maxManifestBytes),
      readBlob: (descriptor, maxBytes) => collectVerified(bytes(descriptor), descriptor, what(descriptor), maxBytes),
      openBlob: (descriptor) => verifiedBytes(bytes(descriptor), descriptor, what(descriptor)),
      close: () => this.archive.handle.close(),
    };
  }

  async *#bytes({ digest }: Descriptor): AsyncGenerator<Buffer, void, void> {
    const made = this.#manifests.get(digest);
    const file = this.#files.get(digest);
    if (made !== undefined) yield made;
    else if (file !== undefined) yield* fileRange(this.archive.handle, file.offset, file.sizeBytes, this.path);
    else throw new WhittleError('BLOB_MISSING', `docker-archive:${this.path} lacks the blob ${digest}`);
  }
}

async function readSaved(archive: OpenArchive, path: string, name: string | undefined): Promise<DockerArchive> {
  const saved = new Saved(archive, path);
  if (archive.index.find('manifest.json') === undefined) throw new WhittleError('IMAGE_INVALID', `${path}: not what docker save writes (it has no manifest.json)`);
  const image = selectSaved(parseSaved(await saved.read('manifest.json', maxManifestBytes), path), name, path);
  const configBytes = await saved.read(image.config, maxConfigBytes);
  const { diffIds } = parseConfig(configBytes, image.layers.length, `${path}: ${image.config}`);
  const config: Descriptor = { mediaType: mediaTypes.ociConfig, digest: sha256Digest(configBytes), size: configBytes.length };
  saved.addFile(config.digest, image.config);
  const layers: Descriptor[] = [];
  for (const [at, layer] of image.layers.entries()) layers.push(await saved.layer(layer, diffIds[at]!));
  const manifest = saved.addManifest(Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociManifest, config, layers })));
  return { content: saved.reader(), manifest };
}

/**
 * Opens what `docker save` wrote (old and new form) and reads it in place. Such an archive names no manifest of the
 * image, so one is made: an OCI manifest of the config and the layer files as they stand (usually plain tars), the
 * same bytes for the same archive content. Its digest is therefore not the one that a registry knows the image by;
 * the config digest (image ID) is the image's own. Layers that are packed are read once here to learn their digest.
 * `name` selects one of several images (`repository:tag`). Throws IMAGE_NOT_FOUND, IMAGE_INVALID, BLOB_MISSING,
 * IMAGE_UNREADABLE. The caller closes `content`.
 */
export async function openDockerArchive(path: string, name: string | undefined): Promise<DockerArchive> {
  const archive = await openArchive(path);
  try {
    return await readSaved(archive, path, name);
  } catch (error) {
    await archive.handle.close();
    throw error;
  }
}
