import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';

const memoryRoot = '/dev/shm';
const tmpfsType = 0x01021994;
/** What part of the memory that is free a layer may take on its way into podman. */
const memoryShare = 8;

/**
 * Where podman puts a layer between receiving and unpacking it: it always writes it to a temporary file. A layer that is small
 * beside the free memory goes there, so that a flash is not written for it; others into the scratch directory. What a killed
 * podman leaves is removed with either.
 */
export class TemporaryDirectory {
  readonly #prefix: string;
  #inMemory: string | null = null;
  #swept = false;

  /** `scratchDirectory`: an absolute path; what is in it, the caller removes. */
  constructor(private readonly scratchDirectory: string) {
    this.#prefix = `whittle-${createHash('sha256').update(scratchDirectory).digest('hex').slice(0, 16)}-`;
  }

  /** The directory for a layer of this size; null when nobody knows the size. */
  async forBytes(sizeBytes: number | null): Promise<string> {
    await this.#sweep();
    if (sizeBytes === null || sizeBytes * memoryShare > (await freeMemoryBytes())) return this.scratchDirectory;
    try {
      this.#inMemory ??= await mkdtemp(join(memoryRoot, this.#prefix));
      return this.#inMemory;
    } catch {
      return this.scratchDirectory;
    }
  }

  /** Removes what earlier pulls of the same target, killed, left in memory. */
  async #sweep(): Promise<void> {
    if (this.#swept) return;
    this.#swept = true;
    for (const name of await readdir(memoryRoot).catch(() => [])) {
      if (!name.startsWith(this.#prefix)) continue;
      const path = join(memoryRoot, name);
      if ((await stat(path).catch(() => undefined))?.uid === process.geteuid?.()) await rm(path, { recursive: true, force: true });
    }
  }

  /** Removes what is in memory. Idempotent. */
  async close(): Promise<void> {
    const path = this.#inMemory;
    this.#inMemory = null;
    if (path !== null) await rm(path, { recursive: true, force: true });
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
