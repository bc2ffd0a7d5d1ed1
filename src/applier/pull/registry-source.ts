import { WhittleError } from '../../core/errors.js';
import { parseReference, type Descriptor, type Reference } from '../../oci/index.js';
import { RegistryClient, type TransportOptions } from '../../registry/index.js';
import { listDeltas } from './delta-list.js';
import type { ImageSource } from './image-source.js';

/** Where `--from` points: another registry than the one in the image's name, perhaps another repository there. */
export interface FromRegistry {
  /** `host[:port]`. */
  readonly registry: string;
  /** Null: the repository of the image's name. */
  readonly repository: string | null;
  /** The scheme that the URL names; undefined when it names none. */
  readonly plainHttp: boolean | undefined;
}

/** Reads the value of `--from` when it is no archive: `http[s]://host[:port][/repository]` or `docker://host/repository`. Throws USAGE. */
export function parseFromUrl(text: string): FromRegistry {
  const match = /^(https?|docker):\/\/([^/@?#]+)(?:\/([^?#]*?))?\/?$/.exec(text);
  const [, scheme, host = '', path = ''] = match ?? [];
  if (scheme === undefined) {
    throw new WhittleError('USAGE', `--from: not a place to pull from: ${JSON.stringify(text.slice(0, 200))}`, { hint: 'Write http://HOST:PORT, https://HOST[/REPOSITORY] or oci-archive:FILE.' });
  }
  // Parsed as a reference too, so that hosts and repositories obey one rule.
  const { registry, repository } = parseReference(`${host}/${path === '' ? 'any' : path}`);
  if (registry !== host) throw new WhittleError('USAGE', `--from: ${JSON.stringify(host)} is not a registry host`, { hint: 'Name host and port, such as http://127.0.0.1:8080.' });
  return { registry, repository: path === '' ? null : repository, plainHttp: scheme === 'docker' ? undefined : scheme === 'http' };
}

/**
 * One repository of a registry as the source of a pull. `from` replaces registry (and repository) of the reference.
 * The caller closes it.
 */
export function registrySource(reference: Reference, from: FromRegistry | null, options: TransportOptions): ImageSource {
  const registry = from?.registry ?? reference.registry;
  const repository = from?.repository ?? reference.repository;
  const client = new RegistryClient(registry, options);
  return {
    name: `${registry}/${repository}`,
    manifest: async (target, signal, allowedBytes) => {
      const { descriptor, bytes } = await client.getManifest(repository, target, { signal, allowedBytes });
      return { digest: descriptor.digest, mediaType: descriptor.mediaType, bytes };
    },
    blob: (descriptor: Descriptor) => ({
      name: `${descriptor.digest} from ${registry}/${repository}`,
      open: (offset, ifRange, signal) => client.openBlobRange(repository, descriptor.digest, offset, { signal, ...(ifRange === null ? {} : { ifRange }) }),
    }),
    deltas: (subject, basis, signal, bounds) => listDeltas(client, repository, subject, { basis, signal, ...bounds }),
    receivedBytes: () => client.transport.receivedBytes,
    close: () => client.close(),
  };
}
