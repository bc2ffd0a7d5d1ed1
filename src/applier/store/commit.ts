import { asideSuffix, discardTree, moveTrees, removeTree, type TreeMove } from '../../atomic/index.js';
import { checkLayer } from './check.js';
import type { StoreContext } from './context.js';
import type { Layer } from './layer.js';
import { layerPath, layout } from './layout.js';
import { readImage, readImages, References, writeImage, type ImageRecord } from './records.js';
import type { Target } from './target.js';
import type { CommitOptions } from './types.js';

/** A layer that is whole and durable in a stage. */
export interface StagedLayer {
  readonly diffId: string;
  readonly path: string;
  /** Take the place of what the store has, although that looks whole. */
  readonly replace: boolean;
}

/**
 * Rebuilds each layer's tar from disk; those that are not what their records say, and what is wrong with the first. Takes each layer
 * out of `layers` before it looks at it: of a large image, only one layer's tree of names is in memory.
 */
export async function findDamaged(context: StoreContext, layers: Layer[], options: CommitOptions): Promise<{ damaged: Layer[]; detail: string }> {
  const totalBytes = layers.reduce((sum, layer) => sum + layer.meta.sizeBytes, 0);
  let doneBytes = 0;
  const onBytes = (count: number): void => {
    doneBytes += count;
    options.onProgress?.(doneBytes, totalBytes);
  };
  const damaged: Layer[] = [];
  let detail = '';
  for (let layer = layers.shift(); layer !== undefined; layer = layers.shift()) {
    const [first] = (await checkLayer(context.fs, layer, { signal: options.signal, onBytes })).damages;
    if (first === undefined) continue;
    damaged.push(layer);
    detail ||= `${first.path} ${first.detail}`;
  }
  return { damaged, detail };
}

/** Moves staged layers to their places, durably. With the store's lock. */
export async function moveLayers(context: StoreContext, staged: readonly StagedLayer[]): Promise<void> {
  const moves: TreeMove[] = [];
  for (const { diffId, path, replace } of staged) {
    const to = layerPath(diffId);
    const isThere = (await context.fs.stat(to)) !== undefined;
    // Another pull may have brought the same layer meanwhile.
    if (isThere && !replace && (await context.loadHead(diffId)) !== undefined) continue;
    await removeTree(context.fs, to + asideSuffix);
    moves.push({ from: path, to, replace: isThere });
  }
  for (const path of await moveTrees(context.fs, moves)) await discardTree(context.fs, path, layout.trash);
}

/** Writes the image's record, durably. With the store's lock. */
export async function recordImage(context: StoreContext, target: Target, source: string): Promise<ImageRecord> {
  const known = await readImage(context.fs, target.manifestDigest);
  const { values } = await readImages(context.fs);
  const newest = values.reduce((highest, image) => Math.max(highest, image.sequence), 0);
  if (known !== undefined && known !== 'damaged' && known.sequence === newest && known.source === source) return known;
  const record: ImageRecord = { ...target, source, committedAt: new Date().toISOString(), sequence: newest + 1 };
  await writeImage(context.fs, record);
  return record;
}

/** Makes the image what `name` means: the one rename that makes a target visible. With the store's lock. */
export async function point(context: StoreContext, name: string, manifestDigest: string): Promise<void> {
  const references = new References(context.fs);
  const before = await references.read(name);
  if (before?.current === manifestDigest) return;
  await references.write({ name, current: manifestDigest, previous: before?.current ?? null });
}
