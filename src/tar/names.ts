import { posix } from 'node:path';
import { noBytes } from './block.js';

/** What a writer leaves in a header's text field when the full text is in a PAX record. */
export const shortForms = {
  /** The first bytes (GNU tar). */
  truncate: 0,
  /** Bytes above 127 and NULs dropped, then the first bytes (Go). */
  asciiOnly: 1,
  /** Every character above 127 as '?', then the first bytes (Python). */
  questionMarks: 2,
  /** Split into prefix and name where that fits, the last component shortened where not (libarchive). */
  splitOrShorten: 3,
} as const;

/** Where a writer splits a path of more than 100 bytes into ustar's prefix and name. */
export const prefixForms = { longestPrefix: 0, shortestPrefix: 1, never: 2 } as const;

/** How a writer names the ustar block of a PAX header. */
export const metaNameForms = {
  /** Always the same text. */
  constant: 0,
  /** `<directory>/<text>/<base>`, "." when there is no directory (GNU tar). */
  gnu: 1,
  /** Cleaned `<directory>/<text>/<base>`; a path that ends in a slash has no base (Go). */
  go: 2,
  /** `<directory>/<text>/<base>`, nothing before when there is no directory; split into prefix and name (libarchive). */
  libarchive: 3,
} as const;

const slash = 0x2f;
const nameBytes = 100;
const prefixBytes = 155;

/** A path as the two ustar fields. */
export interface SplitName {
  readonly prefix: Buffer;
  readonly name: Buffer;
}

function lastSlashBefore(path: Buffer, end: number): number {
  return end <= 0 ? -1 : path.lastIndexOf(slash, end - 1);
}

/** Splits a path of more than 100 bytes at a slash into prefix (at most 155 bytes) and name (at most 100); null if it cannot be. */
export function splitUstar(path: Buffer, form: number): SplitName | null {
  if (path.length <= nameBytes || form === prefixForms.never) return null;
  const at = form === prefixForms.longestPrefix ? longestPrefix(path) : shortestPrefix(path);
  if (at <= 0 || at > prefixBytes || path.length - at - 1 > nameBytes || at === path.length - 1) return null;
  return { prefix: path.subarray(0, at), name: path.subarray(at + 1) };
}

function longestPrefix(path: Buffer): number {
  let end = path.length;
  if (end > prefixBytes + 1) end = prefixBytes + 1;
  else if (path[end - 1] === slash) end--;
  return lastSlashBefore(path, end);
}

function shortestPrefix(path: Buffer): number {
  const at = path.indexOf(slash, path.length - nameBytes - 1);
  return at === 0 ? path.indexOf(slash, 1) : at;
}

function isAscii(bytes: Buffer): boolean {
  for (const byte of bytes) if (byte >= 0x80) return false;
  return true;
}

function dropNonAscii(bytes: Buffer): Buffer {
  if (isAscii(bytes) && !bytes.includes(0)) return bytes;
  return Buffer.from(bytes.filter((byte) => byte > 0 && byte < 0x80));
}

/** Python replaces each character, and each byte that is not UTF-8, by one '?'. */
function questionMarks(bytes: Buffer): Buffer {
  if (isAscii(bytes)) return bytes;
  const out: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const byte = bytes[at] ?? 0;
    if (byte < 0x80) {
      out.push(byte);
      at++;
      continue;
    }
    out.push(0x3f);
    at += characterBytes(bytes, at);
  }
  return Buffer.from(out);
}

/** Bytes of the UTF-8 character at `at`, or 1 when it is not one. */
function characterBytes(bytes: Buffer, at: number): number {
  const lead = bytes[at] ?? 0;
  const count = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 1;
  if (count === 1 || at + count > bytes.length) return 1;
  const text = bytes.toString('utf8', at, at + count);
  return text.includes('\ufffd') && !bytes.subarray(at, at + count).equals(Buffer.from('\ufffd')) ? 1 : count;
}

/** Go ends a cut name that would end in a slash before its trailing slashes, lest a reader take it for a directory. */
export function goTruncate(text: Buffer, widthBytes: number): Buffer {
  if (text.length <= widthBytes) return text;
  if (text[widthBytes - 1] !== slash) return text.subarray(0, widthBytes);
  let end = widthBytes - 1;
  while (end > 0 && text[end - 1] === slash) end--;
  return Buffer.concat([text.subarray(0, end), Buffer.of(0), text.subarray(end + 1, widthBytes)]);
}

/** A text field whose full text is in a PAX record, as the writer leaves it. */
export function shortText(text: Buffer, widthBytes: number, form: number): Buffer {
  switch (form) {
    case shortForms.asciiOnly: return goTruncate(dropNonAscii(text), widthBytes);
    case shortForms.questionMarks: return questionMarks(text).subarray(0, widthBytes);
    case shortForms.splitOrShorten: return text.length > widthBytes ? noBytes : text;
    default: return text.subarray(0, widthBytes);
  }
}

/** Prefix and name of the entry's own header when a PAX record holds the path. */
export function shortName(path: Buffer, form: number): SplitName {
  if (form === shortForms.splitOrShorten) return splitOrShorten(path);
  return { prefix: noBytes, name: shortText(path, nameBytes, form) };
}

/** libarchive's choice: the path if it fits, else its ustar split, else one that was shortened. */
function splitOrShorten(path: Buffer): SplitName {
  if (path.length <= nameBytes) return { prefix: noBytes, name: path };
  return splitUstar(path, prefixForms.shortestPrefix) ?? shortened(path, noBytes);
}

/** Bytes that libarchive grants the last component together with a directory put in front of it. */
const shortenedBaseBytes = 98;

/**
 * libarchive's shortened path: last component cut, with the directory `inserted` before it (then without a trailing
 * slash); of the directories before those what the prefix field takes, and then what the name field has room for.
 */
function shortened(path: Buffer, inserted: Buffer): SplitName {
  const isDirectory = path[path.length - 1] === slash;
  let end = path.length;
  while (end > 1 && path[end - 1] === slash) end--;
  const baseAt = lastSlashBefore(path, end) + 1;
  const between = inserted.length === 0 ? noBytes : Buffer.concat([inserted, Buffer.of(slash)]);
  const after = isDirectory && inserted.length === 0 ? Buffer.of(slash) : noBytes;
  const room = Math.max(0, shortenedBaseBytes - (between.length === 0 ? 0 : between.length + 1) - after.length);
  const base = path.subarray(baseAt, Math.min(end, baseAt + room));
  const headEnd = directoriesWithin(path, 0, prefixBytes, baseAt);
  const tailEnd = directoriesWithin(path, headEnd, room - base.length, baseAt);
  const whole = Buffer.concat([path.subarray(0, tailEnd), between, base, after]);
  if (whole.length <= nameBytes) return { prefix: noBytes, name: whole };
  return splitUstar(whole, prefixForms.shortestPrefix) ?? { prefix: noBytes, name: whole.subarray(0, nameBytes) };
}

/** End of the directories from `from` on, trailing slash included, that fit into `mostBytes` and end before `until`. */
function directoriesWithin(path: Buffer, from: number, mostBytes: number, until: number): number {
  if (until - from <= mostBytes) return until;
  return Math.max(from, lastSlashBefore(path, from + mostBytes + 1) + 1);
}

/** Prefix and name of the block of a PAX header for an entry called `path`, by form and the writer's `text`. */
export function metaName(path: Buffer, form: number, text: Buffer): SplitName {
  switch (form) {
    case metaNameForms.gnu: return { prefix: noBytes, name: gnuMetaName(path, text).subarray(0, nameBytes) };
    case metaNameForms.go: return { prefix: noBytes, name: goTruncate(goMetaName(path, text), nameBytes) };
    case metaNameForms.libarchive: return shortened(path, text);
    default: return { prefix: noBytes, name: text.subarray(0, nameBytes) };
  }
}

function gnuMetaName(path: Buffer, text: Buffer): Buffer {
  let end = path.length;
  while (end > 1 && path[end - 1] === slash) end--;
  const at = lastSlashBefore(path, end);
  const directory = at >= 0 ? path.subarray(0, at + 1) : Buffer.from('./', 'latin1');
  return Buffer.concat([directory, text, Buffer.of(slash), path.subarray(at + 1, end)]);
}

function goMetaName(path: Buffer, text: Buffer): Buffer {
  const at = path.lastIndexOf(slash);
  const directory = path.toString('latin1', 0, at + 1);
  const joined = posix.join(directory, text.toString('latin1'), path.toString('latin1', at + 1));
  return dropNonAscii(Buffer.from(joined, 'latin1'));
}
