/**
 * What a decoder accepts from a delta, which is untrusted. A delta beyond any of these is refused with
 * DELTA_CORRUPT before memory is taken for it.
 */
export const deltaLimits = {
  /** Size of the index blob. */
  indexBytes: 16 * 2 ** 20,
  /** Layers of the basis, and of the target. */
  layers: 1024,
  /** Size of one frame of the data blob. */
  frameBytes: 16 * 2 ** 20,
  /** Size of the data blob. */
  dataBytes: 2 ** 40,
  /** Memory that a delta may declare for its decoder. */
  memoryBytes: 256 * 2 ** 20,
  /** Coded size of one layer's tar metadata. */
  metaBytes: 64 * 2 ** 20,
  /** Entries of one layer. */
  entries: 5_000_000,
  /** Bytes of all names, link targets and PAX values of one layer, once decoded. */
  metaTextBytes: 256 * 2 ** 20,
  /** One name, link target or PAX value. */
  stringBytes: 2 ** 20,
  /** PAX records of one entry. */
  paxRecords: 4096,
  /** Sources of one patched file. */
  sources: 64,
  /** Compressed streams of one file that are handled inflated, in its sources and in itself. */
  expandedRanges: 65_536,
  /** Inflated size of all such streams of one file, in its sources and in itself. */
  expandedBytes: 2 ** 29,
  /** Size, before it is compressed, of one brotli stream that is compressed again: making it takes a time and a memory that grow with it. */
  brotliBytes: 2 ** 19,
  /** Size of all such brotli streams of a delta, before they are compressed. */
  brotliTotalBytes: 2 ** 24,
  /** Size, before it is compressed, of one stream that is made of its encoder's decisions, and of all such streams. */
  decidedBytes: 2 ** 23,
  decidedTotalBytes: 2 ** 27,
  /** Size of a list of checksums that is read brought up to date, and of all that a delta says to be read so. */
  checksumListBytes: 2 ** 22,
  checksumListTotalBytes: 2 ** 27,
  /** Coded size of one segment. */
  segmentBytes: 24 * 2 ** 20,
  /** Files or parts of files in one segment. */
  segmentParts: 2 ** 20,
} as const;
