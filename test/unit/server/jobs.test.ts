import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WhittleError } from '../../../src/core/errors.js';
import type { ServedImage } from '../../../src/server/catalog.js';
import { DeltaStore } from '../../../src/server/delta-store.js';
import { type JobEvent, DeltaJobs } from '../../../src/server/jobs.js';
import { fakeRunner } from '../../support/delta-server.js';
import { digestOf } from '../../support/images.js';
import { until } from '../../support/until.js';

let root: string;
let store: DeltaStore;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'whittle-jobs-'));
  ({ store } = await DeltaStore.open(root));
});
afterEach(() => rm(root, { recursive: true, force: true }));

function image(name: string): ServedImage {
  const bytes = Buffer.from(`manifest of ${name}`);
  return { manifest: { digest: digestOf(bytes), mediaType: 'application/vnd.oci.image.manifest.v1+json', bytes }, configDigest: digestOf(`config of ${name}`), layers: [] };
}

/** A gate that computations wait at. */
function makeGate(): { hold: () => Promise<void>; open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => { open = resolve; });
  return { hold: () => opened, open };
}

const [target, basis] = [image('target'), image('basis')];

describe('DeltaJobs', () => {
  test('a thousand askers of one pair start one computation, and nothing of it is visible before it is whole', async () => {
    const gate = makeGate();
    const run = fakeRunner(gate);
    const log: JobEvent[] = [];
    const jobs = new DeltaJobs({ store, run, concurrency: 4, log: (event) => log.push(event) });
    for (let at = 0; at < 1000; at++) expect(jobs.ask(target, basis).state).toBe('computing');
    await until(() => run.calls === 1);
    expect(store.find(target.manifest.digest, basis.configDigest)).toBeUndefined();
    gate.open();
    // The log hears of it last.
    await until(() => log.length === 2);
    expect(store.find(target.manifest.digest, basis.configDigest)).toBeDefined();
    expect(run.calls).toBe(1);
    const pair = { target: target.manifest.digest, targetConfig: target.configDigest, basis: basis.configDigest };
    expect(log).toMatchObject([{ event: 'started', ...pair }, { event: 'finished', ...pair }]);
    expect(store.deltasTo(target.manifest.digest)).toHaveLength(1);
    await jobs.close();
    expect(await readdir(join(root, 'tmp'))).toEqual([]);
  });

  test('no more run at a time than allowed, the rest waits in order, and a full queue takes no more', async () => {
    const gate = makeGate();
    const run = fakeRunner(gate);
    const jobs = new DeltaJobs({ store, run, concurrency: 2, maxQueued: 3 });
    const states = Array.from({ length: 7 }, (_, at) => jobs.ask(image(`target ${String(at)}`), basis));
    expect(states.map((state) => state.state)).toEqual(['computing', 'computing', 'queued', 'queued', 'queued', 'busy', 'busy']);
    expect(states.flatMap((state) => (state.state === 'queued' ? [state.ahead] : []))).toEqual([0, 1, 2]);
    await until(() => run.calls === 2);
    expect(jobs.counts).toEqual({ running: 2, waiting: 3 });
    gate.open();
    await until(() => run.calls === 5 && jobs.counts.running === 0);
    expect(jobs.ask(image('target 5'), basis).state).toBe('computing');
    await jobs.close();
  });

  test('a failure is remembered and not tried again before its time, then longer', async () => {
    let nowMs = 0;
    const run = fakeRunner({ fail: () => new WhittleError('TAR_CORRUPT', 'layer 3 is broken') });
    const jobs = new DeltaJobs({ store, run, concurrency: 1, failureMemoryMs: 10_000, now: () => nowMs });
    const failOnce = async (): Promise<void> => {
      expect(jobs.ask(target, basis).state).toBe('computing');
      await until(() => jobs.counts.running === 0);
    };
    await failOnce();
    expect(jobs.ask(target, basis)).toEqual({ state: 'failed', code: 'TAR_CORRUPT', message: 'layer 3 is broken', retryAfterSec: 10 });
    nowMs = 9_999;
    expect(jobs.ask(target, basis).state).toBe('failed');
    expect(run.calls).toBe(1);
    nowMs = 10_001;
    await failOnce();
    expect(jobs.ask(target, basis)).toMatchObject({ state: 'failed', retryAfterSec: 20 });
    expect(run.calls).toBe(2);
    expect(store.find(target.manifest.digest, basis.configDigest)).toBeUndefined();
    await jobs.close();
  });

  test('a delta that is no smaller than the layers is remembered as such, across restarts', async () => {
    const run = fakeRunner({ dataBytes: 200_000 });
    const jobs = new DeltaJobs({ store, run, concurrency: 1 });
    jobs.ask(target, basis);
    await until(() => store.find(target.manifest.digest, basis.configDigest) !== undefined);
    await jobs.close();
    const again = await DeltaStore.open(root);
    expect(again.store.find(target.manifest.digest, basis.configDigest)?.result).toBe('not-smaller');
    expect(again.store.deltasTo(target.manifest.digest)).toEqual([]);
  });

  test('close ends what runs, forgets what waits, and a stop is not remembered as a failure', async () => {
    const jobs = new DeltaJobs({
      store, concurrency: 1,
      run: ({ signal }) => new Promise((_, reject) => { signal.addEventListener('abort', () => { reject(new WhittleError('INTERRUPTED', 'stopped')); }); }),
    });
    jobs.ask(target, basis);
    jobs.ask(image('other'), basis);
    await jobs.close();
    expect(jobs.counts).toEqual({ running: 0, waiting: 0 });
    expect(await readdir(join(root, 'tmp'))).toEqual([]);
    expect(jobs.ask(target, basis).state).toBe('busy');
  });
});
