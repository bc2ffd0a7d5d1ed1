import { noBytes } from './block.js';
import { inferStyle } from './infer.js';
import { parseHeader, type ParsedHeader, type PaxGlobals } from './parse.js';
import { paxValueFromFields } from './pax.js';
import type { HeaderFields } from './render.js';
import { applyResidue, makeResidue } from './residue.js';
import { decodeStyle, encodeStyle } from './style.js';
import type { TarHeader } from './types.js';

/** What splitting may use of what came before in the same tar. */
export interface SplitContext {
  /** Header of the entry before; its style is tried first and its owner names are shared, so that a tar's entries share both. */
  readonly previous?: TarHeader | undefined;
  /** Global PAX records in force. */
  readonly globals?: PaxGlobals | undefined;
}

const noGlobals: PaxGlobals = new Map();

/** A style change must save more residue than this, or the style of the entry before is kept. */
const styleChangeBytes = 8;

/**
 * Splits the raw header bytes of one entry into fields, style and residue. `joinHeader` gives back exactly `raw`.
 * Copies what it keeps. Throws `TAR_CORRUPT` for bytes that no reader would take for tar headers (malformed
 * numbers or PAX records); checksums are not checked here.
 */
export function splitHeader(raw: Buffer, context: SplitContext = {}): TarHeader {
  return splitParsed(raw, parseHeader(raw, context.globals ?? noGlobals), context.previous);
}

/** `splitHeader` for a header that was parsed already. */
export function splitParsed(raw: Buffer, parsed: ParsedHeader, previous: TarHeader | undefined): TarHeader {
  const { fields, mainOffset } = parsed;
  const hint = previous === undefined ? null : decodeStyle(previous.style);
  const kept = previous === undefined || hint === null ? null : { style: previous.style, residue: makeResidue(raw, mainOffset, fields, hint) };
  if (kept?.residue.length === 0) return assemble(fields, kept, previous);
  const style = encodeStyle(inferStyle(raw, parsed, hint));
  const fresh = { style, residue: makeResidue(raw, mainOffset, fields, decodeStyle(style)) };
  const keep = kept !== null && fresh.residue.length > 0 && kept.residue.length <= fresh.residue.length + styleChangeBytes;
  return assemble(fields, keep ? kept : fresh, previous);
}

/** A copy of `bytes`, or `known` when that is equal. */
function copy(bytes: Buffer, known: Buffer | undefined): Buffer {
  if (bytes.length === 0) return noBytes;
  return known?.equals(bytes) === true ? known : Buffer.from(bytes);
}

function assemble(fields: HeaderFields, written: Pick<TarHeader, 'style' | 'residue'>, previous: TarHeader | undefined): TarHeader {
  const { typeflag, mode, uid, gid, sizeBytes, mtimeSec, mtimeNsec, devMajor, devMinor, pax } = fields;
  const { style, residue } = written;
  const path = copy(fields.path, undefined);
  const linkPath = copy(fields.linkPath, undefined);
  const uname = copy(fields.uname, previous?.uname);
  const gname = copy(fields.gname, previous?.gname);
  return { path, linkPath, typeflag, mode, uid, gid, sizeBytes, mtimeSec, mtimeNsec, uname, gname, devMajor, devMinor, pax, style, residue };
}

/**
 * The raw header bytes of an entry: fields, PAX records, style and residue put together. All parts may come from an
 * untrusted delta; throws `TAR_CORRUPT` for a malformed style or residue. The result is a new buffer.
 */
export function joinHeader(header: TarHeader): Buffer {
  return applyResidue(header, decodeStyle(header.style), header.residue);
}

/** The same header with the `style` of another, if its bytes are then given without residue; else null. */
export function withOtherStyle(header: TarHeader, style: Buffer): TarHeader | null {
  const other: TarHeader = { ...header, style, residue: noBytes };
  return joinHeader(other).equals(joinHeader(header)) ? other : null;
}

/**
 * What the PAX record `key` of a header would hold if it merely repeated the header's fields (path, linkpath, size,
 * mtime, uid, gid, uname, gname), or null for other keys. `header.pax` is not looked at, so a decoder can fill it in.
 */
export function derivePaxValue(header: Omit<TarHeader, 'pax' | 'residue'>, key: Buffer): Buffer | null {
  return paxValueFromFields(header, key.toString('latin1'), decodeStyle(header.style).timeForm);
}

/** For each record of `header.pax`, whether its value is what `derivePaxValue` gives. */
export function paxDerived(header: TarHeader): boolean[] {
  return header.pax.map(({ key, value }) => derivePaxValue(header, key)?.equals(value) ?? false);
}
