/** How much may be in one group. */
export interface GroupLimits {
  /** Members. */
  readonly members: number;
  /** A group that has so many bytes takes no more. */
  readonly bytes: number;
  /** A larger one is no member. */
  readonly memberBytes: number;
}

/** Consecutive things from a start up to `end`, of which `members` are small enough to be read together. */
export interface Group {
  readonly end: number;
  readonly members: readonly number[];
}

/** So many are looked through for each member that a group may have. */
const lookedPerMember = 4;

/** Forms the group from `start` of `count` things. `sizeBytes` gives 0 for one that is not to be a member. */
export function groupFrom(start: number, count: number, limits: GroupLimits, sizeBytes: (at: number) => number): Group {
  const members: number[] = [];
  const lookedEnd = Math.min(count, start + lookedPerMember * limits.members);
  let bytes = 0;
  let end = start;
  for (; end < lookedEnd && members.length < limits.members && bytes < limits.bytes; end++) {
    const size = sizeBytes(end);
    if (size === 0 || size > limits.memberBytes) continue;
    members.push(end);
    bytes += size;
  }
  return { end, members };
}
