import { storageError } from '../../atomic/index.js';
import { isWhittleError, systemErrorCode, WhittleError } from '../../core/errors.js';
import type { BasisContent } from '../../delta/basis.js';
import type { ContentOrigin, TargetSink } from '../../delta/sink.js';
import type { LayerMeta } from '../../tar/index.js';
import type { LayerSink } from '../engines/types.js';
import { noCounters } from './file-sink.js';
import type { LayerBuilder } from './layer-builder.js';
import type { StageCounters } from './types.js';

/**
 * Takes layers by writing them into directories: the store's stage does, and that of an engine which keeps layers so. Hands
 * what comes to a builder, and turns every failure of the disk into one that says what was being done. What is on
 * disk after each call is the builder's promise.
 */
export abstract class BuildingSink implements TargetSink, Pick<LayerSink, 'counters' | 'writeLayerTar'> {
  protected readonly counted = noCounters();
  /** The disk has failed; what it acknowledged before may not be there. */
  protected failed = false;
  protected closed = false;
  protected abstract readonly builder: LayerBuilder;

  /** `forWhom` ends the description of what failed. */
  protected constructor(private readonly forWhom = '') {}

  get counters(): StageCounters {
    return { ...this.counted };
  }

  /** Counts a layer that an earlier run left whole. */
  protected countKept({ entries }: LayerMeta): void {
    for (const { header } of entries) {
      this.counted.keptBytes += header.sizeBytes;
      if (header.sizeBytes > 0) this.counted.keptFiles++;
    }
  }

  /** Runs a step. Throws STORAGE_* for what the system says, INTERNAL after the sink was closed. */
  protected async guard<T>(doing: string, step: () => Promise<T>): Promise<T> {
    if (this.closed) throw new WhittleError('INTERNAL', 'layers come to a stage that is closed');
    try {
      return await step();
    } catch (error) {
      if (systemErrorCode(error) === 'EIO' && !isWhittleError(error)) this.failed = true;
      throw storageError(error, `${doing}${this.forWhom}`);
    }
  }

  writeLayerTar(layer: number, chunks: AsyncIterable<Buffer>): Promise<void> {
    return this.guard('extracting a layer', () => this.builder.writeLayerTar(layer, chunks));
  }

  beginLayer(layer: number, meta: LayerMeta): Promise<void> {
    return this.guard('starting a layer', () => this.builder.beginLayer(layer, meta));
  }

  copyEntry(layer: number, entry: number, origin: ContentOrigin, content?: Buffer): Promise<void> {
    return this.guard('copying a file', () => this.builder.copyEntry(layer, entry, origin, content));
  }

  writeEntry(layer: number, entry: number, chunk: Buffer): Promise<void> {
    return this.guard('writing a file', () => this.builder.writeEntry(layer, entry, chunk));
  }

  endEntry(layer: number, entry: number): Promise<void> {
    return this.guard('writing a file', () => this.builder.endEntry(layer, entry));
  }

  openContent(layer: number, entry: number): Promise<BasisContent> {
    return this.guard('reading a layer that is being built', () => this.builder.openContent(layer, entry));
  }

  endLayer(layer: number, meta: LayerMeta): Promise<void> {
    return this.guard('finishing a layer', () => this.builder.endLayer(layer, meta));
  }
}
