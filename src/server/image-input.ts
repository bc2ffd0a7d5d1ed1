import type { ImageLayer } from '../registry/layer.js';

/** An image that a delta is computed from or to: its digests, and where the bytes of its layers come from. */
export interface ImageInput {
  readonly manifest: { readonly mediaType: string; readonly digest: string; readonly sizeBytes: number };
  readonly configDigest: string;
  /** In manifest order. */
  readonly layers: readonly ImageLayer[];
  /** The blob of a layer as it is stored (compressed); the reader checks it. May be called again for another layer before the first has ended. */
  openLayer(layer: ImageLayer, signal?: AbortSignal): AsyncIterable<Buffer>;
}

/** What pulling the target's layers costs a client that has the basis: the stored sizes of the layers whose diffID the basis lacks, each blob once. */
export function layerPullBytes(basis: Pick<ImageInput, 'layers'>, target: Pick<ImageInput, 'layers'>): number {
  const held = new Set(basis.layers.map((layer) => layer.diffId));
  const wanted = new Map<string, number>();
  for (const layer of target.layers) {
    if (!held.has(layer.diffId)) wanted.set(layer.descriptor.digest, layer.descriptor.size);
  }
  return [...wanted.values()].reduce((sum, sizeBytes) => sum + sizeBytes, 0);
}
