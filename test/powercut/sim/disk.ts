import { createHash } from 'node:crypto';
import type { Barrier, FileKind } from '../../../src/atomic/index.js';

/** An inode, as a value: a change makes a new one. Names are latin1 strings, one character for each byte. */
export interface Inode {
  readonly kind: FileKind;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly xattrs: ReadonlyMap<string, Buffer>;
  /** Of a file. Never written to. */
  readonly content: Buffer;
  /** Of a symbolic link. */
  readonly target: Buffer;
  readonly major: number;
  readonly minor: number;
  /** Of a directory: name to inode number. */
  readonly entries: ReadonlyMap<string, number>;
}

/** One name that comes, goes (`ino` null) or changes. */
export interface EntryChange {
  readonly dir: number;
  readonly name: string;
  readonly ino: number | null;
}

/** A change of the disk that a power cut may undo. */
export type Change =
  /** Names; of a rename both, which happen together when they are in one directory. `swap`: an exchange, which is one step everywhere. */
  | { readonly op: 'names'; readonly what: string; readonly changes: readonly EntryChange[]; readonly swap: boolean; /** The moved inode is a directory. */ readonly tree: boolean }
  | { readonly op: 'data'; readonly what: string; readonly ino: number; readonly offset: number; readonly data: Buffer }
  | { readonly op: 'size'; readonly what: string; readonly ino: number; readonly sizeBytes: number }
  | { readonly op: 'attr'; readonly what: string; readonly ino: number; readonly attr: Partial<Pick<Inode, 'mode' | 'uid' | 'gid' | 'mtimeSec' | 'mtimeNsec' | 'xattrs'>> };

/** Everything that happens to a disk, in order. */
export type DiskOp =
  | Change
  /** An inode without a name; it counts for nothing until it has one. */
  | { readonly op: 'make'; readonly ino: number; readonly inode: Inode }
  | { readonly op: 'fsync'; readonly what: string; readonly ino: number; readonly barrier: Barrier }
  | { readonly op: 'fsyncDir'; readonly what: string; readonly ino: number; readonly barrier: Barrier }
  | { readonly op: 'syncfs'; readonly what: string; readonly barrier: Barrier }
  /** A sync failed: the kernel takes the dirty pages of the file (null: of all) for clean, so no later sync writes them. */
  | { readonly op: 'stuck'; readonly what: string; readonly ino: number | null }
  /** Something that the harness wants to know at this point of time. */
  | { readonly op: 'mark'; readonly note: unknown };

export const rootIno = 1;
export const noContent: Buffer = Buffer.alloc(0);
const noXattrs: ReadonlyMap<string, Buffer> = new Map();
const noEntries: ReadonlyMap<string, number> = new Map();
/** What the clock says all the time: a kernel's own times are compared with nothing. */
const nowSec = 1_900_000_000;

/** A new inode of this kind. */
export function newInode(kind: FileKind, more: Partial<Inode> = {}): Inode {
  return { kind, mode: 0o700, uid: 0, gid: 0, mtimeSec: nowSec, mtimeNsec: 0, xattrs: noXattrs, content: noContent, target: noContent, major: 0, minor: 0, entries: noEntries, ...more };
}

/** What is on a disk. */
export class Disk {
  constructor(readonly inodes: Map<number, Inode> = new Map([[rootIno, newInode('directory')]]), public nextIno = 2) {}

  clone(): Disk {
    return new Disk(new Map(this.inodes), this.nextIno);
  }

  inode(ino: number): Inode {
    const inode = this.inodes.get(ino);
    if (inode === undefined) throw new Error(`the simulated disk has no inode ${String(ino)}`);
    return inode;
  }

  apply(op: DiskOp): void {
    switch (op.op) {
      case 'make':
        this.inodes.set(op.ino, op.inode);
        this.nextIno = Math.max(this.nextIno, op.ino + 1);
        break;
      case 'names': this.setNames(op.changes); break;
      case 'data': this.#set(op.ino, { content: overwrite(this.inode(op.ino).content, op.offset, op.data), mtimeSec: nowSec, mtimeNsec: 0 }); break;
      case 'size': this.#set(op.ino, { content: resized(this.inode(op.ino).content, op.sizeBytes) }); break;
      case 'attr': this.#set(op.ino, op.attr); break;
      case 'fsync':
      case 'fsyncDir':
      case 'syncfs':
      case 'stuck':
      case 'mark': break;
    }
  }

  setNames(changes: readonly EntryChange[]): void {
    for (const { dir, name, ino } of changes) {
      const entries = new Map(this.inode(dir).entries);
      if (ino === null) entries.delete(name);
      else entries.set(name, ino);
      this.#set(dir, { entries, mtimeSec: nowSec, mtimeNsec: 0 });
    }
  }

  setContent(ino: number, content: Buffer): void {
    this.#set(ino, { content });
  }

  #set(ino: number, change: Partial<Inode>): void {
    this.inodes.set(ino, { ...this.inode(ino), ...change });
  }
}

function overwrite(content: Buffer, offset: number, data: Buffer): Buffer {
  if (offset === 0 && data.length >= content.length) return data;
  const out = Buffer.alloc(Math.max(content.length, offset + data.length));
  content.copy(out);
  data.copy(out, offset);
  return out;
}

/** Cut short, or made longer with zeros. */
export function resized(content: Buffer, sizeBytes: number): Buffer {
  if (sizeBytes <= content.length) return sizeBytes === 0 ? noContent : content.subarray(0, sizeBytes);
  const out = Buffer.alloc(sizeBytes);
  content.copy(out);
  return out;
}

/** The inode at an absolute path of plain components; undefined when there is none. Links are not followed. */
export function lookUp(disk: Disk, path: string): { readonly ino: number; readonly inode: Inode } | undefined {
  let ino = rootIno;
  for (const part of path.split('/')) {
    if (part === '') continue;
    const next = disk.inode(ino).entries.get(part);
    if (next === undefined) return undefined;
    ino = next;
  }
  return { ino, inode: disk.inode(ino) };
}

const contentIds = new WeakMap<Buffer, string>();

function contentId(content: Buffer): string {
  if (content.length === 0) return '';
  let id = contentIds.get(content);
  if (id === undefined) {
    id = createHash('sha1').update(content).digest('base64');
    contentIds.set(content, id);
  }
  return id;
}

/** A text that is the same for disks that look the same from their root. */
export function fingerprint(disk: Disk): string {
  const numbers = new Map<number, number>();
  const parts: string[] = [];
  const visit = (ino: number): void => {
    const known = numbers.get(ino);
    if (known !== undefined) {
      parts.push(`=${String(known)}`);
      return;
    }
    numbers.set(ino, numbers.size);
    const inode = disk.inode(ino);
    parts.push(`${inode.kind} ${String(inode.mode)} ${String(inode.uid)} ${String(inode.mtimeSec)} ${String(inode.mtimeNsec)} ${contentId(inode.content)}`);
    for (const [name, value] of inode.xattrs) parts.push(`${name}:${contentId(value)}`);
    if (inode.kind !== 'directory') return;
    for (const name of [...inode.entries.keys()].sort()) {
      parts.push(name);
      visit(inode.entries.get(name) ?? rootIno);
    }
    parts.push('/');
  };
  visit(rootIno);
  return parts.join('\n');
}
