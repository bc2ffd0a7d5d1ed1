/** Largest manifest or index, in bytes: what the distribution specification asks registries to accept at least. */
export const maxManifestBytes = 4 * 1024 * 1024;

/** Largest image config, in bytes. */
export const maxConfigBytes = 8 * 1024 * 1024;

/** Most layers of one image. Docker's storage drivers stop at 127. */
export const maxLayers = 512;

/** Most entries of one index. */
export const maxIndexEntries = 4096;

/** Documents on the way from a name to an image: its manifest, and indexes within indexes before it. */
export const maxIndexDepth = 4;

/** Largest compressed layer blob, in bytes. */
export const maxLayerBlobBytes = 64 * 1024 ** 3;

/** Largest uncompressed layer tar, in bytes. A pull also ends when the disk is full; this ends a decompression bomb. */
export const maxLayerTarBytes = 128 * 1024 ** 3;

/** Largest window of a zstd layer, as a power of two: 27 (128 MiB) is what every zstd decoder must accept at most. */
export const maxZstdWindowLog = 27;

/** Most entries of an image archive (`oci-archive:`, `docker-archive:`). */
export const maxArchiveEntries = 65_536;

/** What the tar scanner accepts of one layer tar, and the decoder of a layer's metadata of one layer. */
export interface TarLimits {
  /** Most bytes of PAX and long-name headers (and sparse extension blocks) before one entry; also of all global PAX records in force. Go's reader stops at 1 MiB too. */
  readonly maxEntryHeaderBytes: number;
  /** Longest path or link target, in bytes. Linux opens no path above 4,096. */
  readonly maxPathBytes: number;
  /** Most entries of one layer. */
  readonly maxEntries: number;
  /** Most raw header bytes of all entries of one layer. */
  readonly maxHeaderBytes: number;
  /** Most bytes of all paths of one layer together when its metadata is decoded: they are stored prefix-coded, so few bytes can claim many. */
  readonly maxPathsBytes: number;
  /** Most bytes after the end of the archive when they are not all zeros. */
  readonly maxTrailerBytes: number;
}

/** Defaults of `TarLimits`. */
export const tarLimits: TarLimits = {
  maxEntryHeaderBytes: 1024 * 1024,
  maxPathBytes: 64 * 1024,
  maxEntries: 5_000_000,
  maxHeaderBytes: 4 * 1024 ** 3,
  maxPathsBytes: 256 * 1024 ** 2,
  maxTrailerBytes: 64 * 1024 ** 2,
};
