import { tarCorrupt } from './block.js';

/**
 * How a writer prints numbers into one field, as one byte:
 * bits 0-2 terminator (index into `terminators`), bits 3-4 fill, bit 5 zero is left empty (all NUL),
 * bits 6-7 what stands there when the number does not fit.
 */
export type NumericStyle = number;

/** What stands where a number leaves room: `absent` is a field that stays NUL. */
export const fills = { zeros: 0, spaces: 1, leftAligned: 2, absent: 3 } as const;
/** What stands for a number that does not fit its field; `moreDigits` gives up the terminator for digits, and is base-256 beyond that. */
export const overflows = { zero: 0, max: 1, base256: 2, moreDigits: 3 } as const;

const terminators: readonly (readonly number[])[] = [[], [0], [0x20], [0x20, 0], [0, 0x20], [0, 0], [0x20, 0x20], [0x20, 0x20, 0]];
const zeroEmptyBit = 0x20;

/** Packs the parts of a NumericStyle. */
export function numericStyle(terminator: number, fill: number, overflow: number, zeroEmpty = false): NumericStyle {
  return terminator | (fill << 3) | (zeroEmpty ? zeroEmptyBit : 0) | (overflow << 6);
}

/** The same style with another overflow rule. */
function withOverflow(style: NumericStyle, overflow: number): NumericStyle {
  return (style & 0x3f) | (overflow << 6);
}

/** Index of the terminator that ends the field when its digits end at `digitsEnd`, or -1. */
function terminatorOf(bytes: Buffer, digitsEnd: number, end: number): number {
  return terminators.findIndex(
    (candidate) => candidate.length === end - digitsEnd && candidate.every((byte, index) => bytes[digitsEnd + index] === byte),
  );
}

function isOctalDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x37;
}

/** Guesses the style of a field that holds digits, NULs or base-256; keeps of `hint` what the bytes do not show. */
export function inferNumericStyle(bytes: Buffer, offset: number, width: number, value: number, hint: NumericStyle): NumericStyle {
  if (numericMatches(bytes, offset, width, value, hint)) return hint;
  const end = offset + width;
  if (((bytes[offset] ?? 0) & 0x80) !== 0) return withOverflow(hint, overflows.base256);
  let first = offset;
  while (first < end && bytes[first] === 0x20) first++;
  let last = first;
  while (last < end && isOctalDigit(bytes[last])) last++;
  if (last === first) return value === 0 ? hint | zeroEmptyBit : numericStyle(0, fills.absent, 0);
  const overflow = guessOverflow(bytes, first, last, width, value, hint);
  const terminator = terminatorOf(bytes, last, end);
  if (terminator < 0) return numericStyle(1, fills.leftAligned, overflow);
  const zeroFilled = first === offset;
  // Digits that fill the field say nothing of the fill; the hint's is as good.
  const fill = zeroFilled ? (bytes[first] === 0x30 || first + 1 === last ? fills.zeros : (hint >> 3) & 3) : fills.spaces;
  return numericStyle(terminator, fill === fills.absent ? fills.zeros : fill, overflow, (hint & zeroEmptyBit) !== 0 && value !== 0);
}

function guessOverflow(bytes: Buffer, first: number, last: number, width: number, value: number, hint: NumericStyle): number {
  const shown = Number.parseInt(bytes.toString('latin1', first, last), 8);
  if (shown === value) return last - first >= width - 1 && last - first > 7 && width === 8 ? overflows.moreDigits : hint >> 6;
  return shown === 0 ? overflows.zero : overflows.max;
}

/** By a number of octal digits (of a field's at most 12): the first value that has more. */
const octalLimits = Array.from({ length: 13 }, (_, digits) => 8 ** digits);

/** Prints `value` into a field that is all NUL before, as `style` says. */
export function writeNumeric(out: Buffer, offset: number, width: number, value: number, style: NumericStyle): void {
  const fill = (style >> 3) & 3;
  if (fill === fills.absent) return;
  if (value === 0 && (style & zeroEmptyBit) !== 0) return;
  const terminator = terminators[style & 7] ?? [];
  const digits = width - terminator.length;
  if (value >= 0 && value < (octalLimits[digits] ?? 0)) {
    writeDigits(out, offset, digits, value, fill, terminator);
    return;
  }
  switch (style >> 6) {
    case overflows.zero:
      writeDigits(out, offset, digits, 0, fill, terminator);
      return;
    case overflows.max:
      writeDigits(out, offset, digits, value < 0 ? 0 : 8 ** digits - 1, fill, terminator);
      return;
    case overflows.moreDigits:
      if (value >= 0 && value < 8 ** width) {
        const text = value.toString(8);
        out.write(text, offset, 'latin1');
        return;
      }
  }
  writeBase256(out, offset, width, value);
}

function writeDigits(out: Buffer, offset: number, digits: number, value: number, fill: number, terminator: readonly number[]): void {
  if (fill === fills.leftAligned) {
    out.write(value.toString(8), offset, 'latin1');
    return;
  }
  let rest = value;
  let at = offset + digits - 1;
  do {
    out[at--] = 0x30 + (rest % 8);
    rest = Math.floor(rest / 8);
  } while (rest > 0);
  if (at >= offset) out.fill(fill === fills.spaces ? 0x20 : 0x30, offset, at + 1);
  for (let index = 0; index < terminator.length; index++) out[offset + digits + index] = terminator[index] ?? 0;
}

function writeBase256(out: Buffer, offset: number, width: number, value: number): void {
  let rest = value < 0 ? -(value + 1) : value;
  const invert = value < 0 ? 0xff : 0;
  for (let at = offset + width - 1; at >= offset; at--) {
    out[at] = (rest % 256) ^ invert;
    rest = Math.floor(rest / 256);
  }
  out[offset] = (out[offset] ?? 0) | 0x80;
}

const scratch = Buffer.alloc(12);

/** Whether `style` prints `value` exactly as the field stands. */
function numericMatches(bytes: Buffer, offset: number, width: number, value: number, style: NumericStyle): boolean {
  scratch.fill(0);
  writeNumeric(scratch, 0, width, value, style);
  return scratch.compare(bytes, offset, offset + width, 0, width) === 0;
}

/**
 * The number in a header field: octal text between spaces and NULs, or base-256 (first bit set, two's complement).
 * An empty field is 0. Throws `TAR_CORRUPT` for other text and for numbers that are not safe integers.
 */
export function readNumeric(bytes: Buffer, offset: number, width: number, what: string): number {
  if (((bytes[offset] ?? 0) & 0x80) !== 0) return readBase256(bytes, offset, width, what);
  const end = offset + width;
  let at = offset;
  while (at < end && (bytes[at] === 0 || bytes[at] === 0x20)) at++;
  let value = 0;
  for (; at < end; at++) {
    const byte = bytes[at] ?? 0;
    if (byte >= 0x30 && byte <= 0x37) value = value * 8 + (byte - 0x30);
    else if (byte === 0) break;
    else if (byte === 0x20) {
      for (at++; at < end; at++) if (bytes[at] !== 0 && bytes[at] !== 0x20) throw tarCorrupt(`${what} is not a number`);
    } else throw tarCorrupt(`${what} is not a number`);
  }
  if (!Number.isSafeInteger(value)) throw tarCorrupt(`${what} is too large`);
  return value;
}

function readBase256(bytes: Buffer, offset: number, width: number, what: string): number {
  const negative = ((bytes[offset] ?? 0) & 0x40) !== 0;
  let value = 0;
  for (let at = 0; at < width; at++) {
    let byte = bytes[offset + at] ?? 0;
    if (negative) byte ^= 0xff;
    if (at === 0) byte &= 0x7f;
    value = value * 256 + byte;
    if (value > Number.MAX_SAFE_INTEGER) throw tarCorrupt(`${what} is too large`);
  }
  return negative ? -value - 1 : value;
}
