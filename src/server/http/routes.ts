import { isDigest, isRepository, isTag } from '../../oci/index.js';

/** One endpoint of the pull half of the distribution API, with its parameters checked. */
export type Route =
  | { readonly kind: 'base' }
  | { readonly kind: 'catalog' }
  | { readonly kind: 'tags'; readonly repository: string }
  | { readonly kind: 'manifest'; readonly repository: string; readonly reference: string }
  | { readonly kind: 'blob'; readonly repository: string; readonly digest: string }
  | { readonly kind: 'referrers'; readonly repository: string; readonly digest: string };

/** Codes of the distribution spec's error document that this server gives. */
export type OciErrorCode =
  | 'BLOB_UNKNOWN' | 'DIGEST_INVALID' | 'MANIFEST_UNKNOWN' | 'NAME_INVALID' | 'NAME_UNKNOWN' | 'PAGINATION_NUMBER_INVALID'
  | 'TAG_INVALID' | 'UNKNOWN' | 'UNSUPPORTED';

/** Why a request gets no content. */
export interface RouteError {
  readonly status: number;
  readonly code: OciErrorCode;
  readonly message: string;
}

/** A request target taken apart: a route, or the error to answer, and the query. */
export interface ParsedTarget {
  readonly route: Route | null;
  readonly error: RouteError | null;
  readonly query: URLSearchParams;
}

const endpointPattern = /^\/v2\/(.+)\/(?:(tags)\/(list)|(manifests|blobs|referrers)\/([^/]+))$/;

/** Reads the target of a request line. Nothing of it is ever used as a file name: names and digests are looked up in maps. */
export function parseTarget(target: string): ParsedTarget {
  const path = target.startsWith('/') ? target : absoluteFormPath(target);
  const [rawPath = '', ...queryParts] = path.split('?');
  const query = new URLSearchParams(queryParts.join('?'));
  let decoded: string;
  try {
    decoded = decodeURIComponent(rawPath);
  } catch {
    return { route: null, error: { status: 400, code: 'NAME_INVALID', message: 'the path is not valid percent-encoding' }, query };
  }
  const found = routeOf(decoded);
  return 'kind' in found ? { route: found, error: null, query } : { route: null, error: found, query };
}

/** `GET http://host/path` is what a client sends to a proxy; the host makes no difference here. */
function absoluteFormPath(target: string): string {
  const match = /^https?:\/\/[^/?#]*([^#]*)/i.exec(target);
  return match?.[1] ?? '';
}

function routeOf(path: string): Route | RouteError {
  if (path === '/v2/' || path === '/v2') return { kind: 'base' };
  if (path === '/v2/_catalog') return { kind: 'catalog' };
  const match = endpointPattern.exec(path);
  if (match === null) return { status: 404, code: 'UNKNOWN', message: 'no such endpoint' };
  const [, repository = '', tags, , kind, reference = ''] = match;
  if (!isRepository(repository)) return { status: 400, code: 'NAME_INVALID', message: 'not a repository name' };
  if (tags !== undefined) return { kind: 'tags', repository };
  if (kind === 'manifests') {
    if (!isDigest(reference) && !isTag(reference)) return invalidReference(reference);
    return { kind: 'manifest', repository, reference };
  }
  if (!isDigest(reference)) return invalidReference(reference.includes(':') ? reference : `:${reference}`);
  return kind === 'blobs' ? { kind: 'blob', repository, digest: reference } : { kind: 'referrers', repository, digest: reference };
}

function invalidReference(reference: string): RouteError {
  return reference.includes(':')
    ? { status: 400, code: 'DIGEST_INVALID', message: 'not a sha256 or sha512 digest' }
    : { status: 400, code: 'TAG_INVALID', message: 'not a tag' };
}
