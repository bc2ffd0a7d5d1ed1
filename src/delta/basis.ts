import type { LayerMeta } from '../tar/types.js';

/** A stretch of a file. */
export interface FileExtent {
  readonly offset: number;
  readonly lengthBytes: number;
}

/**
 * Content of one tar entry, readable in place: the concatenation of `extents` of the open file `fd` is the
 * entry's data section. The holder calls `close()` once; it never closes a descriptor that is shared.
 */
export interface BasisContent {
  readonly fd: number;
  readonly extents: readonly FileExtent[];
  readonly sizeBytes: number;
  /** To be called when a caller that verifies has read all of the content. */
  hashed?(): void;
  close(): Promise<void>;
}

/** An entry with content, of a layer of a basis. */
export interface BasisEntry {
  readonly layer: number;
  readonly entry: number;
}

/** All of a content, as it was read. */
export interface BasisBytes {
  readonly bytes: Buffer;
  /** To be called when the caller has hashed it. */
  readonly hashed: () => void;
}

/** How much a caller of `openContent` trusts the medium. */
export interface OpenContentOptions {
  /** The caller compares a digest of what it makes of the content before that is kept, so that the content need not be read twice. */
  readonly callerVerifies?: boolean;
}

/**
 * What a delta may read: the layers of the basis image in manifest order (each once) and the content of their
 * entries. Implemented by the device's store, by the server over unpacked tars, and by engines' stores.
 */
export interface Basis {
  readonly layers: readonly LayerMeta[];
  /**
   * Opens the content of entry `entry` of layer `layer` after checking it against its recorded digest
   * (`BASIS_DAMAGED` when it differs or is gone), unless `callerVerifies`. Entries without content are never
   * asked for.
   */
  openContent(layer: number, entry: number, options?: OpenContentOptions): Promise<BasisContent>;
  /**
   * Reads contents of at most 128 KiB each and 384 KiB in all, for a caller who verifies what it makes of them. Undefined for those that
   * `openContent` is to be asked for: what is gone or not of its recorded size, for one. They are good until the call after the next.
   */
  readContents?(wanted: readonly BasisEntry[]): Promise<readonly (BasisBytes | undefined)[]>;
}
