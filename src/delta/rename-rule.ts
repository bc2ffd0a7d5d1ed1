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

const whiteoutPrefix = Buffer.from('.wh.', 'latin1');

/** The name of the whiteout that hides `path` (OCI image layer specification, "Whiteouts"), or null for a path without a name. */
export function whiteoutOf(path: Buffer): Buffer | null {
  const end = path.at(-1) === slash ? path.length - 1 : path.length;
  const start = path.subarray(0, end).lastIndexOf(slash) + 1;
  return start === end ? null : Buffer.concat([path.subarray(0, start), whiteoutPrefix, path.subarray(start, end)]);
}

/** The path that a whiteout hides, without a slash at its end; null when `path` names none. */
export function hiddenBy(path: Buffer): Buffer | null {
  const start = path.lastIndexOf(slash) + 1;
  const name = path.subarray(start);
  if (name.length <= whiteoutPrefix.length || !name.subarray(0, whiteoutPrefix.length).equals(whiteoutPrefix)) return null;
  return Buffer.concat([path.subarray(0, start), name.subarray(whiteoutPrefix.length)]);
}
