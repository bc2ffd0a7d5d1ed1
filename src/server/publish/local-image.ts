import { join, resolve } from 'node:path';
import { parseDigest } from '../../oci/index.js';
import { parseSourceSpec, type ImageSource } from '../../registry/index.js';
import { replaceFile } from '../../registry/new-file.js';
import type { LocalImage } from '../worker-protocol.js';

/** Copies of layers in a directory, each made once however many computations want it. */
export class LayerCopies {
  readonly #copies = new Map<string, Promise<string>>();

  /** `directory` is the caller's, and goes with it. */
  constructor(private readonly directory: string) {}

  /**
   * An image whose layers are all local files: those of an OCI layout directory where they are, all others copied, and
   * verified while they are. `spec` is how the user named the source. Throws what reading the image throws.
   */
  async localImage(image: ImageSource, spec: string): Promise<LocalImage> {
    const { digest, mediaType } = image.manifest.descriptor;
    const parsed = parseSourceSpec(spec);
    const layers = [];
    for (const layer of image.layers) {
      const { algorithm, hex } = parseDigest(layer.descriptor.digest);
      const path = parsed.transport === 'oci' ? join(resolve(parsed.path), 'blobs', algorithm, hex) : await this.#copy(image, layer.descriptor, `${algorithm}-${hex}`);
      layers.push({ ...layer, place: { path, sizeBytes: layer.descriptor.size } });
    }
    return { manifest: { digest, mediaType, sizeBytes: image.manifest.bytes.length }, configDigest: image.config.descriptor.digest, layers };
  }

  async #copy(image: ImageSource, descriptor: Parameters<ImageSource['openBlob']>[0], name: string): Promise<string> {
    const path = join(this.directory, name);
    const copy = this.#copies.get(name) ?? replaceFile(path, image.openBlob(descriptor)).then(() => path);
    this.#copies.set(name, copy);
    try {
      return await copy;
    } catch (error) {
      // Another source of the same layer may fare better.
      if (this.#copies.get(name) === copy) this.#copies.delete(name);
      throw error;
    }
  }
}
