import type { Readable } from 'node:stream';
import { parseContentLength, parseContentRange } from './header-values.js';
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
  /** Size of the whole blob as the answer says; null when it does not. */
  readonly totalBytes: number | null;
  /** A response header by its lower-case name. */
  header(name: string): string | undefined;
  /** The body as received. Whoever gets the range reads it to its end or destroys it. */
  readonly body: Readable;
}

/** Describes a response as what it says of itself. */
export function blobRange(response: WireResponse): BlobRange {
  const { status, body } = response;
  const header = (name: string): string | undefined => response.header(name);
  if (status === 200) return { status, body, header, offset: 0, totalBytes: parseContentLength(header('content-length')) ?? null };
  const range = status === 206 || status === 416 ? parseContentRange(header('content-range')) : undefined;
  return { status, body, header, offset: range?.first ?? null, totalBytes: range?.totalBytes ?? null };
}
