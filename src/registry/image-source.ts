import { maxConfigBytes, maxLayerBlobBytes, maxManifestBytes } from '../core/limits.js';
import { WhittleError } from '../core/errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import { checkImageManifest, parseConfig, parseManifestOrIndex, type ImageConfig, type Manifest } from '../oci/manifest.js';
import { formatPlatform, hostPlatform, platformMatches, selectPlatform, type Platform } from '../oci/platform.js';
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

export interface AssembleOptions {
  /** Which image of an index; also checked against a single image when given. Default: this machine's, of an index only. */
  readonly platform?: Platform | undefined;
  /** Largest uncompressed layer; default `maxLayerTarBytes`. */
  readonly maxTarBytes?: number | undefined;
}

const maxIndexDepth = 4;

async function resolveManifest(content: ContentReader, name: string, root: Descriptor, options: AssembleOptions): Promise<ImageDocument<Manifest>> {
  let descriptor = root;
  for (let depth = 0; depth < maxIndexDepth; depth++) {
    refuseLarge(descriptor, `manifest of ${name}`, maxManifestBytes);
    const bytes = await content.readManifest(descriptor);
    const parsed = parseManifestOrIndex(bytes, `manifest of ${name}`, descriptor.mediaType);
    if (parsed.kind === 'manifest') return { descriptor: { mediaType: parsed.mediaType, digest: descriptor.digest, size: bytes.length }, bytes, parsed };
    descriptor = selectPlatform(parsed.manifests, options.platform ?? hostPlatform(), name);
  }
  throw new WhittleError('IMAGE_INVALID', `${name}: indexes within indexes, more than ${String(maxIndexDepth)} deep`);
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
