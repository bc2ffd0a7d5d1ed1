import { isWhittleError, WhittleError } from '../../core/errors.js';
import { maxManifestBytes } from '../../core/limits.js';
import { deltaMediaTypes } from '../../delta/index.js';
import { mediaTypes, parseDigest, parseIndex, parseManifestOrIndex, type Descriptor } from '../../oci/index.js';
import { pullScopes, type RegistryClient } from '../../registry/index.js';
import { nextLink } from '../../registry/paging.js';
import { readBody, type WireResponse } from '../../registry/wire.js';
import type { DeltaAnswer } from './image-source.js';

/** Pages of a list of referrers that are read: a device asks for its own deltas, and those come first. */
const maxPages = 8;

/**
 * Asks a registry for the deltas to the manifest `subject`. A `delta-server` takes `basis` (config digests) as an order
 * and may ask to come again; another registry ignores it. Without a referrers API the tag `sha256-<hex>` is read.
 * Throws REGISTRY_*, IMAGE_INVALID, INTERRUPTED.
 */
export async function listDeltas(client: RegistryClient, repository: string, subject: string, basis: readonly string[], signal: AbortSignal): Promise<DeltaAnswer> {
  const query = new URLSearchParams([['artifactType', deltaMediaTypes.artifact], ...basis.map((digest) => ['basis', digest] as [string, string])]);
  const request = {
    method: 'GET' as const, target: `/v2/${repository}/referrers/${subject}?${query.toString()}` as string | URL, headers: { accept: mediaTypes.ociIndex },
    scopes: pullScopes(repository), subject: `deltas for ${subject}`, accept: [200, 202, 404], signal,
  };
  let sizeBytes = 0;
  let note: string | undefined;
  const descriptors: Descriptor[] = [];
  for (let page = 0; page < maxPages; page++) {
    const response = await client.transport.request(request);
    const bytes = await readBody(response, maxManifestBytes, request.subject, signal);
    sizeBytes += bytes.length;
    if (response.status === 202) return { kind: 'pending', retryAfterMs: retryAfterMs(response), sizeBytes };
    if (response.status === 404) return page === 0 ? fallbackTag(client, repository, subject, signal, sizeBytes) : { kind: 'ready', descriptors, sizeBytes };
    descriptors.push(...parseIndex(bytes, request.subject, mediaTypes.ociIndex).manifests);
    note ??= standing(response);
    const next = nextPage(response);
    if (next === null) break;
    request.target = next;
  }
  return { kind: 'ready', descriptors, sizeBytes, ...(note === undefined ? {} : { note }) };
}

function retryAfterMs(response: WireResponse): number {
  const text = response.header('retry-after')?.trim() ?? '';
  return /^\d{1,6}$/.test(text) ? Number(text) * 1000 : 0;
}

function nextPage(response: WireResponse): URL | null {
  const link = nextLink(response.header('link'));
  if (link === undefined || !URL.canParse(link, response.url.href)) return null;
  const url = new URL(link, response.url);
  return url.origin === response.url.origin ? url : null;
}

/** Why a `delta-server` has no delta for this pair, in words. */
function standing(response: WireResponse): string | undefined {
  switch (response.header('whittle-delta')) {
    case 'not-smaller': return 'the server found that a delta would not be smaller than the layers';
    case 'unknown-basis': return 'the server does not have the image that is here, to make a delta from it';
    case 'unknown-target': return 'the server does not serve this image';
    case 'failed': return `the server could not make the delta (${printable(response.header('whittle-problem') ?? 'it does not say why')})`;
    default: return undefined;
  }
}

function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, 300);
}

/** The list that publishers keep under a tag where a registry has no referrers API. */
async function fallbackTag(client: RegistryClient, repository: string, subject: string, signal: AbortSignal, sizeBytes: number): Promise<DeltaAnswer> {
  const { algorithm, hex } = parseDigest(subject);
  try {
    const { bytes, descriptor } = await client.getManifest(repository, `${algorithm}-${hex.slice(0, 64)}`, { signal });
    const parsed = parseManifestOrIndex(bytes, `deltas for ${subject}`, descriptor.mediaType);
    if (parsed.kind !== 'index') throw new WhittleError('IMAGE_INVALID', `the tag ${algorithm}-${hex.slice(0, 12)}… is not a list of referrers`);
    return { kind: 'ready', descriptors: parsed.manifests, sizeBytes: sizeBytes + bytes.length };
  } catch (error) {
    if (!isWhittleError(error) || error.code !== 'REGISTRY_NOT_FOUND') throw error;
    return { kind: 'ready', descriptors: [], sizeBytes };
  }
}
