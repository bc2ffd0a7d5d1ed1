import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { fetchFrames } from '../../src/applier/pull/fetch.js';
import { memoryFs } from '../../src/applier/pull/memory-fs.js';
import { pullDefaults } from '../../src/applier/pull/options.js';
import { RateLimiter } from '../../src/applier/pull/rate.js';
import { registrySource } from '../../src/applier/pull/registry-source.js';
import { plainFrames, Spool, spoolFileBytes, type SpoolFrame, type SpoolFs } from '../../src/applier/pull/spool.js';
import { openStore } from '../../src/applier/store/open.js';
import type { Store } from '../../src/applier/store/types.js';
import { errorCodes, exitCodes } from '../../src/core/error-codes.js';
import { isWhittleError } from '../../src/core/errors.js';
import { parseReference } from '../../src/oci/index.js';
import { fixedCredentials } from '../../src/registry/index.js';
import { startFlakyProxy, type Fault, type FlakyProxy } from '../support/flaky-proxy.js';
import { makeMemoryRegistry, memoryFrameBytes, type MemoryRegistry } from '../support/memory-registry.js';
import { hurried, pullInto, stateOfStore, type Pulled } from '../support/pull-world.js';

/**
 * Scripts of a server that misbehaves, over real connections, played against the device's own code in this process. One in ten is
 * a whole pull into a store that holds the old image, spoilt at every request, whatever it asks for; the others
 * fetch one blob in many frames, with the client dying in between. WHITTLE_NETWORK_SCRIPTS and WHITTLE_SEED change
 * their number and choice.
 */
const scripts = Number(process.env['WHITTLE_NETWORK_SCRIPTS'] ?? 3000);
const pullScripts = Math.ceil(scripts / 10);
const fetchScripts = scripts - pullScripts;
const seed = Number(process.env['WHITTLE_SEED'] ?? 20_260_101);
/** Pulls at a time: most of them are waiting for something. */
const lanes = 2 * Math.max(2, cpus().length);

const patience = { ...hurried, stallMs: 250, slowWindowMs: 400, pauseMs: 1, maxPauseMs: 3, maxRetryAfterMs: 20 };
/** Impatient: most of the scripts wait for nothing else. */
const transport = { limits: { attempts: 4, backoffMs: 1, backoffMaxMs: 3, connectTimeoutMs: 1000, headersTimeoutMs: 250, bodyTimeoutMs: 250, retryAfterMaxMs: 20 } };
/** For pulls that have to succeed, however busy the machine is. */
const patient = { patience: { ...patience, stallMs: 30_000, slowWindowMs: 60_000 }, limits: { ...transport.limits, connectTimeoutMs: 30_000, headersTimeoutMs: 30_000, bodyTimeoutMs: 30_000 } };
const login = { kind: 'basic' as const, username: 'fleet', password: 'secret-of-the-fleet' };

let folder: string;
let registry: MemoryRegistry;
/** One device after the other: a server, and a store that holds v1 under the server's name. */
interface Lane {
  readonly proxy: FlakyProxy;
  readonly image: string;
  readonly store: Store;
}
const started: Lane[] = [];

beforeAll(async () => {
  // Memory when there is some: a few thousand stores are made, and what disks do is tested elsewhere.
  folder = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'whittle-network-'));
  registry = await makeMemoryRegistry();
  for (let lane = 0; lane < lanes; lane++) {
    const proxy = await startFlakyProxy({
      cutAfterMs: 4, match: () => true,
      upstream: (asked) => {
        const free = asked.origin === 'second' || asked.url.includes('/referrers/') || asked.headers['authorization'] !== undefined;
        return free ? registry.answer(asked) : { status: 401, headers: { 'www-authenticate': 'Basic realm="fleet"' }, body: Buffer.from('{}') };
      },
    });
    const image = `127.0.0.1:${String(proxy.port)}/app`;
    const store = await openStore(join(folder, `store-${String(lane)}`), { create: true });
    started.push({ proxy, image, store });
    expect((await pullPatiently(store, `${image}:v1`)).error).toBeNull();
  }
}, 60_000);

afterAll(async () => {
  for (const { proxy, store } of started) {
    await proxy.close();
    await store.close();
  }
  await rm(folder, { recursive: true, force: true });
});

async function pull(store: Store, image: string, delta: 'auto' | 'never' = pullDefaults.delta): Promise<Pulled> {
  return pullInto(store, image, { delta, deltaWaitMs: 50, patience }, { ...transport, credentials: fixedCredentials(login) });
}

async function pullPatiently(store: Store, image: string, delta: 'auto' | 'never' = pullDefaults.delta): Promise<Pulled> {
  return pullInto(store, image, { delta, deltaWaitMs: 50, patience: patient.patience }, { limits: patient.limits, credentials: fixedCredentials(login) });
}

const place = fc.oneof(fc.integer({ min: 0, max: 2000 }), fc.integer({ min: 0, max: 80_000 }));
const fault: fc.Arbitrary<Fault> = fc.oneof(
  { weight: 10, arbitrary: fc.constant<Fault>({ kind: 'none' }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('cut' as const), afterBytes: place }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('stall' as const), afterBytes: place }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('drip' as const), pieceBytes: fc.integer({ min: 1, max: 900 }), pauseMs: fc.integer({ min: 0, max: 3 }), pieces: fc.integer({ min: 1, max: 12 }) }) },
  { weight: 2, arbitrary: fc.constant<Fault>({ kind: 'ignore-range' }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('shift-range' as const), byBytes: fc.integer({ min: -9000, max: 9000 }).filter((by) => by !== 0), honest: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('etag' as const), tag: fc.constantFrom('"other"', 'W/"weak"', 'no quotes', '""'), conform: fc.boolean() }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('status' as const), status: fc.constantFrom(200, 204, 206, 304, 400, 401, 403, 404, 405, 408, 410, 412, 416, 418, 429, 500, 502, 503, 504) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('status' as const), status: fc.constantFrom(429, 503), retryAfter: fc.constantFrom('0', '1', '-1', '99999999999', 'soon', 'Wed, 21 Oct 2015 07:28:00 GMT', 'Fri, 31 Dec 9999 23:59:59 GMT') }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('truncate' as const), byBytes: fc.integer({ min: 1, max: 80_000 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('extend' as const), byBytes: fc.integer({ min: 1, max: 300_000 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('gzip' as const), labelled: fc.boolean() }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('corrupt' as const), atByte: place }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('redirect' as const), hops: fc.integer({ min: 1, max: 9 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('wrong-total' as const), byBytes: fc.integer({ min: -5000, max: 5000 }).filter((by) => by !== 0) }) },
  { weight: 2, arbitrary: fc.constant<Fault>({ kind: 'chunked' }) },
  { weight: 1, arbitrary: fc.constant<Fault>({ kind: 'endless' }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('garbage' as const), text: fc.constantFrom('', 'HTTP/1.1 200', 'HTTP/9.9 abc\r\n\r\n', 'SSH-2.0-x\r\n', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello!!', 'HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nx') }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('big-header' as const), sizeBytes: fc.integer({ min: 10_000, max: 300_000 }) }) },
);

interface Script {
  readonly faults: readonly Fault[];
  /** The last fault stays for ever. */
  readonly persistent: boolean;
  readonly delta: 'auto' | 'never';
}
const script: fc.Arbitrary<Script> = fc.record({
  faults: fc.array(fault, { minLength: 1, maxLength: 12 }), persistent: fc.oneof({ weight: 9, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  delta: fc.constantFrom('auto', 'auto', 'never'),
});

/** Faults after which an honest client has nothing to fetch again: what came before was good. */
const harmless: readonly Fault['kind'][] = ['none', 'cut', 'stall', 'drip', 'status', 'redirect', 'chunked', 'truncate', 'big-header'];
const isHarmless = (one: Fault): boolean => harmless.includes(one.kind) && !(one.kind === 'status' && one.status < 300);
const layerFrameBytes = 256 * 1024;

/** How errors may end a pull that only the network spoilt: by their exit code. */
const decent: readonly number[] = [exitCodes.network, exitCodes.badInput, exitCodes.denied, exitCodes.notFound];

function expectDecent(error: unknown): void {
  if (!isWhittleError(error)) throw new Error(`not a WhittleError: ${String(error)}`, { cause: error });
  if (!decent.includes(errorCodes[error.code].exitCode)) throw new Error(`${error.code}: ${error.message}`, { cause: error });
  expect(error.message).not.toMatch(/\n|secret-of-the-fleet/);
}

async function play({ proxy, image, store }: Lane, { faults, persistent, delta }: Script, tally: Map<string, number>): Promise<void> {
  try {
    const last = faults.at(-1) ?? { kind: 'none' };
    proxy.requests.length = 0;
    proxy.faults.splice(0, Infinity, ...faults, ...(persistent ? Array.from({ length: 500 }, () => last) : []));
    const pulled = await pull(store, `${image}:v2`, delta);
    // Bounded retries, also when nothing ever gets better; nothing is read for ever; the login stays at home.
    // Hops of redirects are counted apart: a client follows five.
    const asked = proxy.requests.filter((request) => request.origin === 'first' && !request.url.includes('x-hops=')).length;
    expect(asked).toBeLessThan(persistent ? 120 : 40 + 3 * faults.length);
    expect(proxy.requests.length).toBeLessThanOrEqual(6 * asked);
    for (const request of proxy.requests) {
      expect(request.sentBytes).toBeLessThan(16 * 1024 * 1024);
      if (request.origin === 'second') expect(request.headers.authorization).toBeUndefined();
    }
    if (pulled.error !== null) expectDecent(pulled.error);
    const way = pulled.error === null ? (pulled.result?.way ?? '') : isWhittleError(pulled.error) ? pulled.error.code : '';
    tally.set(way, (tally.get(way) ?? 0) + 1);
    if (pulled.result !== null && faults.every(isHarmless)) {
      expect(pulled.result.figures.refetchedBytes).toBeLessThanOrEqual(pulled.result.way === 'delta' ? memoryFrameBytes : layerFrameBytes);
    }
    if (pulled.error !== null) {
      expect(await store.resolve(`${image}:v2`)).toBeUndefined();
      // Whatever the script left behind, the next pull from a sane server completes.
      proxy.faults.length = 0;
      const again = await pullPatiently(store, `${image}:v2`, delta);
      if (again.error !== null) throw new Error('the pull after the script failed', { cause: again.error });
    }
    expect(await stateOfStore(store)).toEqual({ damaged: 0, images: { 'app:v1': registry.v1.configDigest, 'app:v2': registry.v2.configDigest } });
  } finally {
    // The next script finds the store as this one did; a script that failed has the pull after it to thank for that.
    await store.removeReference(`${image}:v2`).catch(() => undefined);
    await store.gc({ stageMaxAgeMs: 0 });
  }
}

test(`${String(pullScripts)} scripts against whole pulls: the image whole or a clear error, bounded, and the next pull completes`, async () => {
  const tally = new Map<string, number>();
  const memoryBefore = process.memoryUsage().rss;
  await Promise.all(started.map((lane, at) => fc.assert(
    fc.asyncProperty(script, (one) => play(lane, one, tally)), { numRuns: Math.ceil(pullScripts / lanes), seed: seed + at, endOnFailure: true },
  )));
  const total = [...tally.values()].reduce((sum, count) => sum + count, 0);
  expect(total).toBeGreaterThanOrEqual(pullScripts);
  // The scripts are neither all harmless nor all fatal, or they would prove nothing.
  expect(tally.get('delta')).toBeGreaterThan(total / 20);
  expect(tally.get('layers')).toBeGreaterThan(total / 20);
  expect(total - (tally.get('delta') ?? 0) - (tally.get('layers') ?? 0)).toBeGreaterThan(total / 20);
  expect(process.memoryUsage().rss - memoryBefore).toBeLessThan(700 * 1024 * 1024);
  console.log([...tally].sort((a, b) => b[1] - a[1]).map(([outcome, count]) => `${outcome} ${String(count)}`).join(', '));
}, 1_000_000);

interface FetchScript extends Omit<Script, 'delta'> {
  /** The client dies after so many frames, again and again. */
  readonly dies: readonly number[];
  /** Whether each frame has a digest of its own, as a delta's have. */
  readonly declared: boolean;
}
const fetchScript: fc.Arbitrary<FetchScript> = fc.record({
  faults: fc.array(fault, { minLength: 1, maxLength: 16 }), persistent: fc.oneof({ weight: 14, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  dies: fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 3 }), declared: fc.boolean(),
});

interface Fetched {
  readonly bytes: Buffer;
  readonly received: number;
  readonly error: unknown;
}

/** One life of a client: fetches until it is done, fails, or dies after `dieAfter` frames. */
async function fetchOnce({ proxy, image }: Lane, fs: SpoolFs, frames: readonly SpoolFrame[], dieAfter: number): Promise<Fetched> {
  const source = registrySource(parseReference(`${image}:v2`), null, { ...transport, credentials: fixedCredentials(login) });
  const spool = await Spool.open(fs, '', 'spool', frames);
  const chunks: Buffer[] = [];
  let received = 0;
  let error: unknown = null;
  try {
    const blob = source.blob({ mediaType: 'application/octet-stream', digest: registry.delta.dataDigest, size: registry.delta.dataBytes });
    const stream = fetchFrames({
      source: blob, spool, limiter: new RateLimiter(null), patience, signal: new AbortController().signal, events: { received: (count) => { received += count; } },
    });
    for await (const frame of stream) {
      chunks.push(frame);
      if (chunks.length === dieAfter) break;
    }
  } catch (caught) {
    error = caught;
  } finally {
    await spool.close();
    await source.close();
  }
  expect(proxy.requests.length).toBeLessThan(400);
  return { bytes: Buffer.concat(chunks), received, error };
}

async function playFetch(lane: Lane, { faults, persistent, dies, declared }: FetchScript, tally: Map<string, number>): Promise<void> {
  const { proxy } = lane;
  const data = registry.delta.data;
  const frames = plainFrames(data.length, memoryFrameBytes).map((frame, at) => (declared ? { ...frame, digest: createHash('sha256').update(data.subarray(at * memoryFrameBytes, (at + 1) * memoryFrameBytes)).digest() } : frame));
  const fs = memoryFs(spoolFileBytes(frames));
  const last = faults.at(-1) ?? { kind: 'none' };
  proxy.requests.length = 0;
  proxy.faults.splice(0, Infinity, ...faults, ...(persistent ? Array.from({ length: 400 }, () => last) : []));
  let received = 0;
  for (const dieAfter of [...dies, Infinity]) {
    const life = await fetchOnce(lane, fs, frames, dieAfter);
    received += life.received;
    if (life.error !== null) expectDecent(life.error);
    // Whatever came out is the blob, from its beginning.
    if (declared) expect(life.bytes.equals(data.subarray(0, life.bytes.length))).toBe(true);
    if (dieAfter === Infinity) tally.set(life.error === null ? 'whole' : 'error', (tally.get(life.error === null ? 'whole' : 'error') ?? 0) + 1);
  }
  for (const request of proxy.requests) {
    expect(request.sentBytes).toBeLessThan(16 * 1024 * 1024);
    if (request.origin === 'second') expect(request.headers.authorization).toBeUndefined();
  }
  proxy.faults.length = 0;
  const healed = await fetchOnce(lane, fs, frames, Infinity);
  received += healed.received;
  if (declared) {
    expect(healed.error).toBeNull();
    expect(healed.bytes.equals(data)).toBe(true);
  }
  // No byte twice beyond one frame for each life, so long as the server sent nothing wrong.
  if (faults.every(isHarmless)) expect(received).toBeLessThanOrEqual(data.length + (dies.length + 1) * memoryFrameBytes);
}

test(`${String(fetchScripts)} scripts against fetches whose client dies now and then: the right bytes, and none twice beyond a frame`, async () => {
  const tally = new Map<string, number>();
  await Promise.all(started.map((lane, at) => fc.assert(
    fc.asyncProperty(fetchScript, (one) => playFetch(lane, one, tally)), { numRuns: Math.ceil(fetchScripts / lanes), seed: seed + 1000 + at, endOnFailure: true },
  )));
  expect((tally.get('whole') ?? 0) + (tally.get('error') ?? 0)).toBeGreaterThanOrEqual(fetchScripts);
  expect(tally.get('whole')).toBeGreaterThan(fetchScripts / 10);
  expect(tally.get('error')).toBeGreaterThan(fetchScripts / 100);
}, 1_000_000);
