/** Bounds on what the publishing commands ask of a registry, and of themselves. */
export const publishLimits = {
  /** Old versions of one command. */
  bases: 256,
  /** Deltas of one image that are looked at. */
  deltasPerImage: 4096,
  /** Tags of a repository that are resolved. */
  tags: 10_000,
  /** Requests under way at a time. */
  requests: 8,
  /** Size of a delta's manifest. */
  manifestBytes: 1024 * 1024,
} as const;
