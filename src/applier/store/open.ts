import { basename, dirname, resolve } from 'node:path';
import { acquireLock, isSystemError, LinuxFs, makeDirectoryDurably, storageError, type DurableFs } from '../../atomic/index.js';
import { WhittleError } from '../../core/errors.js';
import { StoreContext } from './context.js';
import { layout } from './layout.js';
import { storeLockWaitMs } from './limits.js';
import { checkFormat, makeStoreDirectories, recover, writeFormat } from './recover.js';
import { References } from './records.js';
import { DiskStore } from './store.js';
import type { OpenStoreOptions, RecoveryReport, Store } from './types.js';

/** Opens the store at `root`, making it when asked, and recovers it. The caller closes it. Throws STORE_ABSENT, STORE_VERSION, STORE_BUSY, USAGE (no store can be there), STORAGE_*. */
export async function openStore(root: string, options: OpenStoreOptions = {}): Promise<Store> {
  try {
    const fs = options.fs ?? await openRoot(root, options);
    try {
      const recovery = options.readOnly === true ? await look(fs) : await prepare(fs, options);
      return new DiskStore(new StoreContext(fs, process.geteuid?.() === 0, options.readOnly ?? false), recovery);
    } catch (error) {
      await fs.close();
      throw error;
    }
  } catch (error) {
    throw storageError(error, `opening the store at ${root}`);
  }
}

/** How the directories at and above the root are reached. */
type OpenFs = (path: string) => Promise<DurableFs>;

const openLinuxFs: OpenFs = (path) => LinuxFs.open(path);

async function openRoot(root: string, options: OpenStoreOptions): Promise<DurableFs> {
  const open = options.openFs ?? openLinuxFs;
  if (options.create === true && options.readOnly !== true) await makeRoot(open, resolve(root));
  try {
    return await open(root);
  } catch (error) {
    if (!isSystemError(error, 'ENOENT', 'ENOTDIR')) throw error;
    if (options.create === true && options.readOnly !== true) throw noPlace(`${root} is a link that leads nowhere`, error);
    throw new WhittleError('STORE_ABSENT', `there is no store at ${root}`, { cause: error });
  }
}

/** Makes the root and every missing ancestor; a name is durable only once the directory above it was synced. */
async function makeRoot(open: OpenFs, root: string): Promise<void> {
  const missing: string[] = [];
  let fs: DurableFs | undefined;
  for (let path = root; fs === undefined; path = dirname(path)) {
    fs = await openIfThere(open, path);
    if (fs === undefined) missing.unshift(basename(path));
  }
  try {
    for (const [depth] of missing.entries()) {
      const path = missing.slice(0, depth + 1).join('/');
      await makeDirectoryDurably(fs, path, 'root.name', depth + 1 === missing.length ? 0o700 : 0o755);
    }
  } catch (error) {
    // Such are /proc and /sys; a link that leads nowhere, above the root, is another.
    throw isSystemError(error, 'ENOENT', 'ENOTDIR', 'ELOOP') ? noPlace(`no directory can be made at ${root}`, error) : error;
  } finally {
    await fs.close();
  }
}

async function openIfThere(open: OpenFs, path: string): Promise<DurableFs | undefined> {
  try {
    return await open(path);
  } catch (error) {
    if (isSystemError(error, 'ENOENT') && path !== dirname(path)) return undefined;
    if (isSystemError(error, 'ENOTDIR')) throw noPlace(`${path} is no directory`, error);
    if (isSystemError(error, 'ENAMETOOLONG')) throw noPlace('the path of the root is longer than the system takes', error);
    throw error;
  }
}

function noPlace(why: string, cause: unknown): WhittleError {
  return new WhittleError('USAGE', `${why}, so no store can be there`, { cause, hint: 'Choose another with --root DIR.' });
}

async function prepare(fs: DurableFs, options: OpenStoreOptions): Promise<RecoveryReport> {
  const ready = await checkFormat(fs);
  await (ready ? requireSameOwner(fs) : requireEmptyOrOurs(fs, options));
  await makeStoreDirectories(fs);
  const lock = await acquireLock(fs, layout.storeLock, { mode: 'exclusive', waitMs: options.waitMs ?? storeLockWaitMs, what: 'the store' });
  try {
    if (!ready) await writeFormat(fs);
    return await recover(fs);
  } finally {
    await lock.release();
  }
}

/** Root may write into anybody's store, and what it leaves there its owner could neither read nor remove. */
async function requireSameOwner(fs: DurableFs): Promise<void> {
  const owner = process.geteuid?.() === 0 ? (await fs.stat(layout.format))?.uid : 0;
  if (owner === undefined || owner === 0) return;
  throw new WhittleError('STORAGE_PERMISSION', `the store at ${fs.root} belongs to the user with uid ${String(owner)}, who could not use it any more after root has`, { data: { owner } });
}

/** A directory full of other things is no place for a store; one that a cut left half made is. */
async function requireEmptyOrOurs(fs: DurableFs, options: OpenStoreOptions): Promise<void> {
  if (options.create !== true) throw new WhittleError('STORE_ABSENT', `there is no store at ${fs.root}`);
  const ours = new Set<string>([...Object.values(layout), 'lost+found']);
  for (const entry of await fs.readdir('')) {
    const name = entry.name.toString();
    if (!ours.has(name) && !name.startsWith('.tmp-')) throw new WhittleError('STORE_ABSENT', `${fs.root} is no store, and ${JSON.stringify(name)} is in the way of making one there`, { hint: 'Choose another with --root DIR: an empty directory, or one that is not there yet.' });
  }
}

async function look(fs: DurableFs): Promise<RecoveryReport> {
  if (!(await checkFormat(fs))) throw new WhittleError('STORE_ABSENT', `there is no store at ${fs.root}`);
  return { removed: 0, finished: 0, fellBack: (await new References(fs).all()).damaged };
}
