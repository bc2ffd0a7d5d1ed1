import { isWhittleError } from '../../core/errors.js';
import { DigestVerifier, type Descriptor } from '../../oci/index.js';
import type { Stage } from '../store/types.js';
import { plainFrameBytes, spoolName, wrongBlob, type PullContext } from './context.js';
import { fetchFrames } from './fetch.js';
import type { WorkTimer } from './meter.js';
import { plainFrames, Spool } from './spool.js';
import { unpackLayer } from './unpack.js';

/** Spooled layers are removed once what they became is durable; so many bytes of them may wait for that. */
const maxUncheckpointedBytes = 32 * 1024 * 1024;

/** One layer to be fetched in full. */
export interface LayerToPull {
  /** Index in the target's manifest. */
  readonly layer: number;
  readonly descriptor: Descriptor;
}

/**
 * Fetches layers in full and gives them to the stage, unpacking while the bytes arrive. A layer counts only when
 * its blob has the descriptor's digest and its tar the diffID. An interrupted layer goes on from its spool. Throws
 * FETCH_*, TAR_*, LAYER_MISMATCH, STORAGE_*, INTERRUPTED; whole layers stay in the stage whatever happens.
 */
export async function pullLayers(context: PullContext, stage: Stage, layers: readonly LayerToPull[], timer: WorkTimer): Promise<void> {
  let pendingBytes = 0;
  let pending: Spool[] = [];
  try {
    for (const { layer, descriptor } of layers) {
      const spool = await Spool.open(context.store.fs, stage.spool.path, spoolName('layer', descriptor.digest), plainFrames(descriptor.size, plainFrameBytes));
      pending.push(spool);
      await pullLayer(context, stage, layer, descriptor, spool, timer);
      pendingBytes += descriptor.size;
      if (pendingBytes < maxUncheckpointedBytes) continue;
      await stage.checkpoint();
      for (const done of pending) await done.discard();
      pending = [];
      pendingBytes = 0;
    }
  } finally {
    // The spools that are left go with the stage, or serve the next pull.
    for (const spool of pending) await spool.close();
  }
}

async function pullLayer(context: PullContext, stage: Stage, layer: number, descriptor: Descriptor, spool: Spool, timer: WorkTimer): Promise<void> {
  for (let tries = 1; ; tries++) {
    const blob = new VerifiedBlob(context, descriptor, spool);
    try {
      await takeLayer(stage, layer, descriptor, blob, timer);
      return;
    } catch (error) {
      // Bytes without frame digests can be wrong and be noticed first as a broken tar: the blob's digest tells whose fault it is.
      if (!isContentError(error) || (await blob.finish())) throw error;
      await spool.reset();
      if (tries >= context.patience.maxWrongFrames) throw wrongBlob(context, descriptor);
      context.onEvent({ event: 'retry', reason: `${descriptor.digest} came with wrong bytes`, pauseMs: 0, attempt: tries });
    } finally {
      await blob.close();
    }
  }
}

async function takeLayer(stage: Stage, layer: number, descriptor: Descriptor, blob: VerifiedBlob, timer: WorkTimer): Promise<void> {
  const what = `layer ${String(layer)} (${descriptor.digest})`;
  const chunks = timer.watch(blob.chunks());
  // A blob that is its own diffID is a plain tar, however its first bytes look.
  const tar = descriptor.digest === stage.diffIds[layer] ? chunks : unpackLayer(chunks, what);
  timer.start();
  try {
    await stage.writeLayerTar(layer, proven(tar, blob));
  } finally {
    timer.stop();
  }
}

/** The same tar; its end is given only when the whole blob had its digest, so that the stage never keeps a layer of another blob. */
async function* proven(tar: AsyncIterable<Buffer>, blob: VerifiedBlob): AsyncGenerator<Buffer, void, void> {
  yield* tar;
  if (!(await blob.finish())) throw blob.error();
}

function isContentError(error: unknown): boolean {
  return isWhittleError(error) && ['IMAGE_INVALID', 'IMAGE_MEDIA_TYPE', 'TAR_CORRUPT', 'TAR_UNSAFE', 'LAYER_MISMATCH', 'LIMIT_EXCEEDED', 'FETCH_CORRUPT'].includes(error.code);
}

/** A blob on its way, hashed as it is read. */
class VerifiedBlob {
  readonly #frames: AsyncGenerator<Buffer, void, void>;
  readonly #verifier: DigestVerifier;
  #verdict: boolean | null = null;

  constructor(private readonly context: PullContext, private readonly descriptor: Descriptor, spool: Spool) {
    this.#verifier = new DigestVerifier(descriptor.digest);
    this.#frames = fetchFrames({ ...context, source: context.source.blob(descriptor), spool, events: context.meter.transfer('layers', true) });
  }

  /** The bytes in order. Stopping early leaves the rest for `finish`. */
  async *chunks(): AsyncGenerator<Buffer, void, void> {
    for (;;) {
      const next = await this.#frames.next();
      if (next.done === true) return;
      this.#verifier.update(next.value);
      yield next.value;
    }
  }

  /** Reads what was left unread; whether all of it had the digest. */
  async finish(): Promise<boolean> {
    if (this.#verdict !== null) return this.#verdict;
    const rest = this.chunks();
    while ((await rest.next()).done !== true);
    this.#verdict = this.#verifier.matches();
    return this.#verdict;
  }

  error(): Error {
    return wrongBlob(this.context, this.descriptor);
  }

  async close(): Promise<void> {
    await this.#frames.return();
  }
}
