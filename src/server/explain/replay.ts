import type { FileHandle } from 'node:fs/promises';
import { applyDelta } from '../../delta/apply.js';
import type { Basis, BasisContent } from '../../delta/basis.js';
import type { ContentRef } from '../../delta/plan.js';
import { scratchFile } from '../../delta/inflated-content.js';
import type { TargetSink } from '../../delta/sink.js';
import type { DeltaFile } from '../delta-file.js';
import { DeltaMeter } from './meter.js';

/** Which delta is applied for its account, to what, and where. */
export interface ReplayOptions {
  readonly delta: DeltaFile;
  /** Must hold every layer that the delta counts. */
  readonly basis: Basis;
  /** Where unnamed files take their space: of all patched content together. */
  readonly directory: string;
  readonly signal?: AbortSignal;
}

/**
 * Applies a delta, keeping account of what its bits are for. Every layer is rebuilt and checked against its diffID, so
 * that an account is only given of a delta that works. Throws what `applyDelta` throws.
 */
export async function replayDelta({ delta, basis, directory, signal }: ReplayOptions): Promise<DeltaMeter> {
  const { index } = delta;
  const meter = new DeltaMeter(index.profile);
  const sink = new ScratchSink(basis, await scratchFile(directory));
  try {
    await applyDelta({ index, data: delta.openData(), basis, sink, scratchDir: directory, observer: meter, ...(signal && { signal }) });
    meter.finish();
    return meter;
  } finally {
    await sink.close();
  }
}

/** Keeps what was written in one file without a name, so that later entries can be differenced against it. */
class ScratchSink implements TargetSink {
  readonly #written = new Map<string, { readonly offset: number; sizeBytes: number }>();
  readonly #copied = new Map<string, ContentRef>();
  #end = 0;

  constructor(private readonly basis: Basis, private readonly file: FileHandle) {}

  beginLayer(): Promise<void> {
    return Promise.resolve();
  }

  copyEntry(layer: number, entry: number, origin: ContentRef): Promise<void> {
    this.#copied.set(keyOf(layer, entry), origin);
    return Promise.resolve();
  }

  async writeEntry(layer: number, entry: number, chunk: Buffer): Promise<void> {
    const key = keyOf(layer, entry);
    const place = this.#written.get(key) ?? { offset: this.#end, sizeBytes: 0 };
    for (let done = 0; done < chunk.length;) {
      const { bytesWritten } = await this.file.write(chunk, done, chunk.length - done, this.#end + done);
      done += bytesWritten;
    }
    this.#end += chunk.length;
    place.sizeBytes += chunk.length;
    this.#written.set(key, place);
  }

  endEntry(): Promise<void> {
    return Promise.resolve();
  }

  endLayer(): Promise<void> {
    return Promise.resolve();
  }

  async openContent(layer: number, entry: number): Promise<BasisContent> {
    let key = keyOf(layer, entry);
    // Copies are of earlier entries, so this ends.
    for (let origin = this.#copied.get(key); origin !== undefined; origin = this.#copied.get(key)) {
      if (origin.from === 'basis') return this.basis.openContent(origin.layer, origin.entry);
      key = keyOf(origin.layer, origin.entry);
    }
    const { offset, sizeBytes } = this.#written.get(key) ?? { offset: 0, sizeBytes: 0 };
    return { fd: this.file.fd, extents: [{ offset, lengthBytes: sizeBytes }], sizeBytes, close: () => Promise.resolve() };
  }

  async close(): Promise<void> {
    await this.file.close();
  }
}

function keyOf(layer: number, entry: number): string {
  return `${String(layer)}/${String(entry)}`;
}
