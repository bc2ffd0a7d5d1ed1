import type { ByteWriter } from '../core/bytes.js';

/** Writes a safe integer: sign in bit 0, the low six bits above, then the rest as a varint if bit 7 is set. */
export function writeSigned(out: ByteWriter, value: number): void {
  const size = Math.abs(value);
  const rest = Math.floor(size / 64);
  out.u8((value < 0 ? 1 : 0) | ((size % 64) << 1) | (rest > 0 ? 0x80 : 0));
  if (rest > 0) out.varint(rest);
}

/** What `readSigned` needs of a reader. */
export interface NumberReader {
  u8(): number;
  varint(max?: number): number;
}

/** Reads what `writeSigned` wrote; throws what `reader` throws. */
export function readSigned(reader: NumberReader): number {
  const first = reader.u8();
  const rest = (first & 0x80) === 0 ? 0 : reader.varint(2 ** 47 - 1);
  const size = rest * 64 + ((first >> 1) & 63);
  return (first & 1) === 0 || size === 0 ? size : -size;
}
