import { isJsonObject, parseJsonObject, type JsonObject } from '../oci/json.js';
import { WhittleError } from '../core/errors.js';
import { badResponse } from './failures.js';
import type { Transport, TransportRequest } from './transport.js';
import { readBody, type WireResponse } from './wire.js';

/** The target of `rel="next"` in a Link header, or undefined. */
export function nextLink(header: string | undefined): string | undefined {
  for (const match of (header ?? '').slice(0, 16 * 1024).matchAll(/<([^<>]*)>([^<]*)/g)) {
    const [, target = '', parameters = ''] = match;
    if (/;\s*rel\s*=\s*(?:"next"|next)(?:\s*[;,]|\s*$)/i.test(parameters)) return target;
  }
  return undefined;
}

/** One page of a listing: its JSON object and the response it came in (already read). */
export interface Page {
  readonly json: JsonObject;
  readonly response: WireResponse;
}

async function readPage(response: WireResponse, request: TransportRequest, maxBytes: number): Promise<Page> {
  return { json: parseJsonObject(await readBody(response, maxBytes, request.subject, request.signal), request.subject, maxBytes), response };
}

/**
 * Reads a listing page by page, `first` being the answer to `request`. The next page must be on the same registry;
 * pages are bounded in size and number (LIMIT_EXCEEDED).
 */
export async function* pages(transport: Transport, request: TransportRequest, first: WireResponse): AsyncGenerator<Page, void, void> {
  const seen = new Set<string>();
  let response = first;
  for (let count = 0; ; count++) {
    if (count >= transport.limits.pages) throw new WhittleError('LIMIT_EXCEEDED', `${request.subject}: more than ${String(transport.limits.pages)} pages`);
    const page = await readPage(response, request, transport.limits.pageBytes);
    yield page;
    const next = nextLink(response.header('link'));
    if (next === undefined) return;
    const base = response.url;
    if (!URL.canParse(next, base.href)) throw badResponse(base, request.subject, 'the next page is not a URL');
    const url = new URL(next, base);
    if (url.origin !== base.origin) throw badResponse(base, request.subject, 'the next page is on another host');
    if (seen.has(url.href)) throw badResponse(base, request.subject, 'the pages go in a circle');
    seen.add(url.href);
    response = await transport.request({ ...request, target: url });
  }
}

/** Collects the strings under `name` of every page. Throws REGISTRY_BAD_RESPONSE, LIMIT_EXCEEDED. */
export async function collectStrings(transport: Transport, request: TransportRequest, name: string): Promise<readonly string[]> {
  const result: string[] = [];
  for await (const { json, response } of pages(transport, request, await transport.request(request))) {
    const list: unknown = json[name] ?? [];
    if (!isJsonObject(json) || !Array.isArray(list) || !list.every((each) => typeof each === 'string')) throw badResponse(response.url, request.subject, `no list of ${name}`);
    result.push(...(list as string[]));
    if (result.length > transport.limits.entries) throw new WhittleError('LIMIT_EXCEEDED', `${request.subject}: more than ${String(transport.limits.entries)} entries`);
  }
  return result;
}
