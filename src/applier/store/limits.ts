/** Bounds of the store. */
export const storeLimits = {
  /** Longest name of one path component, in bytes: what ext4, xfs and btrfs take. */
  maxNameBytes: 255,
  /** Longest path or link target, in bytes: what the kernel takes. */
  maxPathBytes: 4095,
  /** Most components that resolving one path may visit, links included. */
  maxResolveSteps: 8192,
  /** Most symbolic links on the way to one path: the kernel's own bound. */
  maxSymlinkHops: 40,
  /** Most directories that one layer may imply without having entries for them. */
  maxImpliedDirectories: 200_000,
  /** Largest metadata file of a layer on disk, and unpacked. */
  maxMetaBytes: 512 * 1024 * 1024,
  /** Most lower layers of an overlay mount: the kernel's own bound. */
  maxMountLayers: 500,
  /** Holes of one sparse file that are read to see that they are empty; those of a file with more are not. */
  maxReadHoleBytes: 2 ** 30,
  /** Damages that a verify report lists for one layer; the rest is only counted. */
  maxListedDamages: 50,
} as const;

/** Age after which gc deletes a stage that nobody holds. */
export const staleStageMs = 14 * 24 * 3600 * 1000;

/** Longest wait for the store's short critical sections. */
export const storeLockWaitMs = 30_000;
