import { isWhittleError } from '../core/errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import { parseDigest } from '../oci/digest.js';
import { parseIndex } from '../oci/manifest.js';
import { mediaTypes } from '../oci/media-types.js';
import { checkRepository, pullScopes, type AffordableOptions, type RegistryClient } from './client.js';
import type { ResponseHead } from './failures.js';
import { parseRetryAfter } from './header-values.js';
import { collectPages } from './paging.js';
import type { TransportRequest } from './transport.js';
import type { WireResponse } from './wire.js';

/** Which referrers are asked for, and how many are enough. */
export interface ReferrersOptions extends AffordableOptions {
  /** So many entries of the type are enough: no further page is asked for. Default: all, up to the client's limits. */
  readonly enoughEntries?: number | undefined;
  /** So many pages one after another may be without an entry of the type: see `ListingBounds`. */
  readonly idlePages?: number | undefined;
  /** Only referrers of this type, whether or not the registry filters. */
  readonly artifactType?: string | undefined;
  /** Config digests that the device holds: a registry ignores them, a delta server makes a delta from one of them. */
  readonly basis?: readonly string[] | undefined;
  /** Told of each answer that was read: its head and the size of its body. A delta server says in its head why it has no delta. */
  readonly onAnswer?: ((head: ResponseHead, bodyBytes: number) => void) | undefined;
}

/** What refers to a manifest. */
export type Referrers =
  /** `from`: the registry's referrers API, or the fallback tag of registries without one. */
  | { readonly status: 'ready'; readonly from: 'api' | 'tag'; readonly manifests: readonly Descriptor[] }
  /** The server is making what was asked for; ask again after `retryAfterMs`. */
  | { readonly status: 'pending'; readonly retryAfterMs: number };

/** How long to wait when a server says "later" but not when. */
const defaultPendingMs = 1000;

/** Statuses of registries that have no referrers API. */
const unsupported = [400, 404, 405, 501];

/** The tag under which registries without a referrers API keep the referrers of a manifest. */
export function fallbackTag(subjectDigest: string): string {
  const { algorithm, hex } = parseDigest(subjectDigest);
  return `${algorithm}-${hex}`.slice(0, 128);
}

/** The entries of the fallback tag's index; empty when there is no such tag. */
export async function readFallbackTag(client: RegistryClient, repository: string, subjectDigest: string, options: ReferrersOptions): Promise<readonly Descriptor[]> {
  const tag = fallbackTag(subjectDigest);
  try {
    const { bytes, descriptor } = await client.getManifest(repository, tag, { ...options, accept: [mediaTypes.ociIndex] });
    options.onAnswer?.({ status: 200, header: () => undefined }, bytes.length);
    return parseIndex(bytes, `tag ${tag} of ${repository}`, descriptor.mediaType).manifests;
  } catch (error) {
    if (isWhittleError(error) && error.code === 'REGISTRY_NOT_FOUND') return [];
    throw error;
  }
}

function ofType(manifests: readonly Descriptor[], artifactType: string | undefined): readonly Descriptor[] {
  return artifactType === undefined ? manifests : manifests.filter((each) => each.artifactType === artifactType);
}

function checked(digest: string): string {
  parseDigest(digest);
  return digest;
}

function referrersRequest(repository: string, subjectDigest: string, options: ReferrersOptions): TransportRequest {
  const query = new URLSearchParams();
  if (options.artifactType !== undefined) query.set('artifactType', options.artifactType);
  for (const digest of options.basis ?? []) query.append('basis', checked(digest));
  const suffix = query.size === 0 ? '' : `?${query.toString()}`;
  return {
    method: 'GET', target: `/v2/${repository}/referrers/${subjectDigest}${suffix}`, scopes: pullScopes(repository), signal: options.signal,
    headers: { accept: mediaTypes.ociIndex }, accept: [200, 202, ...unsupported], subject: `referrers of ${subjectDigest} in ${repository}`,
  };
}

/**
 * What refers to the manifest `subjectDigest`: through the referrers API, or where the registry has none through the
 * fallback tag. Filtered by `artifactType` here, too: many registries do not. Descriptors are as the registry gave
 * them, checked in form only. Throws REGISTRY_*, IMAGE_INVALID, LIMIT_EXCEEDED, INTERRUPTED.
 */
export async function listReferrers(client: RegistryClient, repository: string, subjectDigest: string, options: ReferrersOptions = {}): Promise<Referrers> {
  checkRepository(repository);
  parseDigest(subjectDigest);
  const request = referrersRequest(repository, subjectDigest, options);
  const response = await client.transport.request(request);
  if (response.status === 202) {
    await response.discard();
    const askedMs = parseRetryAfter(response.header('retry-after')) ?? defaultPendingMs;
    return { status: 'pending', retryAfterMs: Math.min(askedMs, client.transport.limits.retryAfterMaxMs) };
  }
  if (response.status !== 200 || !isJson(response)) {
    await response.discard();
    const manifests = await readFallbackTag(client, repository, subjectDigest, options);
    return { status: 'ready', from: 'tag', manifests: ofType(manifests, options.artifactType) };
  }
  const read = (page: Buffer): readonly Descriptor[] => {
    options.onAnswer?.(response, page.length);
    return ofType(parseIndex(page, request.subject, mediaTypes.ociIndex).manifests, options.artifactType);
  };
  return { status: 'ready', from: 'api', manifests: await collectPages(client.transport, request, response, read, options) };
}

/** Some registries answer unknown paths with a page for people and status 200. */
function isJson(response: WireResponse): boolean {
  return /json/i.test(response.header('content-type') ?? 'application/json');
}
