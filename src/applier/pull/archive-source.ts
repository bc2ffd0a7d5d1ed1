import { Readable } from 'node:stream';
import { isWhittleError, WhittleError } from '../../core/errors.js';
import { deltaMediaTypes } from '../../delta/index.js';
import { isDigest, parseManifestOrIndex, type Descriptor } from '../../oci/index.js';
import { LayoutReader } from '../../registry/index.js';
import type { ImageSource, ServedManifest } from './image-source.js';

/**
 * An OCI archive (or layout directory) as the source of a pull: a `.delta` file, or a whole image. The image's name
 * need not be in it: without an entry of that tag, the only image or the delta's subject is taken. The caller closes
 * it. Throws IMAGE_*.
 */
export async function archiveSource(kind: 'oci-archive' | 'oci', path: string): Promise<ImageSource> {
  const layout = kind === 'oci' ? await LayoutReader.openDirectory(path) : await LayoutReader.openArchive(path);
  try {
    return new ArchiveSource(layout, await readDeltas(layout));
  } catch (error) {
    await layout.close();
    throw error;
  }
}

/** A delta in the archive, and the manifest that it makes. */
interface ArchivedDelta {
  readonly descriptor: Descriptor;
  readonly subject: Descriptor;
}

async function readDeltas(layout: LayoutReader): Promise<ArchivedDelta[]> {
  const deltas: ArchivedDelta[] = [];
  for (const descriptor of layout.index.manifests) {
    const parsed = parseManifestOrIndex(await layout.readManifest(descriptor), layout.name, descriptor.mediaType);
    if (parsed.kind !== 'manifest' || parsed.artifactType !== deltaMediaTypes.artifact || parsed.subject === undefined) continue;
    deltas.push({ descriptor: { ...descriptor, artifactType: parsed.artifactType, annotations: parsed.annotations }, subject: parsed.subject });
  }
  return deltas;
}

class ArchiveSource implements ImageSource {
  constructor(private readonly layout: LayoutReader, private readonly archived: readonly ArchivedDelta[]) {}

  get name(): string {
    return this.layout.name;
  }

  async manifest(target: string): Promise<ServedManifest> {
    const descriptor = isDigest(target) ? await this.#byDigest(target) : this.#byTag(target);
    const bytes = await this.layout.readManifest(descriptor);
    return { digest: descriptor.digest, mediaType: descriptor.mediaType, bytes };
  }

  async #byDigest(digest: string): Promise<Descriptor> {
    const known = [...this.layout.index.manifests, ...this.archived.map(({ subject }) => subject)].find((each) => each.digest === digest);
    if (known !== undefined) return known;
    // One of an index's own entries: the document says itself what it is.
    const size = await this.layout.blobSize(digest);
    if (size === undefined) throw new WhittleError('IMAGE_NOT_FOUND', `${this.name} does not hold ${digest}`);
    return { mediaType: 'application/octet-stream', digest, size };
  }

  #byTag(tag: string): Descriptor {
    try {
      return this.layout.select(tag);
    } catch (error) {
      if (!isWhittleError(error) || error.code !== 'IMAGE_NOT_FOUND') throw error;
      const artifacts = new Set(this.archived.map(({ descriptor }) => descriptor.digest));
      const images = this.layout.index.manifests.filter((each) => !artifacts.has(each.digest));
      const targets = new Map([...images, ...this.archived.map(({ subject }) => subject)].map((each) => [each.digest, each]));
      const [only] = targets.values();
      if (only === undefined || targets.size > 1) throw error;
      return only;
    }
  }

  async holds(digest: string): Promise<boolean> {
    return (await this.layout.blobSize(digest)) !== undefined;
  }

  blob(descriptor: Descriptor): ReturnType<ImageSource['blob']> {
    return {
      name: `${descriptor.digest} from ${this.name}`,
      // A local file always begins at its beginning; what is spooled already is skipped by the reader.
      open: async () => {
        const sizeBytes = await this.layout.blobSize(descriptor.digest);
        if (sizeBytes === undefined) throw this.#missing(descriptor.digest);
        return { status: 200, header: (name) => (name === 'content-length' ? String(sizeBytes) : undefined), body: Readable.from(this.layout.openBlob(descriptor)) };
      },
    };
  }

  #missing(digest: string): WhittleError {
    if (this.archived.length === 0) return new WhittleError('BLOB_MISSING', `${this.name} does not hold ${digest}`, { data: { digest } });
    return new WhittleError('BLOB_MISSING', `${this.name} holds a delta, which cannot be used here, and not the layer ${digest}`, {
      data: { digest }, hint: 'Take a .delta file that starts from an image which "device images" shows, or pull from a registry.',
    });
  }

  deltas(subject: string): ReturnType<ImageSource['deltas']> {
    const descriptors = this.archived.filter((each) => each.subject.digest === subject).map((each) => each.descriptor);
    return Promise.resolve({ kind: 'ready', descriptors, sizeBytes: 0 });
  }

  async close(): Promise<void> {
    await this.layout.close();
  }
}
