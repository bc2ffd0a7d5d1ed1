import { mkdtemp, readdir, readFile, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { DurableFs } from '../../../atomic/index.js';
import { systemErrorCode } from '../../../core/errors.js';
import { OwnerLocks, rootMark } from '../owner-locks.js';

const memoryRoot = '/dev/shm';
const tmpfsType = 0x01021994;
/** What part of the memory that is free a layer may take on its way into podman. */
const memoryShare = 8;

/**
 * Where podman puts a layer between receiving and unpacking it: it always writes it to a temporary file. A layer that is small
 * beside the free memory goes there, so that a flash is not written for it; others into the scratch directory. What is left of either when
 * this process is killed is removed: with the pull's stage, and by `sweepMemory`.
 */
export class TemporaryDirectory {
  readonly #owners: OwnerLocks;
  #inMemory: string | null = null;

  /** `fs`: the device's root. `scratchDirectory`: an absolute path; what is in it, the caller removes. */
  constructor(private readonly fs: DurableFs, private readonly scratchDirectory: string) {
    this.#owners = new OwnerLocks(fs, 'podman');
  }

  /** The directory for a layer of this size; null when nobody knows the size. */
  async forBytes(sizeBytes: number | null): Promise<string> {
    if (sizeBytes === null || sizeBytes * memoryShare > (await freeMemoryBytes())) return this.scratchDirectory;
    try {
      await this.#owners.take();
      this.#inMemory ??= await mkdtemp(join(memoryRoot, `${prefixOf(this.fs)}${this.#owners.name}-`));
      return this.#inMemory;
    } catch {
      return this.scratchDirectory;
    }
  }

  /** Removes what is in memory. Idempotent. */
  async close(): Promise<void> {
    const path = this.#inMemory;
    this.#inMemory = null;
    if (path !== null) await rm(path, { recursive: true, force: true });
    await this.#owners.close();
  }
}

function prefixOf(fs: DurableFs): string {
  return `whittle-${rootMark(fs)}-`;
}

/**
 * Removes what processes of the device's root `fs` that are no more left in memory. Never fails: what cannot be removed now is left to the next
 * time, or to the machine's next start.
 */
export async function sweepMemory(fs: DurableFs): Promise<void> {
  const prefix = prefixOf(fs);
  const names = (await readdir(memoryRoot).catch((): string[] => [])).filter((name) => name.startsWith(prefix));
  if (names.length === 0) return;
  try {
    const living = await new OwnerLocks(fs, 'podman').living();
    for (const name of names) {
      if (living.has(name.slice(prefix.length, prefix.length + 16))) continue;
      const path = join(memoryRoot, name);
      if ((await stat(path)).uid === process.geteuid?.()) await rm(path, { recursive: true, force: true });
    }
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
  }
}

/** Memory that a temporary file could take: what is available, and what the filesystem in memory has free; 0 where there is none. */
async function freeMemoryBytes(): Promise<number> {
  try {
    const { type, bavail, bsize } = await statfs(memoryRoot);
    const available = /^MemAvailable:\s+(\d+) kB$/m.exec(await readFile('/proc/meminfo', 'latin1'))?.[1];
    return type === tmpfsType && available !== undefined ? Math.min(bavail * bsize, Number(available) * 1024) : 0;
  } catch {
    return 0;
  }
}
