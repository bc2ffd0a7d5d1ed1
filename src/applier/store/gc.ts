import { acquireLock, discardTree } from '../../atomic/index.js';
import { WhittleError } from '../../core/errors.js';
import { throwIfAborted } from '../../core/interruption.js';
import type { StoreContext } from './context.js';
import { hexName, imagePath, layout, stageLockPath } from './layout.js';
import { staleStageMs } from './limits.js';
import { liveMounts } from './mounts.js';
import { namedImages, readImages, References, withoutRecord, type ImageRecord } from './records.js';
import { discardStage, forgetStageLock } from './stage-directory.js';
import type { GcReport } from './types.js';
import { freedWith } from './usage.js';

/** What `Store.gc` may be told. */
export interface GcOptions {
  readonly stageMaxAgeMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * Deletes what nothing refers to: image records first, then the layers that no record names. Every step is durable before
 * the next, so that a cut never leaves a record without its layers.
 */
export async function collectGarbage(context: StoreContext, options: GcOptions): Promise<GcReport> {
  const { fs } = context;
  const use = await acquireLock(fs, layout.useLock, { mode: 'exclusive', waitMs: 0, what: 'the store (a pull, verification or export runs)' });
  try {
    return await context.exclusively(async () => {
      const inventory = await removeImages(context, options.signal);
      const stages = await removeStages(context, options.stageMaxAgeMs ?? staleStageMs);
      const layers = await removeLayers(context, inventory, options.signal);
      return { removedImages: inventory.removed, removedLayers: layers.removed, removedStages: stages.removed, freedBytes: stages.freedBytes + layers.freedBytes, damagedRecords: inventory.damaged };
    });
  } finally {
    await use.release();
  }
}

/** What the records say is used. */
interface Inventory {
  readonly kept: readonly ImageRecord[];
  readonly removed: readonly string[];
  /** Records that cannot be read or are gone. */
  readonly damaged: readonly string[];
  /** Whether `kept` names every layer in use. */
  readonly isWhole: boolean;
}

async function removeImages(context: StoreContext, signal: AbortSignal | undefined): Promise<Inventory> {
  const { fs } = context;
  const references = await new References(fs).all();
  if (references.lost > 0) throw new WhittleError('STORE_DAMAGED', `${String(references.lost)} names cannot be read, so nobody knows what is garbage; pull them again first`);
  const images = await readImages(fs);
  const used = namedImages(references.values);
  for (const mount of await liveMounts(context)) used.add(mount.manifestDigest);
  const gone = withoutRecord(used, images.values).map(imagePath).filter((path) => !images.damaged.includes(path));
  const damaged = [...images.damaged, ...gone, ...references.damaged];
  // A record that is damaged, or gone as after a check of the filesystem, may be of an image in use: its layers cannot be told from garbage.
  if (damaged.length > 0) return { kept: images.values, removed: [], damaged, isWhole: images.damaged.length + gone.length === 0 };
  const kept = images.values.filter((image) => used.has(image.manifestDigest));
  const garbage = images.values.filter((image) => !used.has(image.manifestDigest));
  for (const image of garbage) {
    throwIfAborted(signal);
    await fs.unlink(imagePath(image.manifestDigest));
  }
  if (garbage.length > 0) await fs.fsyncDir(layout.images, 'gc.images');
  return { kept, removed: garbage.map((image) => image.manifestDigest), damaged, isWhole: true };
}

async function removeLayers(context: StoreContext, { kept, isWhole }: Inventory, signal: AbortSignal | undefined): Promise<{ readonly removed: readonly string[]; readonly freedBytes: number }> {
  const { fs } = context;
  if (!isWhole) return { removed: [], freedBytes: 0 };
  const used = new Set(kept.flatMap((image) => image.diffIds));
  const removed: string[] = [];
  let freedBytes = 0;
  for (const entry of await fs.readdir(layout.layers)) {
    const name = entry.name.toString('latin1');
    if (!hexName.test(name) || used.has(`sha256:${name}`)) continue;
    throwIfAborted(signal);
    freedBytes += await freedWith(fs, `${layout.layers}/${name}`);
    await discardTree(fs, `${layout.layers}/${name}`, layout.trash);
    removed.push(`sha256:${name}`);
  }
  await context.damage.clear(removed);
  return { removed, freedBytes };
}

/** Nobody works in a stage now: who does holds the use lock too. */
async function removeStages(context: StoreContext, maxAgeMs: number): Promise<{ readonly removed: number; readonly freedBytes: number }> {
  const { fs } = context;
  let [removed, freedBytes] = [0, 0];
  for (const entry of await fs.readdir(layout.stages)) {
    const name = entry.name.toString('latin1');
    const stat = await fs.stat(`${layout.stages}/${name}/spool`) ?? await fs.stat(`${layout.stages}/${name}`);
    if (stat === undefined || (hexName.test(name) && Date.now() - stat.mtimeSec * 1000 < maxAgeMs)) continue;
    const manifestDigest = `sha256:${name}`;
    const lock = hexName.test(name) ? await fs.tryLock(stageLockPath(manifestDigest), 'exclusive') : null;
    // Somebody is about to work in it, and waits for this collection to end.
    if (lock === undefined) continue;
    freedBytes += await freedWith(fs, `${layout.stages}/${name}`);
    await discardStage(fs, `${layout.stages}/${name}`);
    removed++;
    if (lock !== null) await forgetStageLock(fs, manifestDigest, lock);
  }
  await removeStageLocks(context);
  return { removed, freedBytes };
}

/** Locks of stages that are no more: a killed pull leaves one. */
async function removeStageLocks({ fs }: StoreContext): Promise<void> {
  for (const entry of await fs.readdir(layout.locks)) {
    const hex = /^stage-([0-9a-f]{64})$/.exec(entry.name.toString('latin1'))?.[1];
    if (hex === undefined || (await fs.stat(`${layout.stages}/${hex}`)) !== undefined) continue;
    const lock = await fs.tryLock(stageLockPath(`sha256:${hex}`), 'exclusive');
    if (lock !== undefined) await forgetStageLock(fs, `sha256:${hex}`, lock);
  }
}
