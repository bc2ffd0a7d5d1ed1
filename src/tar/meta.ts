import { createHash, type Hash } from 'node:crypto';
import type { TarLimits } from '../core/limits.js';
import { PackedEntries } from './entry-list.js';
import { withOtherStyle } from './header.js';
import { TarScanner } from './scanner.js';
import type { LayerMeta, TarHeader } from './types.js';

/** Sees the entries of a layer while its metadata is built, so that the tar need not be kept. Calls are synchronous and in order. */
export interface LayerObserver {
  /** A new entry. */
  onEntry?(header: TarHeader, index: number): void;
  /** The next bytes of its content; a view that is valid during the call only. */
  onContent?(chunk: Buffer, index: number): void;
  /** Its content is whole (called for every entry). `digest` is the content's sha256 (32 bytes), null for no content. */
  onContentEnd?(digest: Buffer | null, index: number): void;
}

/**
 * Builds a layer's metadata from its uncompressed tar, hashing the tar and the content of each entry on the way.
 * Holds no contents. `write` and `finish` throw `TAR_CORRUPT` and `LIMIT_EXCEEDED` as `TarScanner` does.
 */
export class LayerMetaBuilder {
  readonly #scanner: TarScanner;
  readonly #tarHash = createHash('sha256');
  readonly #entries = new PackedEntries();
  readonly #observer: LayerObserver;
  #contentHash: Hash | null = null;
  #header: TarHeader | undefined;
  #sizeBytes = 0;
  #trailerZeroBytes = 0;
  #trailer: Buffer | null = null;

  constructor(observer: LayerObserver = {}, limits: Partial<TarLimits> = {}) {
    this.#observer = observer;
    this.#scanner = new TarScanner({
      entry: (header, index) => { this.#onEntry(header, index); },
      content: (chunk) => { this.#onContent(chunk); },
      endContent: (padding) => { this.#onEndContent(padding); },
      trailer: (zeroBytes, bytes) => {
        this.#trailerZeroBytes = zeroBytes;
        this.#trailer = bytes;
      },
    }, limits);
  }

  /** The next bytes of the tar. `chunk` may be reused once this returns. */
  write(chunk: Buffer): void {
    this.#tarHash.update(chunk);
    this.#sizeBytes += chunk.length;
    this.#scanner.write(chunk);
  }

  /** Bytes of the current entry's content that are still to come; 0 outside of contents. */
  get contentLeft(): number {
    return this.#scanner.contentLeft;
  }

  /** The header of the entry whose content comes or came last; undefined before the first. */
  get lastHeader(): TarHeader | undefined {
    return this.#header;
  }

  /** Passes over the rest of the current entry's content, which is not at hand: its digest stays null. End with `finishAs`. */
  skipContent(): void {
    this.#sizeBytes += this.#scanner.contentLeft;
    this.#contentHash = null;
    this.#scanner.skipContent();
  }

  /**
   * Ends the tar and gives its metadata. Entries whose headers the tar's last style explains too get that style, so
   * they may differ in `style` (never in their bytes) from what `onEntry` saw.
   */
  finish(): LayerMeta {
    return this.finishAs(`sha256:${this.#tarHash.digest('hex')}`);
  }

  /** `finish` for a tar of which contents were skipped, under the diffID that it is said to have: nothing proves it here. */
  finishAs(diffId: string): LayerMeta {
    this.#scanner.end();
    return {
      diffId, sizeBytes: this.#sizeBytes, entries: this.#withOneStyle(),
      trailerZeroBytes: this.#trailerZeroBytes, trailer: this.#trailer,
    };
  }

  #onEntry(header: TarHeader, index: number): void {
    this.#header = header;
    if (header.sizeBytes > 0) this.#contentHash = createHash('sha256');
    this.#observer.onEntry?.(header, index);
  }

  #onContent(chunk: Buffer): void {
    this.#contentHash?.update(chunk);
    this.#observer.onContent?.(chunk, this.#entries.length);
  }

  #onEndContent(padding: Buffer | null): void {
    if (this.#header === undefined) return;
    const digest = this.#contentHash?.digest() ?? null;
    this.#contentHash = null;
    this.#entries.push({ header: this.#header, digest, padding });
    this.#observer.onContentEnd?.(digest, this.#entries.length - 1);
  }

  /** What the first entries did not show of the writer's style, later ones may have. */
  #withOneStyle(): PackedEntries {
    const style = this.#entries.at(this.#entries.length - 1)?.header.style;
    if (style === undefined || !this.#otherStyles(style)) return this.#entries;
    const changed = new PackedEntries();
    for (const entry of this.#entries) {
      const header = entry.header.style.equals(style) ? null : withOtherStyle(entry.header, style);
      changed.push(header === null ? entry : { ...entry, header });
    }
    return changed;
  }

  #otherStyles(style: Buffer): boolean {
    for (const { header } of this.#entries) if (!header.style.equals(style)) return true;
    return false;
  }
}
