import { ByteReader } from '../core/bytes.js';
import { errnoName, WhittleError } from '../core/errors.js';
import type { Attributes, BatchOp, BatchResult, DirectoryEntry, FileKind, FileStat, FsPath, FsSpace, Xattr } from './durable-fs.js';

/**
 * How filesystem steps travel to native code and back: little-endian, strings as u32 length and bytes. A command is its
 * step byte (+ 0x80: go on when it fails) and its fields; a result is i32 errno, u32 size, payload.
 */

export const step = {
  mkdir: 1, rmdir: 2, unlink: 3, rename: 4, link: 5, symlink: 6, mknod: 7, putFile: 8, attributes: 9, open: 10, stat: 11,
  readdir: 12, readlink: 13, xattrs: 14, readFile: 15, fsyncDir: 16, clone: 17, copy: 18, space: 19, dropCache: 20, lookAndReadFile: 21,
} as const;

/** Values of the `open` step's `how` field. */
export const openHow = { read: 0, create: 1, update: 2, openOrCreate: 3, directory: 4 } as const;

const renameNoReplace = 1;
const renameExchange = 2;
const attributeBit = { owner: 1, mode: 2, time: 4, xattrs: 8, onlyThese: 16 } as const;
const initialBytes = 1024;

/** Builds the commands of one batch. */
export class BatchEncoder {
  #buffer: Buffer;
  #length = 0;

  /** Builds in `buffer` for as long as it fits. */
  constructor(buffer: Buffer = Buffer.allocUnsafe(initialBytes)) {
    this.#buffer = buffer;
  }

  #reserve(count: number): number {
    const at = this.#length;
    if (at + count > this.#buffer.length) {
      const grown = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, at + count));
      this.#buffer.copy(grown, 0, 0, at);
      this.#buffer = grown;
    }
    this.#length = at + count;
    return at;
  }

  /** One byte. */
  u8(value: number): this {
    const at = this.#reserve(1);
    this.#buffer[at] = value;
    return this;
  }

  /** Two bytes. The place is reserved before the buffer is named, here and below: reserving may replace it. */
  u16(value: number): this {
    const at = this.#reserve(2);
    this.#buffer.writeUInt16LE(value, at);
    return this;
  }

  /** Four bytes. */
  u32(value: number): this {
    const at = this.#reserve(4);
    this.#buffer.writeUInt32LE(value, at);
    return this;
  }

  /** A safe integer, in two halves: numbers of 64 bits in one are objects, and there are some in every step. */
  i64(value: number): this {
    return this.u32(value >>> 0).u32(Math.floor(value / 2 ** 32) >>> 0);
  }

  /** A length in four bytes, and as many bytes. */
  bytes(value: FsPath): this {
    if (typeof value === 'string') return this.#text(value);
    this.u32(value.length);
    const at = this.#reserve(value.length);
    value.copy(this.#buffer, at);
    return this;
  }

  #text(value: string): this {
    // Room for the most that it can take, so that nobody has to look how much it is.
    const at = this.#reserve(4 + 3 * value.length);
    const size = this.#buffer.write(value, at + 4);
    this.#buffer.writeUInt32LE(size, at);
    this.#length = at + 4 + size;
    return this;
  }

  /** Which attributes are set, in one byte, and their values; those that are not set as zeros. */
  attributes(attributes: Attributes): this {
    const xattrs = attributes.xattrs ?? [];
    const owner = attributes.uid !== undefined && attributes.gid !== undefined;
    this.u8((owner ? attributeBit.owner : 0) | (attributes.mode === undefined ? 0 : attributeBit.mode)
      | (attributes.mtimeSec === undefined ? 0 : attributeBit.time) | (xattrs.length === 0 ? 0 : attributeBit.xattrs) | (attributes.onlyTheseXattrs === true ? attributeBit.onlyThese : 0));
    this.u32(attributes.uid ?? 0).u32(attributes.gid ?? 0).u32(attributes.mode ?? 0);
    this.i64(attributes.mtimeSec ?? 0).u32(attributes.mtimeNsec ?? 0);
    this.u16(xattrs.length);
    for (const xattr of xattrs) this.bytes(xattr.name).bytes(xattr.value);
    return this;
  }

  /** A step of a batch. */
  op(op: BatchOp): this {
    switch (op.op) {
      case 'mkdir': return this.u8(step.mkdir).bytes(op.path).u32(op.mode).u8(op.existOk === true ? 1 : 0);
      case 'putFile': return this.u8(step.putFile).bytes(op.path).u8(op.reuse ? 1 : 0).attributes(op.attributes).bytes(op.content);
      case 'symlink': return this.u8(step.symlink).bytes(op.path).bytes(op.target).attributes(op.attributes);
      case 'mknod': return this.u8(step.mknod).bytes(op.path).u8(kindLetters[op.kind]).u32(op.deviceMajor).u32(op.deviceMinor).attributes(op.attributes);
      case 'link': return this.u8(step.link).bytes(op.from).bytes(op.path);
      case 'rename': return this.u8(step.rename).bytes(op.from).bytes(op.path).u32((op.exchange === true ? renameExchange : 0) | (op.noReplace === true ? renameNoReplace : 0));
      case 'unlink': return this.u8(step.unlink).bytes(op.path);
      case 'rmdir': return this.u8(step.rmdir).bytes(op.path);
      case 'attributes': return this.u8(step.attributes).bytes(op.path).attributes(op.attributes);
    }
  }

  /** The whole buffer, for the next encoder. */
  get buffer(): Buffer {
    return this.#buffer;
  }

  /** A view of what was built; the encoder must not be used afterwards. */
  finish(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }
}

/** Makes commands "go on when it fails". */
export const goOn = 0x80;

const kindLetters: Readonly<Record<FileKind, number>> = { file: 0x66, directory: 0x64, symlink: 0x6c, char: 0x63, block: 0x62, fifo: 0x70, socket: 0x73 };
const kindsByLetter = new Map<number, FileKind>((Object.entries(kindLetters) as [FileKind, number][]).map(([kind, letter]) => [letter, kind]));

function malformed(what: string): WhittleError {
  return new WhittleError('INTERNAL', `native batch result ${what}`);
}

/** What becomes of one step's outcome: `errno` is 0 or the error, and what the step answers is in the results from `start` to `end`. */
export type TakeResult<T> = (errno: number, start: number, end: number, index: number) => T;

/** Takes the results of a batch apart. */
export function eachResult<T>(results: Buffer, take: TakeResult<T>): T[] {
  const out: T[] = [];
  for (let at = 0; at < results.length;) {
    const start = at + 8;
    const end = start + results.readUInt32LE(at + 4);
    out.push(take(results.readInt32LE(at), start, end, out.length));
    at = end;
  }
  return out;
}

/** A system error as Node makes them: `code`, `errno`, `syscall`, `path`. */
export function systemError(errno: number, syscall: string, path: FsPath): NodeJS.ErrnoException {
  const code = errnoName(errno);
  const shown = typeof path === 'string' ? path : path.toString();
  const error: NodeJS.ErrnoException = new Error(`${code}: ${syscall} '${shown === '' ? '.' : shown}'`);
  return Object.assign(error, { code, errno: -errno, syscall, path: shown });
}

/** What a step that sets attributes reports. `xattrs` are those that were asked for. */
export function decodeAttributeResult(results: Buffer, start: number, end: number, xattrs: readonly Xattr[] = []): BatchResult {
  const isKept = start < end && results[start] === 1;
  // Nearly always: nothing was refused.
  if (end - start <= 1) return isKept ? keptResult : plainResult;
  const attributeErrors: { what: string; code: string }[] = [];
  for (let at = start + 1; at < end; at += 7) {
    const bit = results[at + 4];
    const what = bit === attributeBit.owner ? 'owner' : bit === attributeBit.mode ? 'mode' : bit === attributeBit.time ? 'time'
      : `xattr:${xattrs[results.readUInt16LE(at + 5)]?.name.toString('latin1') ?? ''}`;
    attributeErrors.push({ what, code: errnoName(results.readInt32LE(at)) });
  }
  return { kept: isKept, attributeErrors };
}

const plainResult: BatchResult = { kept: false, attributeErrors: [] };
const keptResult: BatchResult = { kept: true, attributeErrors: [] };

/** A number of 64 bits: of those that are counted here, none is beyond what a number holds exactly. */
function number64(payload: Buffer, at: number): number {
  return payload.readUInt32LE(at) + payload.readInt32LE(at + 4) * 2 ** 32;
}

/** For the numbers that may be: a Buffer makes three objects on the way to one. */
const wide = Buffer.alloc(8);
const wideView = new DataView(wide.buffer, wide.byteOffset, wide.length);

function bigint64(payload: Buffer, at: number): bigint {
  payload.copy(wide, 0, at, at + 8);
  return wideView.getBigUint64(0, true);
}

/** Bytes of a `FileStat`. */
export const statBytes = 77;

/** Reads the stat that begins at byte `at` of a result. */
export function decodeStat(results: Buffer, at: number): FileStat {
  return {
    kind: kindsByLetter.get(results.readUInt8(at)) ?? 'socket',
    mode: results.readUInt32LE(at + 1),
    uid: results.readUInt32LE(at + 5),
    gid: results.readUInt32LE(at + 9),
    sizeBytes: number64(results, at + 13),
    allocatedBytes: number64(results, at + 21),
    linkCount: results.readUInt32LE(at + 29),
    device: bigint64(results, at + 33),
    inode: bigint64(results, at + 41),
    mtimeSec: number64(results, at + 49),
    mtimeNsec: results.readUInt32LE(at + 57),
    ctimeNs: BigInt.asIntN(64, bigint64(results, at + 61)),
    deviceMajor: results.readUInt32LE(at + 69),
    deviceMinor: results.readUInt32LE(at + 73),
  };
}

/** Reads a result that lists a directory. */
export function decodeDirectory(payload: Buffer): DirectoryEntry[] {
  const reader = new ByteReader(payload, malformed);
  const entries: DirectoryEntry[] = [];
  while (reader.remaining > 0) {
    const kind = kindsByLetter.get(reader.u8()) ?? 'socket';
    entries.push({ kind, name: Buffer.from(reader.bytes(reader.u32())) });
  }
  return entries;
}

/** Reads a result that lists extended attributes. */
export function decodeXattrs(payload: Buffer): Xattr[] {
  const reader = new ByteReader(payload, malformed);
  const xattrs: Xattr[] = [];
  while (reader.remaining > 0) {
    const name = Buffer.from(reader.bytes(reader.u32()));
    xattrs.push({ name, value: Buffer.from(reader.bytes(reader.u32())) });
  }
  return xattrs;
}

/** Reads a result that tells of a filesystem's space. */
export function decodeSpace(payload: Buffer): FsSpace {
  return {
    totalBytes: Number(payload.readBigUInt64LE(0)),
    freeBytes: Number(payload.readBigUInt64LE(8)),
    type: payload.readUInt32LE(16),
    readOnly: payload.readUInt8(20) === 1,
  };
}
