import { blockBytes, blockChecksum, fieldPlaces, noBytes, paddingBytes, tarCorrupt, typeflags } from './block.js';
import { readNumeric } from './numeric.js';
import { parsePax, parsePaxInteger, parsePaxTime } from './pax.js';
import type { HeaderFields } from './render.js';
import { magics } from './style.js';
import type { PaxRecord } from './types.js';

/** A PAX header or GNU long-name header within the raw bytes of an entry's headers. */
export interface MetaPlace {
  readonly typeflag: number;
  readonly offset: number;
  readonly dataBytes: number;
}

/** Global PAX records in force, by key (latin1). */
export type PaxGlobals = ReadonlyMap<string, Buffer>;

/** The headers of one entry, parsed. */
export interface ParsedHeader {
  readonly fields: HeaderFields;
  readonly metas: readonly MetaPlace[];
  /** Offset of the entry's own header block; sparse extension blocks follow it. */
  readonly mainOffset: number;
  /** Global PAX records after this header. */
  readonly globals: PaxGlobals;
}

/** Whether a member with this type flag describes the next member. */
export function isMetaType(typeflag: number): boolean {
  return typeflag === typeflags.paxEntry || typeflag === typeflags.paxGlobal || typeflag === typeflags.gnuLongName || typeflag === typeflags.gnuLongLink;
}

/** The text of a field up to its first NUL, as a view. */
function text(bytes: Buffer, offset: number, widthBytes: number): Buffer {
  const nul = bytes.indexOf(0, offset);
  return bytes.subarray(offset, nul < 0 || nul > offset + widthBytes ? offset + widthBytes : nul);
}

function cut(bytes: Buffer): Buffer {
  const nul = bytes.indexOf(0);
  return nul < 0 ? bytes : bytes.subarray(0, nul);
}

function hasMagic(bytes: Buffer, at: number, magic: Buffer, count: number): boolean {
  const from = at + fieldPlaces.magic.offset;
  return bytes.compare(magic, 0, count, from, from + count) === 0;
}

/** Whether the block at `at` has GNU tar's magic. */
export function isGnuBlock(bytes: Buffer, at: number): boolean {
  return hasMagic(bytes, at, magics.gnu, 8);
}

/** Throws `TAR_CORRUPT` unless the checksum of the block at `at` is right, summed unsigned or signed. */
export function checkChecksum(bytes: Buffer, at: number): void {
  const said = readNumeric(bytes, at + fieldPlaces.checksum.offset, fieldPlaces.checksum.widthBytes, 'header checksum');
  if (said !== blockChecksum(bytes, at) && said !== blockChecksum(bytes, at, true)) throw tarCorrupt('header checksum is wrong');
}

/** Size of the data of the PAX or long-name header at `at`. */
export function metaDataBytes(bytes: Buffer, at: number): number {
  const sizeBytes = readNumeric(bytes, at + fieldPlaces.size.offset, fieldPlaces.size.widthBytes, 'size');
  if (sizeBytes < 0) throw tarCorrupt('size is negative');
  return sizeBytes;
}

const starPrefixBytes = 131;

/** Ustar's prefix field, also in the GNU headers of old Go versions that wrote it there by mistake. */
function prefixOf(bytes: Buffer, at: number): Buffer {
  const { offset, widthBytes } = fieldPlaces.prefix;
  if (hasMagic(bytes, at, magics.ustar, 6)) {
    const star = bytes.toString('latin1', at + 508, at + 512) === 'tar\0';
    return text(bytes, at + offset, star ? starPrefixBytes : widthBytes);
  }
  if (!isGnuBlock(bytes, at) || bytes[at + offset] === 0) return noBytes;
  try {
    readNumeric(bytes, at + offset, 12, 'atime');
    if (bytes[at + offset + 12] !== 0) readNumeric(bytes, at + offset + 12, 12, 'ctime');
    return noBytes;
  } catch {
    const prefix = text(bytes, at + offset, widthBytes);
    return prefix.every((byte) => byte < 0x80) ? prefix : noBytes;
  }
}

/** The entry's own 512-byte block at `at` as fields, nothing overridden, and its PAX records. Views into `bytes`. */
function parseBlock(bytes: Buffer, at: number, pax: readonly PaxRecord[]): HeaderFields {
  const number = (key: 'mode' | 'uid' | 'gid' | 'size' | 'mtime' | 'devMajor' | 'devMinor'): number =>
    readNumeric(bytes, at + fieldPlaces[key].offset, fieldPlaces[key].widthBytes, key);
  const named = hasMagic(bytes, at, magics.ustar, 6) || isGnuBlock(bytes, at);
  const prefix = prefixOf(bytes, at);
  const name = text(bytes, at, fieldPlaces.name.widthBytes);
  return {
    path: prefix.length === 0 ? name : Buffer.concat([prefix, Buffer.of(0x2f), name]),
    linkPath: text(bytes, at + fieldPlaces.linkname.offset, fieldPlaces.linkname.widthBytes),
    typeflag: bytes[at + fieldPlaces.typeflag.offset] ?? 0,
    mode: number('mode'), uid: number('uid'), gid: number('gid'), sizeBytes: number('size'), mtimeSec: number('mtime'), mtimeNsec: 0,
    uname: named ? text(bytes, at + fieldPlaces.uname.offset, fieldPlaces.uname.widthBytes) : noBytes,
    gname: named ? text(bytes, at + fieldPlaces.gname.offset, fieldPlaces.gname.widthBytes) : noBytes,
    devMajor: named ? number('devMajor') : 0, devMinor: named ? number('devMinor') : 0, pax,
  };
}

/** Types that never have data, whatever their size field says: hard and symbolic links, devices, directories, pipes. */
function hasNoData(typeflag: number, path: Buffer): boolean {
  if (typeflag >= typeflags.hardLink && typeflag <= typeflags.fifo) return true;
  return typeflag === typeflags.regularOld && path[path.length - 1] === 0x2f;
}

const textKeys: ReadonlySet<string> = new Set(['path', 'linkpath', 'uname', 'gname']);

/** Records by key, the last of a key counts. Throws `TAR_CORRUPT` for a NUL where no reader expects one. */
function recordMap(records: readonly PaxRecord[]): Map<string, Buffer> {
  const map = new Map<string, Buffer>();
  for (const { key, value } of records) {
    const name = key.toString('latin1');
    if (textKeys.has(name) ? value.includes(0) : key.includes(0)) throw tarCorrupt(`PAX record ${JSON.stringify(name)} has a NUL`);
    map.set(name, value);
  }
  return map;
}

/** Overrides block fields by PAX records: the entry's own, else global ones (but never a global size). */
function withPax(block: HeaderFields, globals: PaxGlobals): HeaderFields {
  if (block.pax.length === 0 && globals.size === 0) return block;
  const own = recordMap(block.pax);
  const value = (key: string): Buffer | undefined => {
    const found = own.get(key) ?? (key === 'size' ? undefined : globals.get(key));
    return found === undefined || found.length === 0 ? undefined : found;
  };
  const integer = (key: string, otherwise: number): number => {
    const found = value(key);
    return found === undefined ? otherwise : parsePaxInteger(found, key);
  };
  const time = value('mtime');
  const mtime = time === undefined ? { sec: block.mtimeSec, nsec: 0 } : parsePaxTime(time);
  return {
    ...block,
    path: value('path') ?? block.path, linkPath: value('linkpath') ?? block.linkPath,
    uname: value('uname') ?? block.uname, gname: value('gname') ?? block.gname,
    uid: integer('uid', block.uid), gid: integer('gid', block.gid), sizeBytes: integer('size', block.sizeBytes),
    mtimeSec: mtime.sec, mtimeNsec: mtime.nsec,
  };
}

/** Parses the PAX and long-name headers and the entry's own header in `raw`. Fields are views into `raw`. Throws `TAR_CORRUPT`. */
export function parseHeader(raw: Buffer, inForce: PaxGlobals): ParsedHeader {
  const metas: MetaPlace[] = [];
  let globals = inForce;
  let pax: readonly PaxRecord[] = [];
  let longPath: Buffer | undefined;
  let longLink: Buffer | undefined;
  let at = 0;
  for (;;) {
    if (at + blockBytes > raw.length) throw tarCorrupt('headers end too early');
    const typeflag = raw[at + fieldPlaces.typeflag.offset] ?? 0;
    if (!isMetaType(typeflag)) break;
    const dataBytes = metaDataBytes(raw, at);
    const data = raw.subarray(at + blockBytes, at + blockBytes + dataBytes);
    if (data.length !== dataBytes) throw tarCorrupt('headers end too early');
    metas.push({ typeflag, offset: at, dataBytes });
    if (typeflag === typeflags.paxEntry) pax = parsePax(data).records;
    else if (typeflag === typeflags.paxGlobal) globals = new Map([...globals, ...recordMap(parsePax(data).records)]);
    else if (typeflag === typeflags.gnuLongName) longPath = cut(data);
    else longLink = cut(data);
    at += blockBytes + dataBytes + paddingBytes(dataBytes);
  }
  const merged = withPax(parseBlock(raw, at, pax), globals);
  // An empty long name is none, as in Go's reader.
  const path = longPath !== undefined && longPath.length > 0 ? longPath : merged.path;
  const linkPath = longLink !== undefined && longLink.length > 0 ? longLink : merged.linkPath;
  const sizeBytes = hasNoData(merged.typeflag, path) ? 0 : merged.sizeBytes;
  if (merged.sizeBytes < 0 || merged.mode < 0) throw tarCorrupt(merged.mode < 0 ? 'mode is negative' : 'size is negative');
  // Most headers say everything in their block: there is one for every file of an image, and a copy costs more than a look.
  const isMerged = path === merged.path && linkPath === merged.linkPath && sizeBytes === merged.sizeBytes;
  return { fields: isMerged ? merged : { ...merged, path, linkPath, sizeBytes }, metas, mainOffset: at, globals };
}
