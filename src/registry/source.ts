import { isWhittleError, WhittleError } from '../core/errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import type { Platform } from '../oci/platform.js';
import { formatReference, parseReference, referenceTarget, type Reference } from '../oci/reference.js';
import { RegistryClient, type FetchedManifest } from './client.js';
import { openDockerArchive } from './docker-archive.js';
import { assembleImage, type ContentReader, type ImageSource } from './image-source.js';
import { LayoutReader } from './layout-reader.js';
import type { TransportOptions } from './transport.js';

/** An image source as the command line writes it, taken apart. */
export type SourceSpec =
  | { readonly transport: 'oci' | 'oci-archive' | 'docker-archive'; readonly path: string; readonly tag?: string }
  | { readonly transport: 'docker'; readonly reference: Reference };

/** Which image is taken of a source, and how a registry is reached. */
export interface OpenSourceOptions {
  /** Which image of a multi-platform one; default this machine's. A single image of another platform is refused only when this is given. */
  readonly platform?: Platform | undefined;
  /** How to reach the registry of `docker://`. Credentials are asked for that registry only. */
  readonly registry?: TransportOptions | undefined;
  /** Largest uncompressed layer, in bytes; default `maxLayerTarBytes`. */
  readonly maxTarBytes?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Reads `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME:TAG]` or
 * `docker://[host/]repository[:tag][@digest]`. The path ends at the first colon, as for skopeo. Throws USAGE.
 */
export function parseSourceSpec(spec: string): SourceSpec {
  if (spec.startsWith('docker://')) return { transport: 'docker', reference: parseReference(spec.slice('docker://'.length)) };
  const match = /^(oci|oci-archive|docker-archive):([^:]+)(?::(.*))?$/su.exec(spec);
  const [, transport, path = '', tag = ''] = match ?? [];
  if (transport !== 'oci' && transport !== 'oci-archive' && transport !== 'docker-archive') {
    throw new WhittleError('USAGE', `not an image source: ${JSON.stringify(spec.slice(0, 300))} (expected oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME:TAG] or docker://REFERENCE)`);
  }
  return { transport, path, ...(tag === '' ? {} : { tag }) };
}

/** An image's content in a registry. */
function registryContent(client: RegistryClient, repository: string, first: FetchedManifest, signal: AbortSignal | undefined): ContentReader {
  return {
    readManifest: async (descriptor) => {
      const { bytes } = descriptor.digest === first.descriptor.digest ? first : await client.getManifest(repository, descriptor.digest, { signal });
      if (bytes.length !== descriptor.size) throw new WhittleError('DIGEST_MISMATCH', `manifest ${descriptor.digest} of ${repository} has ${String(bytes.length)} bytes, its descriptor says ${String(descriptor.size)}`);
      return bytes;
    },
    readBlob: (descriptor, maxBytes) => client.readBlob(repository, descriptor, maxBytes, { signal }),
    openBlob: (descriptor) => client.openBlob(repository, descriptor, { signal }),
    close: () => client.close(),
  };
}

async function openRegistrySource(spec: string, reference: Reference, options: OpenSourceOptions): Promise<ImageSource> {
  const client = new RegistryClient(reference.registry, options.registry);
  try {
    const first = await client.getManifest(reference.repository, referenceTarget(reference), { signal: options.signal });
    return await assembleImage(registryContent(client, reference.repository, first, options.signal), spec, first.descriptor, options);
  } catch (error) {
    await client.close();
    throw asMissingImage(error, spec);
  }
}

/** A name that the registry does not know is an image that is not found, like a tag that a layout does not have. */
function asMissingImage(error: unknown, spec: string): unknown {
  if (!isWhittleError(error) || error.code !== 'REGISTRY_NOT_FOUND') return error;
  return new WhittleError('IMAGE_NOT_FOUND', `${spec} does not exist: ${error.message}`, { cause: error, data: error.data });
}

/** Assembles the image, and closes the content when that fails. */
async function assembled(content: ContentReader, name: string, options: OpenSourceOptions, root: () => Descriptor): Promise<ImageSource> {
  try {
    return await assembleImage(content, name, root(), options);
  } catch (error) {
    await content.close();
    throw error;
  }
}

/**
 * Opens an image where it lives: see `parseSourceSpec`. Manifest and config are read and checked when it returns;
 * layers are read when asked for. The caller closes the source. Throws USAGE, IMAGE_*, BLOB_MISSING, DIGEST_MISMATCH,
 * LIMIT_EXCEEDED, REGISTRY_*, INTERRUPTED.
 */
export async function openSource(spec: string, options: OpenSourceOptions = {}): Promise<ImageSource> {
  const parsed = parseSourceSpec(spec);
  switch (parsed.transport) {
    case 'docker':
      return openRegistrySource(`docker://${formatReference(parsed.reference)}`, parsed.reference, options);
    case 'docker-archive': {
      const { content, manifest } = await openDockerArchive(parsed.path, parsed.tag);
      return assembled(content, spec, options, () => manifest);
    }
    case 'oci':
    case 'oci-archive': {
      const layout = parsed.transport === 'oci' ? await LayoutReader.openDirectory(parsed.path) : await LayoutReader.openArchive(parsed.path);
      return assembled(layout, spec, options, () => layout.select(parsed.tag, options.platform));
    }
  }
}
