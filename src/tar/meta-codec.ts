import { ByteReader, ByteWriter } from '../core/bytes.js';
import { WhittleError } from '../core/errors.js';
import { tarLimits, type TarLimits } from '../core/limits.js';
import { noBytes, tarCorrupt } from './block.js';
import { PackedEntries } from './entry-list.js';
import { derivePaxValue } from './header.js';
import { readSigned, writeSigned } from './signed.js';
import type { LayerEntry, LayerMeta, LayerMetaHead, PaxRecord, TarHeader } from './types.js';

/* The format is described in docs/format-store-meta.md; change both. */
const magic = Buffer.from('WLMT', 'latin1');
const formatVersion = 1;
const digestBytes = 32;
const maxPaddingBytes = 511;
const maxNsec = 999_999_999;

/** What a row of an entry holds; a field without its bit is that of the entry before, or empty. */
const has = {
  typeflag: 1, mode: 2, owner: 4, mtime: 8, content: 16, linkPath: 32, nsec: 64,
  pax: 128, style: 256, residue: 512, padding: 1024, devices: 2048, noDigest: 4096, all: 8191,
} as const;

/** Numbers buffers in order of first use. */
class Table {
  readonly list: Buffer[] = [];
  readonly #numbers = new Map<string, number>();
  #lastBytes: Buffer | undefined;
  #lastNumber = 0;

  number(bytes: Buffer): number {
    if (bytes === this.#lastBytes) return this.#lastNumber;
    const key = bytes.toString('latin1');
    let number = this.#numbers.get(key);
    if (number === undefined) {
      number = this.list.push(bytes) - 1;
      this.#numbers.set(key, number);
    }
    this.#lastBytes = bytes;
    this.#lastNumber = number;
    return number;
  }
}

const before: TarHeader = {
  path: noBytes, linkPath: noBytes, typeflag: 0x30, mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, mtimeSec: 0, mtimeNsec: 0,
  uname: noBytes, gname: noBytes, devMajor: 0, devMinor: 0, pax: [], style: noBytes, residue: noBytes,
};

function sharedBytes(a: Buffer, b: Buffer): number {
  const most = Math.min(a.length, b.length);
  let count = 0;
  while (count < most && a[count] === b[count]) count++;
  return count;
}

interface Tables {
  readonly styles: Table;
  readonly owners: Table;
  readonly keys: Table;
}

function rowBits(entry: LayerEntry, previous: TarHeader, style: number, previousStyle: number): number {
  const { header } = entry;
  const owner = header.uid !== previous.uid || header.gid !== previous.gid || !header.uname.equals(previous.uname) || !header.gname.equals(previous.gname);
  return (header.typeflag === previous.typeflag ? 0 : has.typeflag) | (header.mode === previous.mode ? 0 : has.mode) |
    (owner ? has.owner : 0) | (header.mtimeSec === previous.mtimeSec ? 0 : has.mtime) | (header.sizeBytes > 0 ? has.content : 0) |
    (header.linkPath.length > 0 ? has.linkPath : 0) | (header.mtimeNsec > 0 ? has.nsec : 0) | (header.pax.length > 0 ? has.pax : 0) |
    (style === previousStyle ? 0 : has.style) | (header.residue.length > 0 ? has.residue : 0) | (entry.padding === null ? 0 : has.padding) |
    (header.devMajor !== 0 || header.devMinor !== 0 ? has.devices : 0) | (header.sizeBytes > 0 && entry.digest === null ? has.noDigest : 0);
}

function writePax(out: ByteWriter, header: TarHeader, keys: Table): void {
  out.varint(header.pax.length);
  for (const { key, value } of header.pax) {
    const derived = derivePaxValue(header, key)?.equals(value) ?? false;
    out.varint(keys.number(key) * 2 + (derived ? 1 : 0));
    if (!derived) out.blob(value);
  }
}

function writeRow(out: ByteWriter, entry: LayerEntry, previous: TarHeader, previousStyle: number, tables: Tables): number {
  const { header } = entry;
  const style = tables.styles.number(header.style);
  const bits = rowBits(entry, previous, style, previousStyle);
  out.varint(bits);
  const shared = sharedBytes(header.path, previous.path);
  out.varint(shared).blob(header.path.subarray(shared));
  if ((bits & has.style) !== 0) out.varint(style);
  if ((bits & has.typeflag) !== 0) out.u8(header.typeflag);
  if ((bits & has.mode) !== 0) out.varint(header.mode);
  if ((bits & has.owner) !== 0) {
    writeSigned(out, header.uid);
    writeSigned(out, header.gid);
    out.varint(tables.owners.number(header.uname)).varint(tables.owners.number(header.gname));
  }
  if ((bits & has.mtime) !== 0) writeSigned(out, header.mtimeSec);
  if ((bits & has.nsec) !== 0) out.varint(header.mtimeNsec);
  if ((bits & has.content) !== 0) {
    out.varint(header.sizeBytes);
    if (entry.digest !== null) out.bytes(entry.digest);
  }
  if ((bits & has.linkPath) !== 0) out.blob(header.linkPath);
  if ((bits & has.devices) !== 0) {
    writeSigned(out, header.devMajor);
    writeSigned(out, header.devMinor);
  }
  if ((bits & has.pax) !== 0) writePax(out, header, tables.keys);
  if ((bits & has.residue) !== 0) out.blob(header.residue);
  if (entry.padding !== null) out.blob(entry.padding);
  return style;
}

function writeTable(out: ByteWriter, table: Table): void {
  out.varint(table.list.length);
  for (const bytes of table.list) out.blob(bytes);
}

/** Serializes a layer's metadata (docs/format-store-meta.md): about 60 bytes for each entry with content, 25 for one without. */
export function encodeLayerMeta(meta: LayerMeta): Buffer {
  const digest = /^sha256:([0-9a-f]{64})$/.exec(meta.diffId)?.[1];
  if (digest === undefined) throw new WhittleError('INTERNAL', `layer metadata has the diffID ${JSON.stringify(meta.diffId)}`);
  const tables: Tables = { styles: new Table(), owners: new Table(), keys: new Table() };
  const rows = new ByteWriter();
  let previous = before;
  let style = -1;
  for (const entry of meta.entries) {
    style = writeRow(rows, entry, previous, style, tables);
    previous = entry.header;
  }
  const out = new ByteWriter();
  out.bytes(magic).u8(formatVersion).bytes(Buffer.from(digest, 'hex')).varint(meta.sizeBytes);
  if (meta.trailer === null) out.u8(0).varint(meta.trailerZeroBytes);
  else out.u8(1).blob(meta.trailer);
  writeTable(out, tables.styles);
  writeTable(out, tables.owners);
  writeTable(out, tables.keys);
  return out.varint(meta.entries.length).bytes(rows.finish()).finish();
}

function readTable(reader: ByteReader, maxBytes: number): Buffer[] {
  const count = reader.varint(reader.remaining);
  return Array.from({ length: count }, () => reader.blob(maxBytes));
}

/** Puts many short paths into few large buffers. */
class PathArena {
  #page = noBytes;
  #used = 0;
  #totalBytes = 0;

  constructor(private readonly maxBytes: number) {}

  /** A path of the first `shared` bytes of `previous` and then `rest`. */
  join(previous: Buffer, shared: number, rest: Buffer): Buffer {
    const length = shared + rest.length;
    this.#totalBytes += length;
    if (this.#totalBytes > this.maxBytes) {
      throw new WhittleError('LIMIT_EXCEEDED', `layer metadata: paths are above maxPathsBytes ${String(this.maxBytes)}`, { data: { limit: 'maxPathsBytes', value: this.maxBytes } });
    }
    if (this.#used + length > this.#page.length) {
      this.#page = Buffer.allocUnsafeSlow(Math.max(64 * 1024, length));
      this.#used = 0;
    }
    const path = this.#page.subarray(this.#used, this.#used + length);
    previous.copy(path, 0, 0, shared);
    rest.copy(path, shared);
    this.#used += length;
    return path;
  }
}

class RowReader {
  readonly #paths: PathArena;
  #previous = before;

  constructor(
    private readonly reader: ByteReader,
    private readonly styles: readonly Buffer[],
    private readonly owners: readonly Buffer[],
    private readonly keys: readonly Buffer[],
    private readonly limits: TarLimits,
  ) {
    this.#paths = new PathArena(limits.maxPathsBytes);
  }

  #of(table: readonly Buffer[], number: number): Buffer {
    return table[number] ?? this.reader.fail('names a table entry that is not there');
  }

  #path(): Buffer {
    const shared = this.reader.varint(this.#previous.path.length);
    const rest = this.reader.blob(this.limits.maxPathBytes - Math.min(shared, this.limits.maxPathBytes));
    return this.#paths.join(this.#previous.path, shared, rest);
  }

  #owner(bits: number): Pick<TarHeader, 'uid' | 'gid' | 'uname' | 'gname'> {
    const { uid, gid, uname, gname } = this.#previous;
    if ((bits & has.owner) === 0) return { uid, gid, uname, gname };
    return {
      uid: readSigned(this.reader), gid: readSigned(this.reader),
      uname: this.#of(this.owners, this.reader.varint()), gname: this.#of(this.owners, this.reader.varint()),
    };
  }

  #pax(header: TarHeader): PaxRecord[] {
    const count = this.reader.varint(this.reader.remaining);
    const records: PaxRecord[] = [];
    for (let index = 0; index < count; index++) {
      const number = this.reader.varint();
      const key = this.#of(this.keys, Math.floor(number / 2));
      const value = number % 2 === 1 ? derivePaxValue(header, key) : this.reader.blob(this.limits.maxEntryHeaderBytes);
      records.push({ key, value: value ?? this.reader.fail('derives a PAX record that no field gives') });
    }
    return records;
  }

  next(): LayerEntry {
    const { reader } = this;
    const bits = reader.varint(has.all);
    const path = this.#path();
    const style = (bits & has.style) === 0 ? this.#previous.style : this.#of(this.styles, reader.varint());
    const typeflag = (bits & has.typeflag) === 0 ? this.#previous.typeflag : reader.u8();
    const mode = (bits & has.mode) === 0 ? this.#previous.mode : reader.varint();
    const { uid, gid, uname, gname } = this.#owner(bits);
    const mtimeSec = (bits & has.mtime) === 0 ? this.#previous.mtimeSec : readSigned(reader);
    const mtimeNsec = (bits & has.nsec) === 0 ? 0 : reader.varint(maxNsec);
    const sizeBytes = (bits & has.content) === 0 ? 0 : reader.varint();
    const digest = sizeBytes === 0 || (bits & has.noDigest) !== 0 ? null : reader.bytes(digestBytes);
    const linkPath = (bits & has.linkPath) === 0 ? noBytes : reader.blob(this.limits.maxPathBytes);
    const devMajor = (bits & has.devices) === 0 ? 0 : readSigned(reader);
    const devMinor = (bits & has.devices) === 0 ? 0 : readSigned(reader);
    const fields: TarHeader = { path, linkPath, typeflag, mode, uid, gid, sizeBytes, mtimeSec, mtimeNsec, uname, gname, devMajor, devMinor, pax: before.pax, style, residue: noBytes };
    const pax = (bits & has.pax) === 0 ? before.pax : this.#pax(fields);
    const residue = (bits & has.residue) === 0 ? noBytes : reader.blob(2 * this.limits.maxEntryHeaderBytes);
    const padding = (bits & has.padding) === 0 ? null : reader.blob(maxPaddingBytes);
    const header: TarHeader = pax === before.pax && residue === noBytes ? fields : { ...fields, pax, residue };
    this.#previous = header;
    return { header, digest, padding };
  }
}

const maxStyleBytes = 1024;

function metaReader(bytes: Buffer): ByteReader {
  return new ByteReader(bytes, (what) => tarCorrupt(`layer metadata ${what}`));
}

function readHead(reader: ByteReader): LayerMetaHead {
  if (!reader.bytes(magic.length).equals(magic)) reader.fail('does not start as layer metadata');
  if (reader.u8() !== formatVersion) reader.fail('has an unknown version');
  return { diffId: `sha256:${reader.bytes(digestBytes).toString('hex')}`, sizeBytes: reader.varint() };
}

/** What layer `bytes` are about, which may be no more than the first 45 of what `encodeLayerMeta` made. Throws `TAR_CORRUPT`. */
export function decodeLayerMetaHead(bytes: Buffer): LayerMetaHead {
  return readHead(metaReader(bytes));
}

/**
 * Parses what `encodeLayerMeta` made, from untrusted bytes. Most buffers of the result are views into `bytes`, which
 * must not change afterwards. Throws `TAR_CORRUPT` for malformed bytes and `LIMIT_EXCEEDED`.
 */
export function decodeLayerMeta(bytes: Buffer, limits: Partial<TarLimits> = {}): LayerMeta {
  const bounds = { ...tarLimits, ...limits };
  const reader = metaReader(bytes);
  const { diffId, sizeBytes } = readHead(reader);
  const kind = reader.u8();
  if (kind > 1) reader.fail('has an unknown trailer');
  const trailerZeroBytes = kind === 0 ? reader.varint() : 0;
  const trailer = kind === 1 ? reader.blob(bounds.maxTrailerBytes) : null;
  const styles = readTable(reader, maxStyleBytes);
  const owners = readTable(reader, bounds.maxEntryHeaderBytes);
  const keys = readTable(reader, bounds.maxEntryHeaderBytes);
  const count = reader.varint(Math.min(reader.remaining, bounds.maxEntries));
  const rows = new RowReader(reader, styles, owners, keys, bounds);
  const entries = new PackedEntries();
  for (let index = 0; index < count; index++) entries.push(rows.next());
  reader.end();
  return { diffId, sizeBytes, entries, trailerZeroBytes, trailer };
}
