import { createHash } from 'node:crypto';
import { aboutError, isWhittleError } from '../../core/errors.js';
import { DigestVerifier, type Descriptor } from '../../oci/index.js';
import { unpackLayer } from '../../registry/index.js';
import type { PullStage } from '../engines/types.js';
import { requireDiffId } from '../store/target.js';
import { plainFrameBytes, spoolName, wrongBlob, type PullContext } from './context.js';
import { fetchFrames } from './fetch.js';
import type { WorkTimer } from './meter.js';
import { plainFrames, Spool } from './spool.js';

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
export async function pullLayers(context: PullContext, stage: PullStage, layers: readonly LayerToPull[], timer: WorkTimer): Promise<void> {
  await (stage.intake === 'streamed' ? fetchThenGive(context, stage, layers, timer) : giveAsTheyCome(context, stage, layers, timer));
}

function openSpool(context: PullContext, stage: PullStage, descriptor: Descriptor): Promise<Spool> {
  return Spool.open(context.place.fs, stage.spool.path, spoolName('layer', descriptor.digest), plainFrames(descriptor.size, plainFrameBytes));
}

async function giveAsTheyCome(context: PullContext, stage: PullStage, layers: readonly LayerToPull[], timer: WorkTimer): Promise<void> {
  let pendingBytes = 0;
  let pending: Spool[] = [];
  try {
    for (const { layer, descriptor } of layers) {
      const spool = await openSpool(context, stage, descriptor);
      pending.push(spool);
      await pullLayer(context, stage, { layer, descriptor, spool, timer }, (tar) => stage.writeLayerTar(layer, tar));
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

/**
 * First all layers are fetched, unpacked to nowhere and proven, which also tells their sizes; then they are read again from
 * their spools, which stay until the stage goes.
 */
async function fetchThenGive(context: PullContext, stage: PullStage, layers: readonly LayerToPull[], timer: WorkTimer): Promise<void> {
  const spools: Spool[] = [];
  const give: (() => Promise<void>)[] = [];
  try {
    for (const { layer, descriptor } of layers) {
      const spool = await openSpool(context, stage, descriptor);
      spools.push(spool);
      const what = { layer, descriptor, spool, timer };
      const sizeBytes = await pullLayer(context, stage, what, (tar) => measureLayer(tar, stage.diffIds[layer] ?? ''));
      give.push(() => pullLayer(context, stage, what, (tar) => stage.writeLayerTar(layer, tar, sizeBytes)));
    }
    for (const each of give) await each();
  } finally {
    for (const spool of spools) await spool.close();
  }
}

/** Size of a layer's tar, which must have its diffID. Throws LAYER_MISMATCH. */
async function measureLayer(tar: AsyncIterable<Buffer>, diffId: string): Promise<number> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  for await (const chunk of tar) {
    hash.update(chunk);
    sizeBytes += chunk.length;
  }
  requireDiffId(`sha256:${hash.digest('hex')}`, diffId);
  return sizeBytes;
}

interface LayerPull extends LayerToPull {
  readonly spool: Spool;
  readonly timer: WorkTimer;
}

async function pullLayer<T>(context: PullContext, stage: PullStage, what: LayerPull, take: (tar: AsyncIterable<Buffer>) => Promise<T>): Promise<T> {
  const { descriptor, spool } = what;
  for (let tries = 1; ; tries++) {
    const blob = new VerifiedBlob(context, descriptor, spool);
    try {
      return await takeLayer(stage, what, blob, take);
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

async function takeLayer<T>(stage: PullStage, { layer, descriptor, timer }: LayerPull, blob: VerifiedBlob, take: (tar: AsyncIterable<Buffer>) => Promise<T>): Promise<T> {
  const what = `layer ${String(layer)} (${descriptor.digest})`;
  const chunks = timer.watch(blob.chunks());
  // A blob that is its own diffID is a plain tar, however its first bytes look.
  const tar = descriptor.digest === stage.diffIds[layer] ? chunks : unpackLayer(chunks, what);
  timer.start();
  try {
    return await take(proven(tar, blob));
  } catch (error) {
    // The reader of tars knows entries, not whose they are.
    throw isWhittleError(error) && ['TAR_CORRUPT', 'TAR_UNSAFE'].includes(error.code) ? aboutError(what, error) : error;
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
