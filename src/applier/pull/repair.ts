import { parseManifest } from '../../oci/index.js';
import type { Store, StoredImage } from '../store/types.js';
import type { PullListener } from './events.js';
import type { ImageSource } from './image-source.js';
import type { LayerToPull } from './layers.js';
import { pullLayers } from './layers.js';
import { Meter, WorkTimer } from './meter.js';
import { storePlace } from './place.js';
import { RateLimiter } from './rate.js';
import type { Patience } from './transfer.js';

/** How a repair behaves. */
export interface RepairOptions {
  readonly patience: Patience;
  readonly limitRate: number | null;
  readonly lockWaitMs: number;
  readonly onEvent: PullListener;
  readonly signal: AbortSignal;
}

/**
 * Fetches damaged layers of a stored image anew, in full, and exchanges them in one commit; whole layers are not
 * touched. Manifest and config are the store's own. Throws FETCH_*, REGISTRY_*, STORAGE_*; the damaged layers then
 * stay as they are. Returns the bytes that were downloaded.
 */
export async function repairImage(store: Store, source: ImageSource, image: StoredImage, damaged: readonly string[], options: RepairOptions): Promise<number> {
  const { onEvent, signal, patience } = options;
  const meter = new Meter(null, onEvent);
  const context = { place: storePlace(store), source, onEvent, signal, patience, meter, limiter: new RateLimiter(options.limitRate) };
  const manifest = parseManifest(image.manifest, 'the stored manifest', image.manifestMediaType);
  const stage = await store.stage(
    { manifest: image.manifest, manifestMediaType: image.manifestMediaType, config: image.config },
    { replaceLayers: damaged, waitMs: options.lockWaitMs, signal, onNote: (text) => { onEvent({ event: 'note', text }); } },
  );
  try {
    const layers: LayerToPull[] = [];
    for (const diffId of new Set(damaged)) {
      const layer = image.diffIds.indexOf(diffId);
      const descriptor = manifest.layers[layer];
      if (descriptor !== undefined && !(await stage.hasLayer(layer))) layers.push({ layer, descriptor });
    }
    meter.begin(layers.reduce((sum, { descriptor }) => sum + descriptor.size, 0), 0);
    await pullLayers(context, stage, layers, new WorkTimer());
    await stage.commit({ name: null, source: image.source, signal });
    return meter.downloaded.total;
  } finally {
    await stage.close();
  }
}
