import { execFile, spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync } from 'node:fs';
import { access, mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { KernelLog } from './kernel-log.js';

const execute = promisify(execFile);

/** One thing that a block device was told, in order. Offsets and lengths are bytes. */
export type LogEntry =
  | { readonly kind: 'write'; readonly offset: number; readonly length: number }
  | { readonly kind: 'flush' }
  | { readonly kind: 'mark'; readonly text: string };

/** The sectors (512 bytes) `from` to `to` of the write with this index in its recording. */
export interface Piece {
  readonly index: number;
  readonly from: number;
  readonly to: number;
}

/** A refusal of the block server: the errno of the system call that failed, 0 when it was none. */
export class BlockDeviceError extends Error {
  /** `kernel`: what the kernel said of the device meanwhile. */
  constructor(readonly errno: number, message: string, readonly kernel: readonly string[] = []) {
    super(message);
  }
}

/** What this machine lacks for a recording block device; empty where it has all. */
export function wantingForDisks(): string[] {
  const wanting = process.geteuid?.() === 0 ? [] : ['root'];
  for (const path of ['/dev/fuse', '/dev/loop-control']) {
    try {
      accessSync(path, constants.R_OK | constants.W_OK);
    } catch {
      wanting.push(path);
    }
  }
  return wanting;
}

/** The checkout, also when this runs from a folder of built JavaScript within it. */
function findCheckout(from: string): string {
  return existsSync(join(from, 'node_modules')) ? from : findCheckout(dirname(from));
}

/** Compiles the block server, once for each state of its source; its path. Needs g++ and Linux headers. */
async function buildServer(): Promise<string> {
  const checkout = findCheckout(dirname(fileURLToPath(import.meta.url)));
  const source = join(checkout, 'test/powercut/disk/block-server.cc');
  const digest = createHash('sha256').update(await readFile(source)).digest('hex').slice(0, 16);
  const path = join(checkout, 'node_modules/.cache/whittle', `block-server-${digest}`);
  try {
    await access(path, constants.X_OK);
    return path;
  } catch {
    await mkdir(dirname(path), { recursive: true });
    const unfinished = `${path}.${String(process.pid)}`;
    await execute('g++', ['-O2', '-std=c++20', '-Wall', '-Wextra', '-pthread', '-o', unfinished, source]);
    await rename(unfinished, path);
    return path;
  }
}

let built: Promise<string> | undefined;

/** Two disks start at once: a program that is still being written cannot be run. */
function builtServer(): Promise<string> {
  built ??= buildServer();
  return built;
}

/**
 * A block device of this process alone, kept in the memory of a server process: it records writes and flushes, and can become any
 * state that a recording allows. See `block-server.cc`. The caller closes it; a process that dies leaves no mount behind.
 */
export class BlockDevice {
  readonly #answers: AsyncIterator<string>;
  readonly #kernel = new KernelLog();
  #last: Promise<unknown> = Promise.resolve();

  private constructor(private readonly server: ChildProcessWithoutNullStreams, lines: Interface, private readonly folder: string) {
    this.#answers = lines[Symbol.asyncIterator]();
  }

  static async start(sizeBytes: number): Promise<BlockDevice> {
    const path = await builtServer();
    const folder = await mkdtemp(join(tmpdir(), 'whittle-disk-'));
    await mkdir(join(folder, 'fuse'));
    await mkdir(join(folder, 'mounted'));
    const server = spawn(path, [join(folder, 'fuse'), String(sizeBytes)], { stdio: ['pipe', 'pipe', 'pipe'] });
    const said: Buffer[] = [];
    server.stderr.on('data', (chunk: Buffer) => said.push(chunk));
    // A server that has ended cannot be written to; its missing answer says so.
    server.stdin.on('error', () => undefined);
    const device = new BlockDevice(server, createInterface(server.stdout), folder);
    try {
      await device.#answer();
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw new Error(`the block server did not start: ${Buffer.concat(said).toString().trim()}`, { cause: error });
    }
    return device;
  }

  /** Where its filesystem is mounted, when it is. */
  get mountPoint(): string {
    return join(this.folder, 'mounted');
  }

  async #answer(): Promise<string> {
    const next = await this.#answers.next();
    if (next.done === true) throw new Error('the block server has ended');
    const [word, errno = '0'] = next.value.split(' ');
    if (word === 'ok') return next.value.slice(3);
    throw new BlockDeviceError(Number(errno), next.value.slice('error '.length + errno.length + 1));
  }

  /** One command at a time: the answers have no names. */
  #ask<T>(command: string, read: (first: string) => Promise<T>): Promise<T> {
    const mine = this.#last.then(async () => {
      this.server.stdin.write(`${command}\n`);
      return read(await this.#answer());
    });
    this.#last = mine.catch(() => undefined);
    return mine;
  }

  #do(command: string): Promise<string> {
    return this.#ask(command, (first) => Promise.resolve(first));
  }

  /** Connects a loop device and gives its path. */
  attach(): Promise<string> {
    return this.#do('attach');
  }

  async detach(): Promise<void> {
    await this.#do('detach');
  }

  /** Compares what the device shows with what it holds, then mounts it. Throws BlockDeviceError with mount's errno and the kernel's words. */
  async mount(type: string, options: string): Promise<void> {
    this.#kernel.news();
    try {
      await this.#do(`mount ${type} ${this.mountPoint} ${options === '' ? '-' : options}`);
    } catch (error) {
            if (!(error instanceof BlockDeviceError)) throw error;
      // Other disks have their say in between.
      const name = /\bloop\d+\b/.exec(error.message)?.[0] ?? 'no device';
      throw new BlockDeviceError(error.errno, error.message, this.#kernel.news().filter((text) => text.includes(name)));
    }
  }

  /** Unmounts and disconnects; fine when it is not mounted. */
  async unmount(): Promise<void> {
    await this.#do('umount');
  }

  /** Starts a recording: its base is what the disk holds now. */
  async record(name: string): Promise<void> {
    await this.#do(`record ${name}`);
  }

  /** Notes in the recording under way that something has happened. */
  async mark(text: string): Promise<void> {
    await this.#do(`mark ${text}`);
  }

  async stop(): Promise<void> {
    await this.#do('stop');
  }

  log(name: string): Promise<LogEntry[]> {
    return this.#ask(`log ${name}`, async (count) => {
      const entries: LogEntry[] = [];
      for (let left = Number(count); left > 0; left--) {
        const next = await this.#answers.next();
        if (next.done === true) throw new Error('the block server has ended');
        const [kind, first = '', second = ''] = next.value.split(' ');
        if (kind === 'w') entries.push({ kind: 'write', offset: Number(first), length: Number(second) });
        else entries.push(kind === 'f' ? { kind: 'flush' } : { kind: 'mark', text: next.value.slice(2) });
      }
      return entries;
    });
  }

  /** The disk becomes the recording's base, its first `count` entries, and then `pieces` in their order. */
  async become(name: string, count: number, pieces: readonly Piece[]): Promise<void> {
    await this.#do(`state ${name} ${String(count)} ${pieces.map(({ index, from, to }) => `${String(index)}:${String(from)}-${String(to)}`).join(' ')}`);
  }

  /** Drops the recording of this name. */
  async forget(name: string): Promise<void> {
    await this.#do(`forget ${name}`);
  }

  async close(): Promise<void> {
    const gone = new Promise((resolve) => this.server.once('close', resolve));
    this.server.stdin.end();
    if (this.server.exitCode === null && this.server.signalCode === null) await gone;
    this.#kernel.close();
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}
