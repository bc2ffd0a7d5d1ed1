/** Bounds on what containerd may answer, and on how long it may take; each is named in the error that it causes. */
export const containerdLimits = {
  /** Largest message of either side: containerd's own default bound, and what frames it. */
  maxMessageBytes: 16 * 1024 * 1024 + 64 * 1024,
  /** Longest silence of a call that is under way. Removing a lease may make containerd collect its garbage first. */
  callTimeoutMs: 120_000,
  /** Longest wait for the socket to answer. */
  connectTimeoutMs: 10_000,
  /** Most images, and most blobs and snapshots, that a listing may name. */
  maxListed: 500_000,
  /** Most bytes of a manifest's, config's or index's blob: those of larger ones are no image of ours. */
  maxDocumentBytes: 8 * 1024 * 1024,
  /** After this long without a pull, containerd's own gc removes what an interrupted one left in it. */
  leaseLifetimeMs: 7 * 24 * 3600 * 1000,
} as const;
