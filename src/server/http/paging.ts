/** One page of a sorted list, and the query of the next page when there is one. */
export interface Page {
  readonly items: readonly string[];
  readonly next: string | null;
}

/** Most items on one page, asked for or not. */
export const maxPageItems = 1000;

/**
 * Cuts a page out of a sorted list as `n` and `last` ask: at most `n` items, those after `last`. `last` need not
 * be in the list. Returns null when `n` is no number.
 */
export function cutPage(sorted: readonly string[], query: URLSearchParams): Page | null {
  const asked = query.get('n');
  if (asked !== null && !/^\d{1,9}$/.test(asked)) return null;
  const count = Math.min(asked === null ? maxPageItems : Number(asked), maxPageItems);
  const last = query.get('last');
  const rest = last === null ? sorted : sorted.filter((item) => item > last);
  const items = rest.slice(0, count);
  const end = items.at(-1);
  if (end === undefined || rest.length <= items.length) return { items, next: null };
  return { items, next: `n=${String(count)}&last=${encodeURIComponent(end)}` };
}
