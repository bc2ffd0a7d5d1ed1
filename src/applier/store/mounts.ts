import { realpath, readFile } from 'node:fs/promises';
import { discardTree, isSystemError, readRecord, sealRecord } from '../../atomic/index.js';
import { systemErrorCode, WhittleError } from '../../core/errors.js';
import { deviceAddon } from '../../core/native.js';
import type { StoreContext } from './context.js';
import { hexName, layerPath, layout, nameKey } from './layout.js';
import { storeLimits } from './limits.js';
import type { StoredImage } from './types.js';

/** One overlay mount of an image. */
export interface MountRecord {
  readonly mountPoint: string;
  readonly manifestDigest: string;
  readonly writable: boolean;
}

function requireRoot(what: string): void {
  if (process.geteuid?.() !== 0) throw new WhittleError('MOUNT_NEEDS_ROOT', `${what} needs root`);
}

/** Mounts `image` read-only, or with an upper layer of its own. MOUNT_NEEDS_ROOT, MOUNT_FAILED. */
export async function mountImage(context: StoreContext, image: StoredImage, mountPoint: string, writable: boolean): Promise<void> {
  requireRoot('mounting an image');
  const target = await resolvePoint(mountPoint, 'Make the directory first, or name another.');
  const lowers = await lowerDirectories(context, image);
  const record: MountRecord = { mountPoint: target, manifestDigest: image.manifestDigest, writable };
  const path = `${layout.mounts}/${nameKey(target)}`;
  const { fs } = context;
  await context.exclusively(async () => {
    if ((await mountPoints()).has(target)) throw new WhittleError('MOUNT_FAILED', `something is mounted at ${target} already`, { hint: 'Unmount it first, or name another directory.' });
    await discardTree(fs, path, layout.trash);
    // No syncs: a cut ends the mount, and a record without its mount says nothing.
    await fs.mkdir(path);
    await fs.batch([
      ...['upper', 'work'].map((name) => ({ op: 'mkdir' as const, path: `${path}/${name}`, mode: 0o755 })),
      { op: 'putFile', path: `${path}/mount`, content: sealRecord(Buffer.from(JSON.stringify(record))), attributes: { mode: 0o600 }, reuse: false },
    ]);
    try {
      const own = (name: string): string => (writable ? `${fs.root}/${path}/${name}` : '');
      // Without an upper directory an overlay needs two lower ones, and an image without layers has only the empty one.
      const trees = writable || lowers.length > 1 ? lowers : [...lowers, `${fs.root}/${path}/upper`];
      await deviceAddon().mountOverlay(target, trees, own('upper'), own('work'));
    } catch (error) {
      await discardTree(fs, path, layout.trash);
      throw mountError(error, `cannot mount ${image.configDigest} at ${target}`);
    }
  });
}

/** The layers' trees, topmost first, each once; an overlay needs two, so an empty one lies below them. */
async function lowerDirectories(context: StoreContext, image: StoredImage): Promise<string[]> {
  const order = [...new Set([...image.diffIds].reverse())];
  if (order.length + 1 > storeLimits.maxMountLayers) throw new WhittleError('MOUNT_FAILED', `the image has ${String(order.length)} layers, the kernel mounts ${String(storeLimits.maxMountLayers - 1)}`);
  const lowers: string[] = [];
  for (const diffId of order) {
    const layer = await context.loadLayer(diffId);
    if (layer === undefined) throw new WhittleError('STORE_DAMAGED', `layer ${diffId} is not in the store`, { data: { layers: diffId } });
    if (!layer.privileged) throw new WhittleError('MOUNT_NEEDS_ROOT', `layer ${diffId} was extracted without root, so owners and devices are missing from its files`);
    if (layer.skipped.includes('xattr:trusted.overlay.opaque')) throw new WhittleError('MOUNT_FAILED', `the store's filesystem does not hold the attributes that layer ${diffId} needs to be mounted`);
    lowers.push(`${context.fs.root}/${layerPath(diffId)}/fs`);
  }
  return [...lowers, `${context.fs.root}/${layout.empty}`];
}

/** Undoes `mountImage`; what a writable mount wrote is deleted. */
export async function unmountImage(context: StoreContext, mountPoint: string): Promise<void> {
  requireRoot('unmounting an image');
  const target = await resolvePoint(mountPoint, 'See: device status');
  const path = `${layout.mounts}/${nameKey(target)}`;
  const record = await readRecord(context.fs, `${path}/mount`);
  if (record === 'absent') throw new WhittleError('MOUNT_FAILED', `this store has nothing mounted at ${target}`, { hint: 'See: device status' });
  await context.exclusively(async () => {
    try {
      if ((await mountPoints()).has(target)) await deviceAddon().unmount(target);
    } catch (error) {
      throw mountError(error, `cannot unmount ${target}`);
    }
    await discardTree(context.fs, path, layout.trash);
  });
}

/** Mounts of this store that are in force. Records of others are left: a reboot ends mounts without a word. */
export async function liveMounts(context: StoreContext): Promise<MountRecord[]> {
  const live: MountRecord[] = [];
  const points = await mountPoints();
  for (const entry of await context.fs.readdir(layout.mounts)) {
    const name = entry.name.toString('latin1');
    if (!hexName.test(name)) continue;
    const record = await readRecord(context.fs, `${layout.mounts}/${name}/mount`);
    if (record === 'absent' || record === 'damaged') continue;
    const mount = JSON.parse(record.payload.toString()) as MountRecord;
    if (points.has(mount.mountPoint)) live.push(mount);
  }
  return live;
}

/** Mount points of this process's namespace. */
async function mountPoints(): Promise<Set<string>> {
  const table = await readFile('/proc/self/mountinfo', 'latin1').catch(() => '');
  const points = new Set<string>();
  for (const line of table.split('\n')) {
    const point = line.split(' ')[4];
    if (point !== undefined) points.add(Buffer.from(point.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8))), 'latin1').toString());
  }
  return points;
}

async function resolvePoint(mountPoint: string, hint: string): Promise<string> {
  try {
    return await realpath(mountPoint);
  } catch (error) {
    const absent = isSystemError(error, 'ENOENT', 'ENOTDIR');
    if (absent) throw new WhittleError('MOUNT_FAILED', `there is no directory ${mountPoint}`, { cause: error, hint });
    throw mountError(error, `cannot use ${mountPoint} as a mount point`);
  }
}

function mountError(error: unknown, what: string): WhittleError {
  const code = systemErrorCode(error) ?? '';
  if (code === 'EPERM' || code === 'EACCES') return new WhittleError('MOUNT_NEEDS_ROOT', `${what}: not permitted (${code})`, { cause: error });
  return new WhittleError('MOUNT_FAILED', `${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
}
