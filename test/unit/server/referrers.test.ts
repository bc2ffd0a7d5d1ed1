import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { appendFile, mkdtemp, readdir, readFile, rm, truncate, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WhittleError } from '../../../src/core/errors.js';
import type { DeltaServer } from '../../../src/server/serve.js';
import { ask, fakeRunner, json, referrersTarget, startTestServer, untilReady } from '../../support/delta-server.js';
import { digestOf, makeImage, type MadeImage } from '../../support/images.js';

interface Listed { readonly manifests: readonly { readonly digest: string; readonly size: number; readonly artifactType: string; readonly annotations: Record<string, string> }[]; readonly annotations?: Record<string, string> }

let folder: string;
let [oldest, old, target]: MadeImage[] = [];
const servers: DeltaServer[] = [];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'whittle-referrers-'));
  oldest = await makeImage(join(folder, 'app'), 'oldest', [[{ path: 'a', content: '1' }]]);
  old = await makeImage(join(folder, 'app'), 'old', [[{ path: 'a', content: '2' }]]);
  target = await makeImage(join(folder, 'app'), 'new', [[{ path: 'a', content: '3' }]]);
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  await rm(folder, { recursive: true, force: true });
});

async function start(run: ReturnType<typeof fakeRunner>, options: { failureMemoryMs?: number } = {}): Promise<string> {
  const { server, url } = await startTestServer({ images: [`oci:${join(folder, 'app')}`], root: join(folder, 'root'), run, ...options });
  servers.push(server);
  return url;
}

async function stop(): Promise<void> {
  for (const server of servers.splice(0)) await server.close();
}

describe('referrers', () => {
  test('a plain referrers call lists and orders nothing; unknown digests have no referrers', async () => {
    const run = fakeRunner();
    const url = await start(run);
    for (const digest of [target!.manifestDigest, `sha256:${'0'.repeat(64)}`]) {
      const got = await ask(url, `/v2/app/referrers/${digest}`);
      expect([got.status, got.headers['content-type'], got.headers['oci-filters-applied']]).toEqual([200, 'application/vnd.oci.image.index.v1+json', undefined]);
      expect((json(got) as Listed).manifests).toEqual([]);
    }
    const head = await ask(url, referrersTarget('app', target!.manifestDigest, old!.configDigest), { method: 'HEAD' });
    expect(head.status).toBe(200);
    const other = await ask(url, `/v2/app/referrers/${target!.manifestDigest}?artifactType=application%2Fx&basis=${old!.configDigest}`);
    expect([other.status, other.headers['oci-filters-applied'], (json(other) as Listed).manifests.length]).toEqual([200, 'artifactType', 0]);
    expect(run.calls).toBe(0);
  });

  test('an order is computed once however many ask, answered 202 meanwhile, and then listed for every kind of call', async () => {
    let open = (): void => undefined;
    const opened = new Promise<void>((resolve) => { open = resolve; });
    const run = fakeRunner({ hold: () => opened });
    const url = await start(run);
    const asked = referrersTarget('app', target!.manifestDigest, old!.configDigest);
    const first = await Promise.all(Array.from({ length: 40 }, () => ask(url, asked)));
    expect(new Set(first.map((answer) => answer.status))).toEqual(new Set([202]));
    open();
    const ready = await untilReady(url, asked);
    expect(run.calls).toBe(1);
    expect(ready.headers).toMatchObject({ 'whittle-delta': 'ready', 'oci-filters-applied': 'artifactType' });
    const [entry] = (json(ready) as Listed).manifests;
    expect(entry).toMatchObject({ artifactType: 'application/vnd.whittle.delta.v1', annotations: { 'dev.whittle.basis.config': old!.configDigest } });
    expect((json(await ask(url, `/v2/app/referrers/${target!.manifestDigest}`)) as Listed).manifests).toEqual([entry]);
    const manifest = await ask(url, `/v2/app/manifests/${entry!.digest}`);
    expect([digestOf(manifest.body), manifest.body.length]).toEqual([entry!.digest, entry!.size]);
    const { layers, config, subject } = (json(manifest) as { layers: { digest: string; size: number }[]; config: { digest: string }; subject: { digest: string } });
    expect(subject.digest).toBe(target!.manifestDigest);
    for (const { digest } of [...layers, config]) expect(digestOf((await ask(url, `/v2/app/blobs/${digest}`)).body)).toBe(digest);
  });

  test('of several bases the delta that exists is given; without one the first known basis is ordered', async () => {
    const run = fakeRunner();
    const url = await start(run);
    await untilReady(url, referrersTarget('app', target!.manifestDigest, `sha256:${'1'.repeat(64)}`, oldest!.configDigest, old!.configDigest));
    expect(run.calls).toBe(1);
    const listed = json(await ask(url, referrersTarget('app', target!.manifestDigest, old!.configDigest, oldest!.configDigest))) as Listed;
    expect(listed.manifests.map((entry) => entry.annotations['dev.whittle.basis.config'])).toEqual([oldest!.configDigest]);
    await untilReady(url, referrersTarget('app', target!.manifestDigest, old!.configDigest));
    expect(run.calls).toBe(2);
    const both = json(await ask(url, referrersTarget('app', target!.manifestDigest, old!.configDigest))) as Listed;
    expect(both.manifests.map((entry) => entry.annotations['dev.whittle.basis.config'])).toEqual([old!.configDigest, oldest!.configDigest]);
  });

  test('what cannot be made is said and not made again', async () => {
    const failing = fakeRunner({ fail: () => new WhittleError('TAR_CORRUPT', 'layer 3 is\nbroken \u0007ü') });
    const url = await start(failing);
    const unknown = await ask(url, referrersTarget('app', target!.manifestDigest, `sha256:${'1'.repeat(64)}`));
    expect([unknown.status, unknown.headers['whittle-delta']]).toEqual([200, 'unknown-basis']);
    const asked = referrersTarget('app', target!.manifestDigest, old!.configDigest);
    const failed = await untilReady(url, asked);
    expect([failed.status, failed.headers['whittle-delta'], failed.headers['whittle-problem']]).toEqual([200, 'failed', 'TAR_CORRUPT: layer 3 is?broken ?']);
    expect((json(failed) as Listed).annotations).toEqual({ 'dev.whittle.problem': 'TAR_CORRUPT: layer 3 is?broken ?' });
    for (let times = 0; times < 5; times++) expect((await ask(url, asked)).headers['whittle-delta']).toBe('failed');
    expect(failing.calls).toBe(1);
  });

  test('a delta that is not smaller than the layers is not listed, and not made again after a restart', async () => {
    const large = fakeRunner({ dataBytes: 500_000 });
    let url = await start(large);
    const asked = referrersTarget('app', target!.manifestDigest, old!.configDigest);
    const got = await untilReady(url, asked);
    expect([got.headers['whittle-delta'], (json(got) as Listed).manifests.length]).toEqual(['not-smaller', 0]);
    await stop();
    url = await start(large);
    expect((await ask(url, asked)).headers['whittle-delta']).toBe('not-smaller');
    expect(large.calls).toBe(1);
  });
});

describe('after a restart', () => {
  const asked = (): string => referrersTarget('app', target!.manifestDigest, old!.configDigest);

  test('deltas are there without being made again', async () => {
    const run = fakeRunner();
    const before = await untilReady(await start(run), asked());
    await stop();
    const after = await ask(await start(run), asked());
    expect([after.status, after.body.equals(before.body)]).toEqual([200, true]);
    expect(run.calls).toBe(1);
  });

  test.each([
    ['a blob with a flipped byte', async (blobs: string) => {
      const path = await largest(blobs);
      const bytes = await readFile(path);
      bytes[bytes.length >> 1]! ^= 1;
      await writeFile(path, bytes);
    }],
    ['a blob cut short', async (blobs: string) => { await truncate(await largest(blobs), 10); }],
    ['a blob that grew', async (blobs: string) => { await appendFile(await largest(blobs), 'x'); }],
    ['a missing blob', async (blobs: string) => { await unlink(await largest(blobs)); }],
    ['an empty record', async (_: string, records: string) => { await truncate(await largest(records), 0); }],
    ['a torn record', async (_: string, records: string) => { await truncate(await largest(records), 300); }],
    ['a delta in the format of another version of Whittle', async (_: string, records: string) => {
      const path = await largest(records);
      await writeFile(path, (await readFile(path, 'utf8')).replace(/("deltaFormat": )\d+/, '$10'));
    }],
    ['a record of another pair', async (_: string, records: string) => {
      const path = await largest(records);
      await writeFile(path, (await readFile(path, 'utf8')).replaceAll(old!.configDigest, oldest!.configDigest));
    }],
  ])('%s: the delta is dropped, said so, and made anew', async (_, damage) => {
    const run = fakeRunner();
    await untilReady(await start(run), asked());
    await stop();
    await damage(join(folder, 'root/deltas/blobs'), join(folder, 'root/deltas/records'));
    const { server, url, events } = await startTestServer({ images: [`oci:${join(folder, 'app')}`], root: join(folder, 'root'), run });
    servers.push(server);
    expect(events).toContainEqual(expect.objectContaining({ event: 'store', deltas: 0, dropped: [expect.any(String)] }));
    expect(await readdir(join(folder, 'root/deltas/blobs'))).toEqual([]);
    const again = await untilReady(url, asked());
    expect(run.calls).toBe(2);
    const [entry] = (json(again) as Listed).manifests;
    expect(digestOf((await ask(url, `/v2/app/manifests/${entry!.digest}`)).body)).toBe(entry!.digest);
  });

  test('what a crash left between blobs and record, and in tmp, is swept away', async () => {
    const run = fakeRunner();
    await untilReady(await start(run), asked());
    await stop();
    const kept = await readdir(join(folder, 'root/deltas/blobs'));
    await writeFile(join(folder, 'root/deltas/blobs', 'f'.repeat(64)), 'left over');
    await writeFile(join(folder, 'root/deltas/records', '.x.json.abc.tmp'), '{');
    await writeFile(join(folder, 'root/tmp/left'), 'x');
    const url = await start(run);
    expect((await readdir(join(folder, 'root/deltas/blobs'))).sort()).toEqual(kept.sort());
    expect(await readdir(join(folder, 'root/deltas/records'))).toHaveLength(1);
    expect(await readdir(join(folder, 'root/tmp'))).toEqual([]);
    expect((await ask(url, asked())).status).toBe(200);
  });

  test('a root has one server at a time', async () => {
    await start(fakeRunner());
    await expect(start(fakeRunner())).rejects.toMatchObject({ code: 'SERVER_BUSY' });
    await stop();
    await start(fakeRunner());
  });
});

async function largest(directory: string): Promise<string> {
  const sizes = await Promise.all((await readdir(directory)).map(async (name) => ({ path: join(directory, name), size: (await readFile(join(directory, name))).length })));
  return sizes.sort((a, b) => b.size - a.size)[0]!.path;
}
