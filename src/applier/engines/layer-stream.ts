import { readSync } from 'node:fs';
import { WhittleError } from '../../core/errors.js';
import type { BasisContent } from '../../delta/basis.js';
import { entryHeaderBytes, entryPadding, trailerBytes, type LayerMeta } from '../../tar/index.js';

const pieceBytes = 256 * 1024;

/** Gathers bytes and sends them on in pieces of 256 KiB (the last one may be shorter), which `send` may not keep once its promise has settled. */
export class Pieces {
  readonly #buffer = Buffer.allocUnsafeSlow(pieceBytes);
  #filled = 0;
  #putBytes = 0;

  constructor(private readonly send: (piece: Buffer) => Promise<void>) {}

  /** Bytes put so far. */
  get putBytes(): number {
    return this.#putBytes;
  }

  /** Takes bytes; when it settles they may be reused. */
  async put(bytes: Buffer): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const count = bytes.copy(this.#buffer, this.#filled, done);
      done += count;
      await this.#took(count);
    }
  }

  /** Puts a content, which stays open. Throws BASIS_DAMAGED when it is shorter than it says. */
  async putContent(content: BasisContent): Promise<void> {
    for (const { offset, lengthBytes } of content.extents) {
      for (let done = 0; done < lengthBytes;) {
        const got = readSync(content.fd, this.#buffer, this.#filled, Math.min(this.#buffer.length - this.#filled, lengthBytes - done), offset + done);
        if (got === 0) throw new WhittleError('BASIS_DAMAGED', 'content ends before its record says');
        done += got;
        await this.#took(got);
      }
    }
  }

  async #took(count: number): Promise<void> {
    this.#filled += count;
    this.#putBytes += count;
    if (this.#filled === this.#buffer.length) await this.flush();
  }

  /** Sends what is gathered. */
  async flush(): Promise<void> {
    if (this.#filled === 0) return;
    await this.send(this.#buffer.subarray(0, this.#filled));
    this.#filled = 0;
  }

  /** Forgets what is gathered. */
  clear(): void {
    this.#filled = 0;
  }
}

/**
 * The tar of a layer as a stream of bytes, made while the contents of its entries are given in ascending order: headers,
 * paddings and entries without content come from the metadata.
 */
export class LayerStream {
  #next = 0;
  /** Whether the header of entry `#next` is out. */
  #open = false;

  constructor(private readonly meta: LayerMeta, private readonly pieces: Pieces) {}

  /** The next bytes of the content of `entry`. */
  async write(entry: number, chunk: Buffer): Promise<void> {
    await this.#reach(entry);
    await this.pieces.put(chunk);
  }

  /** The content of `entry` is that of `content`, which stays open. Throws BASIS_DAMAGED when it is shorter than it says. */
  async copy(entry: number, content: BasisContent): Promise<void> {
    await this.#reach(entry);
    await this.pieces.putContent(content);
    await this.endEntry(entry);
  }

  /** The content of `entry` is whole. */
  async endEntry(entry: number): Promise<void> {
    await this.#reach(entry);
    const record = this.meta.entries.at(entry);
    if (record !== undefined) await this.pieces.put(entryPadding(record));
    this.#open = false;
    this.#next = entry + 1;
  }

  /** All contents were given. What the pieces still hold is not sent. */
  async end(): Promise<void> {
    if (this.meta.entries.length > this.#next) await this.endEntry(this.meta.entries.length - 1);
    for (const bytes of trailerBytes(this.meta)) await this.pieces.put(bytes);
  }

  /** Puts out all up to the header of `entry`; entries without content are not given. */
  async #reach(entry: number): Promise<void> {
    if (this.#open && this.#next !== entry) throw new WhittleError('INTERNAL', `entry ${String(this.#next)} was not ended`);
    for (; !this.#open || this.#next < entry; this.#next++) {
      const record = this.meta.entries.at(this.#next);
      if (record === undefined) throw new WhittleError('INTERNAL', `the layer has no entry ${String(this.#next)}`);
      await this.pieces.put(entryHeaderBytes(record));
      if (this.#next === entry) {
        this.#open = true;
        return;
      }
      await this.pieces.put(entryPadding(record));
    }
  }
}
