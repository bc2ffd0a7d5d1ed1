import { blockBytes, blockChecksum, fieldPlaces, noBytes, paddingBytes, typeflags } from './block.js';
import { goTruncate, metaName, shortForms, shortName, shortText, splitUstar, type SplitName } from './names.js';
import { writeNumeric } from './numeric.js';
import { formatPax, paxValue } from './pax.js';
import { magics, timeRoundings, type BlockStyle, type MetaStyle, type Style } from './style.js';
import type { TarHeader } from './types.js';

/** The fields of a header, without how they were written. */
export type HeaderFields = Omit<TarHeader, 'style' | 'residue'>;

/** Header bytes as a known writer would make them; checksum fields are still NUL. */
export interface Rendered {
  readonly bytes: Buffer;
  /** Offsets of the header blocks in `bytes` and their styles, the entry's own last. */
  readonly blocks: readonly { readonly offset: number; readonly style: BlockStyle }[];
  /** Offset of the entry's own block. */
  readonly mainOffset: number;
}

interface BlockValues {
  readonly name: SplitName;
  readonly linkname: Buffer;
  readonly typeflag: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  readonly uname: Buffer;
  readonly gname: Buffer;
  readonly devMajor: number;
  readonly devMinor: number;
}

const { name, mode, uid, gid, size, mtime, checksum, linkname, magic, uname, gname, devMajor, devMinor, prefix } = fieldPlaces;

function put(out: Buffer, offset: number, text: Buffer, widthBytes: number): void {
  text.copy(out, offset, 0, Math.min(text.length, widthBytes));
}

function writeBlock(out: Buffer, at: number, values: BlockValues, style: BlockStyle): void {
  put(out, at + name.offset, values.name.name, name.widthBytes);
  writeNumeric(out, at + mode.offset, mode.widthBytes, values.mode, style.mode);
  writeNumeric(out, at + uid.offset, uid.widthBytes, values.uid, style.uid);
  writeNumeric(out, at + gid.offset, gid.widthBytes, values.gid, style.gid);
  writeNumeric(out, at + size.offset, size.widthBytes, values.size, style.size);
  writeNumeric(out, at + mtime.offset, mtime.widthBytes, values.mtime, style.mtime);
  out[at + fieldPlaces.typeflag.offset] = values.typeflag;
  put(out, at + linkname.offset, values.linkname, linkname.widthBytes);
  put(out, at + magic.offset, style.magic, magic.widthBytes);
  put(out, at + uname.offset, values.uname, uname.widthBytes);
  put(out, at + gname.offset, values.gname, gname.widthBytes);
  if (!style.deviceOnly || values.typeflag === typeflags.characterDevice || values.typeflag === typeflags.blockDevice) {
    writeNumeric(out, at + devMajor.offset, devMajor.widthBytes, values.devMajor, style.devMajor);
    writeNumeric(out, at + devMinor.offset, devMinor.widthBytes, values.devMinor, style.devMinor);
  }
  put(out, at + prefix.offset, values.name.prefix, prefix.widthBytes);
}

/** Prints the checksums of `rendered` into its blocks. */
export function sealChecksums(rendered: Rendered): void {
  for (const { offset, style } of rendered.blocks) {
    writeNumeric(rendered.bytes, offset + checksum.offset, checksum.widthBytes, blockChecksum(rendered.bytes, offset), style.checksum);
  }
}

const longSymlink = Buffer.from('././@LongSymLink', 'latin1');
const longHardLink = Buffer.from('././@LongHardLink', 'latin1');

interface MetaMember {
  readonly style: MetaStyle;
  readonly typeflag: number;
  readonly data: Buffer;
}

/** Whether `text` goes into a GNU long-name header. */
function needsLong(fields: HeaderFields, style: Style, text: Buffer, key: string): boolean {
  return style.long !== null && text.length > (style.longAt100 ? 99 : 100) && paxValue(fields.pax, key) === undefined;
}

function metaMembers(fields: HeaderFields, style: Style): MetaMember[] {
  const members: MetaMember[] = [];
  if (style.long !== null) {
    const end = style.longNulEnds ? Buffer.of(0) : noBytes;
    if (needsLong(fields, style, fields.linkPath, 'linkpath')) {
      members.push({ style: style.long, typeflag: typeflags.gnuLongLink, data: Buffer.concat([fields.linkPath, end]) });
    }
    if (needsLong(fields, style, fields.path, 'path')) {
      members.push({ style: style.long, typeflag: typeflags.gnuLongName, data: Buffer.concat([fields.path, end]) });
    }
    if (style.longPathFirst) members.reverse();
  }
  if (style.pax !== null && fields.pax.length > 0) {
    members.push({ style: style.pax, typeflag: typeflags.paxEntry, data: formatPax(fields.pax) });
  }
  return members;
}

/** The seconds of a time as `timeRoundings` has it; half a second goes to the even one, as in Python. */
export function wholeSeconds({ mtimeSec, mtimeNsec }: HeaderFields, rounding: number): number {
  if (mtimeNsec === 0 || rounding === timeRoundings.down) return mtimeSec;
  if (rounding === timeRoundings.towardsZero) return mtimeSec < 0 ? mtimeSec + 1 : mtimeSec;
  const up = mtimeNsec > 500_000_000 || (mtimeNsec === 500_000_000 && mtimeSec % 2 !== 0);
  return up ? mtimeSec + 1 : mtimeSec;
}

function metaValues(fields: HeaderFields, meta: MetaStyle, typeflag: number, dataBytes: number): BlockValues {
  const called = meta.nameForm === 0 ? noBytes : (paxValue(fields.pax, 'GNU.sparse.name') ?? fields.path);
  return {
    name: metaName(called, meta.nameForm, meta.nameText), linkname: noBytes, typeflag, size: dataBytes,
    mode: meta.mode ?? fields.mode, uid: meta.uid ?? fields.uid, gid: meta.gid ?? fields.gid,
    mtime: meta.mtime ?? wholeSeconds(fields, meta.block.timeRounding), uname: meta.uname ?? fields.uname, gname: meta.gname ?? fields.gname,
    devMajor: 0, devMinor: 0,
  };
}

/** What stays in the field of a text that a GNU long-name header holds. */
function cutText(text: Buffer, style: Style, widthBytes: number): Buffer {
  return style.shortForm === shortForms.asciiOnly ? goTruncate(text, widthBytes) : text.subarray(0, widthBytes);
}

function ownName(fields: HeaderFields, style: Style): SplitName {
  if (paxValue(fields.pax, 'path') !== undefined) return shortName(fields.path, style.shortForm);
  if (fields.path.length <= name.widthBytes - (style.longAt100 ? 1 : 0)) return { prefix: noBytes, name: fields.path };
  if (style.long !== null) return { prefix: noBytes, name: cutText(fields.path, style, name.widthBytes - (style.longAt100 ? 1 : 0)) };
  const split = style.block.magic.equals(magics.ustar) ? splitUstar(fields.path, style.prefixForm) : null;
  return split ?? { prefix: noBytes, name: fields.path };
}

function ownText(fields: HeaderFields, style: Style, text: Buffer, widthBytes: number, key: string): Buffer {
  return paxValue(fields.pax, key) === undefined ? text : shortText(text, widthBytes, style.shortForm);
}

/** libarchive puts a fixed text in place of a link target that does not fit. */
function ownLink(fields: HeaderFields, style: Style): Buffer {
  const { linkPath } = fields;
  if (style.shortForm === shortForms.splitOrShorten && linkPath.length > linkname.widthBytes && paxValue(fields.pax, 'linkpath') !== undefined) {
    return fields.typeflag === typeflags.hardLink ? longHardLink : longSymlink;
  }
  return ownText(fields, style, linkPath, linkname.widthBytes, 'linkpath');
}

function ownValues(fields: HeaderFields, style: Style): BlockValues {
  const link = needsLong(fields, style, fields.linkPath, 'linkpath')
    ? cutText(fields.linkPath, style, linkname.widthBytes)
    : ownLink(fields, style);
  return {
    name: ownName(fields, style), linkname: link, typeflag: fields.typeflag, mode: fields.mode, uid: fields.uid, gid: fields.gid,
    size: fields.sizeBytes, mtime: wholeSeconds(fields, style.block.timeRounding),
    uname: ownText(fields, style, fields.uname, uname.widthBytes, 'uname'), gname: ownText(fields, style, fields.gname, gname.widthBytes, 'gname'),
    devMajor: fields.devMajor, devMinor: fields.devMinor,
  };
}

/** Header bytes that a writer of the given style makes for `fields`; without the PAX and long-name headers when `withMetas` is false. */
export function render(fields: HeaderFields, style: Style, withMetas: boolean): Rendered {
  const members = withMetas ? metaMembers(fields, style) : [];
  let total = blockBytes;
  for (const member of members) total += blockBytes + member.data.length + paddingBytes(member.data.length);
  const bytes = Buffer.allocUnsafe(total).fill(0);
  const blocks: { offset: number; style: BlockStyle }[] = [];
  let at = 0;
  for (const member of members) {
    writeBlock(bytes, at, metaValues(fields, member.style, member.typeflag, member.data.length), member.style.block);
    blocks.push({ offset: at, style: member.style.block });
    member.data.copy(bytes, at + blockBytes);
    at += blockBytes + member.data.length + paddingBytes(member.data.length);
  }
  writeBlock(bytes, at, ownValues(fields, style), style.block);
  blocks.push({ offset: at, style: style.block });
  return { bytes, blocks, mainOffset: at };
}
