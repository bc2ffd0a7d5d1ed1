import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type ServerResponse, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { DockerApi } from '../../../../src/applier/engines/docker/api.js';

let folder: string;
let server: Server | undefined;
beforeAll(async () => { folder = await mkdtemp(join(tmpdir(), 'whittle-api-')); });
afterAll(async () => { await rm(folder, { recursive: true, force: true }); });
afterEach(async () => {
  server?.closeAllConnections();
  server?.close();
  if (server !== undefined) await once(server, 'close');
  server = undefined;
});

/** A docker that answers as told. */
async function docker(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<DockerApi> {
  const path = join(folder, 'd.sock');
  server = createServer(answer);
  server.listen(path);
  await once(server, 'listening');
  return new DockerApi(path);
}

/** Answers a load once all of it came. */
function afterLoad(text: string, status = 200) {
  return (request: IncomingMessage, response: ServerResponse): void => {
    request.resume();
    request.on('end', () => { response.writeHead(status).end(text); });
  };
}

async function load(api: DockerApi, pieces = 20): Promise<void> {
  const pipe = api.load();
  try {
    for (let at = 0; at < pieces; at++) await pipe.write(Buffer.alloc(100_000, at));
    await pipe.end();
  } finally {
    await pipe.abort();
  }
}

test('what is written arrives, whole and in order', async () => {
  let got = 0;
  const api = await docker((request, response) => {
    request.on('data', (chunk: Buffer) => { got += chunk.length; });
    request.on('end', () => { response.end('{"stream":"Loaded image: app"}\n'); });
  });
  await load(api);
  expect(got).toBe(2_000_000);
});

test.each([
  ['an error among the lines', '{"status":"Loading"}\n{"error":"no such\\nlayer","errorDetail":{"message":"x"}}\n', 200, 'ENGINE_FAILED'],
  ['no space', '{"error":"write /tmp/x: no space left on device"}', 200, 'STORAGE_FULL'],
  ['a refusal', '{"message":"bad archive"}', 500, 'ENGINE_FAILED'],
  ['no JSON', 'hello\n', 200, 'ENGINE_FAILED'],
  ['an endless line', 'x'.repeat(200_000), 200, 'ENGINE_FAILED'],
])('a load that ends with %s fails with a code', async (_, text, status, code) => {
  await expect(load(await docker(afterLoad(text, status)))).rejects.toMatchObject({ code });
});

test('a docker that refuses before all is sent is heard, and one that hangs up is unreachable', async () => {
  const early = await docker((_, response) => { response.writeHead(500, { connection: 'close' }).end('{"message":"not today"}'); });
  await expect(load(early, 500)).rejects.toMatchObject({ code: expect.stringMatching(/^ENGINE_(FAILED|UNREACHABLE)$/) as unknown });
  server?.close();
  server?.closeAllConnections();
  const gone = await docker((request) => { request.once('data', () => request.socket.destroy()); });
  await expect(load(gone, 500)).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
});

test('answers are bounded and typed', async () => {
  await expect((await docker((_, response) => { response.end('[]'); })).getObject('/info')).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
  server?.close();
  await expect((await docker((_, response) => { response.end('{"a":'); })).get('/info')).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
  server?.close();
  await expect((await docker((_, response) => { response.end(Buffer.alloc(20 * 1024 * 1024, 0x20)); })).get('/info')).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
  server?.close();
  expect(await (await docker((_, response) => { response.writeHead(404).end('{}'); })).get('/images/x/json')).toBeUndefined();
  await expect(new DockerApi(join(folder, 'nobody')).get('/info')).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
});
