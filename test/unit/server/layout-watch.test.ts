import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DeltaServer, ServerEvent } from '../../../src/server/serve.js';
import { ask, fakeRunner, json, referrersTarget, startTestServer, untilReady } from '../../support/delta-server.js';
import { makeImage, type MadeImage } from '../../support/images.js';
import { until } from '../../support/until.js';

let folder: string;
let old: MadeImage;
const servers: DeltaServer[] = [];

const push = (tag: string, content: string, name = 'app'): Promise<MadeImage> => makeImage(join(folder, name), tag, [[{ path: 'a', content }]]);

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'whittle-watch-'));
  old = await push('1.0', 'one');
});
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
  await rm(folder, { recursive: true, force: true });
});

async function start(...sources: string[]): Promise<{ url: string; events: ServerEvent[] }> {
  const images = sources.map((source) => source.replace('oci:', `oci:${folder}/`));
  const { server, url, events } = await startTestServer({ images, root: join(folder, 'root'), run: fakeRunner(), watchIntervalMs: 10 });
  servers.push(server);
  return { url, events };
}

async function digestOfTag(url: string, name: string): Promise<unknown> {
  return (await ask(url, `/v2/${name.replace(':', '/manifests/')}`)).headers['docker-content-digest'];
}

const eventsOf = <K extends 'images' | 'unread'>(events: readonly ServerEvent[], kind: K): readonly Extract<ServerEvent, { event: K }>[] => events.filter((each): each is Extract<ServerEvent, { event: K }> => each.event === kind);

// A look may find an index.json that the test is just writing, so that more may be said than is asked for.
const saidUnread = (events: readonly ServerEvent[], code: string): boolean => eventsOf(events, 'unread').some((each) => each.code === code);

test('a tag that is pushed while the server runs is served, and deltas to it are made', async () => {
  const { url, events } = await start('oci:app');
  const pushed = await push('1.1', 'two');
  await until(async () => await digestOfTag(url, 'app:1.1') === pushed.manifestDigest);
  expect(json(await ask(url, '/v2/app/tags/list'))).toEqual({ name: 'app', tags: ['1.0', '1.1'] });
  expect((await untilReady(url, referrersTarget('app', pushed.manifestDigest, old.configDigest))).headers['whittle-delta']).toBe('ready');
  expect(eventsOf(events, 'images')).toEqual([{ event: 'images', source: `oci:${folder}/app`, added: ['app:1.1'], removed: [] }]);
});

test('a tag that moves leaves its old image: devices are reading it, and have it as a basis', async () => {
  const { url, events } = await start('oci:app:1.0', 'other=oci:app');
  const pushed = await push('1.0', 'two');
  await until(async () => await digestOfTag(url, 'app:1.0') === pushed.manifestDigest && await digestOfTag(url, 'other:1.0') === pushed.manifestDigest);
  expect((await ask(url, `/v2/app/manifests/${old.manifestDigest}`)).body.equals(old.manifest)).toBe(true);
  expect((await ask(url, `/v2/app/blobs/${old.layers[0]!.digest}`)).status).toBe(200);
  expect((await untilReady(url, referrersTarget('app', pushed.manifestDigest, old.configDigest))).headers['whittle-delta']).toBe('ready');
  expect(eventsOf(events, 'images').map(({ added }) => added)).toEqual([['app:1.0'], ['other:1.0']]);
});

test('what is half written is served as it was, said once, and taken when it is whole', async () => {
  const { url, events } = await start('oci:app');
  const index = join(folder, 'app/index.json');
  const pushed = await push('1.1', 'two');
  await until(async () => await digestOfTag(url, 'app:1.1') === pushed.manifestDigest);
  const whole = await readFile(index);
  await writeFile(index, whole.subarray(0, 40));
  await until(() => saidUnread(events, 'IMAGE_INVALID'));
  expect(await digestOfTag(url, 'app:1.1')).toBe(pushed.manifestDigest);
  // An index that came before a blob: the blob comes, and no change of the index with it.
  const third = await push('1.2', 'three', 'next');
  const blob = (root: string): string => join(folder, root, 'blobs/sha256', third.layers[0]!.digest.slice(7));
  for (const digest of [third.manifestDigest, third.configDigest]) await rename(join(folder, 'next/blobs/sha256', digest.slice(7)), join(folder, 'app/blobs/sha256', digest.slice(7)));
  await rename(join(folder, 'next/index.json'), index);
  await until(() => saidUnread(events, 'BLOB_MISSING'));
  await rename(blob('next'), blob('app'));
  await until(async () => await digestOfTag(url, 'app:1.2') === third.manifestDigest);
  expect((await ask(url, '/v2/app/manifests/1.1')).status).toBe(404);
  expect(eventsOf(events, 'unread').filter(({ code }) => code === 'BLOB_MISSING')).toHaveLength(1);
  expect(eventsOf(events, 'images').at(-1)).toMatchObject({ added: ['app:1.2'], removed: ['app:1.0', 'app:1.1'] });
});

test('a tag that another source has already changes nothing', async () => {
  await push('2.0', 'two', 'more');
  const { url, events } = await start('oci:app', 'app=oci:more');
  await push('1.0', 'three', 'more');
  await until(() => saidUnread(events, 'USAGE'));
  expect(eventsOf(events, 'unread').at(-1)?.message).toBe('two sources are both app:1.0');
  expect(await digestOfTag(url, 'app:1.0')).toBe(old.manifestDigest);
});
