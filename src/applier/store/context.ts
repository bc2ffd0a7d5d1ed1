import { acquireLock, type DurableFs, type FsLock } from '../../atomic/index.js';
import type { LayerMetaHead } from '../../tar/index.js';
import { DamageMarks } from './damage.js';
import { Layer } from './layer.js';
import { layerPath, layout } from './layout.js';
import { storeLockWaitMs } from './limits.js';

/** What the parts of an open store share. */
export class StoreContext {
  readonly damage: DamageMarks;

  constructor(readonly fs: DurableFs, readonly privileged: boolean, readonly readOnly: boolean) {
    this.damage = new DamageMarks(fs);
  }

  /** The committed layer with this diffID; undefined when it is absent or its metadata is damaged. */
  loadLayer(diffId: string): Promise<Layer | undefined> {
    return Layer.load(this.fs, layerPath(diffId), diffId);
  }

  /** What `loadLayer` says of the layer, without its entries. */
  loadHead(diffId: string): Promise<LayerMetaHead | undefined> {
    return Layer.loadHead(this.fs, layerPath(diffId), diffId);
  }

  /** Runs a short change of records while no other process makes one. STORE_BUSY after a generous wait. */
  async exclusively<T>(body: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const lock = await acquireLock(this.fs, layout.storeLock, { mode: 'exclusive', waitMs: storeLockWaitMs, signal, what: 'the store' });
    try {
      return await body();
    } finally {
      await lock.release();
    }
  }

  /** Keeps gc away while layers are in use. Nothing is locked on a store opened read-only. */
  async use(): Promise<FsLock> {
    if (this.readOnly) return { release: () => Promise.resolve() };
    return acquireLock(this.fs, layout.useLock, { mode: 'shared', waitMs: storeLockWaitMs, what: 'the store (its garbage is being collected)' });
  }
}
