import { expect } from '@jest/globals';
import { isWhittleError, type WhittleError } from '../../../src/core/errors.js';
import type { RegistryLimits } from '../../../src/registry/index.js';

/** Limits that make waiting short. */
export const quick: Partial<RegistryLimits> = { backoffMs: 5, backoffMaxMs: 20, attempts: 4, connectTimeoutMs: 2000, headersTimeoutMs: 2000, bodyTimeoutMs: 500, tagSettleMs: 60 };

export async function collect(source: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** The WhittleError that a promise rejects with; anything else fails the test. */
export async function failure(promise: Promise<unknown>): Promise<WhittleError> {
  try {
    await promise;
  } catch (error) {
    if (isWhittleError(error)) return error;
    throw error;
  }
  throw new Error('expected a rejection');
}

export async function expectCode(promise: Promise<unknown>, code: string): Promise<WhittleError> {
  const error = await failure(promise);
  expect(`${error.code}: ${error.message}`).toMatch(new RegExp(`^${code}: `));
  expect(error.message).not.toContain('\n');
  return error;
}

export async function* chunked(bytes: Buffer, size: number): AsyncGenerator<Buffer, void, void> {
  for (let at = 0; at < bytes.length; at += size) yield await Promise.resolve(bytes.subarray(at, at + size));
}
