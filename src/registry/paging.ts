import { parseJsonObject } from '../oci/json.js';
import { isWhittleError, WhittleError } from '../core/errors.js';
import { badResponse } from './failures.js';
import type { Transport, TransportRequest } from './transport.js';
import { readAffordable, type WireResponse } from './wire.js';

/** The target of `rel="next"` in a Link header, or undefined. */
function nextLink(header: string | undefined): string | undefined {
  for (const match of (header ?? '').slice(0, 16 * 1024).matchAll(/<([^<>]*)>([^<]*)/g)) {
    const [, target = '', parameters = ''] = match;
    if (/;\s*rel\s*=\s*(?:"next"|next)(?:\s*[;,]|\s*$)/i.test(parameters)) return target;
  }
  return undefined;
}

function nextPage(response: WireResponse, request: TransportRequest, seen: Set<string>): URL | undefined {
  const next = nextLink(response.header('link'));
  if (next === undefined) return undefined;
  const base = response.url;
  const url = URL.canParse(next, base.href) ? new URL(next, base) : undefined;
  if (url?.origin !== base.origin) throw badResponse(base, request.subject, 'the next page is not on this host');
  if (seen.has(url.href)) throw badResponse(base, request.subject, 'the pages go in a circle');
  seen.add(url.href);
  return url;
}

/** How much of a listing its reader wants. */
export interface ListingBounds {
  /** No further page is asked for once there are so many entries. */
  readonly enoughEntries?: number | undefined;
  /** Bytes of all pages; a page that would be too much is LIMIT_EXCEEDED if it is the first, and left out otherwise. */
  readonly allowedBytes?: number | undefined;
  /** So many pages one after another may bring nothing; then what came before is the listing, or LIMIT_EXCEEDED where that is nothing. Default: all, up to the client's limits. */
  readonly idlePages?: number | undefined;
}

/**
 * Collects what `read` finds in every page of a listing, `first` being the answer to `request`. The next page must
 * be on the same host; pages and entries are bounded (LIMIT_EXCEEDED).
 */
export async function collectPages<T>(transport: Transport, request: TransportRequest, first: WireResponse, read: (page: Buffer) => readonly T[], bounds: ListingBounds = {}): Promise<readonly T[]> {
  const { limits } = transport;
  const seen = new Set<string>();
  const result: T[] = [];
  let response = first;
  let allowedBytes = bounds.allowedBytes;
  let idle = 0;
  for (let page = 1; ; page++) {
    const body = await readPage(response, page > 1);
    if (body === null) return result;
    if (allowedBytes !== undefined) allowedBytes -= body.length;
    const found = read(body);
    for (const entry of found) result.push(entry);
    idle = found.length === 0 ? idle + 1 : 0;
    if (bounds.enoughEntries !== undefined && result.length >= bounds.enoughEntries) return result;
    if (result.length > limits.entries) throw new WhittleError('LIMIT_EXCEEDED', `${request.subject}: more than ${String(limits.entries)} entries`);
    const next = nextPage(response, request, seen);
    if (next === undefined) return result;
    if (idle >= (bounds.idlePages ?? Infinity)) {
      if (result.length > 0) return result;
      throw new WhittleError('LIMIT_EXCEEDED', `${request.subject}: ${String(idle)} pages in a row without one that is wanted`);
    }
    if (page >= limits.pages) throw new WhittleError('LIMIT_EXCEEDED', `${request.subject}: more than ${String(limits.pages)} pages`);
    response = await transport.request({ ...request, target: next, accept: [200] });
  }

  /** Null for a page that cannot be afforded when what came before will do. */
  async function readPage(answer: WireResponse, mayLeaveOut: boolean): Promise<Buffer | null> {
    try {
      return await readAffordable(answer, limits.pageBytes, allowedBytes, request.subject, request.signal);
    } catch (error) {
      if (mayLeaveOut && isWhittleError(error) && error.code === 'LIMIT_EXCEEDED') return null;
      throw error;
    }
  }
}

/** Collects the strings under `name` of every page. A page that is none is REGISTRY_BAD_RESPONSE. */
export async function collectStrings(transport: Transport, request: TransportRequest, name: string): Promise<readonly string[]> {
  const first = await transport.request(request);
  return collectPages(transport, request, first, (page) => {
    const list: unknown = parsePage(page, first.url, request.subject)[name] ?? [];
    if (!Array.isArray(list) || !list.every((each) => typeof each === 'string')) throw badResponse(first.url, request.subject, `no list of ${name}`);
    return list;
  });
}

function parsePage(page: Buffer, url: URL, subject: string): Readonly<Record<string, unknown>> {
  try {
    return parseJsonObject(page, subject, page.length);
  } catch {
    throw badResponse(url, subject, 'the answer is not a JSON object');
  }
}
