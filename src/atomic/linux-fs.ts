import { close as closeFd, closeSync, fsync, fstatSync, ftruncate, fstat as fstatFd, open as openFd, read as readFd, readSync, write as writeFd, type BigIntStats } from 'node:fs';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { deviceAddon, type DeviceAddon } from '../core/native.js';
import {
  BatchEncoder, decodeAttributeResult, decodeDirectory, decodeSpace, decodeStat, decodeXattrs, eachResult, goOn, openHow, statBytes, step, systemError,
} from './batch-codec.js';
import type {
  Attributes, BatchOp, BatchResult, DirectoryEntry, DurableFile, DurableFs, FileKind, FileStat, FsLock, FsPath, FsSpace, OpenMode, Xattr,
} from './durable-fs.js';

const closeAsync = promisify(closeFd);
const fsyncAsync = promisify(fsync);
const ftruncateAsync = promisify(ftruncate);
const openAsync = promisify(openFd);

function fstatAsync(fd: number): Promise<BigIntStats> {
  return new Promise((settle, fail) => {
    fstatFd(fd, { bigint: true }, (error, stats) => {
      if (error) fail(error);
      else settle(stats);
    });
  });
}

function readOnce(fd: number, buffer: Buffer, at: number, offset: number): Promise<number> {
  return new Promise((settle, fail) => {
    readFd(fd, buffer, at, buffer.length - at, offset, (error, count) => {
      if (error) fail(error);
      else settle(count);
    });
  });
}

function writeOnce(fd: number, data: Buffer, at: number, offset: number): Promise<number> {
  return new Promise((settle, fail) => {
    writeFd(fd, data, at, data.length - at, offset, (error, count) => {
      if (error) fail(error);
      else settle(count);
    });
  });
}

const kindByType = new Map<bigint, FileKind>([
  [0o10n, 'file'], [0o04n, 'directory'], [0o12n, 'symlink'], [0o02n, 'char'], [0o06n, 'block'], [0o01n, 'fifo'], [0o14n, 'socket'],
]);

function toFileStat(stats: BigIntStats): FileStat {
  const mtimeSec = Number(stats.mtimeNs / 1_000_000_000n) - (stats.mtimeNs % 1_000_000_000n < 0n ? 1 : 0);
  return {
    kind: kindByType.get(stats.mode >> 12n) ?? 'socket', mode: Number(stats.mode & 0o7777n), uid: Number(stats.uid), gid: Number(stats.gid),
    sizeBytes: Number(stats.size), allocatedBytes: Number(stats.blocks) * 512, linkCount: Number(stats.nlink), device: stats.dev, inode: stats.ino,
    mtimeSec, mtimeNsec: Number(stats.mtimeNs - BigInt(mtimeSec) * 1_000_000_000n), ctimeNs: stats.ctimeNs, deviceMajor: 0, deviceMinor: 0,
  };
}

function ioError(syscall: string, path: FsPath): NodeJS.ErrnoException {
  return systemError(5, syscall, path);
}

/** An open file of the real filesystem. */
class LinuxFile implements DurableFile {
  #failed = false;
  #closed = false;

  /** `quick`: opened for reading only, so that closing it has nothing to report. */
  constructor(readonly fd: number, private readonly path: FsPath, private readonly quick = false) {}

  async read(buffer: Buffer, offset: number): Promise<number> {
    let done = 0;
    while (done < buffer.length) {
      const count = await readOnce(this.fd, buffer, done, offset + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  readNow(buffer: Buffer, offset: number): number {
    let done = 0;
    while (done < buffer.length) {
      const count = readSync(this.fd, buffer, done, buffer.length - done, offset + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  async write(data: Buffer, offset: number): Promise<void> {
    if (this.#failed) throw ioError('write', this.path);
    for (let done = 0; done < data.length;) done += await writeOnce(this.fd, data, done, offset + done);
  }

  async truncate(sizeBytes: number): Promise<void> {
    await ftruncateAsync(this.fd, sizeBytes);
  }

  async stat(): Promise<FileStat> {
    return toFileStat(this.quick ? fstatSync(this.fd, { bigint: true }) : await fstatAsync(this.fd));
  }

  async fsync(): Promise<void> {
    // The kernel forgets a failed write after reporting it once: a second fsync would say that all is well.
    if (this.#failed) throw ioError('fsync', this.path);
    try {
      await fsyncAsync(this.fd);
    } catch (error) {
      this.#failed = true;
      throw error;
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    if (this.quick) closeSync(this.fd);
    else await closeAsync(this.fd);
  }
}

/** How `LinuxFs` works. */
export interface LinuxFsOptions {
  /** Resolves paths component by component instead of with openat2, as on kernels before 5.6 (tests). */
  readonly walkOnly?: boolean;
}

const noResults = Buffer.alloc(0);

/** Up to so many names are looked at, and so many bytes read, without a hop to the thread pool. */
const fewPaths = 4;
const littleBytes = 256 * 1024;

/** Buffers of finished batches that are kept for the next ones. */
const maxSpareBuffers = 2;
const maxSpareBytes = 4 * 1024 * 1024;

/** What a batch's only step answers. Throws its error. */
function payloadOf(results: Buffer, syscall: string, path: FsPath): Buffer {
  const [payload] = eachResult(results, (errno, start, end) => {
    if (errno !== 0) throw systemError(errno, syscall, path);
    return results.subarray(start, end);
  });
  if (payload === undefined) throw systemError(5, syscall, path);
  return payload;
}

/** The real filesystem behind the port. */
export class LinuxFs implements DurableFs {
  #rootFd: number;
  #syncFailed = false;
  readonly #spare: Buffer[] = [];
  /** Results of the last look. */
  readonly #looked = Buffer.allocUnsafeSlow(1024);

  private constructor(readonly root: string, rootFd: number, private readonly walkOnly: boolean, private readonly addon: DeviceAddon) {
    this.#rootFd = rootFd;
  }

  /** Opens the existing directory `root`. System errors as they come (ENOENT, ENOTDIR, EACCES). */
  static async open(root: string, options: LinuxFsOptions = {}): Promise<LinuxFs> {
    const absolute = resolve(root);
    const addon = deviceAddon();
    // syncfs reports the write errors since its descriptor was opened, so this one stays open from before the first write.
    const fd = await openAsync(absolute, 'r');
    if (!(await fstatAsync(fd)).isDirectory()) {
      await closeAsync(fd);
      throw systemError(20, 'open', absolute);
    }
    return new LinuxFs(absolute, fd, options.walkOnly ?? false, addon);
  }

  /** For the steps of one call. */
  #encoder(): BatchEncoder {
    return new BatchEncoder(this.#spare.pop());
  }

  #keepSpare({ buffer }: BatchEncoder): void {
    if (this.#spare.length < maxSpareBuffers && buffer.length <= maxSpareBytes) this.#spare.push(buffer);
  }

  async #run(encoder: BatchEncoder, results: Buffer = noResults): Promise<Buffer> {
    const out = await this.addon.runBatch(this.#rootFd, encoder.finish(), this.walkOnly, results);
    this.#keepSpare(encoder);
    return typeof out === 'number' ? results.subarray(0, out) : out;
  }

  /**
   * Runs one step of looking at or opening what is there, on this thread: a device does that for each of thousands of
   * files, and the hop to the thread pool and back takes many times as long as the step. The results are valid until the next call.
   */
  #look(encoder: BatchEncoder): Buffer {
    const out = this.addon.runBatchNow(this.#rootFd, encoder.finish(), this.walkOnly, this.#looked);
    this.#keepSpare(encoder);
    return typeof out === 'number' ? this.#looked.subarray(0, out) : out;
  }

  /** What one look gives; `decode` copies what it keeps. */
  #see<T>(encoder: BatchEncoder, syscall: string, path: FsPath, decode: (payload: Buffer) => T): Promise<T> {
    // Decoded before anybody else can run: the next look goes into the same buffer.
    return new Promise((settle) => { settle(decode(payloadOf(this.#look(encoder), syscall, path))); });
  }

  async #one(encoder: BatchEncoder, syscall: string, path: FsPath): Promise<Buffer> {
    return payloadOf(await this.#run(encoder), syscall, path);
  }

  async open(path: FsPath, how: OpenMode, mode = 0o600): Promise<DurableFile> {
    const encoder = this.#encoder().u8(step.open).bytes(path).u8(openHow[how]).u32(mode);
    const quick = how === 'read';
    const payload = quick ? payloadOf(this.#look(encoder), 'open', path) : await this.#one(encoder, 'open', path);
    return new LinuxFile(payload.readInt32LE(0), path, quick);
  }

  async batch(ops: readonly BatchOp[]): Promise<BatchResult[]> {
    if (ops.length === 0) return [];
    const encoder = this.#encoder();
    for (const op of ops) encoder.op(op);
    const results = await this.#run(encoder);
    return eachResult(results, (errno, start, end, index) => {
      const op = ops[index];
      if (op === undefined) throw systemError(5, 'batch', '');
      if (errno !== 0) throw Object.assign(systemError(errno, op.op, op.path), { index });
      return decodeAttributeResult(results, start, end, 'attributes' in op ? op.attributes.xattrs : []);
    });
  }

  async #single(op: BatchOp): Promise<BatchResult> {
    const [result] = await this.batch([op]);
    if (result === undefined) throw systemError(5, op.op, op.path);
    return result;
  }

  async mkdir(path: FsPath, mode = 0o700): Promise<void> {
    await this.#single({ op: 'mkdir', path, mode });
  }

  async rename(from: FsPath, to: FsPath): Promise<void> {
    await this.#single({ op: 'rename', from, path: to });
  }

  async exchange(a: FsPath, b: FsPath): Promise<void> {
    await this.#single({ op: 'rename', from: a, path: b, exchange: true });
  }

  async link(from: FsPath, to: FsPath): Promise<void> {
    await this.#single({ op: 'link', from, path: to });
  }

  async unlink(path: FsPath): Promise<void> {
    await this.#single({ op: 'unlink', path });
  }

  async rmdir(path: FsPath): Promise<void> {
    await this.#single({ op: 'rmdir', path });
  }

  setAttributes(path: FsPath, attributes: Attributes): Promise<BatchResult> {
    return this.#single({ op: 'attributes', path, attributes });
  }

  async reflink(from: FsPath, to: FsPath, mode: number): Promise<void> {
    await this.#one(this.#encoder().u8(step.clone).bytes(from).bytes(to).u32(mode), 'reflink', to);
  }

  async copyFile(from: FsPath, to: FsPath, mode: number): Promise<void> {
    await this.#one(this.#encoder().u8(step.copy).bytes(from).bytes(to).u32(mode), 'copy', to);
  }

  async stat(path: FsPath): Promise<FileStat | undefined> {
    const [stat] = await this.statMany([path]);
    return stat;
  }

  async statMany(paths: readonly FsPath[]): Promise<(FileStat | undefined)[]> {
    if (paths.length === 0) return [];
    const encoder = this.#encoder();
    for (const path of paths) encoder.u8(step.stat | goOn).bytes(path);
    const results = paths.length <= fewPaths ? this.#look(encoder) : await this.#run(encoder);
    return eachResult(results, (errno, start, _end, index) => (isThere(errno, 'stat', paths[index]) ? decodeStat(results, start) : undefined));
  }

  readdir(path: FsPath): Promise<DirectoryEntry[]> {
    return this.#see(this.#encoder().u8(step.readdir).bytes(path), 'readdir', path, decodeDirectory);
  }

  readlink(path: FsPath): Promise<Buffer> {
    return this.#see(this.#encoder().u8(step.readlink).bytes(path), 'readlink', path, (target) => Buffer.from(target));
  }

  async xattrs(path: FsPath): Promise<Xattr[]> {
    return decodeXattrs(await this.#one(this.#encoder().u8(step.xattrs).bytes(path), 'listxattr', path));
  }

  async readFile(path: FsPath, maxBytes: number): Promise<Buffer | undefined> {
    const [content] = await this.readFiles([path], maxBytes);
    return content;
  }

  async readFiles(paths: readonly FsPath[], maxBytesEach: number, scratch: Buffer = noResults): Promise<(Buffer | undefined)[]> {
    if (paths.length === 0) return [];
    const encoder = this.#encoder();
    for (const path of paths) encoder.u8(step.readFile | goOn).bytes(path).i64(maxBytesEach);
    const few = paths.length * maxBytesEach <= littleBytes;
    const results = few ? this.#look(encoder) : await this.#run(encoder, scratch);
    const isPassing = results.buffer === this.#looked.buffer;
    return eachResult(results, (errno, start, end, index) => {
      if (!isThere(errno, 'read', paths[index])) return undefined;
      const content = results.subarray(start, end);
      return isPassing ? Buffer.from(content) : content;
    });
  }

  async lookAndReadFiles(paths: readonly FsPath[], maxBytesEach: number, scratch: Buffer = noResults): Promise<({ stat: FileStat; content: Buffer } | undefined)[]> {
    if (paths.length === 0) return [];
    const encoder = this.#encoder();
    for (const path of paths) encoder.u8(step.lookAndReadFile | goOn).bytes(path).i64(maxBytesEach);
    const results = await this.#run(encoder, scratch);
    return eachResult(results, (errno, start, end, index) =>
      (isThere(errno, 'read', paths[index]) ? { stat: decodeStat(results, start), content: results.subarray(start + statBytes, end) } : undefined));
  }

  async fsyncDir(path: FsPath): Promise<void> {
    await this.#one(this.#encoder().u8(step.fsyncDir).bytes(path), 'fsync', path);
  }

  async syncfs(): Promise<void> {
    if (this.#syncFailed) throw ioError('syncfs', this.root);
    try {
      await this.addon.syncfs(this.#rootFd);
    } catch (error) {
      this.#syncFailed = true;
      throw error;
    }
  }

  async dropCache(path: FsPath): Promise<void> {
    await this.#run(this.#encoder().u8(step.dropCache).bytes(path));
  }

  async space(): Promise<FsSpace> {
    return decodeSpace(await this.#one(this.#encoder().u8(step.space), 'statfs', ''));
  }

  async tryLock(path: FsPath, mode: 'shared' | 'exclusive'): Promise<FsLock | undefined> {
    for (;;) {
      const payload = await this.#one(this.#encoder().u8(step.open).bytes(path).u8(openHow.openOrCreate).u32(0o600), 'open', path);
      const file = new LinuxFile(payload.readInt32LE(0), path);
      let state: 'mine' | 'held' | 'gone' = 'held';
      try {
        // Whoever held it may have taken its name away since it was opened: the next one makes another file, and that counts.
        if (this.addon.flock(file.fd, mode === 'exclusive')) state = fstatSync(file.fd).nlink > 0 ? 'mine' : 'gone';
      } finally {
        if (state !== 'mine') await file.close();
      }
      if (state === 'mine') return { release: () => file.close() };
      if (state === 'held') return undefined;
    }
  }

  async close(): Promise<void> {
    const fd = this.#rootFd;
    if (fd < 0) return;
    this.#rootFd = -1;
    await closeAsync(fd);
  }
}

const enoent = 2;
const enotdir = 20;

/** False when there is no such file; other errors are thrown. */
function isThere(errno: number, syscall: string, path: FsPath = ''): boolean {
  if (errno === 0) return true;
  if (errno === enoent || errno === enotdir) return false;
  throw systemError(errno, syscall, path);
}
