/**
 * What the rest of the project knows of one tar. Everything here is exact: a LayerMeta plus the content bytes
 * of its entries gives back the tar, byte for byte (`rebuildTar`).
 */

/** One PAX record ("len key=value\n") as it stood, in order. */
export interface PaxRecord {
  readonly key: Buffer;
  readonly value: Buffer;
}

/**
 * The headers of one entry as fields, plus how they were written. `joinHeader(splitHeader(raw))` equals `raw`
 * for every input. `raw` covers every byte from the end of the previous entry's padding to the start of this
 * entry's content: PAX 'x'/'g' headers with their data and padding, GNU 'L'/'K' headers likewise, and the
 * entry's own 512-byte header.
 */
export interface TarHeader {
  /** Effective path and link target as bytes (PAX path/linkpath, GNU long names and ustar prefix resolved), as written: no normalisation. */
  readonly path: Buffer;
  readonly linkPath: Buffer;
  /** Type flag byte of the entry's own header ('0', '\0', '1' … '7', 'S', …). */
  readonly typeflag: number;
  readonly mode: number;
  /** Effective numbers (PAX over base-256 over octal). Safe integers, or the header is kept in `residue` form and the scanner throws TAR_CORRUPT. */
  readonly uid: number;
  readonly gid: number;
  /** Bytes in the data section (after PAX size); not the size of an expanded sparse file. */
  readonly sizeBytes: number;
  /** Whole seconds of the effective modification time (floor), and nanoseconds 0..999,999,999 from PAX. */
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly uname: Buffer;
  readonly gname: Buffer;
  readonly devMajor: number;
  readonly devMinor: number;
  /** Records of the entry's PAX header in order, complete (path, linkpath, size, mtime, uid, gid included); empty without one. */
  readonly pax: readonly PaxRecord[];
  /** How the writer wrote the fields: equal for (almost) all entries of one writer. Opaque outside `tar`. */
  readonly style: Buffer;
  /** Where `raw` differs from what fields and style give; empty for known writers. Opaque outside `tar`. */
  readonly residue: Buffer;
}

/** One stretch of real data in an expanded sparse file. */
export interface SparseExtent {
  readonly offset: number;
  readonly lengthBytes: number;
}

/** One entry of a layer tar. */
export interface LayerEntry {
  readonly header: TarHeader;
  /** sha256 of the content (data section), 32 bytes; null when `header.sizeBytes` is 0. */
  readonly digest: Buffer | null;
  /** Padding after the content when it is not the usual zeros to a multiple of 512; null when it is. */
  readonly padding: Buffer | null;
}

/** Entries in order. An array is one, and so is `PackedEntries`. */
export interface EntryList extends Iterable<LayerEntry> {
  readonly length: number;
  /** The entry at `index`, which must not be negative; undefined when there is none. */
  at(index: number): LayerEntry | undefined;
  /** Size of the content of an entry that cannot be a sparse file, without making the entry; undefined for one that has to be looked at. */
  plainSizeBytes?(index: number): number | undefined;
  entries(): Iterable<[number, LayerEntry]>;
}

/** Which layer tar metadata is about. */
export interface LayerMetaHead {
  /** sha256 of the uncompressed tar, "sha256:<hex>". */
  readonly diffId: string;
  /** Size of the uncompressed tar. */
  readonly sizeBytes: number;
}

/** All of one layer tar but the contents of its entries. */
export interface LayerMeta extends LayerMetaHead {
  readonly entries: EntryList;
  /** Number of zero bytes after the last entry; `trailer` holds the bytes instead when they are not all zeros. */
  readonly trailerZeroBytes: number;
  readonly trailer: Buffer | null;
}
