import type { IncomingMessage, ServerResponse } from 'node:http';
import { deltaMediaTypes } from '../../delta/format.js';
import { mediaTypes } from '../../oci/media-types.js';
import { isDigest } from '../../oci/digest.js';
import type { Catalog, ServedImage } from '../catalog.js';
import type { DeltaRecord } from '../delta-record.js';
import type { DeltaStore } from '../delta-store.js';
import type { DeltaJobs, JobState } from '../jobs.js';
import { cutPage, maxPageItems } from './paging.js';
import { mustAsk, sendBlob, sendEntity, sendError, sendJson, type Headers } from './reply.js';
import { parseTarget, type Route } from './routes.js';

/** What the HTTP service answers from. */
export interface ServiceParts {
  readonly catalog: Catalog;
  readonly store: DeltaStore;
  readonly jobs: DeltaJobs;
}

/** Most `basis` parameters of one referrers request; a device holds a handful of images of a name. */
const maxBases = 64;

/** A route of one kind. */
type RouteOf<K extends Route['kind']> = Extract<Route, { kind: K }>;

/** One request and its answer. */
interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly query: URLSearchParams;
}

/** Answers one request. Settles when the answer is out or the client is gone; rejects only when the connection must be cut. */
export async function handleRequest(parts: ServiceParts, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { route, error, query } = parseTarget(request.url ?? '');
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    sendError(request, response, 405, 'UNSUPPORTED', 'this registry is read-only', { Allow: 'GET, HEAD', Connection: 'close' });
    return;
  }
  if (route === null) {
    sendError(request, response, error?.status ?? 404, error?.code ?? 'UNKNOWN', error?.message ?? 'no such endpoint');
    return;
  }
  if ('repository' in route && !parts.catalog.has(route.repository)) {
    sendError(request, response, 404, 'NAME_UNKNOWN', `no repository ${route.repository} here`);
    return;
  }
  await dispatch(parts, { request, response, query }, route);
}

async function dispatch(parts: ServiceParts, exchange: Exchange, route: Route): Promise<void> {
  switch (route.kind) {
    case 'base':
      sendJson(exchange.request, exchange.response, 200, {}, { 'Docker-Distribution-Api-Version': 'registry/2.0' });
      break;
    case 'catalog':
      sendPage(exchange, parts.catalog.repositories(), '/v2/_catalog', (repositories) => ({ repositories }));
      break;
    case 'tags':
      sendTags(parts, exchange, route);
      break;
    case 'manifest':
      sendManifest(parts, exchange, route);
      break;
    case 'blob':
      await sendBlobOf(parts, exchange, route);
      break;
    case 'referrers':
      sendReferrers(parts, exchange, route);
      break;
  }
}

function sendTags({ catalog }: ServiceParts, exchange: Exchange, { repository }: RouteOf<'tags'>): void {
  sendPage(exchange, catalog.tags(repository) ?? [], `/v2/${repository}/tags/list`, (tags) => ({ name: repository, tags }));
}

function sendPage({ request, response, query }: Exchange, sorted: readonly string[], path: string, wrap: (items: readonly string[]) => unknown): void {
  const page = cutPage(sorted, query);
  if (page === null) sendError(request, response, 400, 'PAGINATION_NUMBER_INVALID', 'n is not a number');
  else sendJson(request, response, 200, wrap(page.items), page.next === null ? {} : { Link: `<${path}?${page.next}>; rel="next"` });
}

function sendManifest({ catalog, store }: ServiceParts, { request, response }: Exchange, { repository, reference }: RouteOf<'manifest'>): void {
  const manifest = catalog.manifest(repository, reference) ?? store.manifest(reference);
  if (manifest === undefined) sendError(request, response, 404, 'MANIFEST_UNKNOWN', `no manifest ${reference} in ${repository}`);
  else sendEntity(request, response, { digest: manifest.digest, mediaType: manifest.mediaType, byDigest: isDigest(reference) }, manifest.bytes);
}

async function sendBlobOf({ catalog, store }: ServiceParts, { request, response }: Exchange, { repository, digest }: RouteOf<'blob'>): Promise<void> {
  const place = catalog.blob(repository, digest) ?? store.blob(digest);
  if (place === undefined) sendError(request, response, 404, 'BLOB_UNKNOWN', `no blob ${digest} in ${repository}`);
  else await sendBlob(request, response, { digest, mediaType: 'application/octet-stream', byDigest: true }, place);
}

/** How the pair that a device asked about stands; what the answer's `Whittle-Delta` header says. */
type Standing =
  | { readonly kind: 'none' | 'ready' | 'not-smaller' | 'unknown-basis' | 'unknown-target' }
  | { readonly kind: 'pending'; readonly basis: string; readonly state: Exclude<JobState, { state: 'failed' }> }
  | { readonly kind: 'failed'; readonly state: Extract<JobState, { state: 'failed' }> };

function sendReferrers(parts: ServiceParts, { request, response, query }: Exchange, { repository, digest }: RouteOf<'referrers'>): void {
  const artifactType = query.get('artifactType');
  const wanted = artifactType === null || artifactType === deltaMediaTypes.artifact;
  const bases = query.getAll('basis').filter(isDigest).slice(0, maxBases);
  // A HEAD asks what there is; only a GET is an order.
  const standing: Standing = wanted && bases.length > 0 && request.method === 'GET' ? stand(parts, digest, bases) : { kind: 'none' };
  if (standing.kind === 'pending') {
    const { retryAfterSec, ...state } = standing.state;
    sendJson(request, response, 202, { ...state, target: digest, basis: standing.basis, retryAfterSec }, { 'Retry-After': retryAfterSec, 'Whittle-Delta': state.state });
    return;
  }
  const records = wanted ? orderRecords(parts.store.deltasTo(digest), bases) : [];
  const start = Math.min(records.length, pageStart(query));
  const page = records.slice(start, start + maxPageItems);
  const next = start + page.length;
  const headers: Headers = {
    'Content-Type': mediaTypes.ociIndex,
    'Cache-Control': mustAsk,
    ...(artifactType === null ? {} : { 'OCI-Filters-Applied': 'artifactType' }),
    ...(next < records.length ? { Link: `<${nextPage(repository, digest, query, next)}>; rel="next"` } : {}),
    ...standingHeaders(standing),
  };
  sendJson(request, response, 200, referrersIndex(page, standing), headers);
}

/** Finds the first answer that is good enough: a delta for any of the bases, else the computation of the first that may have one. */
function stand({ catalog, store, jobs }: ServiceParts, targetDigest: string, bases: readonly string[]): Standing {
  const target = catalog.imageByManifest(targetDigest);
  if (target === undefined) return { kind: 'unknown-target' };
  const records = bases.map((basis) => store.find(targetDigest, basis));
  if (records.some((record) => record?.result === 'delta')) return { kind: 'ready' };
  let failed: Standing | null = null;
  for (const [at, basisDigest] of bases.entries()) {
    const basis: ServedImage | undefined = catalog.imageByConfig(basisDigest);
    if (basis === undefined || records[at] !== undefined) continue;
    const state = jobs.ask(target, basis);
    if (state.state !== 'failed') return { kind: 'pending', basis: basisDigest, state };
    failed ??= { kind: 'failed', state };
  }
  if (failed !== null) return failed;
  return { kind: records.some((record) => record !== undefined) ? 'not-smaller' : 'unknown-basis' };
}

function standingHeaders(standing: Standing): Headers {
  if (standing.kind === 'none' || standing.kind === 'pending') return {};
  if (standing.kind !== 'failed') return { 'Whittle-Delta': standing.kind };
  return { 'Whittle-Delta': 'failed', 'Whittle-Problem': problemText(standing.state), 'Retry-After': standing.state.retryAfterSec };
}

/** One line of printable ASCII, whatever a name inside an image looks like. */
function problemText({ code, message }: { readonly code: string; readonly message: string }): string {
  return `${code}: ${message}`.replace(/[^\x20-\x7e]+/g, '?').slice(0, 500);
}

/** Deltas from the asked bases first, in their order, so that they are on the first page. */
function orderRecords(records: readonly DeltaRecord[], bases: readonly string[]): readonly (DeltaRecord & { result: 'delta' })[] {
  const deltas = records.filter((record) => record.result === 'delta');
  const rank = (record: DeltaRecord): number => {
    const at = bases.indexOf(record.basisConfig);
    return at < 0 ? bases.length : at;
  };
  return deltas.sort((a, b) => rank(a) - rank(b));
}

function pageStart(query: URLSearchParams): number {
  const text = query.get('from') ?? '';
  return /^\d{1,9}$/.test(text) ? Number(text) : 0;
}

function nextPage(repository: string, digest: string, query: URLSearchParams, from: number): string {
  const next = new URLSearchParams(query);
  next.set('from', String(from));
  return `/v2/${repository}/referrers/${digest}?${next.toString()}`;
}

function referrersIndex(records: readonly (DeltaRecord & { result: 'delta' })[], standing: Standing): unknown {
  return {
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    manifests: records.map((record) => ({
      mediaType: record.manifest.mediaType, digest: record.manifest.digest, size: record.manifest.sizeBytes,
      artifactType: deltaMediaTypes.artifact, annotations: record.annotations,
    })),
    ...(standing.kind === 'failed' ? { annotations: { 'dev.whittle.problem': problemText(standing.state) } } : {}),
  };
}
