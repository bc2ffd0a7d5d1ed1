import type { FileHandle } from 'node:fs/promises';
import { maxArchiveEntries } from '../core/limits.js';
import { WhittleError } from '../core/errors.js';
import { readAt } from './file-bytes.js';

/** Where one file of an archive lies. */
export interface ArchiveFile {
  readonly offset: number;
  readonly sizeBytes: number;
}

type Entry = { readonly kind: 'file'; readonly file: ArchiveFile } | { readonly kind: 'link'; readonly target: string };

const blockBytes = 512;
const maxExtensionBytes = 1024 * 1024;
const maxLinkHops = 16;

function text(block: Buffer, start: number, length: number): string {
  const field = block.subarray(start, start + length);
  const end = field.indexOf(0);
  return field.subarray(0, end < 0 ? length : end).toString('utf8');
}

/** A number in octal or, with the top bit set, in big-endian binary. Undefined when it is neither or too large. */
function number(block: Buffer, start: number, length: number): number | undefined {
  if (((block[start] ?? 0) & 0x80) !== 0) {
    let value = BigInt((block[start] ?? 0) & 0x7f);
    for (const byte of block.subarray(start + 1, start + length)) value = (value << 8n) | BigInt(byte);
    return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : undefined;
  }
  const digits = text(block, start, length).trim();
  return /^[0-7]*$/.test(digits) ? Number.parseInt(digits === '' ? '0' : digits, 8) : undefined;
}

function checksumHolds(block: Buffer): boolean {
  let sum = 0;
  for (let at = 0; at < blockBytes; at++) sum += at >= 148 && at < 156 ? 0x20 : (block[at] ?? 0);
  return number(block, 148, 8) === sum;
}

/** The path, linkpath and size records of a PAX header. */
function paxRecords(data: Buffer): ReadonlyMap<string, string> {
  const records = new Map<string, string>();
  for (let at = 0; at < data.length;) {
    const space = data.indexOf(0x20, at);
    const length = space < 0 ? Number.NaN : Number(data.subarray(at, space).toString('latin1'));
    if (!Number.isSafeInteger(length) || length <= space - at || at + length > data.length) break;
    const record = data.subarray(space + 1, at + length - 1);
    const equals = record.indexOf(0x3d);
    if (equals > 0) records.set(record.subarray(0, equals).toString('utf8'), record.subarray(equals + 1).toString('utf8'));
    at += length;
  }
  return records;
}

/** The one spelling of a path within an archive, or undefined when it is empty or leads out of it. */
function normalize(path: string, base = ''): string | undefined {
  if (path.startsWith('/')) return undefined;
  const parts = base === '' ? [] : base.split('/');
  for (const part of path.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') parts.push(part);
    else if (parts.pop() === undefined) return undefined;
  }
  return parts.length === 0 ? undefined : parts.join('/');
}

/** A map from the names in a tar archive to where their bytes lie: nothing is unpacked. */
export class ArchiveIndex {
  readonly #entries: ReadonlyMap<string, Entry>;

  private constructor(entries: ReadonlyMap<string, Entry>) {
    this.#entries = entries;
  }

  /**
   * Reads the headers of an uncompressed tar, seeking over contents. Throws IMAGE_INVALID when it is none or cut
   * short, or has a name that leads out of it, LIMIT_EXCEEDED for too many entries. The handle stays the caller's.
   */
  static async read(handle: FileHandle, path: string): Promise<ArchiveIndex> {
    const { size } = await handle.stat();
    const reader = new HeaderReader(handle, path, size);
    const entries = new Map<string, Entry>();
    for (let count = 0; await reader.next(entries); count++) {
      if (count >= maxArchiveEntries) throw new WhittleError('LIMIT_EXCEEDED', `${path}: more than ${String(maxArchiveEntries)} entries`);
    }
    return new ArchiveIndex(entries);
  }

  /** The file under a name, links followed within the archive; undefined when there is none. */
  find(name: string): ArchiveFile | undefined {
    let path = normalize(name);
    for (let hops = 0; path !== undefined && hops <= maxLinkHops; hops++) {
      const entry = this.#entries.get(path);
      if (entry?.kind !== 'link') return entry?.file;
      path = entry.target;
    }
    return undefined;
  }
}

class HeaderReader {
  #offset = 0;
  #name: string | undefined;
  #linkName: string | undefined;
  #sizeBytes: number | undefined;

  constructor(
    private readonly handle: FileHandle,
    private readonly path: string,
    private readonly fileBytes: number,
  ) {}

  #fail(problem: string): never {
    throw new WhittleError('IMAGE_INVALID', `${this.path}: not a readable tar archive (${problem} at byte ${String(this.#offset)})`);
  }

  /** Reads one header with its extension headers; false at the end of the archive. */
  async next(entries: Map<string, Entry>): Promise<boolean> {
    const block = await readAt(this.handle, this.#offset, blockBytes, this.path);
    if (block.length === 0 && this.#offset > 0) return false;
    if (block.length < blockBytes) this.#fail('cut short');
    if (block.every((byte) => byte === 0)) return false;
    if (!checksumHolds(block)) this.#fail('a header with a wrong checksum');
    const type = String.fromCharCode(block[156] ?? 0);
    const declared = number(block, 124, 12);
    const sizeBytes = 'xgLK'.includes(type) ? declared : (this.#sizeBytes ?? declared);
    if (sizeBytes === undefined) return this.#fail('a size that is no number');
    const start = this.#offset + blockBytes;
    const hasData = !'123456'.includes(type);
    const end = start + (hasData ? Math.ceil(sizeBytes / blockBytes) * blockBytes : 0);
    if (start + (hasData ? sizeBytes : 0) > this.fileBytes) this.#fail('content cut short');
    if ('xgLK'.includes(type)) await this.#extension(type, start, sizeBytes);
    else this.#entry(entries, block, type, { offset: start, sizeBytes });
    this.#offset = end;
    return true;
  }

  async #extension(type: string, start: number, sizeBytes: number): Promise<void> {
    if (sizeBytes > maxExtensionBytes) this.#fail('an extension header that is too large');
    const data = await readAt(this.handle, start, sizeBytes, this.path);
    if (type === 'L') this.#name = text(data, 0, data.length);
    else if (type === 'K') this.#linkName = text(data, 0, data.length);
    else if (type === 'x') {
      const records = paxRecords(data);
      this.#name = records.get('path') ?? this.#name;
      this.#linkName = records.get('linkpath') ?? this.#linkName;
      const size = records.get('size');
      if (size !== undefined) this.#sizeBytes = /^[0-9]{1,15}$/.test(size) ? Number(size) : this.#fail('a PAX size that is no number');
    }
  }

  #entry(entries: Map<string, Entry>, block: Buffer, type: string, file: ArchiveFile): void {
    const prefix = block.subarray(257, 262).toString('latin1') === 'ustar' && block[262] === 0 ? text(block, 345, 155) : '';
    const name = this.#name ?? (prefix === '' ? text(block, 0, 100) : `${prefix}/${text(block, 0, 100)}`);
    const linkName = this.#linkName ?? text(block, 157, 100);
    this.#name = this.#linkName = this.#sizeBytes = undefined;
    if (type === '5') return;
    const path = normalize(name) ?? this.#fail(`the name ${JSON.stringify(name.slice(0, 120))}, which leads out of the archive,`);
    if (type === '0' || type === '\0' || type === '7') entries.set(path, { kind: 'file', file });
    else if (type === '1' || type === '2') {
      const folder = type === '2' ? path.split('/').slice(0, -1).join('/') : '';
      const target = normalize(linkName, folder);
      if (target !== undefined) entries.set(path, { kind: 'link', target });
    }
  }
}
