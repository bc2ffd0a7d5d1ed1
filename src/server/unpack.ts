import { aboutError, isWhittleError } from '../core/errors.js';
import { throwIfAborted } from '../core/interruption.js';
import type { Basis, BasisContent } from '../delta/basis.js';
import { layerTar, type ImageLayer } from '../registry/layer.js';
import type { ImageInput } from './image-input.js';
import { LayerTar } from './layer-tar.js';

/** Which two images are unpacked, and where to. */
export interface UnpackOptions {
  readonly basis: ImageInput;
  readonly target: ImageInput;
  /** Where the tars' unnamed files take their space. */
  readonly directory: string;
  readonly signal?: AbortSignal;
  /** Compressed bytes read, of all. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** Both images, readable entry by entry. `basis` has each layer once; `target` all of its layers in manifest order. */
export interface UnpackedPair {
  readonly basis: Basis;
  readonly target: Basis;
  /** Gives the space back; contents cannot be read after. */
  close(): Promise<void>;
}

/** Layers unpacked at a time: while one waits for decompression the other is hashed. */
const concurrency = 2;

/**
 * Unpacks two images, each distinct layer once: every blob is checked against its digest and size, every tar against
 * its diffID. Throws DIGEST_MISMATCH, LAYER_MISMATCH, TAR_CORRUPT, LIMIT_EXCEEDED, and what the images throw;
 * INTERRUPTED when `signal` aborts. Whatever happens, nothing is left in `directory`.
 */
export async function unpackPair({ basis, target, directory, signal, onProgress }: UnpackOptions): Promise<UnpackedPair> {
  const wanted = new Map<string, { readonly image: ImageInput; readonly layer: ImageLayer }>();
  for (const image of [basis, target]) {
    for (const layer of image.layers) if (!wanted.has(layer.diffId)) wanted.set(layer.diffId, { image, layer });
  }
  const total = [...wanted.values()].reduce((sum, { layer }) => sum + layer.descriptor.size, 0);
  const tars = new Map<string, LayerTar>();
  let done = 0;
  const close = async (): Promise<void> => {
    for (const tar of tars.values()) await tar.close();
    tars.clear();
  };
  try {
    await forEachLimited([...wanted.values()], concurrency, signal, async ({ image, layer }, stop) => {
      const blob = counted(image.openLayer(layer, stop), stop, (count) => onProgress?.(done += count, total));
      tars.set(layer.diffId, await writeTar(directory, layer, blob));
    });
  } catch (error) {
    await close();
    throw error;
  }
  return {
    basis: new TarBasis([...new Set(basis.layers.map((layer) => layer.diffId))].map((diffId) => mustGet(tars, diffId))),
    target: new TarBasis(target.layers.map((layer) => mustGet(tars, layer.diffId))),
    close,
  };
}

async function writeTar(directory: string, layer: ImageLayer, blob: AsyncIterable<Buffer>): Promise<LayerTar> {
  try {
    return await LayerTar.write(directory, `layer-${layer.diffId.slice(-64)}`, layer.diffId, layerTar(blob, layer));
  } catch (error) {
    // The reader of tars knows entries, not whose they are.
    throw isWhittleError(error) && error.code === 'TAR_CORRUPT' ? aboutError(`layer ${layer.descriptor.digest}`, error) : error;
  }
}

async function* counted(source: AsyncIterable<Buffer>, stop: AbortSignal, onRead: (sizeBytes: number) => void): AsyncGenerator<Buffer> {
  for await (const chunk of source) {
    throwIfAborted(stop);
    onRead(chunk.length);
    yield chunk;
  }
}

/** Layers in unnamed files behind the interface that deltas read. The contents were verified when they were written, a moment ago, to a file that nobody else can open. */
class TarBasis implements Basis {
  readonly layers: Basis['layers'];

  constructor(private readonly tars: readonly LayerTar[]) {
    this.layers = tars.map((tar) => tar.meta);
  }

  openContent(layer: number, entry: number): Promise<BasisContent> {
    const tar = this.tars[layer];
    if (tar === undefined) return Promise.reject(new RangeError(`no layer ${String(layer)}`));
    return Promise.resolve(tar.content(entry));
  }
}

function mustGet(tars: ReadonlyMap<string, LayerTar>, diffId: string): LayerTar {
  const tar = tars.get(diffId);
  if (tar === undefined) throw new RangeError(`layer ${diffId} was not unpacked`);
  return tar;
}

/** Runs `task` for every item, a few at a time, and waits for all that were begun; the first failure stops the rest through `stop`. */
async function forEachLimited<T>(items: readonly T[], limit: number, signal: AbortSignal | undefined, task: (item: T, stop: AbortSignal) => Promise<void>): Promise<void> {
  const failed = new AbortController();
  const stop = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  const queue = [...items];
  const runner = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
      throwIfAborted(stop);
      await task(item, stop);
    }
  };
  const runners = Array.from({ length: Math.min(limit, items.length) }, () => runner().catch((error: unknown) => {
    failed.abort(error);
    throw error;
  }));
  const results = await Promise.allSettled(runners);
  throwIfAborted(signal);
  // The reason of the first failure, not the echo of it in the other runners.
  if (failed.signal.aborted) throw failed.signal.reason;
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}
