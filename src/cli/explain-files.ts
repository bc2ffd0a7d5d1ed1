import { formatExact } from '../core/format.js';
import { sumParts, type DeltaAccount, type FileAccount, type PartKind, type Parts } from '../server/explain/account.js';
import { formatTable } from './output.js';

const metadataKinds: readonly PartKind[] = ['names', 'times', 'attributes', 'plan', 'expansion', 'framing'];

const headings = ['file', 'layer', 'bytes', 'share', 'new', 'diffs', 'copies', 'meta', 'size', 'from'] as const;
type Column = (typeof headings)[number];
/** What is left out first where there is no room for all: what says least of where bytes go. */
const leftOut: readonly Column[] = ['meta', 'copies', 'size', 'share', 'layer'];
/** Widths below which a column is left out sooner than a path shortened further. */
const leastPath = 28;
const leastSource = 14;
const gap = 2;

/** The costliest entries as a table that is `width` columns wide at most, and the columns that had no room there. */
export function filesTable(account: DeltaAccount, top: number, width: number): { readonly text: string; readonly without: readonly string[] } {
  const files = account.layers.flatMap((layer) => (layer.files ?? []).map((file) => ({ layer: layer.layer, file })));
  files.sort((a, b) => b.file.deltaBytes - a.file.deltaBytes);
  const rows = files.slice(0, top).map(({ layer, file }) =>
    ({ ...numbersOf([file.parts], file.sizeBytes, account.deltaBytes), file: (room: number) => shortPath(file.path, room), layer: String(layer), from: (room: number) => sourceOf(file, room) }));
  const rest = files.slice(top).map(({ file }) => file);
  if (rest.length > 0) {
    const size = rest.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    rows.push({ ...numbersOf(rest.map(({ parts }) => parts), size, account.deltaBytes), file: () => `${formatExact(rest.length)} more`, layer: '', from: () => '' });
  }
  return fitted(rows, width);
}

/** A cell is its text, or what makes it for the room that there is. */
type Row = Readonly<Record<Column, string | ((room: number) => string)>>;

function numbersOf(sizes: readonly Parts[], sizeBytes: number, deltaBytes: number): Readonly<Record<Exclude<Column, 'file' | 'layer' | 'from'>, string>> {
  const sum = (kinds: readonly PartKind[]): string => bytes(sizes.reduce((total, parts) => total + kinds.reduce((part, kind) => part + (parts[kind] ?? 0), 0), 0));
  const all = sizes.reduce((total, parts) => total + sumParts(parts), 0);
  return { bytes: bytes(all), share: share(all, deltaBytes), new: sum(['literals']), diffs: sum(['residue']), copies: sum(['ops']), meta: sum(metadataKinds), size: formatExact(sizeBytes) };
}

function fitted(rows: readonly Row[], width: number): { text: string; without: string[] } {
  const cell = (row: Row, column: Column, room: number): string => {
    const made = row[column];
    return typeof made === 'string' ? made : made(room);
  };
  const widthOf = (column: Column, room: number): number => Math.max(column.length, ...rows.map((row) => cell(row, column, room).length));
  const [path, source] = [widthOf('file', longestPath), widthOf('from', 2 * longestPath)];
  const without: Column[] = [];
  const roomLeft = (): number => width - headings.reduce((sum, column) => (column === 'file' || column === 'from' || without.includes(column) ? sum : sum + widthOf(column, 0) + gap), gap);
  for (const column of leftOut) if (roomLeft() < Math.min(path, leastPath) + Math.min(source, leastSource)) without.push(column);
  // The path gets what it wants of what the source can spare, and the source what the path leaves.
  const pathRoom = Math.max(leastPath / 2, Math.min(path, roomLeft() - Math.min(source, leastSource)));
  const sourceRoom = Math.max(leastSource, roomLeft() - pathRoom);
  const shown = headings.filter((column) => !without.includes(column));
  const table = rows.map((row) => shown.map((column) => cell(row, column, column === 'file' ? pathRoom : sourceRoom)));
  return { text: formatTable([shown, ...table], { header: true }), without };
}

const longestPath = 80;

/** One path of a thousand characters would push the numbers of every line off the screen: of a long one its beginning and end. */
function shortPath(path: string, room: number): string {
  const letters = Array.from(path);
  const longest = Math.min(room, longestPath);
  if (letters.length <= longest) return path;
  const start = Math.floor(longest / 4);
  return `${letters.slice(0, start).join('')}…${letters.slice(start + 1 - longest).join('')}`;
}

/** Why an entry's content comes from where it does, and the paths of that as far as there is room for something of them. */
function sourceOf(file: FileAccount, room: number): string {
  const from = file.sources.map((source) => source.path).filter((path) => path !== file.path).slice(0, 2);
  const more = file.sources.length > 2 ? ' …' : '';
  for (let count = from.length; count > 0; count--) {
    const each = Math.floor((room - file.why.length - more.length) / count) - ': '.length;
    if (each >= leastSource || from.every((path) => path.length <= each)) return `${file.why}: ${from.slice(0, count).map((path) => shortPath(path, each)).join(', ')}${more}`;
  }
  return file.why.length <= room ? file.why : `${file.why.slice(0, room - 1)}…`;
}

/** Bytes as the tables show them: shares of a stream are no whole numbers. */
export function bytes(sizeBytes: number): string {
  return sizeBytes >= 100 || Number.isInteger(sizeBytes) ? formatExact(sizeBytes) : sizeBytes.toFixed(1);
}

/** What part of the delta that is. */
export function share(sizeBytes: number, ofBytes: number): string {
  return `${((sizeBytes / Math.max(1, ofBytes)) * 100).toFixed(1)}%`;
}
