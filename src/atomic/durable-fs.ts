import type { Barrier } from './barriers.js';

/**
 * The one port through which durable work reaches a filesystem. Everything is relative to one root directory; nothing
 * follows a symbolic link or leaves the root. A simulated filesystem stands behind the same interface to prove what a
 * power cut leaves, so each operation says what it makes durable: only `fsync`, `fsyncDir` and `syncfs` do.
 * Those, and renames on which something depends, are called with the name of the barrier that they are.
 *
 * Failures are Errors whose `code` is the system's (`ENOENT`, `EIO`, …); `storageError` turns them into WhittleErrors.
 */

/** A path relative to the root: '/'-separated, no empty, '.' or '..' component ('' is the root itself). Buffers hold raw bytes. */
export type FsPath = string | Buffer;

/** What a name stands for. */
export type FileKind = 'file' | 'directory' | 'symlink' | 'char' | 'block' | 'fifo' | 'socket';

/** What `lstat` tells of a name. */
export interface FileStat {
  readonly kind: FileKind;
  /** Permission, set-id and sticky bits (07777). */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
  /** Space it takes on disk. */
  readonly allocatedBytes: number;
  readonly linkCount: number;
  readonly device: bigint;
  readonly inode: bigint;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly ctimeNs: bigint;
  /** Of a device node. */
  readonly deviceMajor: number;
  readonly deviceMinor: number;
}

/** One name in a directory; `.` and `..` are none. */
export interface DirectoryEntry {
  readonly name: Buffer;
  readonly kind: FileKind;
}

/** One extended attribute; its name with the namespace. */
export interface Xattr {
  readonly name: Buffer;
  readonly value: Buffer;
}

/** What to set on a file; what is absent is left alone. Set in the order owner, mode, xattrs, time (chown clears set-id bits and capabilities). Symbolic links are not followed; their mode is not set. */
export interface Attributes {
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtimeSec?: number;
  readonly mtimeNsec?: number;
  readonly xattrs?: readonly Xattr[];
  /** Removes all other extended attributes but those that the kernel itself gives. */
  readonly onlyTheseXattrs?: boolean;
}

/** 'read' opens what exists; 'create' makes a new file (EEXIST otherwise) for reading and writing; 'update' opens what exists for reading and writing. */
export type OpenMode = 'read' | 'create' | 'update';

/** One step of a batch. `path` is always what is made or changed. */
export type BatchOp =
  | { readonly op: 'mkdir'; readonly path: FsPath; readonly mode: number; /** An existing directory is fine. */ readonly existOk?: boolean }
  | { readonly op: 'putFile'; readonly path: FsPath; readonly content: Buffer; readonly attributes: Attributes; /** A regular file with one link and this content is kept, anything else but a directory is replaced; without it EEXIST. */ readonly reuse: boolean }
  | { readonly op: 'symlink'; readonly path: FsPath; readonly target: Buffer; readonly attributes: Attributes }
  | { readonly op: 'mknod'; readonly path: FsPath; readonly kind: 'char' | 'block' | 'fifo'; readonly deviceMajor: number; readonly deviceMinor: number; readonly attributes: Attributes }
  | { readonly op: 'link'; readonly path: FsPath; /** Existing file; a symbolic link itself is linked. */ readonly from: FsPath }
  | { readonly op: 'rename'; readonly path: FsPath; readonly from: FsPath; /** Swaps the two names atomically; EINVAL where the filesystem cannot. */ readonly exchange?: boolean; /** EEXIST instead of replacing. */ readonly noReplace?: boolean }
  | { readonly op: 'unlink'; readonly path: FsPath }
  | { readonly op: 'rmdir'; readonly path: FsPath }
  | { readonly op: 'attributes'; readonly path: FsPath; readonly attributes: Attributes };

/**
 * What one step of a batch did. `attributeErrors` names attributes that the system refused without failing the step
 * ('owner', 'mode', 'time', or 'xattr:<name as latin1>' and the error code); the caller decides.
 */
export interface BatchResult {
  /** putFile with `reuse`: the file was there already and was not written. */
  readonly kept: boolean;
  readonly attributeErrors: readonly { readonly what: string; readonly code: string }[];
}

/** An open file. Offsets are absolute; there is no file position. */
export interface DurableFile {
  /** A real descriptor, for reading only outside this interface (native code reads content by it). */
  readonly fd: number;
  /** Reads at `offset` until `buffer` is full or the file ends; returns the bytes read. */
  read(buffer: Buffer, offset: number): Promise<number>;
  /** `read` without a hop to the thread pool, for little that is in memory already. */
  readNow(buffer: Buffer, offset: number): number;
  /** Writes all of `data` at `offset`. */
  write(data: Buffer, offset: number): Promise<void>;
  truncate(sizeBytes: number): Promise<void>;
  stat(): Promise<FileStat>;
  /** Data and size are durable when it returns (the name is not). After EIO every further call fails with EIO and nothing is retried. */
  fsync(barrier: Barrier): Promise<void>;
  /** Reports late write errors. The descriptor is gone either way. */
  close(): Promise<void>;
}

/** Space of a filesystem. */
export interface FsSpace {
  readonly totalBytes: number;
  /** Available to this user. */
  readonly freeBytes: number;
  /** The filesystem's statfs type number. */
  readonly type: number;
  readonly readOnly: boolean;
}

/** A lock on a file, held until `release` or the end of the process. */
export interface FsLock {
  release(): Promise<void>;
}

/** The port to a directory: everything that the device does on its disk goes through one, so that a simulated disk can stand in its place. Paths are relative to `root`, and no call follows a link out of it; errors are system errors (`code`). */
export interface DurableFs {
  /** Absolute path of the root. */
  readonly root: string;
  /** Opens without following links. ENOENT, EEXIST, ELOOP (a link), EISDIR. New files have `mode` whatever the umask (default 0600). */
  open(path: FsPath, how: OpenMode, mode?: number): Promise<DurableFile>;
  /** Runs the steps in order and stops at the first that fails: its error has `index`. One hop to the thread pool for all. */
  batch(ops: readonly BatchOp[]): Promise<BatchResult[]>;
  mkdir(path: FsPath, mode?: number): Promise<void>;
  rename(from: FsPath, to: FsPath, barrier: Barrier): Promise<void>;
  /** Swaps two existing names atomically; EINVAL where the filesystem cannot. */
  exchange(a: FsPath, b: FsPath, barrier: Barrier): Promise<void>;
  link(from: FsPath, to: FsPath): Promise<void>;
  unlink(path: FsPath): Promise<void>;
  rmdir(path: FsPath): Promise<void>;
  setAttributes(path: FsPath, attributes: Attributes): Promise<BatchResult>;
  /** Makes `to` (new) share the blocks of `from`. EOPNOTSUPP, EXDEV or EINVAL where the filesystem cannot; then `to` is absent. */
  reflink(from: FsPath, to: FsPath, mode: number): Promise<void>;
  /** Makes `to` (new) with the bytes of `from`, holes kept where the filesystem can. */
  copyFile(from: FsPath, to: FsPath, mode: number): Promise<void>;
  /** Undefined when there is nothing; does not follow links. */
  stat(path: FsPath): Promise<FileStat | undefined>;
  /** `stat` of many; one hop. */
  statMany(paths: readonly FsPath[]): Promise<(FileStat | undefined)[]>;
  /** Names and kinds, in no order, without '.' and '..'. ENOENT, ENOTDIR. */
  readdir(path: FsPath): Promise<DirectoryEntry[]>;
  readlink(path: FsPath): Promise<Buffer>;
  /** All extended attributes that this user may read; empty where the filesystem has none. */
  xattrs(path: FsPath): Promise<Xattr[]>;
  /** The whole of a regular file of at most `maxBytes` (EFBIG otherwise). Undefined when there is no such file. */
  readFile(path: FsPath, maxBytes: number): Promise<Buffer | undefined>;
  /** `readFile` of many small files, one hop. With a `scratch` buffer that they fit into, the contents are views of it. */
  readFiles(paths: readonly FsPath[], maxBytesEach: number, scratch?: Buffer): Promise<(Buffer | undefined)[]>;
  /** The same, with what each file looked like before it was opened: a change in between shows as one. */
  lookAndReadFiles(paths: readonly FsPath[], maxBytesEach: number, scratch?: Buffer): Promise<({ readonly stat: FileStat; readonly content: Buffer } | undefined)[]>;
  /** The entries of the directory are durable when it returns. */
  fsyncDir(path: FsPath, barrier: Barrier): Promise<void>;
  /** Everything written to the root's filesystem before the call is durable when it returns; reports write errors since the root was opened. After EIO every further call fails with EIO. */
  syncfs(barrier: Barrier): Promise<void>;
  /** Drops clean cached pages of the file, so that the next read comes from the disk. Best effort. */
  dropCache(path: FsPath): Promise<void>;
  space(): Promise<FsSpace>;
  /** Locks the file `path` (made when absent), exclusive between processes and between holders in this one. Undefined when another holder has it. A holder may unlink the file; who has it open still has nothing then. */
  tryLock(path: FsPath, mode: 'shared' | 'exclusive'): Promise<FsLock | undefined>;
  /** Closes the root. Open files stay open. */
  close(): Promise<void>;
}
