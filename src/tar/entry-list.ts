import { ByteWriter } from '../core/bytes.js';
import { WhittleError } from '../core/errors.js';
import { noBytes, typeflags } from './block.js';
import { readSigned, writeSigned } from './signed.js';
import type { EntryList, LayerEntry, PaxRecord, TarHeader } from './types.js';

const slabBytes = 1 << 18;
const maxSlabs = 1 << 14;
const digestBytes = 32;
const has = { room: 1, digest: 2, linkPath: 4, pax: 8, residue: 16, padding: 32 } as const;

/** What is nearly always equal to that of an earlier entry. */
type Owner = Pick<TarHeader, 'uid' | 'gid' | 'uname' | 'gname' | 'devMajor' | 'devMinor' | 'style'>;

function hasSameOwner(a: Owner, b: Owner): boolean {
  return a.uid === b.uid && a.gid === b.gid && a.devMajor === b.devMajor && a.devMinor === b.devMinor
    && isSame(a.uname, b.uname) && isSame(a.gname, b.gname) && isSame(a.style, b.style);
}

/** Whether two buffers hold the same; mostly they are the same. */
function isSame(a: Buffer, b: Buffer): boolean {
  return a === b || a.equals(b);
}

/** Equal values as one, numbered in order of first use. */
class Table<T> {
  readonly #list: T[] = [];
  readonly #numbers = new Map<string, number>();

  number(key: string, make: () => T): number {
    let number = this.#numbers.get(key);
    if (number === undefined) {
      number = this.#list.push(make()) - 1;
      this.#numbers.set(key, number);
    }
    return number;
  }

  get(number: number): T {
    const value = this.#list[number];
    if (value === undefined) throw new WhittleError('INTERNAL', 'a packed tar entry names what its list has not');
    return value;
  }
}

/** Reads rows out of their slabs. It is used for every entry several times over, and trusts what the list itself wrote. */
class RowReader {
  #slab = noBytes;
  #at = 0;

  start(slab: Buffer, at: number): this {
    this.#slab = slab;
    this.#at = at;
    return this;
  }

  skip(count: number): void {
    this.#at += count;
  }

  u8(): number {
    return this.#slab[this.#at++] ?? 0;
  }

  varint(): number {
    let byte = this.u8();
    let value = byte & 0x7f;
    for (let scale = 0x80; byte >= 0x80; scale *= 0x80) {
      byte = this.u8();
      value += (byte & 0x7f) * scale;
    }
    return value;
  }

  /** A view of the next `count` bytes. */
  bytes(count: number): Buffer {
    const start = this.#at;
    this.#at += count;
    return this.#slab.subarray(start, this.#at);
  }

  blob(): Buffer {
    return this.bytes(this.varint());
  }

  /** A view of what is left of the slab. */
  rest(): Buffer {
    return this.#slab.subarray(this.#at);
  }
}

/**
 * Tar entries in about a hundred bytes each, instead of the kilobyte that the objects take: a device holds those of two
 * images at once. `at` makes an entry anew; its buffers are views into the list and must not be changed.
 */
export class PackedEntries implements EntryList {
  readonly #slabs: Buffer[] = [];
  readonly #owners = new Table<Owner>();
  readonly #keys = new Table<Buffer>();
  readonly #names = new Table<Buffer>();
  readonly #row = new ByteWriter();
  readonly #reader = new RowReader();
  #places = new Uint32Array(256);
  #used = slabBytes;
  #length = 0;
  /** What `#lastOwnerNumber` was found for. */
  #lastOwned: Owner | null = null;
  #lastOwnerNumber = 0;
  /** The last entry that was made; none at -1. */
  #lastIndex = -1;
  #lastEntry: LayerEntry | undefined;

  get length(): number {
    return this.#length;
  }

  /** Appends an entry; copies its bytes. Throws LIMIT_EXCEEDED beyond 4 GiB in all. */
  push(entry: LayerEntry): void {
    this.#encode(entry);
    const row = this.#row;
    if (this.#used + row.length > slabBytes) this.#newSlab(row.length);
    if (this.#length === this.#places.length) {
      const grown = new Uint32Array(this.#places.length * 2);
      grown.set(this.#places);
      this.#places = grown;
    }
    this.#places[this.#length++] = (this.#slabs.length - 1) * slabBytes + this.#used;
    const slab = this.#slabs.at(-1);
    if (slab !== undefined) row.copyTo(slab, this.#used);
    this.#used += row.length;
  }

  /** The entry at `index` from 0; undefined when there is none. */
  at(index: number): LayerEntry | undefined {
    if (this.#lastIndex === index) return this.#lastEntry;
    const row = this.#rowAt(index);
    if (row === null) return undefined;
    this.#lastEntry = this.#decode(row);
    this.#lastIndex = index;
    return this.#lastEntry;
  }

  /** Size of the content of the entry at `index`, without making the entry; 0 when there is none. */
  sizeBytes(index: number): number {
    const row = this.#rowAt(index);
    if (row === null || (row.u8() & has.room) === 0) return 0;
    // The digest and the type.
    row.skip(digestBytes + 1);
    return sizeFrom(row);
  }

  plainSizeBytes(index: number): number | undefined {
    const row = this.#rowAt(index);
    if (row === null) return 0;
    const flags = row.u8();
    if ((flags & has.room) === 0) return 0;
    row.skip(digestBytes);
    return (flags & has.pax) !== 0 || row.u8() === typeflags.gnuSparse ? undefined : sizeFrom(row);
  }

  /** Sets the digest (32 bytes) of an entry with content. */
  setDigest(index: number, digest: Buffer): void {
    const row = this.#rowAt(index)?.rest();
    const flags = row?.[0] ?? 0;
    if (row === undefined || (flags & has.room) === 0 || digest.length !== digestBytes) throw new WhittleError('INTERNAL', 'only entries with content have a digest');
    row[0] = flags | has.digest;
    digest.copy(row, 1);
    this.#lastIndex = -1;
    this.#lastEntry = undefined;
  }

  *entries(): Generator<[number, LayerEntry], undefined, undefined> {
    for (let index = 0; index < this.#length; index++) {
      const entry = this.at(index);
      if (entry !== undefined) yield [index, entry];
    }
  }

  *[Symbol.iterator](): Generator<LayerEntry, undefined, undefined> {
    for (let index = 0; index < this.#length; index++) {
      const entry = this.at(index);
      if (entry !== undefined) yield entry;
    }
  }

  /** The reader, at the row of `index`; null when there is none. */
  #rowAt(index: number): RowReader | null {
    const place = index < this.#length ? this.#places[index] : undefined;
    const slab = place === undefined ? undefined : this.#slabs[Math.floor(place / slabBytes)];
    return place === undefined || slab === undefined ? null : this.#reader.start(slab, place % slabBytes);
  }

  /** Rows do not cross slabs; one that is larger has a slab to itself. */
  #newSlab(rowBytes: number): void {
    if (this.#slabs.length === maxSlabs) throw new WhittleError('LIMIT_EXCEEDED', 'a layer has more than 4 GiB of tar headers');
    this.#slabs.push(Buffer.allocUnsafeSlow(Math.max(slabBytes, rowBytes)));
    this.#used = 0;
  }

  /** Leaves the entry's row in `#row`. */
  #encode({ header, digest, padding }: LayerEntry): void {
    const flags = (header.sizeBytes > 0 ? has.room : 0) | (digest === null ? 0 : has.digest | has.room) | (header.linkPath.length > 0 ? has.linkPath : 0)
      | (header.pax.length > 0 ? has.pax : 0) | (header.residue.length > 0 ? has.residue : 0) | (padding === null ? 0 : has.padding);
    const row = this.#row.clear().u8(flags);
    if ((flags & has.room) !== 0) row.bytes(digest ?? Buffer.alloc(digestBytes));
    row.u8(header.typeflag).varint(this.#owner(header)).varint(header.mtimeNsec).varint(header.sizeBytes);
    writeSigned(row, header.mode);
    writeSigned(row, header.mtimeSec);
    row.blob(header.path);
    if (header.linkPath.length > 0) row.blob(header.linkPath);
    if (header.pax.length > 0) this.#writePax(row, header.pax);
    if (header.residue.length > 0) row.blob(header.residue);
    if (padding !== null) row.blob(padding);
  }

  #writePax(row: ByteWriter, records: readonly PaxRecord[]): void {
    row.varint(records.length);
    for (const { key, value } of records) row.varint(this.#keys.number(key.toString('latin1'), () => Buffer.from(key))).blob(value);
  }

  #owner(header: TarHeader): number {
    const last = this.#lastOwned;
    if (last !== null && hasSameOwner(header, last)) return this.#lastOwnerNumber;
    const { uid, gid, uname, gname, devMajor, devMinor, style } = header;
    const names = [uname, gname, style].map((name) => this.#names.number(name.toString('latin1'), () => Buffer.from(name)));
    const number = this.#owners.number([uid, gid, devMajor, devMinor, ...names].join(), () => ({
      uid, gid, devMajor, devMinor, uname: this.#names.get(names[0] ?? 0), gname: this.#names.get(names[1] ?? 0), style: this.#names.get(names[2] ?? 0),
    }));
    this.#lastOwned = { uid, gid, uname, gname, devMajor, devMinor, style };
    this.#lastOwnerNumber = number;
    return number;
  }

  #decode(row: RowReader): LayerEntry {
    const flags = row.u8();
    let digest: Buffer | null = null;
    if ((flags & has.digest) !== 0) digest = row.bytes(digestBytes);
    else if ((flags & has.room) !== 0) row.skip(digestBytes);
    const typeflag = row.u8();
    const { uid, gid, uname, gname, devMajor, devMinor, style } = this.#owners.get(row.varint());
    const mtimeNsec = row.varint();
    const sizeBytes = row.varint();
    const mode = readSigned(row);
    const mtimeSec = readSigned(row);
    const path = row.blob();
    const linkPath = (flags & has.linkPath) === 0 ? noBytes : row.blob();
    const pax = (flags & has.pax) === 0 ? noRecords : this.#readPax(row);
    const residue = (flags & has.residue) === 0 ? noBytes : row.blob();
    const padding = (flags & has.padding) === 0 ? null : row.blob();
    return { header: { path, linkPath, typeflag, mode, uid, gid, sizeBytes, mtimeSec, mtimeNsec, uname, gname, devMajor, devMinor, pax, style, residue }, digest, padding };
  }

  #readPax(row: RowReader): PaxRecord[] {
    const records: PaxRecord[] = [];
    for (let left = row.varint(); left > 0; left--) records.push({ key: this.#keys.get(row.varint()), value: row.blob() });
    return records;
  }
}

const noRecords: readonly PaxRecord[] = [];

/** The size, from behind the type: the owner and the nanoseconds come first. */
function sizeFrom(row: RowReader): number {
  row.varint();
  row.varint();
  return row.varint();
}
