import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { openStore } from '../../../src/applier/store/open.js';
import { mediaTypes } from '../../../src/oci/index.js';
import { digestOf } from '../../support/images.js';
import { makeMemoryRegistry, type MemoryRegistry } from '../../support/memory-registry.js';
import { pullHere } from '../../support/pull-world.js';
import { startScriptedServer, type ScriptedServer } from '../../support/scripted-server.js';

let memory: MemoryRegistry;
let server: ScriptedServer;
let scratch: string;
const indexes = new Map<string, Buffer>();

/** An index of one thing: an image for this machine, or another index. */
function putIndex(mediaType: string, digest: string, size: number, platform?: object): { digest: string; size: number } {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [{ mediaType, digest, size, ...(platform === undefined ? {} : { platform }) }] }));
  indexes.set(digestOf(bytes), bytes);
  return { digest: digestOf(bytes), size: bytes.length };
}

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'whittle-nested-'));
  memory = await makeMemoryRegistry();
  server = await startScriptedServer(({ method, url, headers }, response) => {
    const name = /\/manifests\/(.*)$/.exec(url)?.[1] ?? '';
    const index = indexes.get(name);
    const answer = index === undefined ? memory.answer({ origin: 'first', method, url, headers }) : { status: 200, headers: { 'content-type': mediaTypes.ociIndex }, body: index };
    response.writeHead(answer.status, { ...answer.headers, 'content-length': String(answer.body.length) }).end(answer.body);
  });
});

afterAll(async () => {
  await server.close();
  await rm(scratch, { recursive: true, force: true });
});

test('an index of an index leads to its image; one that goes on too long leads nowhere', async () => {
  const { manifestDigest, manifest } = memory.v1;
  const inner = putIndex(mediaTypes.ociManifest, manifestDigest, manifest.length, { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : process.arch === 'arm' ? 'arm' : 'amd64' });
  let outer = putIndex(mediaTypes.ociIndex, inner.digest, inner.size);
  const root = join(scratch, 'store');
  const pulled = await pullHere(root, `${server.host}/app@${outer.digest}`);
  expect(pulled.error).toBeNull();
  const store = await openStore(root);
  expect((await store.images()).map((image) => image.manifestDigest)).toEqual([manifestDigest]);
  await store.close();
  for (let deep = 0; deep < 3; deep++) outer = putIndex(mediaTypes.ociIndex, outer.digest, outer.size);
  expect((await pullHere(root, `${server.host}/app@${outer.digest}`)).error).toMatchObject({ code: 'IMAGE_INVALID', message: expect.stringContaining('more than 4 deep') });
});
