import type { BasisContent } from '../../delta/basis.js';
import type { ContentOrigin, TargetSink } from '../../delta/sink.js';
import type { LayerMeta } from '../../tar/index.js';

/** Gives everything on to another sink, which is a base for those that do more with some of it. */
export abstract class ForwardedSink<S extends TargetSink> implements TargetSink {
  constructor(protected readonly sink: S) {}

  beginLayer(layer: number, meta: LayerMeta): Promise<void> {
    return this.sink.beginLayer(layer, meta);
  }

  copyEntry(layer: number, entry: number, origin: ContentOrigin, content?: Buffer): Promise<void> {
    return this.sink.copyEntry(layer, entry, origin, content);
  }

  writeEntry(layer: number, entry: number, chunk: Buffer): Promise<void> {
    return this.sink.writeEntry(layer, entry, chunk);
  }

  endEntry(layer: number, entry: number, digest: Buffer): Promise<void> {
    return this.sink.endEntry(layer, entry, digest);
  }

  openContent(layer: number, entry: number): Promise<BasisContent> {
    return this.sink.openContent(layer, entry);
  }

  endLayer(layer: number, meta: LayerMeta): Promise<void> {
    return this.sink.endLayer(layer, meta);
  }
}
