import { systemError } from '../../../src/atomic/batch-codec.js';
import type { Barrier } from '../../../src/atomic/index.js';
import type { Disk, DiskOp } from './disk.js';

/** What goes wrong on a machine, and how. */
export interface MachineOptions {
  /** Barriers that do nothing: syncs that are not made, renames that are not one step. */
  readonly without?: ReadonlySet<Barrier>;
  /** False: RENAME_EXCHANGE is EINVAL. */
  readonly exchange?: boolean;
  /** False: clones are EOPNOTSUPP. */
  readonly reflink?: boolean;
  /** Called before each step that changes or syncs; answers an error code to fail it. */
  readonly fault?: (call: Call) => string | null;
  /** Awaited before each call, to mix processes. */
  readonly pause?: () => Promise<void> | null;
}

/** A step of the port that changes or syncs something. */
export interface Call {
  /** Counted from 0 for each machine. */
  readonly index: number;
  readonly kind: 'make' | 'remove' | 'rename' | 'write' | 'truncate' | 'attributes' | 'fsync' | 'fsyncDir' | 'syncfs';
  readonly path: string;
  /** Of `fsync`: which file. */
  readonly ino?: number;
}

interface Holders {
  exclusive: boolean;
  shared: number;
}

/**
 * A machine that runs from one boot to a power cut: its disk as programs see it, and everything that was done to it
 * since the boot. Processes reach it through `SimFs`.
 */
export class Machine {
  readonly trace: DiskOp[] = [];
  readonly links = new Map<number, number>();
  readonly #locks = new Map<number, Holders>();
  calls = 0;
  #ctime = 1n;
  readonly #ctimes = new Map<number, bigint>();

  /** `disk` is changed from now on. */
  constructor(readonly disk: Disk, readonly options: MachineOptions = {}) {
    for (const inode of disk.inodes.values()) for (const ino of inode.entries.values()) this.links.set(ino, (this.links.get(ino) ?? 0) + 1);
  }

  /** Counts a step and fails it when it is its turn. */
  step(kind: Call['kind'], path: string, ino?: number): void {
    const index = this.calls++;
    const code = this.options.fault?.({ index, kind, path, ...(ino === undefined ? {} : { ino }) }) ?? null;
    if (code !== null) throw fsError(code, kind, path);
  }

  do(op: DiskOp): void {
    if (op.op === 'names') {
      for (const { dir, name, ino } of op.changes) {
        const before = this.disk.inode(dir).entries.get(name);
        if (before !== undefined) this.#link(before, -1);
        if (ino !== null) this.#link(ino, 1);
      }
    } else if ('ino' in op && op.ino !== null) this.#touch(op.ino);
    this.disk.apply(op);
    this.trace.push(op);
  }

  mark(note: unknown): void {
    this.trace.push({ op: 'mark', note });
  }

  #link(ino: number, change: number): void {
    this.links.set(ino, (this.links.get(ino) ?? 0) + change);
    this.#touch(ino);
  }

  #touch(ino: number): void {
    this.#ctimes.set(ino, this.#ctime++);
  }

  ctime(ino: number): bigint {
    return this.#ctimes.get(ino) ?? 0n;
  }

  /** A lock on an inode; null when another holder is in the way. */
  lock(ino: number, mode: 'shared' | 'exclusive'): (() => void) | null {
    const holders = this.#locks.get(ino) ?? { exclusive: false, shared: 0 };
    this.#locks.set(ino, holders);
    if (holders.exclusive || (mode === 'exclusive' && holders.shared > 0)) return null;
    if (mode === 'exclusive') holders.exclusive = true;
    else holders.shared++;
    return () => {
      if (mode === 'exclusive') holders.exclusive = false;
      else holders.shared--;
    };
  }
}

const errnos: Readonly<Record<string, number>> = {
  EPERM: 1, ENOENT: 2, EIO: 5, EEXIST: 17, EXDEV: 18, ENOTDIR: 20, EISDIR: 21, EINVAL: 22, EFBIG: 27, ENOSPC: 28, EROFS: 30, ENOTEMPTY: 39, ELOOP: 40, EOPNOTSUPP: 95, EDQUOT: 122,
};

/** A system error of this code; without a stack, for there are very many. */
export function fsError(code: string, syscall: string, path: string): NodeJS.ErrnoException {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  try {
    return systemError(errnos[code] ?? 5, syscall, path);
  } finally {
    Error.stackTraceLimit = limit;
  }
}
