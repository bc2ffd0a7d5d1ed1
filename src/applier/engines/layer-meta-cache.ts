import { randomBytes } from 'node:crypto';
import { temporaryPrefix, type DurableFs } from '../../atomic/index.js';
import { systemErrorCode } from '../../core/errors.js';
import type { LayerMeta } from '../../tar/index.js';
import { decodeLayerFile, encodeLayerFile } from '../store/layer-file.js';
import { hexOf } from '../store/layout.js';
import { storeLimits } from '../store/limits.js';

const directory = 'engines/layers';

/** How many layers' metadata is kept: some tens of images. What is left out is read from the engine again when it is needed. */
const maxLayersKept = 1024;

/**
 * Metadata of layers, digests of contents included, that was proven against their diffIDs: a fact about the diffID,
 * whichever engine has the layer. Each layer is a file below `engines/layers` in the device's root, in the form of the
 * store's `meta` files. Nothing here is made durable: what a power cut tears is noticed, and worked out anew.
 */
export class LayerMetaCache {
  /** `fs`: the device's root. */
  constructor(private readonly fs: DurableFs) {}

  /** Undefined when nothing is known of the layer, or what is kept is damaged or of a newer version. */
  async get(diffId: string): Promise<LayerMeta | undefined> {
    try {
      const bytes = await this.fs.readFile(pathOf(diffId), storeLimits.maxMetaBytes);
      const meta = bytes === undefined ? undefined : (await decodeLayerFile(bytes))?.meta;
      return meta?.diffId === diffId ? meta : undefined;
    } catch {
      // Whatever is wrong with the file: the layer itself tells the same.
      return undefined;
    }
  }

  /**
   * Keeps the metadata of a layer whose tar had its diffID. `meta` must have all digests. Never fails for what the disk
   * says (full, read-only): then the metadata is worked out again when it is needed.
   */
  async put(meta: LayerMeta): Promise<void> {
    const content = await encodeLayerFile({ meta, privileged: false, skipped: [] });
    const temporary = `${directory}/${temporaryPrefix}${randomBytes(8).toString('hex')}`;
    try {
      await this.fs.batch([
        { op: 'mkdir', path: 'engines', mode: 0o700, existOk: true }, { op: 'mkdir', path: directory, mode: 0o700, existOk: true },
        { op: 'putFile', path: temporary, content, attributes: { mode: 0o600 }, reuse: false }, { op: 'rename', from: temporary, path: pathOf(meta.diffId) },
      ]);
      await this.#trim();
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      await this.fs.unlink(temporary).catch(() => undefined);
    }
  }

  /** Removes the oldest files beyond the limit, and what killed writers left. */
  async #trim(): Promise<void> {
    const names = (await this.fs.readdir(directory)).map(({ name }) => `${directory}/${name.toString('latin1')}`);
    if (names.length <= maxLayersKept) return;
    const stats = await this.fs.statMany(names);
    const byAge = names.map((name, index) => ({ name, mtimeSec: stats[index]?.mtimeSec ?? 0 })).sort((a, b) => a.mtimeSec - b.mtimeSec);
    for (const { name } of byAge.slice(0, names.length - maxLayersKept)) await this.fs.unlink(name).catch(() => undefined);
  }
}

function pathOf(diffId: string): string {
  return `${directory}/${hexOf(diffId)}`;
}
