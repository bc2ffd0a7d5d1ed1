import { maxConfigBytes, maxLayerBlobBytes, maxManifestBytes } from '../core/limits.js';
import { WhittleError } from '../core/errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import { findManifest } from '../oci/find-manifest.js';
import { checkImageManifest, parseConfig, type ImageConfig, type Manifest } from '../oci/manifest.js';
import { formatPlatform, hostPlatform, platformMatches, type Platform } from '../oci/platform.js';
import { layerTar, type ImageLayer } from './layer.js';
import { refuseLarge } from './verify.js';

/** A document of an image: its descriptor, its exact bytes, and what they say. */
export interface ImageDocument<T> {
  readonly descriptor: Descriptor;
  readonly bytes: Buffer;
  readonly parsed: T;
}

/** One image for one platform, wherever it lives. Opened by `openSource`; the opener calls `close()`. */
export interface ImageSource {
  /** How the user named it, fit for messages. */
  readonly name: string;
  readonly manifest: ImageDocument<Manifest>;
  readonly config: ImageDocument<ImageConfig>;
  /** Bottom layer first, as the manifest lists them; a layer may be listed twice. */
  readonly layers: readonly ImageLayer[];
  /** Bytes of a blob of this image as carried (compressed). Ends normally only when digest and size were right. */
  openBlob(descriptor: Descriptor): AsyncIterable<Buffer>;
  /** Uncompressed tar of layer `at`. Ends normally only when the blob's digest and the diffID were right. See `layerTar`. */
  openLayerTar(at: number): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

/** Where the content of images is read from. Everything it gives is verified against the descriptor. */
export interface ContentReader {
  /** A manifest or index in memory. */
  readManifest(descriptor: Descriptor): Promise<Buffer>;
  /** A small blob in memory; LIMIT_EXCEEDED above `maxBytes`. */
  readBlob(descriptor: Descriptor, maxBytes: number): Promise<Buffer>;
  openBlob(descriptor: Descriptor): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

/** Which image is taken of what a name leads to, and how large its layers may be. */
export interface AssembleOptions {
  /** Which image of an index; also checked against a single image when given. Default: this machine's, of an index only. */
  readonly platform?: Platform | undefined;
  /** Largest uncompressed layer; default `maxLayerTarBytes`. */
  readonly maxTarBytes?: number | undefined;
}

async function resolveManifest(content: ContentReader, name: string, root: Descriptor, options: AssembleOptions): Promise<ImageDocument<Manifest>> {
  const read = async (descriptor: Descriptor): Promise<{ digest: string; mediaType: string; bytes: Buffer }> => {
    refuseLarge(descriptor, `manifest of ${name}`, maxManifestBytes);
    return { digest: descriptor.digest, mediaType: descriptor.mediaType, bytes: await content.readManifest(descriptor) };
  };
  const { served: { digest, bytes }, manifest } = await findManifest(await read(root), options.platform ?? hostPlatform(), `manifest of ${name}`, read);
  return { descriptor: { mediaType: manifest.mediaType, digest, size: bytes.length }, bytes, parsed: manifest };
}

/** Builds an ImageSource out of a reader and the descriptor of its manifest or index. It owns the reader when it returns, not when it throws. */
export async function assembleImage(content: ContentReader, name: string, root: Descriptor, options: AssembleOptions): Promise<ImageSource> {
  const manifest = await resolveManifest(content, name, root, options);
  checkImageManifest(manifest.parsed, name);
  const descriptor = manifest.parsed.config;
  const bytes = await content.readBlob(descriptor, maxConfigBytes);
  const parsed = parseConfig(bytes, manifest.parsed.layers.length, `config of ${name}`);
  if (options.platform !== undefined && !platformMatches(options.platform, parsed.platform)) {
    throw new WhittleError('IMAGE_PLATFORM', `${name} is for ${formatPlatform(parsed.platform)}, not for ${formatPlatform(options.platform)}`);
  }
  const layers = manifest.parsed.layers.map((layer, at): ImageLayer => {
    refuseLarge(layer, `layer ${layer.digest} of ${name}`, maxLayerBlobBytes);
    return { descriptor: layer, diffId: parsed.diffIds[at]! };
  });
  return {
    name, manifest, layers, config: { descriptor, bytes, parsed },
    openBlob: (wanted) => content.openBlob(wanted),
    openLayerTar: (at) => {
      const layer = layers[at];
      if (layer === undefined) throw new RangeError(`no layer ${String(at)}`);
      return layerTar(content.openBlob(layer.descriptor), layer, { maxTarBytes: options.maxTarBytes });
    },
    close: () => content.close(),
  };
}
