/** Largest manifest or index, in bytes: what the distribution specification asks registries to accept at least. */
export const maxManifestBytes = 4 * 1024 * 1024;

/** Largest image config, in bytes. */
export const maxConfigBytes = 8 * 1024 * 1024;

/** Most layers of one image. Docker's storage drivers stop at 127. */
export const maxLayers = 512;

/** Most entries of one index. */
export const maxIndexEntries = 4096;

/** Largest compressed layer blob, in bytes. */
export const maxLayerBlobBytes = 64 * 1024 ** 3;

/** Largest uncompressed layer tar, in bytes. A pull also ends when the disk is full; this ends a decompression bomb. */
export const maxLayerTarBytes = 128 * 1024 ** 3;

/** Largest window of a zstd layer, as a power of two: 27 (128 MiB) is what every zstd decoder must accept at most. */
export const maxZstdWindowLog = 27;

/** Most entries of an image archive (`oci-archive:`, `docker-archive:`). */
export const maxArchiveEntries = 65_536;
