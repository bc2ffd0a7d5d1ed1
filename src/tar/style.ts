import { ByteReader, ByteWriter } from '../core/bytes.js';
import { noBytes, tarCorrupt } from './block.js';
import { fills, numericStyle, overflows, type NumericStyle } from './numeric.js';

/** How one kind of 512-byte block is written. */
export interface BlockStyle {
  /** The 8 bytes of magic and version. */
  readonly magic: Buffer;
  readonly mode: NumericStyle;
  readonly uid: NumericStyle;
  readonly gid: NumericStyle;
  readonly size: NumericStyle;
  readonly mtime: NumericStyle;
  readonly checksum: NumericStyle;
  readonly devMajor: NumericStyle;
  readonly devMinor: NumericStyle;
  /** Device numbers are written for character and block devices only. */
  readonly deviceOnly: boolean;
  /** `timeRoundings` of times with a fraction, which only a PAX record can hold. */
  readonly timeRounding: number;
}

/** What stands in the block of a PAX header or GNU long-name header. A number or text of null is the entry's own. */
export interface MetaStyle {
  readonly nameForm: number;
  readonly nameText: Buffer;
  readonly mode: number | null;
  readonly uid: number | null;
  readonly gid: number | null;
  readonly mtime: number | null;
  readonly uname: Buffer | null;
  readonly gname: Buffer | null;
  readonly block: BlockStyle;
}

/** Everything that a writer does the same way for all entries. Serialized as `TarHeader.style`. */
export interface Style {
  readonly block: BlockStyle;
  /** `shortForms` of fields that PAX records replace. */
  readonly shortForm: number;
  /** `prefixForms`. */
  readonly prefixForm: number;
  /** `timeForms` of PAX times. */
  readonly timeForm: number;
  /** Texts of 100 bytes too get a GNU long-name header, and names are cut to 99 bytes (old GNU tar ends them with a NUL). */
  readonly longAt100: boolean;
  /** The GNU header for the long path stands before that for the long link target. */
  readonly longPathFirst: boolean;
  /** The text in a GNU long-name header ends with a NUL. */
  readonly longNulEnds: boolean;
  /** The PAX header's block, or null when none was seen yet. */
  readonly pax: MetaStyle | null;
  /** The GNU long-name headers' block, or null for writers that make none. */
  readonly long: MetaStyle | null;
}

/** The magic and version that are in use: of POSIX, of old GNU, and none at all. */
export const magics = {
  ustar: Buffer.from('ustar\x0000', 'latin1'),
  gnu: Buffer.from('ustar  \0', 'latin1'),
  v7: Buffer.alloc(8),
} as const;
const magicList: readonly Buffer[] = [magics.ustar, magics.gnu, magics.v7];

/** How whole seconds are made of a time with a fraction. */
export const timeRoundings = { down: 0, towardsZero: 1, nearest: 2 } as const;

const styleVersion = 1;
const maxNameTextBytes = 100;
const maxOwnerTextBytes = 32;

function usual(magic: Buffer, overflow: number): BlockStyle {
  const number = numericStyle(1, fills.zeros, overflow);
  return {
    magic, mode: number, uid: number, gid: number, size: number, mtime: number,
    checksum: numericStyle(4, fills.zeros, overflows.zero), devMajor: number, devMinor: number,
    deviceOnly: false, timeRounding: timeRoundings.down,
  };
}

/** The style to start from for a first header with this magic. */
export function defaultStyle(magic: Buffer): Style {
  const gnu = magic.equals(magics.gnu);
  return {
    block: usual(magic, gnu ? overflows.base256 : overflows.zero),
    shortForm: 0, prefixForm: 0, timeForm: 0, longAt100: false, longPathFirst: false, longNulEnds: true, pax: null, long: null,
  };
}

/** The style of a PAX header's or long-name header's block to start from. */
export function defaultMetaStyle(magic: Buffer): MetaStyle {
  return { nameForm: 0, nameText: noBytes, mode: 0, uid: 0, gid: 0, mtime: 0, uname: noBytes, gname: noBytes, block: usual(magic, overflows.zero) };
}

function writeBlock(out: ByteWriter, block: BlockStyle): void {
  const known = magicList.findIndex((magic) => magic.equals(block.magic));
  const code = known < 0 ? 3 : known;
  out.u8(code | (block.deviceOnly ? 4 : 0) | (block.timeRounding << 3));
  if (code === 3) out.bytes(block.magic);
  for (const style of [block.mode, block.uid, block.gid, block.size, block.mtime, block.checksum, block.devMajor, block.devMinor]) out.u8(style);
}

function writeMeta(out: ByteWriter, meta: MetaStyle): void {
  out.u8(meta.nameForm).blob(meta.nameText);
  for (const number of [meta.mode, meta.uid, meta.gid, meta.mtime]) out.varint(number === null ? 0 : number + 1);
  for (const text of [meta.uname, meta.gname]) {
    if (text === null) out.varint(0);
    else out.varint(text.length + 1).bytes(text);
  }
  writeBlock(out, meta.block);
}

/** Serializes a style: equal styles give equal bytes. */
export function encodeStyle(style: Style): Buffer {
  const out = new ByteWriter();
  out.u8((styleVersion << 2) | (style.pax === null ? 0 : 1) | (style.long === null ? 0 : 2));
  out.u8(style.shortForm | (style.prefixForm << 2) | (style.timeForm << 4));
  out.u8((style.longAt100 ? 1 : 0) | (style.longPathFirst ? 2 : 0) | (style.longNulEnds ? 4 : 0));
  writeBlock(out, style.block);
  if (style.pax !== null) writeMeta(out, style.pax);
  if (style.long !== null) writeMeta(out, style.long);
  return out.finish();
}

function readBlock(reader: ByteReader): BlockStyle {
  const code = reader.u8();
  if (code > 23) reader.fail('unknown block style');
  const magic = magicList[code & 3] ?? reader.bytes(8);
  const [mode, uid, gid, size, mtime, checksum, devMajor, devMinor] = reader.bytes(8);
  return {
    magic, mode: mode ?? 0, uid: uid ?? 0, gid: gid ?? 0, size: size ?? 0, mtime: mtime ?? 0, checksum: checksum ?? 0,
    devMajor: devMajor ?? 0, devMinor: devMinor ?? 0, deviceOnly: (code & 4) !== 0, timeRounding: code >> 3,
  };
}

function readMeta(reader: ByteReader): MetaStyle {
  const nameForm = reader.u8();
  if (nameForm > 3) reader.fail('unknown name form');
  const nameText = reader.blob(maxNameTextBytes);
  const number = (): number | null => {
    const value = reader.varint();
    return value === 0 ? null : value - 1;
  };
  const text = (): Buffer | null => {
    const length = reader.varint(maxOwnerTextBytes + 1);
    return length === 0 ? null : reader.bytes(length - 1);
  };
  const [mode, uid, gid, mtime] = [number(), number(), number(), number()];
  const [uname, gname] = [text(), text()];
  return { nameForm, nameText, mode, uid, gid, mtime, uname, gname, block: readBlock(reader) };
}

const decoded = new WeakMap<Buffer, Style>();

/** Parses `TarHeader.style`, which may be hostile; throws `TAR_CORRUPT`. Equal buffer objects are parsed once: do not change one. */
export function decodeStyle(bytes: Buffer): Style {
  const known = decoded.get(bytes);
  if (known !== undefined) return known;
  const reader = new ByteReader(bytes, (what) => tarCorrupt(`header style ${what}`));
  const parts = reader.u8();
  if (parts >> 2 !== styleVersion) reader.fail('has an unknown version');
  const forms = reader.u8();
  const long = reader.u8();
  if (forms > 0x3f || long > 7 || ((forms >> 2) & 3) === 3 || forms >> 4 === 3) reader.fail('has an unknown form');
  const style: Style = {
    shortForm: forms & 3, prefixForm: (forms >> 2) & 3, timeForm: forms >> 4,
    longAt100: (long & 1) !== 0, longPathFirst: (long & 2) !== 0, longNulEnds: (long & 4) !== 0,
    block: readBlock(reader),
    pax: (parts & 1) === 0 ? null : readMeta(reader),
    long: (parts & 2) === 0 ? null : readMeta(reader),
  };
  reader.end();
  decoded.set(bytes, style);
  return style;
}
