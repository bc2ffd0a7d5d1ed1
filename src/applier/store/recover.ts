import { discardTree, makeDirectoryDurably, recoverAside, removeTemporaries, removeTree, type DurableFs } from '../../atomic/index.js';
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

/** Makes the store's directories, the format file last: a store without it is not finished. Durable when it returns. */
export async function makeStore(fs: DurableFs): Promise<void> {
  for (const directory of storeDirectories) await makeDirectoryDurably(fs, directory);
  if (!(await checkFormat(fs))) await writeFileDurably(fs, layout.format, Buffer.from(`whittle-store ${String(formatVersion)}\n`), 0o644);
}

/** Finishes or discards what interrupted processes left. Call it with the store's lock. Running it again, or after a cut within it, does no harm. */
export async function recover(fs: DurableFs): Promise<RecoveryReport> {
  for (const directory of storeDirectories) await makeDirectoryDurably(fs, directory);
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
