import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { systemErrorCode, WhittleError } from '../../../core/errors.js';
import { chainIds } from '../../../oci/index.js';
import { hexOf } from '../../store/layout.js';
import { openExtractedLayer, type ExtractedLayer, type ProvenLayers } from '../extracted-layer.js';

/** The storage driver whose layers can be read; names folders below Docker's data-root. */
const driver = 'overlay2';

/** Docker's layers as it keeps them below its data-root: files in `overlay2`, what they mean in `image/overlay2/layerdb`. Read-only. */
export class DockerLayers {
  constructor(readonly root: string) {}

  /** The layer's folder in the layer store; undefined when Docker has no such stack of layers, or not this layer on its top. */
  async #cacheId(chainId: string, diffId: string): Promise<string | undefined> {
    const found = await readSmall(join(this.#record(chainId), 'diff'));
    if (found !== diffId) return undefined;
    const cacheId = await readSmall(join(this.#record(chainId), 'cache-id'));
    return cacheId !== undefined && /^[0-9a-zA-Z_-]{1,128}$/.test(cacheId) ? cacheId : undefined;
  }

  #record(chainId: string): string {
    return join(this.root, 'image', driver, 'layerdb', 'sha256', hexOf(chainId));
  }

  /** An image's config, not compared with its ID; undefined when there is none, or more than `maxBytes` of it. Throws ENGINE_DENIED. */
  async config(imageId: string, maxBytes: number): Promise<Buffer | undefined> {
    return readBounded(join(this.root, 'image', driver, 'imagedb', 'content', 'sha256', hexOf(imageId)), maxBytes);
  }

  /** Whether every layer of the image can be read. Throws ENGINE_DENIED. */
  async areThere(diffIds: readonly string[]): Promise<boolean> {
    const chain = chainIds(diffIds);
    for (const [layer, diffId] of diffIds.entries()) if ((await this.#cacheId(chain[layer] ?? '', diffId)) === undefined) return false;
    return true;
  }

  /** Opens layer `layer` of an image for reading. The caller closes it. Throws BASIS_DAMAGED when it is gone or not what its diffID says. */
  async open(diffIds: readonly string[], layer: number, known: ProvenLayers, signal?: AbortSignal): Promise<ExtractedLayer> {
    const diffId = diffIds[layer] ?? '';
    const chainId = chainIds(diffIds)[layer] ?? '';
    const cacheId = await this.#cacheId(chainId, diffId);
    if (cacheId === undefined) throw new WhittleError('BASIS_DAMAGED', `docker no longer has layer ${diffId}`, { data: { layers: diffId } });
    return openExtractedLayer({
      directory: join(this.root, driver, cacheId, 'diff'), diffId, known, signal,
      tarSplit: () => createReadStream(join(this.#record(chainId), 'tar-split.json.gz')) as AsyncIterable<Buffer>,
    });
  }
}

async function readSmall(path: string): Promise<string | undefined> {
  return (await readBounded(path, 512))?.toString('latin1').trim();
}

/** A file that Docker wrote; undefined when it is not there, not readable, or larger. Throws ENGINE_DENIED. */
async function readBounded(path: string, maxBytes: number): Promise<Buffer | undefined> {
  try {
    const { size } = await stat(path);
    return size > maxBytes ? undefined : await readFile(path);
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'EACCES' || code === 'EPERM') throw new WhittleError('ENGINE_DENIED', `docker's images may not be read by this user: ${path}`, { cause: error });
    if (code === undefined) throw error;
    return undefined;
  }
}
