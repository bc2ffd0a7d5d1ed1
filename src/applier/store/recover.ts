import { discardTree, recoverAside, removeTemporaries, removeTree, type DurableFs } from '../../atomic/index.js';
import { isSystemError, writeFileDurably } from '../../atomic/index.js';
import { WhittleError } from '../../core/errors.js';
import { layout, storeDirectories } from './layout.js';
import { References } from './records.js';
import type { RecoveryReport } from './types.js';

const formatLine = /^whittle-store (\d{1,6})\n$/;
const formatVersion = 1;

/** True when the store's format file is there and this Whittle knows it. Throws STORE_VERSION for a newer one. */
export async function checkFormat(fs: DurableFs): Promise<boolean> {
  const text = (await fs.readFile(layout.format, 64))?.toString('latin1');
  if (text === undefined) return false;
  const version = Number(formatLine.exec(text)?.[1] ?? formatVersion);
  // An unreadable line is no reason to lock anybody out: everything below is checked on its own.
  if (version > formatVersion) throw new WhittleError('STORE_VERSION', `the store at ${fs.root} has format ${String(version)}, this Whittle knows ${String(formatVersion)}`);
  return formatLine.test(text);
}

/** Makes those of the store's directories that are missing. Not durable by itself: the format file's name is synced after it, in the same directory. */
export async function makeStoreDirectories(fs: DurableFs): Promise<void> {
  const present = new Set((await fs.readdir('')).map((entry) => entry.name.toString('latin1')));
  const missing = storeDirectories.filter((directory) => !present.has(directory));
  if (missing.length === 0) return;
  await fs.batch(missing.map((path) => ({ op: 'mkdir', path, mode: 0o700, existOk: true })));
}

/** Writes the format file, last of all: a store without it is not finished. Durable when it returns. */
export async function writeFormat(fs: DurableFs): Promise<void> {
  if (!(await checkFormat(fs))) await writeFileDurably(fs, layout.format, Buffer.from(`whittle-store ${String(formatVersion)}\n`), 'format', 0o644);
}

/** Finishes or discards what interrupted processes left. Call it with the store's lock. Running it again, or after a cut within it, does no harm. */
export async function recover(fs: DurableFs): Promise<RecoveryReport> {
  const { restored, obsolete } = await recoverAside(fs, layout.layers);
  for (const path of obsolete) await discardTree(fs, path, layout.trash);
  let removed = obsolete.length;
  for (const directory of ['', layout.images, layout.references, layout.mounts]) removed += await removeTemporaries(fs, directory);
  for (const entry of await fs.readdir(layout.trash)) {
    const path = `${layout.trash}/${entry.name.toString('latin1')}`;
    try {
      await removeTree(fs, path);
      removed++;
    } catch (error) {
      // Its owner may be deleting it at this moment.
      if (!isSystemError(error, 'ENOENT', 'ENOTEMPTY')) throw error;
    }
  }
  const { damaged } = await new References(fs).all();
  return { removed, finished: restored, fellBack: damaged };
}
