/**
 * What looking for the cheapest way may cost. A registry's lists and manifests are untrusted: they may be huge, point in
 * circles, or never end. Beyond any of these the search ends with what it has found.
 */
export const searchLimits = {
  /** Basis images named in one question to a server that makes deltas. */
  basisAsked: 8,
  /** Entries of one image's list that are looked at. */
  referrersPerImage: 64,
  /** Pages of that list, one after another, without a delta: a registry may send empty ones for ever. */
  idlePages: 8,
  /** Bytes of one image's list. */
  listBytes: 2 ** 20,
  /** Manifests of deltas from images that are here, read for their sizes. */
  directManifests: 16,
  /** Manifests of other deltas, read for their sizes in search of chains. */
  chainManifests: 48,
  /** Images whose own deltas are asked for in search of chains. */
  imagesExplored: 12,
  /** Deltas of one chain. */
  chainLength: 4,
  /** Bytes of lists and manifests received in search of chains. */
  chainBytes: 256 * 1024,
  /** The search for chains may cost this share of the cheapest way known. */
  chainShare: 1 / 8,
  /** Size of the manifest of a delta, and of an image within a chain. */
  manifestBytes: 256 * 1024,
  /** Layers of so few bytes in all are fetched without a question: a delta's manifest alone is larger, and a server may take long to make one. */
  worthAskingBytes: 1024,
  /** Ways tried before the layers are fetched in full. */
  waysTried: 3,
} as const;
