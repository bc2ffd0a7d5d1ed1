import { tarLimits } from '../core/limits.js';
import { blockBytes, fieldPlaces, paddingBytes, tarCorrupt, typeflags } from './block.js';
import { joinHeader } from './header.js';
import { readNumeric } from './numeric.js';
import { isMetaType, metaDataBytes } from './parse.js';
import { paxValue } from './pax.js';
import type { SparseExtent, TarHeader } from './types.js';

/** A sparse file as it is when expanded. */
export interface SparseMap {
  readonly realSizeBytes: number;
  /** The file's own path; the header's path of PAX sparse formats is a placeholder. */
  readonly realPath: Buffer;
  /** The stretches that have data, ascending and not overlapping; their lengths sum up to the data section without its prefix. */
  readonly extents: readonly SparseExtent[];
  /** Bytes at the start of the data section that are the map itself (PAX 1.0), not data of the file. */
  readonly dataPrefixBytes: number;
}

/** Gives the first `count` bytes of the data section, or fewer where it ends before. */
export type PrefixReader = (count: number) => Promise<Buffer>;

type Kind = 'old' | 'pax0.0' | 'pax0.1' | 'pax1.0';

function text(header: TarHeader, key: string): string | undefined {
  return paxValue(header.pax, `GNU.sparse.${key}`)?.toString('latin1');
}

function kindOf(header: TarHeader): Kind | null {
  if (header.typeflag === typeflags.gnuSparse) return 'old';
  const version = `${text(header, 'major') ?? ''}.${text(header, 'minor') ?? ''}`;
  if (version === '1.0') return 'pax1.0';
  if (version !== '.' && version !== '0.0' && version !== '0.1') return null;
  if (text(header, 'map') !== undefined) return 'pax0.1';
  return text(header, 'size') !== undefined ? 'pax0.0' : null;
}

/** Whether the entry is a sparse file whose data section must be expanded. */
export function isSparse(header: TarHeader): boolean {
  return kindOf(header) !== null;
}

/** A decimal number as sparse maps hold it. Throws `TAR_CORRUPT`. */
function decimal(digits: string | undefined, what: string): number {
  const value = digits !== undefined && /^\d{1,16}$/.test(digits) ? Number(digits) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw tarCorrupt(`sparse ${what} is not a number`);
  return value;
}

function pairs(numbers: readonly number[]): SparseExtent[] {
  if (numbers.length % 2 !== 0) throw tarCorrupt('sparse map has an offset without a length');
  const extents: SparseExtent[] = [];
  for (let at = 0; at < numbers.length; at += 2) extents.push({ offset: numbers[at] ?? 0, lengthBytes: numbers[at + 1] ?? 0 });
  return extents;
}

const oldMap = { headerAt: 386, headerCount: 4, extensionCount: 21, entryBytes: 24, realSizeAt: 483 } as const;

/** The map of an old GNU sparse entry: four pairs in its header, 21 in each extension block behind it. */
function oldSparse(header: TarHeader): SparseMap {
  const raw = joinHeader(header);
  let at = 0;
  while (at + blockBytes <= raw.length && isMetaType(raw[at + fieldPlaces.typeflag.offset] ?? 0)) {
    const dataBytes = metaDataBytes(raw, at);
    at += blockBytes + dataBytes + paddingBytes(dataBytes);
  }
  if (at + blockBytes > raw.length) throw tarCorrupt('sparse header ends too early');
  const extents: SparseExtent[] = [];
  readOldPairs(raw, at + oldMap.headerAt, oldMap.headerCount, extents);
  for (let block = at + blockBytes; block + blockBytes <= raw.length; block += blockBytes) readOldPairs(raw, block, oldMap.extensionCount, extents);
  const realSizeBytes = readNumeric(raw, at + oldMap.realSizeAt, 12, 'sparse real size');
  return { realSizeBytes, realPath: header.path, extents, dataPrefixBytes: 0 };
}

function readOldPairs(raw: Buffer, from: number, count: number, extents: SparseExtent[]): void {
  for (let index = 0; index < count; index++) {
    const at = from + index * oldMap.entryBytes;
    if (raw[at] === 0) return;
    extents.push({ offset: readNumeric(raw, at, 12, 'sparse offset'), lengthBytes: readNumeric(raw, at + 12, 12, 'sparse length') });
  }
}

/** PAX 0.0: one record for each offset and one for each length, in turn. */
function repeatedRecords(header: TarHeader): SparseExtent[] {
  const numbers: number[] = [];
  for (const { key, value } of header.pax) {
    const name = key.toString('latin1');
    if (name !== 'GNU.sparse.offset' && name !== 'GNU.sparse.numbytes') continue;
    if ((name === 'GNU.sparse.offset') !== (numbers.length % 2 === 0)) throw tarCorrupt('sparse offsets and lengths are not in turn');
    numbers.push(decimal(value.toString('latin1'), 'map'));
  }
  return pairs(numbers);
}

function checkCount(header: TarHeader, extents: readonly SparseExtent[]): void {
  const count = text(header, 'numblocks');
  if (count !== undefined && decimal(count, 'number of extents') !== extents.length) throw tarCorrupt('sparse map has another number of extents than it says');
}

function realPath(header: TarHeader): Buffer {
  return paxValue(header.pax, 'GNU.sparse.name') ?? header.path;
}

function paxZero(header: TarHeader, kind: Kind): SparseMap {
  const map = text(header, 'map');
  const extents = kind === 'pax0.1' ? pairs((map ?? '').split(',').map((digits) => decimal(digits, 'map'))) : repeatedRecords(header);
  checkCount(header, extents);
  return { realSizeBytes: decimal(text(header, 'size'), 'real size'), realPath: realPath(header), extents, dataPrefixBytes: 0 };
}

/** The lines of a PAX 1.0 map at the start of `prefix`, the first of which says how many pairs follow; null while some are missing. */
function mapLines(prefix: Buffer, mostBytes: number): string[] | null {
  // What stands behind the last newline may be an unfinished number.
  const lines = prefix.toString('latin1').split('\n').slice(0, -1);
  if (lines.length === 0) return null;
  const needed = 1 + 2 * decimal(lines[0], 'number of extents');
  if (needed > mostBytes) throw tarCorrupt('sparse map has more extents than bytes');
  return lines.length < needed ? null : lines.slice(0, needed);
}

/** PAX 1.0: the map is decimal numbers, one a line, at the start of the data section, filled up to a multiple of 512. */
async function paxOne(header: TarHeader, readPrefix: PrefixReader): Promise<SparseMap> {
  const mostBytes = Math.min(tarLimits.maxEntryHeaderBytes, header.sizeBytes);
  for (let wantBytes = blockBytes; ; wantBytes *= 4) {
    const prefix = await readPrefix(Math.min(wantBytes, mostBytes));
    const lines = mapLines(prefix, mostBytes);
    if (lines === null) {
      if (wantBytes >= mostBytes) throw tarCorrupt('sparse map ends too early, or is above 1 MiB');
      continue;
    }
    const textBytes = lines.reduce((sum, line) => sum + line.length + 1, 0);
    const extents = pairs(lines.slice(1).map((digits) => decimal(digits, 'map')));
    const realSizeBytes = decimal(text(header, 'realsize') ?? text(header, 'size'), 'real size');
    return { realSizeBytes, realPath: realPath(header), extents, dataPrefixBytes: textBytes + paddingBytes(textBytes) };
  }
}

/** Throws `TAR_CORRUPT` unless the extents ascend within the file and account for every byte of data. */
function checked(map: SparseMap, header: TarHeader): SparseMap {
  let end = 0;
  let dataBytes = map.dataPrefixBytes;
  if (map.realSizeBytes < 0) throw tarCorrupt('sparse real size is negative');
  for (const { offset, lengthBytes } of map.extents) {
    if (offset < end || lengthBytes < 0 || lengthBytes > map.realSizeBytes - offset) throw tarCorrupt('sparse extents overlap or reach beyond the file');
    end = offset + lengthBytes;
    dataBytes += lengthBytes;
  }
  if (dataBytes !== header.sizeBytes) throw tarCorrupt('sparse extents do not sum up to the data section');
  return map;
}

/**
 * `sparseMap` from the header alone: 'inData' where the map is at the start of the data section (PAX 1.0), null for an
 * entry that is not sparse. Throws `TAR_CORRUPT`.
 */
export function headerSparseMap(header: TarHeader): SparseMap | 'inData' | null {
  const kind = kindOf(header);
  if (kind === null) return null;
  if (kind === 'pax1.0') return 'inData';
  return checked(kind === 'old' ? oldSparse(header) : paxZero(header, kind), header);
}

/** The path of an entry: that of PAX sparse entries is in a record of its own. */
export function filePath(header: TarHeader): Buffer {
  return isSparse(header) ? realPath(header) : header.path;
}

/**
 * How the data section of a sparse entry (GNU's old format, PAX 0.0, 0.1, 1.0) expands, or null for an entry that is not
 * sparse. `readPrefix` is called for PAX 1.0 only. Throws `TAR_CORRUPT` for a map that is malformed, is above 1 MiB or
 * does not fit the data section.
 */
export async function sparseMap(header: TarHeader, readPrefix: PrefixReader): Promise<SparseMap | null> {
  const map = headerSparseMap(header);
  return map === 'inData' ? checked(await paxOne(header, readPrefix), header) : map;
}
