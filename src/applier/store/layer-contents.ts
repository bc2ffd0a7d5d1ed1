import { createHash, type Hash } from 'node:crypto';
import { isSystemError, type DurableFs, type FsPath } from '../../atomic/index.js';
import { isWhittleError, WhittleError } from '../../core/errors.js';
import { throwIfAborted } from '../../core/interruption.js';
import { groupFrom } from '../../core/groups.js';
import { entryHeaderBytes, entryPadding, trailerBytes, type LayerMeta } from '../../tar/index.js';
import type { FileExtent } from '../../delta/basis.js';
import type { TreeNode } from './layer-tree.js';
import { sparseLayout } from './sparse.js';

const groupLimits = { members: 96, bytes: 768 * 1024, memberBytes: 128 * 1024 } as const;
const chunkBytes = 256 * 1024;
/** What the results say of each content of a group. */
const resultBytes = groupLimits.members * 64;
/** Room for a group's contents and that. */
const scratchBytes = groupLimits.bytes + groupLimits.memberBytes + resultBytes;

/** Where the content of an entry is. */
export interface ContentPlace {
  readonly path: FsPath;
  readonly extents: readonly FileExtent[];
  /** The node whose file it is; undefined for shadow files. */
  readonly node: TreeNode | undefined;
}

/** Entries up to `end`, of which `small` are on their way. */
interface EntryGroup {
  readonly end: number;
  readonly small: readonly number[];
  readonly contents: Promise<(Buffer | undefined)[]>;
}

const nothing = Buffer.alloc(0);

/** Small pieces of a stream, collected into larger ones. What it gives is valid until it is called again. */
class Gathered {
  #used = 0;

  /** `buffer` is where they are collected; it is the caller's to use after `take`. */
  constructor(readonly buffer: Buffer) {}

  get isEmpty(): boolean {
    return this.#used === 0;
  }

  /** Whether `add` can take the piece now; true for an empty one, whatever the piece. */
  hasRoom(piece: Buffer): boolean {
    return this.#used === 0 || piece.length <= this.buffer.length - this.#used;
  }

  /** Copies a piece that there is room for; false when it is too large to be collected at all. */
  add(piece: Buffer): boolean {
    if (piece.length > this.buffer.length) return false;
    this.#used += piece.copy(this.buffer, this.#used);
    return true;
  }

  /** What was collected. */
  take(): Buffer {
    const used = this.#used;
    this.#used = 0;
    return this.buffer.subarray(0, used);
  }
}

/** A layer whose contents are files: how its tar and the contents of its entries are read. Holds no descriptors. */
export abstract class LayerContents {
  protected constructor(readonly fs: DurableFs) {}

  /** Its tar metadata, whole. */
  abstract get meta(): LayerMeta;

  /** Where the content of `entry` (which has some) is, relative to `fs`. */
  abstract place(entry: number): ContentPlace;

  /** `place(entry).path`, without looking at the entry. */
  abstract contentPath(entry: number): FsPath;

  /** Size of the content of an entry whose file is that content and nothing else; 0 for others, and for none. */
  plainSizeBytes(entry: number): number {
    const { entries } = this.meta;
    const plain = entries.plainSizeBytes?.(entry);
    if (plain !== undefined) return plain;
    const header = entries.at(entry)?.header;
    return header === undefined || sparseLayout(header) !== undefined ? 0 : header.sizeBytes;
  }

  /**
   * The layer's tar, as headers, contents and paddings say. Chunks are valid until the next is asked for. System errors
   * pass (ENOENT for a missing file); STORE_DAMAGED when a content is shorter than its header says. Nothing is checked against a digest.
   */
  async *tar(signal?: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
    // A small layer takes little memory: a device with many of them checks them one after the other.
    const { entries, sizeBytes } = this.meta;
    const gathered = new Gathered(Buffer.allocUnsafe(Math.min(chunkBytes, sizeBytes)));
    const scratch = [0, 1].map(() => Buffer.allocUnsafe(Math.min(scratchBytes, sizeBytes + resultBytes)));
    // While the reader has one group, the next is read.
    let ahead = this.#readGroup(0, scratch[0]);
    try {
      for (let start = 0, turn = 1; start < entries.length; turn = 1 - turn) {
        throwIfAborted(signal);
        const { end, small } = ahead;
        const contents = await ahead.contents;
        ahead = this.#readGroup(end, scratch[turn]);
        for (let at = start, next = 0; at < end; at++) {
          const entry = entries.at(at);
          if (entry === undefined) break;
          const content = small[next] === at ? this.#whole(at, entry.header.sizeBytes, contents[next++]) : nothing;
          const streamed = content.length < entry.header.sizeBytes;
          // Not one by one: of thousands of small entries, handing over takes longer than hashing.
          for (const piece of streamed ? [entryHeaderBytes(entry)] : [entryHeaderBytes(entry), content, entryPadding(entry)]) {
            if (!gathered.hasRoom(piece)) yield gathered.take();
            if (!gathered.add(piece)) yield piece;
          }
          if (!streamed) continue;
          if (!gathered.isEmpty) yield gathered.take();
          yield* this.#stream(at, gathered.buffer, signal);
          gathered.add(entryPadding(entry));
        }
        start = end;
      }
    } finally {
      // Whoever gives up early may close the filesystem next.
      await ahead.contents.catch(() => undefined);
    }
    if (!gathered.isEmpty) yield gathered.take();
    yield* trailerBytes(this.meta);
  }

  /** Begins to read the group of entries from `start`. */
  #readGroup(start: number, scratch: Buffer | undefined): EntryGroup {
    const { entries } = this.meta;
    const { end, members } = groupFrom(start, entries.length, groupLimits, (at) => this.plainSizeBytes(at));
    const contents = this.fs.readFiles(members.map((entry) => this.contentPath(entry)), groupLimits.memberBytes, scratch);
    // It may fail before it is waited for.
    contents.catch(() => undefined);
    return { end, small: members, contents };
  }

  #whole(entry: number, sizeBytes: number, content: Buffer | undefined): Buffer {
    if (content?.length !== sizeBytes) throw this.damaged(entry);
    return content;
  }

  /** Content of one entry, piece by piece into `buffer`. */
  async *#stream(entry: number, buffer: Buffer, signal?: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
    const { path, extents } = this.place(entry);
    const file = await this.fs.open(path, 'read');
    try {
      if ((await file.stat()).kind !== 'file') throw this.damaged(entry);
      for (const { offset, lengthBytes } of extents) {
        for (let done = 0; done < lengthBytes;) {
          throwIfAborted(signal);
          const wanted = buffer.subarray(0, Math.min(buffer.length, lengthBytes - done));
          if ((await file.read(wanted, offset + done)) !== wanted.length) throw this.damaged(entry);
          done += wanted.length;
          yield wanted;
        }
      }
    } finally {
      await file.close();
    }
  }

  /** Hashes the content of one entry from disk. False when it differs from its record, is missing or unreadable. */
  async isContentWhole(entry: number, buffer: Buffer): Promise<boolean> {
    const expected = this.meta.entries.at(entry)?.digest;
    const hash: Hash = createHash('sha256');
    try {
      for await (const chunk of this.#stream(entry, buffer)) hash.update(chunk);
    } catch (error) {
      if (isSystemError(error, ...unreadable) || (isWhittleError(error) && error.code === 'STORE_DAMAGED')) return false;
      throw error;
    }
    return expected !== null && expected !== undefined && hash.digest().equals(expected);
  }

  /** The error for content of an entry that is not what its record says. */
  damaged(entry: number): WhittleError {
    const path = this.meta.entries.at(entry)?.header.path.toString() ?? '';
    return new WhittleError('STORE_DAMAGED', `layer ${this.meta.diffId}: content of ${JSON.stringify(path)} is not what its record says`, { data: { layers: this.meta.diffId, path } });
  }
}

/** System errors that mean: this content is gone or cannot be read, though the store as a whole works. */
export const unreadable = ['ENOENT', 'ENOTDIR', 'EISDIR', 'ELOOP', 'ENXIO', 'EIO', 'EUCLEAN', 'EFBIG'] as const;
