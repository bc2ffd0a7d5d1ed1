import { isWhittleError, WhittleError } from '../../core/errors.js';
import { deltaAnnotations, deltaBlobs, deltaMediaTypes, type DeltaBlobs } from '../../delta/format.js';
import { parseManifest, parseReference, type Descriptor, type Reference } from '../../oci/index.js';
import { fixedCredentials, listReferrers, parseCreds, RegistryClient, storedCredentials, type OnRetry, type TransportOptions } from '../../registry/index.js';
import { publishLimits } from './limits.js';

/** A repository of a registry that deltas are put into, listed in or removed from. The opener closes its client. */
export interface RemoteRepository {
  readonly client: RegistryClient;
  readonly repository: string;
  /** `host/repository`, for messages. */
  readonly name: string;
  /** The tag or digest that was named with it. */
  readonly reference: Reference;
}

/** How a repository is reached. */
export interface RemoteOptions {
  /** `user:password`; default: what `docker login` stored. */
  readonly creds?: string | undefined;
  readonly limits?: TransportOptions['limits'];
  readonly onRetry?: OnRetry | undefined;
}

/** Opens `docker://host/repository[:tag][@digest]`; `flag` is who names it, for messages. Nothing is asked yet. Throws USAGE. */
export function openRepository(text: string, flag: string, { creds, limits, onRetry }: RemoteOptions): RemoteRepository {
  if (!text.startsWith('docker://')) {
    throw new WhittleError('USAGE', `${flag}: not a repository in a registry: ${JSON.stringify(text.slice(0, 200))}`, { hint: 'Write it as docker://HOST/REPOSITORY.' });
  }
  const reference = parseReference(text.slice('docker://'.length));
  const credentials = creds === undefined ? storedCredentials() : fixedCredentials(parseCreds(creds));
  const client = new RegistryClient(reference.registry, { credentials, limits, onRetry, userAgent: 'whittle-delta-server' });
  return { client, repository: reference.repository, name: `${reference.registry}/${reference.repository}`, reference };
}

/** A delta that is in a registry, as its manifest says. */
export interface PublishedDelta extends DeltaBlobs {
  readonly digest: string;
  readonly manifestBytes: number;
  readonly basisConfig: string;
  readonly basisManifest: string | undefined;
  readonly targetManifest: string;
  readonly targetConfig: string | undefined;
}

/** All that a delta costs to download. */
export function publishedBytes({ manifestBytes, index, data }: PublishedDelta): number {
  return manifestBytes + index.size + data.size;
}

/** Where a list of deltas came from, and what it names. */
export interface DeltaDescriptors {
  readonly from: 'api' | 'tag';
  readonly descriptors: readonly Descriptor[];
}

/** The deltas to a manifest, as the registry lists them. Throws REGISTRY_*, LIMIT_EXCEEDED. */
export async function listDeltas({ client, repository, name }: RemoteRepository, subject: string, signal?: AbortSignal): Promise<DeltaDescriptors> {
  const found = await listReferrers(client, repository, subject, { artifactType: deltaMediaTypes.artifact, signal });
  if (found.status === 'pending') return { from: 'api', descriptors: [] };
  if (found.manifests.length > publishLimits.deltasPerImage) throw new WhittleError('LIMIT_EXCEEDED', `${name} lists more than ${String(publishLimits.deltasPerImage)} deltas to ${subject}`);
  return { from: found.from, descriptors: found.manifests };
}

/** Reads a delta's manifest, of any format version. Null when it is gone or is none. Throws REGISTRY_* but for what is not found. */
export async function readDelta({ client, repository }: RemoteRepository, digest: string, signal?: AbortSignal): Promise<PublishedDelta | null> {
  const served = await orNull(() => client.getManifest(repository, digest, { signal, allowedBytes: publishLimits.manifestBytes }), ['REGISTRY_NOT_FOUND', 'LIMIT_EXCEEDED']);
  const manifest = served === null ? null : await orNull(() => parseManifest(served.bytes, `the delta ${digest}`, served.descriptor.mediaType), ['IMAGE_INVALID', 'IMAGE_MEDIA_TYPE']);
  if (served === null || manifest === null) return null;
  const blobs = deltaBlobs(manifest.layers);
  const basisConfig = manifest.annotations[deltaAnnotations.basisConfig];
  if (manifest.artifactType !== deltaMediaTypes.artifact || manifest.subject === undefined || basisConfig === undefined || blobs === null) return null;
  return {
    digest, manifestBytes: served.bytes.length, basisConfig, basisManifest: manifest.annotations[deltaAnnotations.basisManifest],
    targetManifest: manifest.subject.digest, targetConfig: manifest.annotations[deltaAnnotations.targetConfig], ...blobs,
  };
}

/** What `read` gives, or null when it throws one of these codes. */
export async function orNull<T>(read: () => T | Promise<T>, codes: readonly string[]): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    if (isWhittleError(error) && codes.includes(error.code)) return null;
    throw error;
  }
}

/** Runs `task` for every item, at most `limit` at a time, and gives the results in the order of the items. The first failure is thrown when all that were begun have ended. */
export async function mapLimited<T, R>(items: readonly T[], limit: number, task: (item: T, at: number) => Promise<R>): Promise<R[]> {
  const results = new Array<R>(items.length);
  let next = 0;
  let failed = false;
  const runner = async (): Promise<void> => {
    while (next < items.length && !failed) {
      const at = next++;
      try {
        results[at] = await task(items[at] as T, at);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const runners = await Promise.allSettled(Array.from({ length: Math.min(limit, items.length) }, runner));
  for (const each of runners) if (each.status === 'rejected') throw each.reason;
  return results;
}
