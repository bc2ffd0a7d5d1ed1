import { basename, dirname, isAbsolute } from 'node:path';
import { isSystemError, LinuxFs, storageError, type DurableFs } from '../../../atomic/index.js';
import { WhittleError } from '../../../core/errors.js';
import type { Mount } from './api.js';

/** Name of the directory of a snapshot that holds its files, as the overlayfs snapshotter calls it. */
const filesName = 'fs';

/**
 * The directories behind a snapshot's mounts, each holding one layer's `fs`: that of the snapshot itself when it is
 * writable, and those of its parents, topmost first. Absolute paths. Throws ENGINE_UNSUPPORTED for mounts of a snapshotter that
 * does not keep layers as directories which overlayfs stacks.
 */
export function layerDirectories(mounts: readonly Mount[]): { readonly own: string | undefined; readonly parents: readonly string[] } {
  const [mount, ...more] = mounts;
  if (mount === undefined || more.length > 0) throw unsupported(`gives ${mounts.length} mounts for a snapshot`);
  if (mount.type === 'bind') {
    const directory = holder(mount.source);
    return mount.options.includes('rw') ? { own: directory, parents: [] } : { own: undefined, parents: [directory] };
  }
  if (mount.type !== 'overlay') throw unsupported(`mounts snapshots as ${JSON.stringify(mount.type.slice(0, 40))}`);
  if (mount.options.includes('userxattr')) throw unsupported('runs in a user namespace, where layers carry other marks');
  const value = (name: string): string | undefined => mount.options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1);
  const upper = value('upperdir');
  const lowers = value('lowerdir')?.split(':') ?? [];
  return { own: upper === undefined ? undefined : holder(upper), parents: lowers.map(holder) };
}

function holder(files: string): string {
  if (!isAbsolute(files) || basename(files) !== filesName || files.includes('\0')) throw unsupported(`keeps a layer's files at ${JSON.stringify(files.slice(0, 200))}`);
  return dirname(files);
}

function unsupported(what: string): WhittleError {
  return new WhittleError('ENGINE_UNSUPPORTED', `containerd's snapshotter ${what}; only layers in directories, as the overlayfs snapshotter keeps them, can be written and read`);
}

/** The directory that holds all snapshots, opened when it is first seen. */
export class SnapshotRoot {
  #fs: DurableFs | undefined;

  /** The port to it. Throws INTERNAL before any snapshot was seen. */
  get fs(): DurableFs {
    if (this.#fs === undefined) throw new WhittleError('INTERNAL', 'no snapshot of containerd was seen yet');
    return this.#fs;
  }

  /** Whether the snapshots' place is known and open. */
  get isOpen(): boolean {
    return this.#fs !== undefined;
  }

  /** The paths below `fs` of snapshots' directories. ENGINE_UNSUPPORTED when they are not all in one place, or not to be seen from here. */
  async relative(directories: readonly string[]): Promise<string[]> {
    const paths: string[] = [];
    for (const directory of directories) {
      const root = dirname(directory);
      this.#fs ??= await open(root);
      if (this.#fs.root !== root) throw unsupported(`keeps snapshots both in ${this.#fs.root} and in ${root}`);
      paths.push(basename(directory));
    }
    return paths;
  }

  /** Closes what was opened. Idempotent. */
  async close(): Promise<void> {
    await this.#fs?.close();
    this.#fs = undefined;
  }
}

async function open(root: string): Promise<DurableFs> {
  try {
    return await LinuxFs.open(root);
  } catch (error) {
    if (isSystemError(error, 'ENOENT', 'ENOTDIR')) {
      throw new WhittleError('ENGINE_UNSUPPORTED', `containerd keeps its snapshots in ${root}, which cannot be seen from here: run where containerd runs`, { cause: error });
    }
    if (isSystemError(error, 'EACCES', 'EPERM')) throw new WhittleError('ENGINE_DENIED', `containerd's snapshots in ${root} may not be read by this user`, { cause: error });
    throw storageError(error, `opening ${root}`);
  }
}
