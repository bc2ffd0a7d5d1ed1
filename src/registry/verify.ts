import { WhittleError } from '../core/errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import { DigestVerifier } from '../oci/digest.js';

function mismatch(descriptor: Descriptor, what: string, problem: string): WhittleError {
  return new WhittleError('DIGEST_MISMATCH', `${what}: ${problem}`, { data: { digest: descriptor.digest } });
}

/**
 * Passes bytes on and proves them: the iteration ends normally only when the bytes were exactly as many as
 * `descriptor.size` and have its digest. Otherwise it throws DIGEST_MISMATCH, at the latest where the end would be,
 * and never passes on more bytes than the descriptor names. A reader that stops early has proof of nothing.
 */
export async function* verifiedBytes(source: AsyncIterable<Buffer>, descriptor: Descriptor, what: string): AsyncGenerator<Buffer, void, void> {
  const verifier = new DigestVerifier(descriptor.digest);
  for await (const chunk of source) {
    if (verifier.sizeBytes + chunk.length > descriptor.size) throw mismatch(descriptor, what, `has more than the ${String(descriptor.size)} bytes that its descriptor names`);
    verifier.update(chunk);
    yield chunk;
  }
  if (verifier.sizeBytes < descriptor.size) {
    throw mismatch(descriptor, what, `ends after ${String(verifier.sizeBytes)} of the ${String(descriptor.size)} bytes that its descriptor names`);
  }
  if (!verifier.matches()) throw mismatch(descriptor, what, `does not have the digest ${descriptor.digest}`);
}

/** Collects a verified blob into one buffer. A descriptor above `maxBytes` is LIMIT_EXCEEDED before anything is read. */
export async function collectVerified(source: AsyncIterable<Buffer>, descriptor: Descriptor, what: string, maxBytes: number): Promise<Buffer> {
  refuseLarge(descriptor, what, maxBytes);
  const chunks: Buffer[] = [];
  for await (const chunk of verifiedBytes(source, descriptor, what)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Throws LIMIT_EXCEEDED when the descriptor names more than `maxBytes`. */
export function refuseLarge(descriptor: Descriptor, what: string, maxBytes: number): void {
  if (descriptor.size > maxBytes) throw new WhittleError('LIMIT_EXCEEDED', `${what}: ${String(descriptor.size)} bytes, the limit is ${String(maxBytes)}`);
}
