import type { Attributes, Xattr } from '../../atomic/index.js';
import { typeflags, type TarHeader } from '../../tar/index.js';

const xattrPrefix = Buffer.from('SCHILY.xattr.');
const largestXattrName = 255;
const largestXattrValue = 64 * 1024;
/** Attributes by which overlayfs itself works: a layer that brought them could make the kernel show files of other layers. */
const forbiddenXattr = /^(trusted|user)\.overlay\./;
const longestUid = 0xfffffffe;
/** Linux keeps 12 bits of a device's major number and 20 of its minor one. */
const largestDeviceMajor = 0xfff;
const largestDeviceMinor = 0xfffff;

/** The extended attributes that a header asks for, each name once (the last value wins), in the order of the names. */
export function xattrsOf(header: TarHeader): Xattr[] {
  if (header.pax.length === 0) return [];
  const byName = new Map<string, Xattr>();
  for (const { key, value } of header.pax) {
    if (!key.subarray(0, xattrPrefix.length).equals(xattrPrefix)) continue;
    const name = key.subarray(xattrPrefix.length);
    const text = name.toString('latin1');
    if (name.length === 0 || name.length > largestXattrName || name.includes(0) || value.length > largestXattrValue || forbiddenXattr.test(text)) continue;
    byName.set(text, { name, value });
  }
  return [...byName.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, xattr]) => xattr);
}

/** Whether a header asks for attributes that are never set here, though somebody else who extracted it may have set them. */
export function hasForbiddenXattr(header: TarHeader): boolean {
  return header.pax.some(({ key }) => key.subarray(0, xattrPrefix.length).equals(xattrPrefix) && forbiddenXattr.test(key.subarray(xattrPrefix.length).toString('latin1')));
}

/** What of the header the kernel has no place for, in words that follow the entry's name; undefined when it has one for everything. */
export function impossibleAttribute({ typeflag, uid, gid, devMajor, devMinor }: TarHeader): string | undefined {
  const within = (number: number, largest: number): boolean => number >= 0 && number <= largest;
  if (!within(uid, longestUid) || !within(gid, longestUid)) return `has an owner that no file can have: ${String(uid)}:${String(gid)}`;
  const isDevice = typeflag === typeflags.characterDevice || typeflag === typeflags.blockDevice;
  if (!isDevice || within(devMajor, largestDeviceMajor) && within(devMinor, largestDeviceMinor)) return undefined;
  return `has a number that no device can have: ${String(devMajor)}:${String(devMinor)}`;
}

/**
 * What is set on the file of an entry. Without privilege owners stay the user's own, and the user can always read what
 * the store must read back: files get u+rw, directories u+rwx.
 */
export function attributesOf(header: TarHeader, kind: 'file' | 'directory' | 'other', privileged: boolean): Attributes {
  const { uid, gid, mtimeSec, mtimeNsec } = header;
  const minimum = kind === 'file' ? 0o600 : kind === 'directory' ? 0o700 : 0;
  const mode = privileged ? header.mode & 0o7777 : (header.mode & 0o7777) | minimum;
  const attributes: Attributes = privileged ? { mode, uid, gid, mtimeSec, mtimeNsec } : { mode, mtimeSec, mtimeNsec };
  const xattrs = xattrsOf(header);
  return xattrs.length === 0 ? attributes : { ...attributes, xattrs };
}

/** Directories that the tar implies but does not have: those overlayfs would show with these attributes. */
export function impliedDirectoryAttributes(privileged: boolean): Attributes {
  return { mode: 0o755, ...(privileged ? { uid: 0, gid: 0 } : {}), mtimeSec: 0, mtimeNsec: 0 };
}

/** Whether two files with these headers may be one inode: everything that an inode holds besides content is the same. */
export function sameInodeAttributes(a: TarHeader, b: TarHeader): boolean {
  if (((a.mode ^ b.mode) & 0o7777) !== 0 || a.uid !== b.uid || a.gid !== b.gid || a.mtimeSec !== b.mtimeSec || a.mtimeNsec !== b.mtimeNsec) return false;
  if (a.pax.length === 0 && b.pax.length === 0) return true;
  const left = xattrsOf(a);
  const right = xattrsOf(b);
  return left.length === right.length && left.every((xattr, at) => {
    const other = right[at];
    return other !== undefined && xattr.name.equals(other.name) && xattr.value.equals(other.value);
  });
}
