/** Milliseconds that a Retry-After header asks for (seconds or a date), or undefined. */
export function parseRetryAfter(value: string | undefined, nowMs: number = Date.now()): number | undefined {
  if (value === undefined) return undefined;
  const text = value.trim();
  if (/^[0-9]{1,9}$/.test(text)) return Number(text) * 1000;
  const at = /^[A-Z][a-z]{2},? /.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs);
}

/** What a Content-Range says. */
export interface ContentRange {
  /** The first and the last byte; null in the range of a 416, which has none. */
  readonly first: number | null;
  readonly last: number | null;
  /** Size of the whole; null when it is not known to whoever sends. */
  readonly totalBytes: number | null;
}

/** Reads a Content-Range: `bytes 5-9/100`, `bytes 5-9/*` or, for 416, a star in place of the range. Undefined when it is none of them or contradicts itself. */
export function parseContentRange(header: string | undefined): ContentRange | undefined {
  const match = /^bytes (?:([0-9]{1,15})-([0-9]{1,15})|\*)\/([0-9]{1,15}|\*)$/.exec((header ?? '').trim());
  if (match === null) return undefined;
  const first = match[1] === undefined ? null : Number(match[1]);
  const last = match[2] === undefined ? null : Number(match[2]);
  const totalBytes = match[3] === '*' ? null : Number(match[3]);
  if (first !== null && last !== null && (last < first || (totalBytes !== null && last >= totalBytes))) return undefined;
  return { first, last, totalBytes };
}

/** Reads a Content-Length; undefined when there is none, or it is not a number of bytes. */
export function parseContentLength(value: string | undefined): number | undefined {
  return value !== undefined && /^[0-9]{1,15}$/.test(value.trim()) ? Number(value) : undefined;
}
