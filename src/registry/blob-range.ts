import type { Readable } from 'node:stream';
import type { WireResponse } from './wire.js';

/**
 * What a registry answered to a request for (part of) a blob, before any of it is believed: nothing here is verified,
 * and what was sent may not be what was asked for.
 */
export interface BlobRange {
  /** 200 (the whole, whatever was asked), 206, 416, or any other status that asking again may cure. */
  readonly status: number;
  /** Where the body begins in the blob, as the answer itself says; null when it does not say so in a usable way. */
  readonly offset: number | null;
  /** Length of the body as announced; null when it is not. */
  readonly lengthBytes: number | null;
  /** Size of the whole blob as the answer says; null when it does not. */
  readonly totalBytes: number | null;
  /** A strong entity tag, fit for `If-Range`; null without one. */
  readonly etag: string | null;
  /** A response header by its lower-case name. */
  header(name: string): string | undefined;
  /** The body as received. Whoever gets the range reads it to its end or destroys it. */
  readonly body: Readable;
}

function wholeNumber(text: string | undefined): number | null {
  return text !== undefined && /^[0-9]{1,15}$/.test(text.trim()) ? Number(text) : null;
}

/** Reads a Content-Range: `bytes 5-9/100`, `bytes 5-9/*` or, for 416, a star in place of the range. Undefined when it is none of them or contradicts itself. */
export function parseContentRange(header: string | undefined): { first: number | null; last: number | null; totalBytes: number | null } | undefined {
  const match = /^bytes (?:([0-9]{1,15})-([0-9]{1,15})|\*)\/([0-9]{1,15}|\*)$/.exec((header ?? '').trim());
  if (match === null) return undefined;
  const first = match[1] === undefined ? null : Number(match[1]);
  const last = match[2] === undefined ? null : Number(match[2]);
  const totalBytes = match[3] === '*' ? null : Number(match[3]);
  if (first !== null && last !== null && (last < first || (totalBytes !== null && last >= totalBytes))) return undefined;
  return { first, last, totalBytes };
}

/** Describes a response as what it says of itself. */
export function blobRange(response: WireResponse): BlobRange {
  const { status, body } = response;
  const header = (name: string): string | undefined => response.header(name);
  const lengthBytes = wholeNumber(header('content-length'));
  const tag = (header('etag') ?? '').trim();
  const etag = /^"[^"]{1,256}"$/.test(tag) ? tag : null;
  if (status === 200) return { status, body, header, offset: 0, lengthBytes, totalBytes: lengthBytes, etag };
  const range = status === 206 || status === 416 ? parseContentRange(header('content-range')) : undefined;
  const first = range?.first ?? null;
  const last = range?.last ?? null;
  const announced = first !== null && last !== null ? last - first + 1 : lengthBytes;
  return { status, body, header, offset: first, lengthBytes: announced, totalBytes: range?.totalBytes ?? null, etag };
}
