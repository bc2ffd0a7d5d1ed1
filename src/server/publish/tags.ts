import { subjectOfTag } from '../../registry/index.js';

/** Whether `tag` fits a glob: `*` stands for any characters, `?` for one, `[abc]` and `[a-z]` for one of them. */
export function fitsGlob(tag: string, glob: string): boolean {
  return globPattern(glob).test(tag);
}

function globPattern(glob: string): RegExp {
  const source = glob.replace(/\[([\w.-]+)\]|[\s\S]/g, (piece: string, set: string | undefined) => {
    if (set !== undefined) return `[${set.replace(/[.]/g, '\\.')}]`;
    if (piece === '*') return '.*';
    return piece === '?' ? '.' : piece.replace(/[\\^$.|+(){}[\]/]/g, '\\$&');
  });
  return new RegExp(`^${source}$`);
}

/**
 * Orders tags as versions: runs of digits by value, everything else as text, and a pre-release (`1.2-rc1`, `1.2.0-beta.3`)
 * before its release. Negative when `a` is the older.
 */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [parts(a), parts(b)];
  for (let at = 0; at < Math.max(left.length, right.length); at++) {
    const order = comparePart(left[at], right[at]);
    if (order !== 0) return order;
  }
  return 0;
}

function parts(tag: string): string[] {
  return tag.replace(/^v(?=\d)/, '').match(/\d+|[^\d]+/g) ?? [];
}

function comparePart(a: string | undefined, b: string | undefined): number {
  if (a === undefined || b === undefined) return a === b ? 0 : tail(a ?? b ?? '') * (a === undefined ? -1 : 1);
  const [one, two] = [/^\d/.test(a), /^\d/.test(b)];
  if (one && two) return a.length === b.length || Number(a) !== Number(b) ? Number(a) - Number(b) : a.length - b.length;
  if (one !== two) return one ? 1 : -1;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** What more there is in the longer of two tags makes it newer, but for a pre-release. */
function tail(rest: string): number {
  return /^-(?:alpha|beta|dev|nightly|pre|preview|rc|snapshot)/i.test(rest) ? -1 : 1;
}

/** Which tags of a repository are old versions of an image. */
export interface TagSelection {
  /** Only those that fit. */
  readonly glob?: string | undefined;
  /** Only the newest so many of those that are older than `target`. */
  readonly last?: number | undefined;
  /** The tag of the image that they are old versions of, when it has one. */
  readonly target?: string | undefined;
}

/** The tags that a selection means, newest first. Tags that only hold lists of referrers are never among them. */
export function selectTags(tags: readonly string[], { glob, last, target }: TagSelection): string[] {
  const versions = tags.filter((tag) => tag !== target && subjectOfTag(tag) === undefined && (glob === undefined ? /\d/.test(tag) : fitsGlob(tag, glob)));
  const older = last !== undefined && target !== undefined && /\d/.test(target) ? versions.filter((tag) => compareVersions(tag, target) < 0) : versions;
  return older.sort((a, b) => compareVersions(b, a)).slice(0, last);
}
