import { isWhittleError, WhittleError } from '../../core/errors.js';
import { DigestVerifier, type Descriptor } from '../../oci/index.js';
import type { ImagePlace } from '../engines/types.js';
import type { PullListener } from './events.js';
import { fetchFrames } from './fetch.js';
import type { ImageSource, ServedManifest } from './image-source.js';
import { memoryFs } from './memory-fs.js';
import type { ByteKind, Meter } from './meter.js';
import type { RateLimiter } from './rate.js';
import { plainFrames, Spool, spoolFileBytes } from './spool.js';
import type { Patience } from './transfer.js';

/** What the steps of one pull share. */
export interface PullContext {
  /** Where the image goes, and where its basis is. */
  readonly place: ImagePlace;
  readonly source: ImageSource;
  readonly meter: Meter;
  readonly limiter: RateLimiter;
  readonly patience: Patience;
  readonly onEvent: PullListener;
  readonly signal: AbortSignal;
}

/**
 * How much of a blob without declared frames is on disk before it is proven: the spool syncs each piece, so this
 * is what a power cut can cost.
 */
export const plainFrameBytes = 256 * 1024;

/** A manifest or index of at most `allowedBytes`, counted. Throws LIMIT_EXCEEDED for a longer one, BUDGET_EXCEEDED, and what the source throws. */
export async function fetchManifest(context: PullContext, target: string, allowedBytes: number): Promise<ServedManifest> {
  return context.meter.affordable('manifest', allowedBytes, async (allowed) => {
    const served = await context.source.manifest(target, context.signal, allowed);
    return { value: served, sizeBytes: served.bytes.length };
  });
}

/** Whether an error is only of what was asked, so that the pull can do without the answer. */
export function isPassing(error: unknown): error is WhittleError {
  return isWhittleError(error) && error.code !== 'INTERRUPTED' && error.code !== 'BUDGET_EXCEEDED';
}

/** A whole small blob in memory, its digest verified. Throws LIMIT_EXCEEDED above `maxBytes`, FETCH_*. */
export async function fetchSmall(context: PullContext, descriptor: Descriptor, kind: ByteKind, maxBytes: number): Promise<Buffer> {
  requireSize(descriptor, maxBytes);
  const frames = plainFrames(descriptor.size, plainFrameBytes);
  return fetchWhole(context, descriptor, await Spool.open(memoryFs(spoolFileBytes(frames)), '', 'blob', frames), kind);
}

/** Throws LIMIT_EXCEEDED when a blob is larger than what is read of its kind. */
export function requireSize(descriptor: Descriptor, maxBytes: number): void {
  if (descriptor.size > maxBytes) throw new WhittleError('LIMIT_EXCEEDED', `${descriptor.digest} has ${String(descriptor.size)} bytes; at most ${String(maxBytes)} are read`);
}

/** Fetches a blob through a spool without declared frames and gives it in memory, its digest verified. The caller closes the spool. Throws FETCH_*. */
export async function fetchWhole(context: PullContext, descriptor: Descriptor, spool: Spool, kind: ByteKind): Promise<Buffer> {
  for (let tries = 1; ; tries++) {
    const chunks: Buffer[] = [];
    for await (const chunk of fetchFrames({ ...context, source: context.source.blob(descriptor), spool, events: context.meter.transfer(kind, kind === 'index') })) chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    const verifier = new DigestVerifier(descriptor.digest);
    verifier.update(bytes);
    if (verifier.matches()) return bytes;
    await spool.reset();
    if (tries >= context.patience.maxWrongFrames) throw wrongBlob(context, descriptor);
    context.onEvent({ event: 'retry', reason: `${descriptor.digest} came with wrong bytes`, pauseMs: 0, attempt: tries });
  }
}

/** The error for a blob that does not have its digest. */
export function wrongBlob(context: PullContext, descriptor: Descriptor): WhittleError {
  return new WhittleError('FETCH_CORRUPT', `${context.source.name}: the bytes of ${descriptor.digest} do not have that digest`, { data: { digest: descriptor.digest } });
}

/** A file name for what is spooled of a blob. */
export function spoolName(kind: 'index' | 'data' | 'layer', digest: string): string {
  return `${kind}-${digest.replace(':', '-')}`;
}

/** How many bytes of a download the spool directory holds, roughly: what a plan may count on. */
export async function spooledBytes(context: PullContext, directory: string, name: string): Promise<number> {
  return (await context.place.fs.stat(`${directory}/${name}`))?.sizeBytes ?? 0;
}
