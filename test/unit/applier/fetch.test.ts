import { createHash, randomBytes } from 'node:crypto';
import { appendFile, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { fetchFrames } from '../../../src/applier/pull/fetch.js';
import { RateLimiter } from '../../../src/applier/pull/rate.js';
import { plainFrames, Spool, type SpoolFrame } from '../../../src/applier/pull/spool.js';
import { defaultPatience, type Patience } from '../../../src/applier/pull/transfer.js';
import { isWhittleError } from '../../../src/core/errors.js';
import { startBlobServer, type BlobServer } from '../../support/blob-server.js';
import { startFlakyProxy, type Fault, type FlakyProxy } from '../../support/flaky-proxy.js';
import { nodeSpoolFs } from '../../support/node-spool-fs.js';
import { httpSource } from '../../support/http-source.js';

const frameBytes = 64 * 1024;
const blob = randomBytes(10 * frameBytes + 12345);
const hurried: Patience = { ...defaultPatience, stallMs: 3000, slowWindowMs: 2000, pauseMs: 1, maxPauseMs: 4, maxRetryAfterMs: 20 };

function declaredFrames(content: Buffer): SpoolFrame[] {
  return plainFrames(content.length, frameBytes).map((frame, index) => ({
    sizeBytes: frame.sizeBytes,
    digest: createHash('sha256').update(content.subarray(index * frameBytes, index * frameBytes + frame.sizeBytes)).digest(),
  }));
}

let server: BlobServer;
let dir: string;
let proxy: FlakyProxy | null = null;

beforeAll(async () => { server = await startBlobServer(blob); });
afterAll(async () => { await server.close(); });
beforeEach(async () => { dir = await mkdtemp(join(tmpdir(), 'whittle-fetch-')); });
afterEach(async () => {
  await proxy?.close();
  proxy = null;
  await rm(dir, { recursive: true, force: true });
});

interface Outcome {
  readonly bytes: Buffer;
  readonly error: string | null;
  readonly received: number;
  readonly refetched: number;
  readonly retries: string[];
}

/** Runs one fetch to its end, as one process's life. */
async function fetchAll(frames: readonly SpoolFrame[], options: { readonly patience?: Partial<Patience>; readonly signal?: AbortSignal; readonly stopAfterFrames?: number; readonly rate?: number } = {}): Promise<Outcome> {
  const spool = await Spool.open(nodeSpoolFs(dir), '', 'spool', frames);
  const chunks: Buffer[] = [];
  const out = { error: null as string | null, received: 0, refetched: 0, retries: [] as string[] };
  try {
    const stream = fetchFrames({
      source: httpSource(`${proxy?.url ?? server.url}/blobs/x`), spool, limiter: new RateLimiter(options.rate ?? null),
      patience: { ...hurried, ...options.patience }, signal: options.signal ?? new AbortController().signal,
      events: { received: (count, again) => { out.received += count; out.refetched += again; }, retry: (reason) => { out.retries.push(reason); } },
    });
    for await (const frame of stream) {
      chunks.push(frame);
      if (chunks.length === options.stopAfterFrames) break;
    }
  } catch (error) {
    out.error = isWhittleError(error) ? error.code : String(error);
  } finally {
    await spool.close();
  }
  return { ...out, bytes: Buffer.concat(chunks) };
}

async function withFaults(...faults: Fault[]): Promise<void> {
  proxy = await startFlakyProxy({ upstream: server.url, faults });
}

describe.each([['declared frames', declaredFrames(blob)], ['plain frames', plainFrames(blob.length, frameBytes)]] as const)('a fetch with %s', (kind, frames) => {
  test('takes everything in one request', async () => {
    await withFaults();
    const outcome = await fetchAll(frames);
    expect(outcome.error).toBeNull();
    expect(outcome.bytes.equals(blob)).toBe(true);
    expect(proxy?.requests).toHaveLength(1);
    expect(proxy?.requests[0]?.headers.range).toBeUndefined();
    expect(outcome.received).toBe(blob.length);
  });

  test.each<[string, Fault[], number]>([
    ['a cut before the headers', [{ kind: 'cut', afterBytes: 0 }], 0],
    ['cuts in the middle', [{ kind: 'cut', afterBytes: 100_000 }, { kind: 'cut', afterBytes: 200_000 }], 0],
    ['a stall', [{ kind: 'stall', afterBytes: 150_000 }], 0],
    ['a slow drip', [{ kind: 'drip', pieceBytes: 3000, pauseMs: 5, pieces: 20 }], 0],
    ['503 and 429 with Retry-After', [{ kind: 'status', status: 503 }, { kind: 'status', status: 429, retryAfter: '1' }], 0],
    ['500 after a cut', [{ kind: 'cut', afterBytes: 99_999 }, { kind: 'status', status: 500 }], 0],
    ['redirects to another origin', [{ kind: 'redirect', hops: 2 }, { kind: 'none' }], 0],
    ['a cut and then a redirect', [{ kind: 'cut', afterBytes: 99_999 }, { kind: 'redirect', hops: 1 }], 0],
    ['a labelled re-encoding', [{ kind: 'gzip', labelled: true }], 0],
    ['an unlabelled re-encoding', [{ kind: 'gzip', labelled: false }], 0],
    ['a body cut short but well framed', [{ kind: 'truncate', byBytes: 70_000 }], 0],
    ['a body that is too long', [{ kind: 'extend', byBytes: 10 }], 0],
    ['no length', [{ kind: 'chunked' }], 0],
    ['a shifted range that says so', [{ kind: 'cut', afterBytes: 200_000 }, { kind: 'shift-range', byBytes: -1000, honest: true }, { kind: 'shift-range', byBytes: 1000, honest: true }], 0],
    ['a wrong total', [{ kind: 'cut', afterBytes: 200_000 }, { kind: 'wrong-total', byBytes: 1 }], 0],
    ['another ETag, If-Range ignored', [{ kind: 'cut', afterBytes: 200_000 }, { kind: 'etag', tag: '"v2"', conform: false }], frameBytes],
    ['another ETag, If-Range honoured', [{ kind: 'cut', afterBytes: 200_000 }, { kind: 'etag', tag: '"v2"', conform: true }], frameBytes],
  ])('survives %s', async (_, faults, mayRefetch) => {
    await withFaults(...faults);
    const outcome = await fetchAll(frames);
    expect(outcome.error).toBeNull();
    expect(outcome.bytes.equals(blob)).toBe(true);
    expect(outcome.refetched).toBeLessThanOrEqual(mayRefetch);
    expect(proxy?.faults).toEqual(proxy?.faults.filter((fault) => fault.kind === 'none'));
  });

  test('skips what it holds when the server sends the whole again', async () => {
    await withFaults({ kind: 'cut', afterBytes: 200_000 }, { kind: 'ignore-range' }, { kind: 'ignore-range' });
    const outcome = await fetchAll(frames);
    expect(outcome.error).toBeNull();
    expect(outcome.bytes.equals(blob)).toBe(true);
  });

  test('honours Retry-After', async () => {
    await withFaults({ kind: 'status', status: 429, retryAfter: '1' });
    const startedMs = performance.now();
    await fetchAll(frames, { patience: { maxRetryAfterMs: 300 } });
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(295);
  });

  test('gives up after a bounded number of attempts without progress', async () => {
    await withFaults(...Array.from({ length: 50 }, () => ({ kind: 'cut' as const, afterBytes: 0 })));
    const outcome = await fetchAll(frames);
    expect(outcome.error).toBe('FETCH_FAILED');
    expect(proxy?.requests).toHaveLength(hurried.maxFruitless);
  });

  test('does not take one byte an attempt for progress', async () => {
    await withFaults(...Array.from({ length: 50 }, () => ({ kind: 'cut' as const, afterBytes: 1 })));
    const outcome = await fetchAll(frames);
    expect(outcome.error).toBe('FETCH_FAILED');
    expect(proxy?.requests.length).toBeLessThanOrEqual(hurried.maxFruitless + 1);
  });

  test('goes on from disk in a new process, without a byte of the verified frames', async () => {
    await withFaults({ kind: 'cut', afterBytes: 3 * frameBytes + 1000 });
    const first = await fetchAll(frames, { patience: { maxFruitless: 1, pauseMs: 2000, maxPauseMs: 2000 }, signal: AbortSignal.timeout(400) });
    expect(first.error).not.toBeNull();
    const second = await fetchAll(frames);
    expect(second.error).toBeNull();
    expect(second.bytes.equals(blob)).toBe(true);
    expect(first.received + second.received).toBeLessThanOrEqual(blob.length + frameBytes);
    if (kind === 'declared frames') expect(first.received + second.received).toBe(blob.length);
  });

  test('needs no network at all when the spool is whole', async () => {
    await withFaults();
    await fetchAll(frames);
    const again = await fetchAll(frames);
    expect(again.bytes.equals(blob)).toBe(true);
    expect(proxy?.requests).toHaveLength(1);
  });

  test.each([
    ['torn', async (path: string) => { await truncate(path, 2 * frameBytes + 777); }],
    ['followed by zeros', async (path: string) => { await truncate(path, 4 * frameBytes); await appendFile(path, Buffer.alloc(frameBytes)); }],
    ['rotten in a middle frame', async (path: string) => { const bytes = await readFile(path); bytes[3 * frameBytes + 5000]! ^= 1; await writeFile(path, bytes); }],
    ['empty', async (path: string) => { await truncate(path, 0); }],
    ['longer than the download', async (path: string) => { await appendFile(path, 'more'); }],
  ])('recovers from a spool that is %s', async (_, damage) => {
    await withFaults();
    await fetchAll(frames);
    await damage(join(dir, 'spool'));
    const outcome = await fetchAll(frames);
    expect(outcome.error).toBeNull();
    expect(outcome.bytes.equals(blob)).toBe(true);
  });

  test('stops the download when the reader stops', async () => {
    await withFaults({ kind: 'drip', pieceBytes: 70_000, pauseMs: 30, pieces: 50 });
    const outcome = await fetchAll(frames, { stopAfterFrames: 1 });
    expect(outcome.bytes).toHaveLength(frameBytes);
    expect(outcome.received).toBeLessThan(blob.length);
  });

  test('ends at once when it is aborted', async () => {
    await withFaults({ kind: 'stall', afterBytes: 1000 });
    const startedMs = performance.now();
    const outcome = await fetchAll(frames, { patience: { stallMs: 60_000 }, signal: AbortSignal.timeout(100) });
    expect(outcome.error).toBe('INTERRUPTED');
    expect(performance.now() - startedMs).toBeLessThan(30_000);
  });

  test('keeps to a rate limit', async () => {
    await withFaults();
    const startedMs = performance.now();
    const outcome = await fetchAll(frames, { rate: blob.length });
    expect(outcome.bytes.equals(blob)).toBe(true);
    expect(performance.now() - startedMs).toBeGreaterThan(600);
  });
});

test('wrong bytes of the right length cost one frame, and are refused when they keep coming', async () => {
  const frames = declaredFrames(blob);
  await withFaults({ kind: 'corrupt', atByte: 5 * frameBytes + 7 });
  const once = await fetchAll(frames);
  expect(once.error).toBeNull();
  expect(once.bytes.equals(blob)).toBe(true);
  // And what came in the same read as the end of that frame.
  expect(once.refetched).toBeLessThanOrEqual(frameBytes + 131_072);
  await proxy?.close();

  await rm(join(dir, 'spool'));
  await withFaults(...Array.from({ length: 20 }, (): Fault => ({ kind: 'corrupt', atByte: 7 })));
  const always = await fetchAll(frames);
  expect(always.error).toBe('FETCH_CORRUPT');
  expect(always.bytes).toHaveLength(0);
  expect(proxy?.requests).toHaveLength(hurried.maxWrongFrames);
});

test('a range whose body begins elsewhere is found by the frame digests', async () => {
  await withFaults({ kind: 'cut', afterBytes: 200_000 }, { kind: 'shift-range', byBytes: 500, honest: false });
  const outcome = await fetchAll(declaredFrames(blob));
  expect(outcome.error).toBeNull();
  expect(outcome.bytes.equals(blob)).toBe(true);
});

test('a crawl below the least rate is an attempt that failed', async () => {
  await withFaults({ kind: 'drip', pieceBytes: 10, pauseMs: 20, pieces: 100_000 });
  const outcome = await fetchAll(declaredFrames(blob), { patience: { minBytesPerSecond: 10_000, slowWindowMs: 300 } });
  expect(outcome.error).toBeNull();
  expect(outcome.bytes.equals(blob)).toBe(true);
  expect(outcome.retries.some((reason) => reason.includes('bytes a second'))).toBe(true);
});

test('a blob of no bytes asks for nothing', async () => {
  await withFaults();
  const outcome = await fetchAll([]);
  expect(outcome.error).toBeNull();
  expect(proxy?.requests).toHaveLength(0);
  expect((await stat(join(dir, 'spool'))).size).toBe(0);
});

const faultArbitrary: fc.Arbitrary<Fault> = fc.oneof(
  fc.record({ kind: fc.constant('cut' as const), afterBytes: fc.integer({ min: 0, max: blob.length }) }),
  fc.record({ kind: fc.constant('truncate' as const), byBytes: fc.integer({ min: 1, max: blob.length }) }),
  fc.record({ kind: fc.constant('extend' as const), byBytes: fc.integer({ min: 1, max: 100_000 }) }),
  fc.record({ kind: fc.constant('corrupt' as const), atByte: fc.integer({ min: 0, max: blob.length }) }),
  fc.record({ kind: fc.constant('gzip' as const), labelled: fc.boolean() }),
  fc.record({ kind: fc.constant('status' as const), status: fc.constantFrom(408, 416, 429, 500, 502, 503, 504) }),
  fc.record({ kind: fc.constant('redirect' as const), hops: fc.integer({ min: 1, max: 3 }) }),
  fc.record({ kind: fc.constant('etag' as const), tag: fc.constantFrom('"v1"', '"v2"', 'W/"v1"', 'x'), conform: fc.boolean() }),
  fc.record({ kind: fc.constant('shift-range' as const), byBytes: fc.integer({ min: -100_000, max: 100_000 }), honest: fc.boolean() }),
  fc.record({ kind: fc.constant('wrong-total' as const), byBytes: fc.integer({ min: -10, max: 10 }) }),
  fc.constant<Fault>({ kind: 'ignore-range' }), fc.constant<Fault>({ kind: 'chunked' }), fc.constant<Fault>({ kind: 'none' }),
);

test('any script of faults ends with the right bytes or a clear error, and the next fetch completes', async () => {
  const frames = declaredFrames(blob);
  await withFaults();
  await fc.assert(fc.asyncProperty(fc.array(faultArbitrary, { maxLength: 12 }), fc.integer({ min: 1, max: 8 }), async (faults, maxFruitless) => {
    await rm(join(dir, 'spool'), { force: true });
    proxy!.faults.splice(0, Infinity, ...faults);
    const first = await fetchAll(frames, { patience: { maxFruitless } });
    expect(blob.subarray(0, first.bytes.length).equals(first.bytes)).toBe(true);
    if (first.error === null) expect(first.bytes).toHaveLength(blob.length);
    else expect(['FETCH_FAILED', 'FETCH_CORRUPT']).toContain(first.error);
    proxy!.faults.length = 0;
    const second = await fetchAll(frames);
    expect(second.error).toBeNull();
    expect(second.bytes.equals(blob)).toBe(true);
    // A server that sends what was not asked for, or bytes that are wrong, is the only reason to take much twice.
    const honest = faults.every((fault) => !['ignore-range', 'corrupt', 'shift-range', 'gzip', 'etag', 'extend'].includes(fault.kind));
    if (honest) expect(first.received + second.received).toBeLessThanOrEqual(blob.length + frameBytes);
  }), { numRuns: 60 });
});
