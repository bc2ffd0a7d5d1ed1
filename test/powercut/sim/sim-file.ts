import { randomUUID } from 'node:crypto';
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Barrier, DurableFile, FileStat } from '../../../src/atomic/index.js';
import { noContent, resized } from './disk.js';
import { fsError, type Machine } from './machine.js';

/** What the machine's disk knows of an inode. */
export function statOf(machine: Machine, ino: number): FileStat {
  const inode = machine.disk.inode(ino);
  return {
    kind: inode.kind, mode: inode.mode, uid: inode.uid, gid: inode.gid, sizeBytes: inode.kind === 'symlink' ? inode.target.length : inode.content.length,
    allocatedBytes: inode.content.length, linkCount: machine.links.get(ino) ?? 0, device: 1n, inode: BigInt(ino), mtimeSec: inode.mtimeSec, mtimeNsec: inode.mtimeNsec,
    ctimeNs: machine.ctime(ino), deviceMajor: inode.major, deviceMinor: inode.minor,
  };
}

/** An open file of a simulated disk. */
export class SimFile implements DurableFile {
  #failed = false;
  #fd = -1;

  constructor(private readonly machine: Machine, private readonly ino: number, private readonly path: string) {}

  /** A real file without a name, with the content of this moment: native code reads by descriptor. */
  get fd(): number {
    if (this.#fd >= 0) return this.#fd;
    const path = join(tmpdir(), `whittle-sim-${randomUUID()}`);
    this.#fd = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    const { content } = this.machine.disk.inode(this.ino);
    for (let at = 0; at < content.length;) at += writeSync(this.#fd, content, at, content.length - at, at);
    return this.#fd;
  }

  readNow(buffer: Buffer, offset: number): number {
    return this.machine.disk.inode(this.ino).content.copy(buffer, 0, offset);
  }

  async read(buffer: Buffer, offset: number): Promise<number> {
    await this.machine.options.pause?.();
    return this.readNow(buffer, offset);
  }

  async write(data: Buffer, offset: number): Promise<void> {
    await this.machine.options.pause?.();
    if (this.#failed) throw fsError('EIO', 'write', this.path);
    if (data.length === 0) return;
    try {
      this.machine.step('write', this.path, this.ino);
    } catch (error) {
      const half = data.length >> 1;
      if (half > 0) this.machine.do({ op: 'data', what: `write ${this.path} (cut short)`, ino: this.ino, offset, data: Buffer.from(data.subarray(0, half)) });
      throw error;
    }
    this.machine.do({ op: 'data', what: `write ${this.path} ${String(offset)}+${String(data.length)}`, ino: this.ino, offset, data: Buffer.from(data) });
  }

  async truncate(sizeBytes: number): Promise<void> {
    await this.machine.options.pause?.();
    this.machine.step('truncate', this.path, this.ino);
    if (resized(this.machine.disk.inode(this.ino).content, sizeBytes) === noContent && this.machine.disk.inode(this.ino).content.length === 0) return;
    this.machine.do({ op: 'size', what: `truncate ${this.path} ${String(sizeBytes)}`, ino: this.ino, sizeBytes });
  }

  stat(): Promise<FileStat> {
    return Promise.resolve(statOf(this.machine, this.ino));
  }

  async fsync(barrier: Barrier): Promise<void> {
    await this.machine.options.pause?.();
    if (this.machine.options.without?.has(barrier) === true) return;
    if (this.#failed) throw fsError('EIO', 'fsync', this.path);
    try {
      this.machine.step('fsync', this.path, this.ino);
    } catch (error) {
      this.#failed = true;
      this.machine.do({ op: 'stuck', what: `fsync ${this.path} failed`, ino: this.ino });
      throw error;
    }
    this.machine.do({ op: 'fsync', what: `fsync ${this.path}`, ino: this.ino, barrier });
  }

  close(): Promise<void> {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
    return Promise.resolve();
  }
}
