import { joinHeader, type SparseExtent, type TarHeader } from '../../tar/index.js';

/** How the data section of a sparse entry makes a file. */
export interface SparseLayout {
  /** Size of the expanded file. */
  readonly sizeBytes: number;
  /** Where the data goes, ascending, not overlapping; null when the data section itself starts with the map (PAX form 1.0). */
  readonly extents: readonly SparseExtent[] | null;
}

const gnuSparse = 0x53;
const blockBytes = 512;
const maxExtents = 1_000_000;
const largestFileBytes = 2 ** 53 - 1;

/** The layout of a sparse entry; undefined for all others, and for maps that make no sense (the data section is then the file). */
export function sparseLayout(header: TarHeader): SparseLayout | undefined {
  const layout = header.typeflag === gnuSparse ? gnuLayout(header) : header.pax.length > 0 ? paxLayout(header) : undefined;
  if (layout === undefined) return undefined;
  return layout.extents === null || isSound(layout.extents, layout.sizeBytes, header.sizeBytes) ? layout : undefined;
}

/** The path under which an entry appears: PAX sparse entries carry the real one in a record of their own. */
export function effectivePath(header: TarHeader): Buffer {
  if (header.pax.length === 0) return header.path;
  return record(header, 'GNU.sparse.name') ?? header.path;
}

function record(header: TarHeader, key: string): Buffer | undefined {
  let found: Buffer | undefined;
  for (const each of header.pax) if (each.key.toString('latin1') === key) found = each.value;
  return found;
}

function decimal(text: Buffer | undefined): number | undefined {
  const string = text?.toString('latin1') ?? '';
  const value = /^[0-9]{1,16}$/.test(string) ? Number(string) : -1;
  return value >= 0 && value <= largestFileBytes ? value : undefined;
}

function isSound(extents: readonly SparseExtent[], sizeBytes: number, dataBytes: number): boolean {
  let end = 0;
  let total = 0;
  for (const { offset, lengthBytes } of extents) {
    if (offset < end || offset + lengthBytes > sizeBytes) return false;
    end = offset + lengthBytes;
    total += lengthBytes;
  }
  return total === dataBytes;
}

/** A number field of a GNU header: octal, or base 256 when its first byte has the high bit. */
function gnuNumber(field: Buffer): number | undefined {
  if (((field[0] ?? 0) & 0x80) !== 0) {
    let value = (field[0] ?? 0) & 0x7f;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    return value <= largestFileBytes ? value : undefined;
  }
  const text = field.toString('latin1').replace(/[\0 ]+$/, '').trimStart();
  if (text === '') return 0;
  return /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : undefined;
}

/** Type 'S': four pairs in the entry's own header at 386, 21 in each extension block that follows it; real size at 483. */
function gnuLayout(header: TarHeader): SparseLayout | undefined {
  const raw = joinHeader(header);
  const main = findGnuHeader(raw);
  if (main === undefined) return undefined;
  const sizeBytes = gnuNumber(raw.subarray(main + 483, main + 495));
  if (sizeBytes === undefined) return undefined;
  const extents: SparseExtent[] = [];
  const take = (start: number, pairs: number): boolean => {
    for (let at = start; at < start + pairs * 24; at += 24) {
      if (raw[at] === 0) return true;
      const offset = gnuNumber(raw.subarray(at, at + 12));
      const lengthBytes = gnuNumber(raw.subarray(at + 12, at + 24));
      if (offset === undefined || lengthBytes === undefined) return false;
      if (lengthBytes > 0) extents.push({ offset, lengthBytes });
    }
    return true;
  };
  if (!take(main + 386, 4)) return undefined;
  for (let at = main + blockBytes; at < raw.length; at += blockBytes) if (!take(at, 21)) return undefined;
  return { sizeBytes, extents };
}

/** Offset of the entry's own header within its raw bytes: the first block that is no PAX or long-name header. */
function findGnuHeader(raw: Buffer): number | undefined {
  for (let at = 0; at + blockBytes <= raw.length;) {
    const typeflag = raw[at + 156];
    if (typeflag === gnuSparse) return at;
    const size = gnuNumber(raw.subarray(at + 124, at + 136));
    if (size === undefined) return undefined;
    at += blockBytes + Math.ceil(size / blockBytes) * blockBytes;
  }
  return undefined;
}

function paxLayout(header: TarHeader): SparseLayout | undefined {
  const real = decimal(record(header, 'GNU.sparse.realsize') ?? record(header, 'GNU.sparse.size'));
  if (real === undefined) return undefined;
  if (record(header, 'GNU.sparse.major')?.toString('latin1') === '1') return { sizeBytes: real, extents: null };
  const map = record(header, 'GNU.sparse.map');
  const numbers = map === undefined ? pairRecords(header) : map.toString('latin1').split(',').map((text) => decimal(Buffer.from(text)));
  return numbers === undefined ? undefined : withPairs(numbers, real);
}

/** PAX form 0.0: "GNU.sparse.offset" and "GNU.sparse.numbytes" again and again. */
function pairRecords(header: TarHeader): (number | undefined)[] | undefined {
  const values = header.pax.filter(({ key }) => ['GNU.sparse.offset', 'GNU.sparse.numbytes'].includes(key.toString('latin1')));
  return values.length === 0 ? undefined : values.map(({ value }) => decimal(value));
}

function withPairs(numbers: readonly (number | undefined)[], sizeBytes: number): SparseLayout | undefined {
  if (numbers.length % 2 !== 0 || numbers.length > 2 * maxExtents) return undefined;
  const extents: SparseExtent[] = [];
  for (let at = 0; at < numbers.length; at += 2) {
    const offset = numbers[at];
    const lengthBytes = numbers[at + 1];
    if (offset === undefined || lengthBytes === undefined) return undefined;
    if (lengthBytes > 0) extents.push({ offset, lengthBytes });
  }
  return { sizeBytes, extents };
}

/**
 * Reads the map at the start of a PAX 1.0 data section (decimal numbers, one a line: a count, then offset and length of
 * each stretch; padded to 512). `read` gives bytes of the section. Undefined when the map makes no sense.
 */
export async function readSparseMap(
  read: (buffer: Buffer, offset: number) => Promise<number>, dataBytes: number, sizeBytes: number,
): Promise<{ dataOffset: number; extents: SparseExtent[] } | undefined> {
  const numbers: number[] = [];
  const block = Buffer.alloc(64 * blockBytes);
  let line = '';
  for (let offset = 0; offset < dataBytes;) {
    const got = await read(block, offset);
    if (got === 0) return undefined;
    for (let at = 0; at < got; at++) {
      const byte = block[at] ?? 0;
      if (byte !== 0x0a) {
        line += String.fromCharCode(byte);
        if (line.length > 20) return undefined;
        continue;
      }
      const value = decimal(Buffer.from(line));
      if (value === undefined || value > (numbers.length === 0 ? maxExtents : largestFileBytes)) return undefined;
      line = '';
      numbers.push(value);
      if (numbers.length !== 1 + 2 * (numbers[0] ?? 0)) continue;
      const dataOffset = Math.ceil((offset + at + 1) / blockBytes) * blockBytes;
      const layout = withPairs(numbers.slice(1), sizeBytes);
      if (layout?.extents == null || !isSound(layout.extents, sizeBytes, dataBytes - dataOffset)) return undefined;
      return { dataOffset, extents: [...layout.extents] };
    }
    offset += got;
  }
  return undefined;
}
