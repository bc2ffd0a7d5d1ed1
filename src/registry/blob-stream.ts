import type { Descriptor } from '../oci/descriptor.js';
import { isWhittleError, WhittleError } from '../core/errors.js';
import { blobRange, type BlobRange } from './blob-range.js';
import { badResponse, statusError, transportError } from './failures.js';
import type { Transport, TransportRequest } from './transport.js';
import { backOff } from './retry.js';
import { readStart, refuseEncoding, type WireResponse } from './wire.js';

/** One connection's part of a blob: its bytes from `offset` on. */
interface Part {
  readonly range: BlobRange;
  readonly response: WireResponse;
  /** Bytes of the body that were already had. */
  skipBytes: number;
}

/**
 * The bytes of a blob in order, unverified. A connection that breaks is replaced by another that continues with
 * Range where the last one ended; a registry that then sends the whole has the known part skipped. Gives up after
 * as many tries in a row without a new byte as the limits allow. Passes on at most `descriptor.size` bytes.
 */
export async function* blobBytes(transport: Transport, request: TransportRequest, descriptor: Descriptor): AsyncGenerator<Buffer, void, void> {
  const state = { offset: 0 };
  let barren = 0;
  while (state.offset < descriptor.size || descriptor.size === 0) {
    const before = state.offset;
    try {
      yield* partBytes(await openPart(transport, request, descriptor, state.offset), request, descriptor, state);
      if (state.offset >= descriptor.size) return;
      throw new WhittleError('REGISTRY_UNREACHABLE', `${request.subject}: the body ended after ${String(state.offset)} of ${String(descriptor.size)} bytes`);
    } catch (error) {
      if (!isWhittleError(error) || !error.retryable || error.code === 'INTERRUPTED') throw error;
      barren = state.offset > before ? 0 : barren + 1;
      if (barren >= transport.limits.attempts) throw error;
      if (barren > 0) await backOff(barren, transport.limits, request.signal);
    }
  }
}

async function openPart(transport: Transport, request: TransportRequest, descriptor: Descriptor, offset: number): Promise<Part> {
  return transport.retry(async () => {
    const headers = offset === 0 ? {} : { range: `bytes=${String(offset)}-` };
    const response = await transport.once({ ...request, headers: { ...request.headers, ...headers }, accept: [200, 206, 416] });
    refuseEncoding(response, request.subject);
    const range = blobRange(response);
    if (range.status === 416) throw statusError(response, response.url, request.subject, await readStart(response, transport.limits.errorBodyBytes));
    const problem = rangeProblem(range, descriptor, offset);
    if (problem === undefined) return { range, response, skipBytes: offset - (range.offset ?? 0) };
    response.body.destroy();
    throw badResponse(response.url, request.subject, problem, true);
  }, request.signal);
}

function rangeProblem(range: BlobRange, descriptor: Descriptor, offset: number): string | undefined {
  if (range.offset === null || range.offset > offset) return `asked for byte ${String(offset)}, got ${range.offset === null ? 'an unusable Content-Range' : `byte ${String(range.offset)}`}`;
  if (range.totalBytes !== null && range.totalBytes !== descriptor.size) return `has ${String(range.totalBytes)} bytes instead of ${String(descriptor.size)}`;
  return undefined;
}

async function* partBytes(part: Part, request: TransportRequest, descriptor: Descriptor, state: { offset: number }): AsyncGenerator<Buffer, void, void> {
  const { response } = part;
  try {
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      const fresh = part.skipBytes === 0 ? chunk : chunk.subarray(part.skipBytes);
      part.skipBytes -= Math.min(part.skipBytes, chunk.length);
      if (fresh.length === 0) continue;
      state.offset += fresh.length;
      if (state.offset > descriptor.size) throw new WhittleError('DIGEST_MISMATCH', `${request.subject} has more than the ${String(descriptor.size)} bytes that its descriptor names`);
      yield fresh;
    }
  } catch (error) {
    throw transportError(error, response.url, request.subject, request.signal);
  }
}
