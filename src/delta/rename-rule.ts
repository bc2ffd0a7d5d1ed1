/** A leading part of paths that was replaced by another: "opt/app/" became "srv/fleet/". */
export interface RenameRule {
  readonly from: Buffer;
  readonly to: Buffer;
}

const slash = 0x2f;

/** The rule that makes `to` of `from`: what remains after the longest common tail of whole path components; null when they are equal. */
export function renameRule(from: Buffer, to: Buffer): RenameRule | null {
  if (from.equals(to)) return null;
  let shared = 0;
  let whole = 0;
  while (shared < from.length && shared < to.length && from[from.length - 1 - shared] === to[to.length - 1 - shared]) {
    shared++;
    const before = [from[from.length - 1 - shared], to[to.length - 1 - shared]];
    if (before.every((byte) => byte === undefined || byte === slash)) whole = shared;
  }
  return { from: from.subarray(0, from.length - whole), to: to.subarray(0, to.length - whole) };
}

/** `path` under the rule, or null when the rule says nothing of it. */
export function applyRename(rule: RenameRule | null, path: Buffer): Buffer | null {
  if (rule === null || path.length < rule.from.length || !path.subarray(0, rule.from.length).equals(rule.from)) return null;
  return Buffer.concat([rule.to, path.subarray(rule.from.length)]);
}

/** The path that the rule makes `path` of, or null. */
export function undoRename(rule: RenameRule | null, path: Buffer): Buffer | null {
  return rule === null ? null : applyRename({ from: rule.to, to: rule.from }, path);
}
