import type {
  Attributes, Barrier, BatchOp, BatchResult, DirectoryEntry, DurableFile, DurableFs, FileStat, FsLock, FsPath, FsSpace, OpenMode, Xattr,
} from '../../../src/atomic/index.js';
import { newInode, rootIno, type EntryChange, type Inode } from './disk.js';
import { fsError, type Machine } from './machine.js';
import { SimFile, statOf } from './sim-file.js';

const plain = /^[\x20-\x7e]*$/;
const freeBytes = 2 ** 40;
const done: BatchResult = { kept: false, attributeErrors: [] };

function latin1(path: FsPath): string {
  if (typeof path !== 'string') return path.toString('latin1');
  return plain.test(path) ? path : Buffer.from(path).toString('latin1');
}

/** A name in a directory. */
interface Place {
  readonly dir: number;
  readonly name: string;
  readonly ino: number | undefined;
}

/** One process's view of a simulated machine's disk, below `root`, behind the port of the product. */
export class SimFs implements DurableFs {
  #syncFailed = false;

  /** `root` is an absolute path on the machine; it must exist. */
  constructor(readonly machine: Machine, readonly root: string) {
    this.#place('');
  }

  /** The place of a path; its directory must be there. */
  #place(path: FsPath): Place {
    const parts = `${this.root}/${latin1(path)}`.split('/').filter((part) => part !== '');
    const name = parts.pop();
    if (name === undefined) return { dir: rootIno, name: '', ino: rootIno };
    let dir = rootIno;
    for (const part of parts) {
      const next = this.machine.disk.inode(dir).entries.get(part);
      if (next === undefined) throw fsError('ENOENT', 'open', latin1(path));
      const { kind } = this.machine.disk.inode(next);
      if (kind !== 'directory') throw fsError(kind === 'symlink' ? 'ELOOP' : 'ENOTDIR', 'open', latin1(path));
      dir = next;
    }
    const ino = this.machine.disk.inode(dir).entries.get(name);
    if (path.length === 0 && ino === undefined) throw fsError('ENOENT', 'open', this.root);
    return { dir, name, ino };
  }

  #existing(path: FsPath, syscall: string): { readonly place: Place; readonly ino: number; readonly inode: Inode } {
    const place = this.#place(path);
    if (place.ino === undefined) throw fsError('ENOENT', syscall, latin1(path));
    return { place, ino: place.ino, inode: this.machine.disk.inode(place.ino) };
  }

  async #turn(): Promise<void> {
    const pause = this.machine.options.pause?.();
    if (pause != null) await pause;
  }

  #names(what: string, changes: readonly EntryChange[], tree = false, swap = false): void {
    this.machine.do({ op: 'names', what, changes, tree, swap });
  }

  /** A new inode under a new name. */
  #make(path: FsPath, inode: Inode, syscall: string): number {
    const place = this.#place(path);
    if (place.ino !== undefined) throw fsError('EEXIST', syscall, latin1(path));
    this.machine.step('make', latin1(path));
    const ino = this.machine.disk.nextIno;
    this.machine.do({ op: 'make', ino, inode });
    this.#names(`${syscall} ${latin1(path)}`, [{ dir: place.dir, name: place.name, ino }], inode.kind === 'directory');
    return ino;
  }

  #write(ino: number, what: string, data: Buffer, offset: number): void {
    if (data.length === 0) return;
    try {
      this.machine.step('write', what, ino);
    } catch (error) {
      // What a full disk takes of a write before it refuses the rest.
      const half = data.length >> 1;
      if (half > 0) this.machine.do({ op: 'data', what: `write ${what} (cut short)`, ino, offset, data: Buffer.from(data.subarray(0, half)) });
      throw error;
    }
    this.machine.do({ op: 'data', what: `write ${what} ${String(offset)}+${String(data.length)}`, ino, offset, data: Buffer.from(data) });
  }

  #attributes(ino: number, path: string, attributes: Attributes): void {
    const set = (what: string, attr: Partial<Inode>): void => {
      this.machine.step('attributes', path, ino);
      this.machine.do({ op: 'attr', what: `${what} ${path}`, ino, attr });
    };
    const { kind } = this.machine.disk.inode(ino);
    if (attributes.uid !== undefined && attributes.gid !== undefined) set('chown', { uid: attributes.uid, gid: attributes.gid });
    if (attributes.mode !== undefined && kind !== 'symlink') set('chmod', { mode: attributes.mode });
    if (attributes.xattrs !== undefined || attributes.onlyTheseXattrs === true) {
      const xattrs = new Map(attributes.onlyTheseXattrs === true ? [] : this.machine.disk.inode(ino).xattrs);
      for (const { name, value } of attributes.xattrs ?? []) xattrs.set(name.toString('latin1'), Buffer.from(value));
      if (xattrs.size > 0 || this.machine.disk.inode(ino).xattrs.size > 0) set('setxattr', { xattrs });
    }
    if (attributes.mtimeSec !== undefined) set('utimes', { mtimeSec: attributes.mtimeSec, mtimeNsec: attributes.mtimeNsec ?? 0 });
  }

  async open(path: FsPath, how: OpenMode, mode = 0o600): Promise<DurableFile> {
    await this.#turn();
    if (how === 'create') return new SimFile(this.machine, this.#make(path, newInode('file', { mode }), 'create'), latin1(path));
    const { ino, inode } = this.#existing(path, 'open');
    if (inode.kind !== 'file') throw fsError(inode.kind === 'symlink' ? 'ELOOP' : inode.kind === 'directory' ? 'EISDIR' : 'ENXIO', 'open', latin1(path));
    return new SimFile(this.machine, ino, latin1(path));
  }

  async batch(ops: readonly BatchOp[]): Promise<BatchResult[]> {
    await this.#turn();
    const results: BatchResult[] = [];
    for (const [index, op] of ops.entries()) {
      try {
        results.push(this.#run(op));
      } catch (error) {
        throw Object.assign(error as Error, { index });
      }
    }
    return results;
  }

  #run(op: BatchOp): BatchResult {
    const path = latin1(op.path);
    switch (op.op) {
      case 'mkdir': return this.#mkdir(op.path, op.mode, op.existOk ?? false);
      case 'putFile': return this.#putFile(op);
      case 'symlink': {
        this.#attributes(this.#make(op.path, newInode('symlink', { mode: 0o777, target: op.target }), 'symlink'), path, op.attributes);
        return done;
      }
      case 'mknod': {
        this.#attributes(this.#make(op.path, newInode(op.kind, { mode: 0o600, major: op.deviceMajor, minor: op.deviceMinor }), 'mknod'), path, op.attributes);
        return done;
      }
      case 'link': {
        const { ino } = this.#existing(op.from, 'link');
        const place = this.#place(op.path);
        if (place.ino !== undefined) throw fsError('EEXIST', 'link', path);
        this.machine.step('make', path);
        this.#names(`link ${latin1(op.from)} ${path}`, [{ dir: place.dir, name: place.name, ino }]);
        return done;
      }
      case 'rename': {
        this.#rename(op.from, op.path, op.exchange ?? false);
        return done;
      }
      case 'unlink': {
        const { place, inode } = this.#existing(op.path, 'unlink');
        if (inode.kind === 'directory') throw fsError('EISDIR', 'unlink', path);
        this.machine.step('remove', path);
        this.#names(`unlink ${path}`, [{ dir: place.dir, name: place.name, ino: null }]);
        return done;
      }
      case 'rmdir': {
        const { place, inode } = this.#existing(op.path, 'rmdir');
        if (inode.kind !== 'directory') throw fsError('ENOTDIR', 'rmdir', path);
        if (inode.entries.size > 0) throw fsError('ENOTEMPTY', 'rmdir', path);
        this.machine.step('remove', path);
        this.#names(`rmdir ${path}`, [{ dir: place.dir, name: place.name, ino: null }], true);
        return done;
      }
      case 'attributes': {
        this.#attributes(this.#existing(op.path, 'chmod').ino, path, op.attributes);
        return done;
      }
    }
  }

  #mkdir(path: FsPath, mode: number, existOk: boolean): BatchResult {
    const { ino } = this.#place(path);
    if (existOk && ino !== undefined && this.machine.disk.inode(ino).kind === 'directory') return done;
    this.#make(path, newInode('directory', { mode }), 'mkdir');
    return done;
  }

  #putFile(op: Extract<BatchOp, { op: 'putFile' }>): BatchResult {
    const path = latin1(op.path);
    const there = this.#place(op.path);
    if (there.ino !== undefined && op.reuse) {
      const inode = this.machine.disk.inode(there.ino);
      if (inode.kind === 'file' && this.machine.links.get(there.ino) === 1 && inode.content.equals(op.content)) {
        this.#attributes(there.ino, path, op.attributes);
        return { ...done, kept: true };
      }
      if (inode.kind === 'directory') throw fsError('EISDIR', 'unlink', path);
      this.machine.step('remove', path);
      this.#names(`unlink ${path}`, [{ dir: there.dir, name: there.name, ino: null }]);
    }
    const ino = this.#make(op.path, newInode('file', { mode: 0o600 }), 'create');
    this.#write(ino, path, op.content, 0);
    this.#attributes(ino, path, op.attributes);
    return done;
  }

  #rename(from: FsPath, to: FsPath, swap: boolean, barrier?: Barrier): void {
    const what = `${swap ? 'exchange' : 'rename'} ${latin1(from)} ${latin1(to)}`;
    if (swap && this.machine.options.exchange === false) throw fsError('EINVAL', 'rename', latin1(from));
    const source = this.#existing(from, 'rename');
    const target = this.#place(to);
    const tree = source.inode.kind === 'directory';
    if (swap && target.ino === undefined) throw fsError('ENOENT', 'rename', latin1(to));
    if (!swap && target.ino !== undefined) this.#checkReplace(source.inode, this.machine.disk.inode(target.ino), latin1(to));
    this.machine.step('rename', latin1(to));
    if (barrier !== undefined && this.machine.options.without?.has(barrier) === true) {
      this.#renameInPieces(source.ino, source.place, target, swap);
      return;
    }
    const back = swap && target.ino !== undefined ? target.ino : null;
    this.#names(what, [{ dir: target.dir, name: target.name, ino: source.ino }, { dir: source.place.dir, name: source.place.name, ino: back }], tree, swap);
  }

  #checkReplace(source: Inode, target: Inode, path: string): void {
    if (target.kind !== 'directory') {
      if (source.kind === 'directory') throw fsError('ENOTDIR', 'rename', path);
      return;
    }
    if (source.kind !== 'directory') throw fsError('EISDIR', 'rename', path);
    if (target.entries.size > 0) throw fsError('ENOTEMPTY', 'rename', path);
  }

  /** What a program does that knows no rename: it writes the file in place and syncs it, or moves a tree piece by piece. */
  #renameInPieces(ino: number, from: Place, to: Place, swap: boolean): void {
    const { machine } = this;
    const inode = machine.disk.inode(ino);
    const remove: EntryChange = { dir: from.dir, name: from.name, ino: null };
    if (inode.kind === 'file') {
      if (to.ino === undefined) this.#names('link in pieces', [{ dir: to.dir, name: to.name, ino }]);
      else {
        machine.do({ op: 'size', what: 'truncate in place', ino: to.ino, sizeBytes: 0 });
        machine.do({ op: 'data', what: 'write in place', ino: to.ino, offset: 0, data: inode.content });
        machine.do({ op: 'fsync', what: 'fsync in place', ino: to.ino, barrier: 'image.content' });
      }
      this.#names('unlink in pieces', [remove]);
      return;
    }
    if (to.ino !== undefined) this.#names('remove in pieces', [{ dir: to.dir, name: to.name, ino: null }], true);
    const copy = machine.disk.nextIno;
    machine.do({ op: 'make', ino: copy, inode: newInode('directory', { mode: inode.mode }) });
    this.#names('mkdir in pieces', [{ dir: to.dir, name: to.name, ino: copy }], true);
    for (const [name, child] of inode.entries) {
      this.#names('move in pieces', [{ dir: copy, name, ino: child }, { dir: ino, name, ino: null }], machine.disk.inode(child).kind === 'directory');
    }
    this.#names('rmdir in pieces', [swap && to.ino !== undefined ? { ...remove, ino: to.ino } : remove], true);
  }

  async mkdir(path: FsPath, mode = 0o700): Promise<void> {
    await this.#turn();
    this.#mkdir(path, mode, false);
  }

  async rename(from: FsPath, to: FsPath, barrier: Barrier): Promise<void> {
    await this.#turn();
    this.#rename(from, to, false, barrier);
  }

  async exchange(a: FsPath, b: FsPath, barrier: Barrier): Promise<void> {
    await this.#turn();
    this.#rename(a, b, true, barrier);
  }

  async link(from: FsPath, to: FsPath): Promise<void> {
    await this.batch([{ op: 'link', from, path: to }]);
  }

  async unlink(path: FsPath): Promise<void> {
    await this.batch([{ op: 'unlink', path }]);
  }

  async rmdir(path: FsPath): Promise<void> {
    await this.batch([{ op: 'rmdir', path }]);
  }

  async setAttributes(path: FsPath, attributes: Attributes): Promise<BatchResult> {
    await this.batch([{ op: 'attributes', path, attributes }]);
    return done;
  }

  async reflink(from: FsPath, to: FsPath, mode: number): Promise<void> {
    if (this.machine.options.reflink === false) throw fsError('EOPNOTSUPP', 'reflink', latin1(to));
    await this.copyFile(from, to, mode);
  }

  async copyFile(from: FsPath, to: FsPath, mode: number): Promise<void> {
    await this.#turn();
    const { inode } = this.#existing(from, 'open');
    if (inode.kind !== 'file') throw fsError('EINVAL', 'copy', latin1(from));
    const ino = this.#make(to, newInode('file', { mode }), 'create');
    this.#write(ino, latin1(to), inode.content, 0);
  }

  async stat(path: FsPath): Promise<FileStat | undefined> {
    return (await this.statMany([path]))[0];
  }

  async statMany(paths: readonly FsPath[]): Promise<(FileStat | undefined)[]> {
    await this.#turn();
    return paths.map((path) => orAbsent(() => {
      const { ino } = this.#existing(path, 'stat');
      return statOf(this.machine, ino);
    }));
  }

  async readdir(path: FsPath): Promise<DirectoryEntry[]> {
    await this.#turn();
    const { inode } = this.#existing(path, 'readdir');
    if (inode.kind !== 'directory') throw fsError('ENOTDIR', 'readdir', latin1(path));
    return [...inode.entries].map(([name, ino]) => ({ name: Buffer.from(name, 'latin1'), kind: this.machine.disk.inode(ino).kind }));
  }

  async readlink(path: FsPath): Promise<Buffer> {
    await this.#turn();
    const { inode } = this.#existing(path, 'readlink');
    if (inode.kind !== 'symlink') throw fsError('EINVAL', 'readlink', latin1(path));
    return Buffer.from(inode.target);
  }

  async xattrs(path: FsPath): Promise<Xattr[]> {
    await this.#turn();
    return [...this.#existing(path, 'listxattr').inode.xattrs].map(([name, value]) => ({ name: Buffer.from(name, 'latin1'), value: Buffer.from(value) }));
  }

  async readFile(path: FsPath, maxBytes: number): Promise<Buffer | undefined> {
    return (await this.readFiles([path], maxBytes))[0];
  }

  async readFiles(paths: readonly FsPath[], maxBytesEach: number): Promise<(Buffer | undefined)[]> {
    await this.#turn();
    return paths.map((path) => orAbsent(() => {
      const { inode } = this.#existing(path, 'open');
      if (inode.kind !== 'file') throw fsError(inode.kind === 'directory' ? 'EISDIR' : inode.kind === 'symlink' ? 'ELOOP' : 'ENXIO', 'read', latin1(path));
      if (inode.content.length > maxBytesEach) throw fsError('EFBIG', 'read', latin1(path));
      return inode.content;
    }));
  }

  async lookAndReadFiles(paths: readonly FsPath[], maxBytesEach: number): Promise<({ stat: FileStat; content: Buffer } | undefined)[]> {
    const contents = await this.readFiles(paths, maxBytesEach);
    return contents.map((content, index) => (content === undefined ? undefined : { stat: statOf(this.machine, this.#existing(paths[index] ?? '', 'stat').ino), content }));
  }

  async fsyncDir(path: FsPath, barrier: Barrier): Promise<void> {
    await this.#turn();
    const { ino } = this.#existing(path, 'fsync');
    if (this.machine.options.without?.has(barrier) === true) return;
    this.machine.step('fsyncDir', latin1(path), ino);
    this.machine.do({ op: 'fsyncDir', what: `fsync ${latin1(path)}/`, ino, barrier });
  }

  async syncfs(barrier: Barrier): Promise<void> {
    await this.#turn();
    if (this.machine.options.without?.has(barrier) === true) return;
    if (this.#syncFailed) throw fsError('EIO', 'syncfs', this.root);
    try {
      this.machine.step('syncfs', '');
    } catch (error) {
      this.#syncFailed = true;
      this.machine.do({ op: 'stuck', what: 'syncfs failed', ino: null });
      throw error;
    }
    this.machine.do({ op: 'syncfs', what: 'syncfs', barrier });
  }

  async dropCache(): Promise<void> {
    await this.#turn();
  }

  async space(): Promise<FsSpace> {
    await this.#turn();
    return { totalBytes: freeBytes, freeBytes, type: 0xef53, readOnly: false };
  }

  async tryLock(path: FsPath, mode: 'shared' | 'exclusive'): Promise<FsLock | undefined> {
    await this.#turn();
    const ino = this.#place(path).ino ?? this.#make(path, newInode('file', { mode: 0o600 }), 'create');
    const unlock = this.machine.lock(ino, mode);
    if (unlock === null) return undefined;
    return {
      release: () => {
        unlock();
        return Promise.resolve();
      },
    };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

function orAbsent<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}
