import { randomBytes } from 'node:crypto';
import { discardTree, isSystemError, makeDirectoryDurably, readRecord, removeTree, writeRecord, type DurableFs, type FsLock } from '../../atomic/index.js';
import type { StoreContext } from './context.js';
import { layout, stageLockPath } from './layout.js';

/** What a stage's record says of its target. */
interface TargetName {
  readonly manifestDigest: string;
}

/** In some containers root may make no devices; whiteouts are devices, so such a root extracts as any user does. */
export function mayMakeDevices(context: StoreContext): Promise<boolean> {
  // Another process that opens the store empties the trash: without its lock it could take the device away between the steps.
  return context.exclusively(() => probeDevices(context));
}

async function probeDevices(context: StoreContext): Promise<boolean> {
  // Processes of two containers may have the same id: a name made of it would tell one of them that it may not.
  const path = `${layout.trash}/probe-${randomBytes(8).toString('hex')}`;
  try {
    const [result] = await context.fs.batch([{ op: 'mknod', path, kind: 'char', deviceMajor: 0, deviceMinor: 0, attributes: { uid: 1, gid: 1 } }]);
    await context.fs.unlink(path);
    return result?.attributeErrors.length === 0;
  } catch (error) {
    if (isSystemError(error, 'EPERM', 'EACCES', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS')) return false;
    throw error;
  }
}

/**
 * Discards a stage, as `discardTree` does. Where even a name in the trash is too much for what is left of a quota, as on btrfs, its files go where they are:
 * nobody trusts a stage. Nothing at `path` is fine.
 */
export async function discardStage(fs: DurableFs, path: string): Promise<void> {
  try {
    await discardTree(fs, path, layout.trash);
  } catch (error) {
    if (!isSystemError(error, 'ENOSPC', 'EDQUOT')) throw error;
    for (const name of ['layers', 'spool']) await removeTree(fs, `${path}/${name}`);
    await discardTree(fs, path, layout.trash);
  }
}

/**
 * Lets go of the lock of a stage that is gone, and takes the file away first: a device that follows a tag would gather
 * one for each version that it ever had. Whoever waits for it gets another.
 */
export async function forgetStageLock(fs: DurableFs, manifestDigest: string, lock: FsLock): Promise<void> {
  // One empty file more does no harm.
  await fs.unlink(stageLockPath(manifestDigest)).catch(() => undefined);
  await lock.release();
}

/** Makes or takes over the stage's directory; whether something usable was there. */
export async function prepareStage(context: StoreContext, path: string, target: TargetName, privileged: boolean): Promise<boolean> {
  const { fs } = context;
  const wanted = Buffer.from(JSON.stringify({ manifest: target.manifestDigest, privileged }));
  const record = await readRecord(fs, `${path}/stage`);
  if (record !== 'absent' && record !== 'damaged' && record.payload.equals(wanted)) {
    await fs.batch(['layers', 'spool'].map((name) => ({ op: 'mkdir', path: `${path}/${name}`, mode: 0o700, existOk: true })));
    return true;
  }
  await discardStage(fs, path);
  try {
    await makeDirectoryDurably(fs, path, 'stage.directory');
    await fs.mkdir(`${path}/layers`);
    await fs.mkdir(`${path}/spool`);
    await writeRecord(fs, `${path}/stage`, wanted, 'stage');
  } catch (error) {
    // On a full disk even an empty stage is in the way, and nobody else knows of this one.
    await discardStage(fs, path).catch(() => undefined);
    throw error;
  }
  return false;
}
