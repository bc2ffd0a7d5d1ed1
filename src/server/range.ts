/** What a `Range` header asks of a representation of a known size. Offsets are inclusive, as in HTTP. */
export type RangeDecision =
  | { readonly kind: 'full' }
  | { readonly kind: 'part'; readonly first: number; readonly last: number }
  | { readonly kind: 'unsatisfiable' };

const full: RangeDecision = { kind: 'full' };
const unsatisfiable: RangeDecision = { kind: 'unsatisfiable' };

/**
 * Decides on a `Range` header for a body of `sizeBytes` (RFC 9110, 14.2). One byte range is honoured: `a-b`,
 * `a-`, `-n`. Anything malformed, another unit, or several ranges gets the full body, which the RFC allows and
 * every client must expect. A range that starts at or after the end is unsatisfiable.
 */
export function decideRange(header: string | undefined, sizeBytes: number): RangeDecision {
  if (header === undefined || header.length > 64) return full;
  const match = /^bytes=[ \t]*(\d{0,15})-(\d{0,15})[ \t]*$/i.exec(header);
  if (match === null) return full;
  const [, firstText = '', lastText = ''] = match;
  if (firstText === '') return lastText === '' ? full : suffixRange(Number(lastText), sizeBytes);
  const first = Number(firstText);
  const last = lastText === '' ? Infinity : Number(lastText);
  // An inverted range is invalid, not unsatisfiable: the header is ignored.
  if (last < first) return full;
  if (first >= sizeBytes) return unsatisfiable;
  return { kind: 'part', first, last: Math.min(last, sizeBytes - 1) };
}

function suffixRange(lengthBytes: number, sizeBytes: number): RangeDecision {
  if (lengthBytes === 0 || sizeBytes === 0) return unsatisfiable;
  return { kind: 'part', first: Math.max(0, sizeBytes - lengthBytes), last: sizeBytes - 1 };
}

/** Whether `If-Range` lets a range through: only our own strong entity tag does; a date or weak tag never. */
export function ifRangeAllows(header: string | undefined, etag: string): boolean {
  return header === undefined || header.trim() === etag;
}

/** Whether an `If-None-Match` or `If-Match` list names this entity tag. `weak` compares as If-None-Match does (RFC 9110, 8.8.3.2). */
export function etagListHas(header: string, etag: string, weak: boolean): boolean {
  if (header.trim() === '*') return true;
  return header.split(',').some((item) => {
    const tag = item.trim();
    return tag === etag || (weak && tag === `W/${etag}`);
  });
}
