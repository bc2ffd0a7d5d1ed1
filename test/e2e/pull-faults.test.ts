import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { runOk } from '../../bench/process.js';
import { isWhittleError } from '../../src/core/errors.js';
import { startFlakyProxy, type Fault, type FlakyProxy } from '../support/flaky-proxy.js';
import { until } from '../support/until.js';
import { hurried, makePullWorld, pullHere, stateOf, type PullWorld } from '../support/pull-world.js';

const frameBytes = 256 * 1024;
let world: PullWorld;
/** A store that holds v1, to be copied; pulled through a proxy whose port is then the image's name. */
let seed: string;
let proxy: FlakyProxy;

beforeAll(async () => {
  world = await makePullWorld();
  proxy = await startFlakyProxy({ upstream: `http://127.0.0.1:${String(world.service.port)}` });
  seed = await world.folder('seed');
  const first = await pullHere(seed, image('v1'));
  expect(first.error).toBeNull();
  // The delta is ordered once, so that the scripts below never wait for the server.
  const warm = await pullHere(await storeWithV1(), image('v2'));
  expect(warm.result?.way).toBe('delta');
});

afterAll(async () => {
  await proxy.close();
  await world.close();
});

afterEach(() => {
  proxy.faults.length = 0;
  proxy.requests.length = 0;
});

function image(tag: string): string {
  return `127.0.0.1:${String(proxy.port)}/app:${tag}`;
}

async function storeWithV1(): Promise<string> {
  const root = join(await world.folder('device'), 'store');
  // With times to the nanosecond and hard links, or the copy would be a damaged store.
  await runOk(['cp', '-a', seed, root]);
  return root;
}

function codeOf(error: unknown): string | null {
  return error === null ? null : isWhittleError(error) ? error.code : `not a WhittleError: ${error instanceof Error ? error.message : typeof error}`;
}

/** What befalls the large blob: a delta's data, or a layer. */
const scripts: readonly [string, Fault[]][] = [
  ['cuts', [{ kind: 'cut', afterBytes: 0 }, { kind: 'cut', afterBytes: 100_000 }, { kind: 'cut', afterBytes: 300_000 }]],
  ['a stall', [{ kind: 'stall', afterBytes: 300_000 }]],
  ['200 for a range', [{ kind: 'cut', afterBytes: 300_000 }, { kind: 'ignore-range' }, { kind: 'ignore-range' }]],
  ['a shifted 206', [{ kind: 'cut', afterBytes: 300_000 }, { kind: 'shift-range', byBytes: 77, honest: true }, { kind: 'shift-range', byBytes: -77, honest: false }]],
  ['a changed ETag', [{ kind: 'cut', afterBytes: 300_000 }, { kind: 'etag', tag: '"other"', conform: false }]],
  ['5xx and 429', [{ kind: 'status', status: 500 }, { kind: 'status', status: 503, retryAfter: '1' }, { kind: 'status', status: 429, retryAfter: '1' }]],
  ['truncated bodies', [{ kind: 'truncate', byBytes: 10 }, { kind: 'truncate', byBytes: 300_000 }]],
  ['re-compressed bodies', [{ kind: 'gzip', labelled: true }, { kind: 'gzip', labelled: false }, { kind: 'gzip', labelled: true }]],
  ['wrong bytes of the right length', [{ kind: 'corrupt', atByte: 100 }, { kind: 'corrupt', atByte: 300_000 }]],
  ['redirects to another origin', [{ kind: 'redirect', hops: 2 }]],
];

/** The small blobs before it come as they are: the config and, of a delta, the index. */
const smallOnes = (delta: 'auto' | 'never'): Fault[] => (delta === 'auto' ? [{ kind: 'none' }, { kind: 'none' }] : [{ kind: 'none' }]);

describe.each([['by delta', 'auto'], ['by layers', 'never']] as const)('a pull %s', (_, delta) => {
  test.each(scripts)('comes through %s', async (__, faults) => {
    const root = await storeWithV1();
    proxy.faults.push(...smallOnes(delta), ...faults);
    const pulled = await pullHere(root, image('v2'), { delta });
    expect(codeOf(pulled.error)).toBeNull();
    expect(pulled.result?.way).toBe(delta === 'auto' ? 'delta' : 'layers');
    const blobs = proxy.requests.filter((request) => request.origin === 'first' && request.url.includes('/blobs/'));
    // All of it befell the one that is meant.
    expect(blobs.filter((request) => request.fault.kind !== 'none').map((request) => [request.fault, request.url])).toEqual(faults.map((fault) => [fault, blobs.at(-1)?.url]));
    expect(await stateOf(root)).toEqual({ images: { 'app:v1': world.v1.configDigest, 'app:v2': world.v2.configDigest }, damaged: 0 });
  });

  test.each<[string, Fault]>([
    ['dead', { kind: 'cut', afterBytes: 0 }], ['failing', { kind: 'status', status: 503 }], ['re-compressing', { kind: 'gzip', labelled: true }],
  ])('from a server that stays %s ends with a clear error and an untouched store, and continues later', async (__, fault) => {
    const root = await storeWithV1();
    proxy.faults.push({ kind: 'cut', afterBytes: 500 }, ...Array.from({ length: 60 }, () => fault));
    const failed = await pullHere(root, image('v2'), { delta });
    expect(['FETCH_FAILED', 'FETCH_CORRUPT']).toContain(codeOf(failed.error));
    expect(await stateOf(root)).toEqual({ images: { 'app:v1': world.v1.configDigest }, damaged: 0 });
    proxy.faults.length = 0;
    const after = await pullHere(root, image('v2'), { delta });
    expect(after.result?.outcome).toBe('committed');
    expect((await stateOf(root)).damaged).toBe(0);
  });
});

test('a delta whose data is always wrong is given up for the layers, and said so', async () => {
  const root = await storeWithV1();
  // Every answer for the data is wrong until three have been refused.
  proxy.faults.push(...smallOnes('auto'), ...Array.from({ length: 3 }, (): Fault => ({ kind: 'corrupt', atByte: 1000 })));
  const pulled = await pullHere(root, image('v2'));
  expect(codeOf(pulled.error)).toBeNull();
  expect(pulled.result?.way).toBe('layers');
  expect(pulled.events.filter((event) => event.event === 'fallback').map((event) => event.code)).toEqual(['FETCH_CORRUPT']);
  expect((await stateOf(root)).images['app:v2']).toBe(world.v2.configDigest);
});

test('the config and manifests are fetched again, not believed, when they come wrong', async () => {
  const root = join(await world.folder('device'), 'store');
  proxy.faults.push({ kind: 'corrupt', atByte: 20 }, { kind: 'none' });
  const pulled = await pullHere(root, image('v1'));
  expect(codeOf(pulled.error)).toBeNull();
  expect(await stateOf(root)).toEqual({ images: { 'app:v1': world.v1.configDigest }, damaged: 0 });
});

test('a budget is refused beforehand', async () => {
  const root = await storeWithV1();
  const pulled = await pullHere(root, image('v2'), { maxBytes: 100_000 });
  expect(codeOf(pulled.error)).toBe('BUDGET_EXCEEDED');
  expect(proxy.requests.filter((request) => request.url.includes('/blobs/')).reduce((sum, request) => sum + request.sentBytes, 0)).toBeLessThan(100_000);
  expect((await stateOf(root)).images).toEqual({ 'app:v1': world.v1.configDigest });
});

test('a dry run fetches no layer and no delta', async () => {
  const root = await storeWithV1();
  const pulled = await pullHere(root, image('v2'), { dryRun: true });
  expect(pulled.result).toMatchObject({ outcome: 'planned', way: 'delta' });
  expect(proxy.requests.filter((request) => request.url.includes('/blobs/') && request.sentBytes > 10_000)).toEqual([]);
});

test('what is current already costs one question', async () => {
  const root = await storeWithV1();
  const pulled = await pullHere(root, image('v1'));
  expect(pulled.result?.outcome).toBe('current');
  expect(proxy.requests.map((request) => request.url)).toEqual(['/v2/app/manifests/v1']);
});

const fault: fc.Arbitrary<Fault> = fc.oneof(
  fc.record({ kind: fc.constant('cut' as const), afterBytes: fc.integer({ min: 0, max: 1_000_000 }) }),
  fc.record({ kind: fc.constant('truncate' as const), byBytes: fc.integer({ min: 1, max: 1_000_000 }) }),
  fc.record({ kind: fc.constant('corrupt' as const), atByte: fc.integer({ min: 0, max: 1_000_000 }) }),
  fc.record({ kind: fc.constant('gzip' as const), labelled: fc.boolean() }),
  fc.record({ kind: fc.constant('status' as const), status: fc.constantFrom(429, 500, 502, 503) }),
  fc.record({ kind: fc.constant('shift-range' as const), byBytes: fc.integer({ min: -100_000, max: 100_000 }), honest: fc.boolean() }),
  fc.record({ kind: fc.constant('etag' as const), tag: fc.constantFrom('"x"', 'W/"y"'), conform: fc.boolean() }),
  fc.constant<Fault>({ kind: 'ignore-range' }), fc.constant<Fault>({ kind: 'none' }),
);

test('any script of faults leaves the old image or the new one, whole, and the next pull completes', async () => {
  await fc.assert(fc.asyncProperty(fc.array(fault, { maxLength: 14 }), fc.constantFrom('auto' as const, 'never' as const), async (faults, delta) => {
    const root = await storeWithV1();
    proxy.faults.splice(0, Infinity, ...faults);
    const first = await pullHere(root, image('v2'), { delta });
    const state = await stateOf(root);
    expect(state.damaged).toBe(0);
    expect(state.images['app:v1']).toBe(world.v1.configDigest);
    expect(state.images['app:v2']).toBe(first.error === null ? world.v2.configDigest : undefined);
    if (first.error !== null) expect(['FETCH_FAILED', 'FETCH_CORRUPT']).toContain(codeOf(first.error));
    proxy.faults.length = 0;
    const second = await pullHere(root, image('v2'), { delta });
    expect(codeOf(second.error)).toBeNull();
    expect((await stateOf(root)).images['app:v2']).toBe(world.v2.configDigest);
  }), { numRuns: 25 });
});

test('an interruption by the caller keeps what was fetched: at most one frame comes twice', async () => {
  const root = await storeWithV1();
  const stop = new AbortController();
  proxy.requests.length = 0;
  // The data stops within the third frame.
  proxy.faults.push(...smallOnes('auto'), { kind: 'stall', afterBytes: 2 * frameBytes + 5000 });
  const pulling = pullHere(root, image('v2'), { signal: stop.signal, patience: { ...hurried, stallMs: 60_000 } });
  await until(async () => (await spooledBytes(root)) === 2 * frameBytes + 5000);
  stop.abort();
  const stopped = await pulling;
  expect(codeOf(stopped.error)).toBe('INTERRUPTED');
  const sentBefore = dataBytes();
  const after = await pullHere(root, image('v2'));
  expect(after.result?.way).toBe('delta');
  const size = after.result?.figures.deltaBytes ?? 0;
  expect(dataBytes()).toBeGreaterThan(sentBefore);
  expect(dataBytes()).toBeLessThanOrEqual(size + frameBytes);
});

/** What is spooled of a delta's data. */
async function spooledBytes(root: string): Promise<number> {
  const files = (await readdir(join(root, 'stages'), { recursive: true })).filter((name) => /\/spool\/data-/.test(name));
  const sizes = await Promise.all(files.map(async (name) => (await stat(join(root, 'stages', name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

function dataBytes(): number {
  return proxy.requests.filter((request) => request.url.includes('/blobs/')).reduce((sum, request) => sum + request.sentBytes, 0);
}
