import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sourceName, type Pair } from '../../../bench/pairs.js';
import { runOk } from '../../../bench/process.js';
import { orderDelta, startService, type Service } from '../../../bench/services.js';
import { BlockDevice } from '../disk/block-device.js';
import { filesystems, makeFilesystem, type Filesystem } from '../disk/filesystems.js';
import { mapFiles, mapTables, sortWrites, type WornBytes } from './blocks.js';
import type { Contents } from './contents.js';
import type { WearTool } from './tools.js';

/** Large enough for every image; what is not written takes no memory. */
const diskBytes = 4 * 2 ** 30;
const recording = 'update';

/** ext4 as a device has it by default, but larger than the one whose crash states are built. */
function wearFilesystem(): Filesystem {
  const ext4 = filesystems.find(({ name }) => name === 'ext4');
  if (ext4 === undefined) throw new Error('ext4 is not among the filesystems');
  return { ...ext4, sizeBytes: diskBytes };
}

/** What one tool wrote for one update. */
export interface Wear {
  readonly tool: string;
  readonly worn: WornBytes;
  readonly totalBytes: number;
  /** How often the device was told to flush. */
  readonly flushes: number;
}

/** Serves both images of a pair and has their delta ready. The caller stops it; its state is below `root`. */
export async function servePair(pair: Pair, root: string): Promise<Service> {
  const service = await startService([pair.basis, pair.target].map((image) => `bench=${sourceName(image)}`), root, 'fast');
  try {
    await orderDelta(service.port, 'bench', pair.basis.configDigest, pair.target.manifestDigest);
    return service;
  } catch (error) {
    await service.stop();
    throw error;
  }
}

/** What happens on a disk that is measured. */
export interface Update {
  /** Brings the state before; the filesystem is mounted. */
  install(): Promise<void>;
  /** Brings the update. Calls `record` when all is ready for it. */
  update(record: () => Promise<void>): Promise<void>;
}

/**
 * Makes an ext4 filesystem on the disk and installs; unmounts it, so that its journal is done with, and mounts it again; then updates
 * and unmounts. Everything that the device receives from `record` to the end of that is the update's.
 */
export async function recordWear(disk: BlockDevice, filesystem: Filesystem, what: Update, contents: Contents): Promise<Omit<Wear, 'tool'>> {
  const mounted = async <T>(body: () => Promise<T>): Promise<T> => {
    await disk.mount(filesystem.type, filesystem.options);
    try {
      return await body();
    } finally {
      await disk.unmount();
    }
  };
  await makeFilesystem(disk, filesystem);
  await mounted(() => what.install());
  await mounted(() => what.update(async () => {
    await runOk(['sync', '-f', disk.mountPoint]);
    await disk.record(recording);
  }));
  await disk.stop();
  const log = await disk.log(recording);
  const tables = await mapTables(await disk.attach());
  await disk.detach();
  const worn = await mounted(async () => sortWrites(log, tables, await mapFiles(disk.mountPoint), contents));
  return { worn, totalBytes: Object.values<number>({ ...worn }).reduce((sum, bytes) => sum + bytes, 0), flushes: log.filter(({ kind }) => kind === 'flush').length };
}

/** Lets a tool bring the basis of a pair onto a new disk, and then the target. */
export async function measureWear(tool: WearTool, pair: Pair, service: Service, contents: Contents): Promise<Wear> {
  const filesystem = wearFilesystem();
  const scratch = await mkdtemp(join(tmpdir(), 'whittle-wear-'));
  const disk = await BlockDevice.start(filesystem.sizeBytes);
  const session = async (which: 'basis' | 'target', before: () => Promise<void>): Promise<void> => {
    const opened = await tool.open({ disk: disk.mountPoint, scratch, pair, service });
    try {
      await before();
      await opened.take(which);
    } finally {
      await opened.close();
    }
  };
  try {
    const what = { install: () => session('basis', () => Promise.resolve()), update: (record: () => Promise<void>) => session('target', record) };
    return { tool: tool.name, ...(await recordWear(disk, filesystem, what, contents)) };
  } finally {
    await disk.close();
    await rm(scratch, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** What one update takes with its barriers and without them, in ms of wall time, in pairs. */
export interface PairedTimes {
  readonly withMs: readonly number[];
  readonly withoutMs: readonly number[];
}

/** Takes the syncs out of a program that it is loaded into. What orders the disk is gone; what orders names for other programs stays. */
const syncsThatDoNothing = 'int fsync(int f){(void)f;return 0;}int fdatasync(int f){(void)f;return 0;}int syncfs(int f){(void)f;return 0;}void sync(void){}';

/** Compiles what `LD_PRELOAD` takes; its path. */
async function makePreload(folder: string): Promise<string> {
  const path = join(folder, 'nosync.so');
  await runOk(['sh', '-c', `printf '%s' "$1" | gcc -shared -fPIC -O1 -x c -o "$2" -`, 'sh', syncsThatDoNothing, path]);
  return path;
}

/**
 * Updates copies of one store on ext4 on a loop device over a file of this machine's disk, `runs` times with all syncs and as often
 * with none, in turn; each from a filesystem that has nothing left to write.
 */
export async function measureTimes(pair: Pair, service: Service, runs: number, command: (root: string, which: 'basis' | 'target') => string[]): Promise<PairedTimes> {
  const filesystem = wearFilesystem();
  const scratch = await mkdtemp(join(tmpdir(), 'whittle-wear-time-'));
  const mountPoint = join(scratch, 'disk');
  const [program = '', ...words] = filesystem.make;
  const preload = await makePreload(scratch);
  const times: { withMs: number[]; withoutMs: number[] } = { withMs: [], withoutMs: [] };
  await mkdir(mountPoint);
  await runOk(['truncate', '-s', String(filesystem.sizeBytes), join(scratch, 'image')]);
  await runOk([program, ...words, join(scratch, 'image')]);
  await runOk(['mount', '-o', 'loop', join(scratch, 'image'), mountPoint]);
  try {
    const seed = join(mountPoint, 'seed');
    const root = join(mountPoint, 'store');
    await runOk(command(seed, 'basis'));
    const once = async (env: Readonly<Record<string, string>>): Promise<number> => {
      await runOk(['cp', '-a', seed, root]);
      await runOk(['sync', '-f', mountPoint]);
      const { elapsedMs } = await runOk(command(root, 'target'), { env });
      await runOk(['rm', '-rf', root]);
      await runOk(['sync', '-f', mountPoint]);
      return elapsedMs;
    };
    await once({});
    for (let run = 0; run < runs; run++) {
      // Each goes first as often as the other.
      if (run % 2 === 0) times.withMs.push(await once({}));
      times.withoutMs.push(await once({ LD_PRELOAD: preload }));
      if (run % 2 === 1) times.withMs.push(await once({}));
    }
    return times;
  } finally {
    await runOk(['umount', mountPoint]);
    await rm(scratch, { recursive: true, force: true, maxRetries: 5 });
  }
}
