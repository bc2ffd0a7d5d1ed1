import { formatPlatform, parsePlatform, type Platform } from '../oci/platform.js';
import { fixedCredentials, openSource, parseCreds, storedCredentials, type ImageSource, type OpenSourceOptions } from '../registry/index.js';
import type { ImageInput } from './image-input.js';

/** How images are read, as flags say it. */
export interface SourceOptions {
  /** `os/arch[/variant]` of a multi-platform image. Default: this machine's. */
  readonly platform?: string | undefined;
  /** `user:password` for registries. Default: what `docker login` stored. */
  readonly creds?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** An image that is open for computing. The opener closes it. */
export interface OpenedImage {
  readonly input: ImageInput;
  /** The documents as they are, for the `.delta` file. */
  readonly source: ImageSource;
  readonly platform: string;
  close(): Promise<void>;
}

/** Makes what `openSource` takes out of flags. Throws USAGE. */
export function openOptions({ platform, creds, signal }: SourceOptions): OpenSourceOptions & { readonly platform?: Platform | undefined } {
  return {
    platform: platform === undefined ? undefined : parsePlatform(platform),
    registry: { credentials: creds === undefined ? storedCredentials() : fixedCredentials(parseCreds(creds)), userAgent: 'whittle-delta-server' },
    signal,
  };
}

/** Opens `oci:…`, `oci-archive:…`, `docker-archive:…` or `docker://…`. Throws what `openSource` throws. */
export async function openImage(name: string, options: SourceOptions): Promise<OpenedImage> {
  const source = await openSource(name, openOptions(options));
  const { digest, mediaType } = source.manifest.descriptor;
  return {
    source,
    platform: formatPlatform(source.config.parsed.platform),
    input: {
      manifest: { digest, mediaType, sizeBytes: source.manifest.bytes.length }, configDigest: source.config.descriptor.digest, layers: source.layers,
      openLayer: (layer) => source.openBlob(layer.descriptor),
    },
    close: () => source.close(),
  };
}
