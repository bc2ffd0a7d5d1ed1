/** The checksum that a zlib stream ends with (RFC 1950, section 9). `before`: that of the bytes before these. */
export function adler32(bytes: Buffer, before = 1): number {
  let a = before % 65_536;
  let b = Math.floor(before / 65_536);
  // As many bytes as leave the sums below 2^31.
  for (let from = 0; from < bytes.length; from += 2048) {
    const to = Math.min(from + 2048, bytes.length);
    for (let at = from; at < to; at++) {
      a += bytes[at]!;
      b += a;
    }
    a %= 65_521;
    b %= 65_521;
  }
  return b * 65_536 + a;
}

const crcTable = Int32Array.from({ length: 256 }, (_, byte) => {
  let word = byte;
  for (let bit = 0; bit < 8; bit++) word = (word & 1) === 0 ? word >>> 1 : (word >>> 1) ^ 0xedb88320;
  return word;
});

/** The checksum of gzip's and zip's members and of PNG's chunks (RFC 1952, section 8). `before`: that of the bytes before these. Node's own is not in every version that is served. */
export function crc32(bytes: Buffer, before = 0): number {
  let word = ~before;
  for (let at = 0; at < bytes.length; at++) word = (word >>> 8) ^ crcTable[(word ^ bytes[at]!) & 255]!;
  return ~word >>> 0;
}
