import { blockBytes, fieldPlaces, typeflags } from './block.js';
import { metaName, metaNameForms, prefixForms, shortForms, splitUstar } from './names.js';
import { inferNumericStyle } from './numeric.js';
import { formatPaxTime, paxValue, timeForms } from './pax.js';
import type { MetaPlace, ParsedHeader } from './parse.js';
import { render, wholeSeconds, type HeaderFields } from './render.js';
import { defaultMetaStyle, defaultStyle, magics, timeRoundings, type BlockStyle, type MetaStyle, type Style } from './style.js';

interface BlockNumbers {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  readonly devMajor: number;
  readonly devMinor: number;
}

/** A view of a field of the block at `at`. */
function field(raw: Buffer, at: number, key: keyof typeof fieldPlaces): Buffer {
  const place = fieldPlaces[key];
  return raw.subarray(at + place.offset, at + place.offset + place.widthBytes);
}

function upToNul(bytes: Buffer): Buffer {
  const nul = bytes.indexOf(0);
  return nul < 0 ? bytes : bytes.subarray(0, nul);
}

function blockMagic(raw: Buffer, at: number): Buffer {
  const bytes = field(raw, at, 'magic');
  return Object.values(magics).find((magic) => magic.equals(bytes)) ?? Buffer.from(bytes);
}

/** Rounding that turns the entry's time into the seconds of the block at `at`. */
function inferRounding(raw: Buffer, at: number, fields: HeaderFields, hint: number): number {
  if (fields.mtimeNsec === 0) return hint;
  const shown = readOctal(field(raw, at, 'mtime'));
  const gives = (rounding: number): boolean => wholeSeconds(fields, rounding) === shown;
  return gives(hint) ? hint : (Object.values(timeRoundings).find(gives) ?? hint);
}

function inferBlock(raw: Buffer, at: number, values: BlockNumbers, typeflag: number, hint: BlockStyle): BlockStyle {
  const infer = (key: keyof BlockNumbers, value: number): number =>
    inferNumericStyle(raw, at + fieldPlaces[key].offset, fieldPlaces[key].widthBytes, value, hint[key]);
  const isDevice = typeflag === typeflags.characterDevice || typeflag === typeflags.blockDevice;
  const noDevices = !isDevice && [...field(raw, at, 'devMajor'), ...field(raw, at, 'devMinor')].every((byte) => byte === 0);
  const sum = readOctal(field(raw, at, 'checksum'));
  return {
    magic: blockMagic(raw, at), timeRounding: hint.timeRounding,
    mode: infer('mode', values.mode), uid: infer('uid', values.uid), gid: infer('gid', values.gid),
    size: infer('size', values.size), mtime: infer('mtime', values.mtime),
    checksum: inferNumericStyle(raw, at + fieldPlaces.checksum.offset, fieldPlaces.checksum.widthBytes, sum, hint.checksum),
    deviceOnly: noDevices ? true : isDevice && hint.deviceOnly,
    devMajor: noDevices ? hint.devMajor : infer('devMajor', values.devMajor),
    devMinor: noDevices ? hint.devMinor : infer('devMinor', values.devMinor),
  };
}

function readOctal(bytes: Buffer): number {
  const digits = /^[ \0]*([0-7]+)/.exec(bytes.toString('latin1'));
  return digits?.[1] === undefined ? 0 : Number.parseInt(digits[1], 8);
}

/** A constant or null for "the entry's own": what the bytes show, in doubt what the hint says, else a constant. */
function sameOrConstant(shown: number, own: number, hint: number | null): number | null {
  if (hint === null) return shown === own ? null : shown;
  if (shown === hint || shown < 0) return hint;
  return shown === own ? null : shown;
}

function sameOrText(shown: Buffer, own: Buffer, hint: Buffer | null): Buffer | null {
  if (hint === null) return shown.equals(own) ? null : Buffer.from(shown);
  if (shown.equals(hint)) return hint;
  return shown.equals(own) ? null : Buffer.from(shown);
}

function inferMeta(raw: Buffer, place: MetaPlace, fields: HeaderFields, hint: MetaStyle): MetaStyle {
  const at = place.offset;
  const number = (key: 'mode' | 'uid' | 'gid' | 'mtime'): number => readOctal(field(raw, at, key));
  const shown = { mode: number('mode'), uid: number('uid'), gid: number('gid'), mtime: number('mtime') };
  const name = inferMetaName(field(raw, at, 'name'), field(raw, at, 'prefix'), fields, hint);
  return {
    ...name,
    mode: sameOrConstant(shown.mode, fields.mode, hint.mode), uid: sameOrConstant(shown.uid, fields.uid, hint.uid),
    gid: sameOrConstant(shown.gid, fields.gid, hint.gid), mtime: sameOrConstant(shown.mtime, fields.mtimeSec, hint.mtime),
    uname: sameOrText(upToNul(field(raw, at, 'uname')), fields.uname, hint.uname),
    gname: sameOrText(upToNul(field(raw, at, 'gname')), fields.gname, hint.gname),
    block: inferBlock(raw, at, { ...shown, size: place.dataBytes, devMajor: 0, devMinor: 0 }, place.typeflag, hint.block),
  };
}

function padded(bytes: Buffer, widthBytes: number): Buffer {
  return Buffer.concat([bytes.subarray(0, widthBytes)], widthBytes);
}

type MetaName = Pick<MetaStyle, 'nameForm' | 'nameText'>;

function inferMetaName(name: Buffer, prefix: Buffer, fields: HeaderFields, hint: MetaStyle): MetaName {
  const path = paxValue(fields.pax, 'GNU.sparse.name') ?? fields.path;
  const gives = ({ nameForm, nameText }: MetaName): boolean => {
    const made = metaName(path, nameForm, nameText);
    return padded(made.name, name.length).equals(name) && padded(made.prefix, prefix.length).equals(prefix);
  };
  if (gives(hint)) return { nameForm: hint.nameForm, nameText: hint.nameText };
  const word = /(?:^|\/)(PaxHeaders?(?:\.[^/]*)?)(?:\/|$)/.exec(upToNul(name).toString('latin1'))?.[1];
  if (word !== undefined) {
    for (const nameForm of [metaNameForms.gnu, metaNameForms.go, metaNameForms.libarchive]) {
      const candidate = { nameForm, nameText: Buffer.from(word, 'latin1') };
      if (gives(candidate)) return candidate;
    }
    if (hint.nameText.length > 0 && hint.nameForm !== metaNameForms.constant) return { nameForm: hint.nameForm, nameText: hint.nameText };
  }
  return { nameForm: metaNameForms.constant, nameText: Buffer.from(upToNul(name)) };
}

function inferTimeForm(fields: HeaderFields, hint: number): number {
  const value = paxValue(fields.pax, 'mtime')?.toString('latin1');
  if (value === undefined) return hint;
  const gives = (form: number): boolean => formatPaxTime(fields.mtimeSec, fields.mtimeNsec, form) === value;
  return gives(hint) ? hint : (Object.values(timeForms).find(gives) ?? hint);
}

function inferPrefixForm(raw: Buffer, at: number, fields: HeaderFields, hint: number): number {
  const gives = (form: number): boolean => {
    const split = splitUstar(fields.path, form);
    const prefix = field(raw, at, 'prefix');
    return split === null ? upToNul(prefix).length === 0 : padded(split.prefix, prefix.length).equals(prefix);
  };
  if (fields.path.length <= fieldPlaces.name.widthBytes || paxValue(fields.pax, 'path') !== undefined || gives(hint)) return hint;
  return Object.values(prefixForms).find(gives) ?? hint;
}

/** Bytes by which a style's own block misses the raw one, for choosing among forms. */
function missedBytes(raw: Buffer, mainOffset: number, fields: HeaderFields, style: Style): number {
  const made = render(fields, style, false).bytes;
  let missed = 0;
  for (let at = 0; at < blockBytes; at++) if (made[at] !== raw[mainOffset + at]) missed++;
  return missed;
}

function inferShortForm(raw: Buffer, mainOffset: number, fields: HeaderFields, style: Style): number {
  let best = style.shortForm;
  let least = missedBytes(raw, mainOffset, fields, style);
  for (const shortForm of Object.values(shortForms)) {
    const missed = missedBytes(raw, mainOffset, fields, { ...style, shortForm });
    if (missed < least) {
      least = missed;
      best = shortForm;
    }
  }
  return best;
}

function inferLong(raw: Buffer, { metas, fields, mainOffset }: ParsedHeader, hint: Style): Pick<Style, 'long' | 'longPathFirst' | 'longNulEnds' | 'longAt100'> {
  const { longPathFirst, longAt100, longNulEnds } = hint;
  const places = metas.filter(({ typeflag }) => typeflag === typeflags.gnuLongName || typeflag === typeflags.gnuLongLink);
  const [first, second] = places;
  if (first === undefined) {
    // A long path without a long-name header shows that this writer makes none.
    const needed = (bytes: Buffer, key: string): boolean => bytes.length > 100 && paxValue(fields.pax, key) === undefined;
    const none = needed(fields.path, 'path') || needed(fields.linkPath, 'linkpath');
    return { long: none ? null : hint.long, longPathFirst, longAt100, longNulEnds };
  }
  const dataEnd = first.offset + blockBytes + first.dataBytes;
  const text = first.typeflag === typeflags.gnuLongName ? fields.path : fields.linkPath;
  return {
    long: inferMeta(raw, first, fields, hint.long ?? defaultMetaStyle(blockMagic(raw, first.offset))),
    longPathFirst: second === undefined ? longPathFirst : first.typeflag === typeflags.gnuLongName,
    longNulEnds: first.dataBytes > 0 ? raw[dataEnd - 1] === 0 : longNulEnds,
    longAt100: text.length === 100 ? true : longAt100 || endsEarly(raw, mainOffset, first.typeflag, text),
  };
}

/** Whether the entry's own field holds 99 bytes of a long name and a NUL. */
function endsEarly(raw: Buffer, mainOffset: number, typeflag: number, text: Buffer): boolean {
  if (text.length <= 100) return false;
  const own = field(raw, mainOffset, typeflag === typeflags.gnuLongName ? 'name' : 'linkname');
  return own[99] === 0 && text.subarray(0, 99).equals(own.subarray(0, 99)) && text[98] !== 0x2f;
}

function inferOwnBlock(raw: Buffer, { fields, mainOffset }: ParsedHeader, hint: BlockStyle): BlockStyle {
  const timeRounding = inferRounding(raw, mainOffset, fields, hint.timeRounding);
  const mtime = wholeSeconds(fields, timeRounding);
  return inferBlock(raw, mainOffset, { ...fields, size: fields.sizeBytes, mtime }, fields.typeflag, { ...hint, timeRounding });
}

/** The style that best explains `raw`; what `raw` does not show is taken from `hint`, the style of an earlier entry of the same tar. */
export function inferStyle(raw: Buffer, parsed: ParsedHeader, hint: Style | null): Style {
  const { fields, mainOffset } = parsed;
  const magic = blockMagic(raw, mainOffset);
  const base = hint !== null && hint.block.magic.equals(magic) ? hint : defaultStyle(magic);
  const paxPlace = parsed.metas.findLast(({ typeflag }) => typeflag === typeflags.paxEntry);
  const style: Style = {
    ...base,
    ...inferLong(raw, parsed, base),
    pax: paxPlace === undefined ? base.pax : inferMeta(raw, paxPlace, fields, base.pax ?? defaultMetaStyle(blockMagic(raw, paxPlace.offset))),
    block: inferOwnBlock(raw, parsed, base.block),
    timeForm: inferTimeForm(fields, base.timeForm),
    prefixForm: inferPrefixForm(raw, mainOffset, fields, base.prefixForm),
  };
  return { ...style, shortForm: inferShortForm(raw, mainOffset, fields, style) };
}

