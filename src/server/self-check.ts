import { createReadStream } from 'node:fs';
import { WhittleError } from '../core/errors.js';
import { applyDelta } from '../delta/apply.js';
import type { Basis, BasisContent } from '../delta/basis.js';
import { parseDeltaIndex } from '../delta/index-blob.js';
import type { ContentOrigin, TargetSink } from '../delta/sink.js';
import type { LayerMeta } from '../tar/types.js';

/** What a finished computation is checked against. */
export interface SelfCheckInput {
  readonly index: Buffer;
  readonly dataPath: string;
  readonly basis: Basis;
  /** The target as it was unpacked and verified. */
  readonly target: Basis;
  readonly signal?: AbortSignal;
}

/**
 * Applies a delta as a device would, from its written bytes and the basis alone, and compares every diffID with
 * the target's; every file that the delta claims to rebuild is compared too. Throws DELTA_MISMATCH, and whatever
 * `applyDelta` throws. Returns how long applying took.
 */
export async function checkDelta({ index: bytes, dataPath, basis, target, signal }: SelfCheckInput): Promise<{ applyMs: number }> {
  const startedMs = performance.now();
  const index = parseDeltaIndex(bytes);
  const wanted = target.layers.map((layer) => layer.diffId);
  const named = index.layers.map((layer) => layer.diffId);
  if (wanted.length !== named.length || wanted.some((diffId, at) => diffId !== named[at])) throw mismatch('the delta names other layers than the target has');
  const sink = new CheckingSink(basis, target);
  const data = createReadStream(dataPath, { highWaterMark: 256 * 1024 }) as AsyncIterable<Buffer>;
  await applyDelta({ index, data, basis, sink, ...(signal && { signal }) });
  for (const [layer, { how, diffId }] of index.layers.entries()) {
    const there = how === 'delta' ? sink.rebuilt.get(layer) === diffId : basis.layers.some((held) => held.diffId === diffId);
    if (!there) throw mismatch(`layer ${String(layer)} was not rebuilt`);
  }
  return { applyMs: performance.now() - startedMs };
}

/** Keeps nothing; compares what the decoder hands over with the unpacked target. */
class CheckingSink implements TargetSink {
  /** diffID of each layer that came out, by its index. */
  readonly rebuilt = new Map<number, string>();

  constructor(private readonly basis: Basis, private readonly target: Basis) {}

  beginLayer(): Promise<void> {
    return Promise.resolve();
  }

  copyEntry(layer: number, entry: number, origin: ContentOrigin): Promise<void> {
    const from = origin.from === 'basis' ? this.basis : this.target;
    this.#compare(layer, entry, from.layers[origin.layer]?.entries.at(origin.entry)?.digest ?? null);
    return Promise.resolve();
  }

  writeEntry(): Promise<void> {
    return Promise.resolve();
  }

  endEntry(layer: number, entry: number, digest: Buffer): Promise<void> {
    this.#compare(layer, entry, digest);
    return Promise.resolve();
  }

  /** What the decoder wrote has just been compared with the target's own content, so that may stand for it. */
  openContent(layer: number, entry: number): Promise<BasisContent> {
    return this.target.openContent(layer, entry);
  }

  endLayer(layer: number, meta: LayerMeta): Promise<void> {
    this.rebuilt.set(layer, meta.diffId);
    return Promise.resolve();
  }

  #compare(layer: number, entry: number, digest: Buffer | null): void {
    const expected = this.target.layers[layer]?.entries.at(entry)?.digest ?? null;
    if (expected === null || digest === null || !expected.equals(digest)) throw mismatch(`entry ${String(entry)} of layer ${String(layer)} came out different`);
  }
}

function mismatch(what: string): WhittleError {
  return new WhittleError('DELTA_MISMATCH', `self-check failed: ${what}`, { hint: 'This is a defect in Whittle: please report it with both images.' });
}
