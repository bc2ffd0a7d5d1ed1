import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { ServerResponse } from 'node:http';
import { isWhittleError } from '../../../src/core/errors.js';
import { mediaTypes, sha256Digest, type Descriptor } from '../../../src/oci/index.js';
import { RegistryClient } from '../../../src/registry/index.js';
import { noise } from '../../support/images.js';
import { sendJson, startScriptedServer, type Handler, type ScriptedServer } from '../../support/scripted-server.js';
import { collect, expectCode, quick } from './support.js';

const content = noise(40_000);
const blob: Descriptor = { mediaType: mediaTypes.ociLayerTar, digest: sha256Digest(content), size: content.length };

let server: ScriptedServer;
beforeEach(async () => {
  server = await startScriptedServer(() => undefined);
});
afterEach(async () => {
  await server.close();
});

/** Sends this much of a body and ends the connection: all of it arrives, and nothing after it. */
function breakOff(response: ServerResponse, start: Buffer): void {
  response.write(start);
  response.socket?.end();
}

/** A registry that wants a token, is busy for once, and breaks the first answer off. Every answer says how long it is. */
function hardRegistry(): Handler {
  const tokenAt = `Bearer realm="${server.origin}/token"`;
  let gets = 0;
  return (request, response) => {
    if (request.url.startsWith('/token')) { sendJson(response, 200, { token: 'x'.repeat(700) }); return; }
    if (request.headers.authorization === undefined) { sendJson(response, 401, { errors: [{ message: 'who?' }] }, { 'www-authenticate': tokenAt }); return; }
    const from = Number(/^bytes=([0-9]+)-/.exec(request.headers['range'] ?? '')?.[1] ?? 0);
    gets++;
    if (gets === 1) { sendJson(response, 503, { errors: [{ message: 'y'.repeat(500) }] }); return; }
    const head = { 'content-length': String(content.length - from), ...(from > 0 ? { 'content-range': `bytes ${String(from)}-${String(content.length - 1)}/${String(content.length)}` } : {}) };
    response.writeHead(from > 0 ? 206 : 200, head);
    if (gets === 2) breakOff(response, content.subarray(0, 30_000));
    else response.end(content.subarray(from));
  };
}

/** Reads the blob with so many bytes to spend. */
async function read(maxReceivedBytes?: number): Promise<{ readonly result: string; readonly receivedBytes: number }> {
  server.handler = hardRegistry();
  const client = new RegistryClient(server.host, { limits: quick, maxReceivedBytes });
  try {
    const bytes = await collect(client.openBlob('app', blob));
    return { result: bytes.equals(content) ? 'whole' : 'wrong', receivedBytes: client.transport.receivedBytes };
  } catch (error) {
    return { result: isWhittleError(error) ? error.code : String(error), receivedBytes: client.transport.receivedBytes };
  } finally {
    await client.close();
  }
}

test('tokens, errors and what was broken off are counted, and no limit is exceeded, wherever it falls', async () => {
  const free = await read();
  expect(free.result).toBe('whole');
  expect(free.receivedBytes).toBeGreaterThan(content.length + 700 + 500);
  expect(await read(free.receivedBytes)).toEqual(free);
  for (const less of [1, 100, 10_000, 39_000, 40_600, 41_200, free.receivedBytes]) {
    const limit = free.receivedBytes - less;
    const { result, receivedBytes } = await read(limit);
    expect(result).toBe('BUDGET_EXCEEDED');
    expect(receivedBytes).toBeLessThanOrEqual(limit);
  }
});

test('an answer that does not say its length is ended where it becomes too long, and a manifest in pieces is counted each time', async () => {
  const client = new RegistryClient(server.host, { limits: quick, maxReceivedBytes: 20_000 });
  // What a HEAD says of a length is no body.
  server.handler = (_request, response) => { response.writeHead(200, { 'content-length': '99999' }).end(); };
  expect(await client.headBlob('app', blob.digest)).toEqual({ sizeBytes: 99_999 });
  server.handler = (_request, response) => { breakOff(response.writeHead(200, { 'content-type': mediaTypes.ociIndex, 'transfer-encoding': 'chunked' }), content.subarray(0, 9000)); };
  await expectCode(client.getManifest('app', 'v1'), 'BUDGET_EXCEEDED');
  expect(server.requests).toHaveLength(1 + 3);
  await client.close();
});
