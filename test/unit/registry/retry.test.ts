import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { gzipSync } from 'node:zlib';
import { mediaTypes, sha256Digest, type Descriptor } from '../../../src/oci/index.js';
import { transportError } from '../../../src/registry/failures.js';
import { parseRetryAfter } from '../../../src/registry/header-values.js';
import { RegistryClient } from '../../../src/registry/index.js';
import { noise } from '../../support/images.js';
import { sendJson, startScriptedServer, type ScriptedServer } from '../../support/scripted-server.js';
import { collect, expectCode, failure, quick } from './support.js';

const content = noise(300_000);
const blob: Descriptor = { mediaType: mediaTypes.ociLayerTar, digest: sha256Digest(content), size: content.length };

let server: ScriptedServer;
let client: RegistryClient;
const told: string[] = [];

beforeEach(async () => {
  server = await startScriptedServer((_request, response) => { sendJson(response, 404, {}); });
  told.length = 0;
  client = new RegistryClient(server.host, { limits: quick, onRetry: (error) => { told.push(error.code); } });
});
afterEach(async () => {
  await client.close();
  await server.close();
});

/** Serves the blob with Range, as a good registry does, from `bytes`. */
function serve(range: string | undefined, response: Parameters<ScriptedServer['handler']>[1], bytes = content, upTo = bytes.length): void {
  const from = Number(/^bytes=([0-9]+)-/.exec(range ?? '')?.[1] ?? 0);
  response.writeHead(from > 0 ? 206 : 200, { 'content-length': String(bytes.length - from), ...(from > 0 ? { 'content-range': `bytes ${String(from)}-${String(bytes.length - 1)}/${String(bytes.length)}` } : {}) });
  if (upTo === bytes.length) response.end(bytes.subarray(from));
  else response.write(bytes.subarray(from, upTo), () => { setTimeout(() => response.destroy(), 20); });
}

describe('what is tried again', () => {
  test('server errors, as often as the limits say, then the last one is thrown', async () => {
    server.handler = (_request, response) => { sendJson(response, 503, { errors: [{ code: 'UNAVAILABLE', message: 'coffee' }] }); };
    const error = await expectCode(client.listTags('app'), 'REGISTRY_UNAVAILABLE');
    expect(error.message).toContain('UNAVAILABLE: coffee');
    expect(server.requests).toHaveLength(4);
    expect(told).toHaveLength(3);
  });

  test('a broken connection, until it works', async () => {
    server.handler = (_request, response) => {
      if (server.requests.length < 3) response.destroy();
      else sendJson(response, 200, { tags: ['v1'] });
    };
    expect(await client.listTags('app')).toEqual(['v1']);
  });

  test.each([[400, 'REGISTRY_BAD_RESPONSE'], [401, 'REGISTRY_UNAUTHORIZED'], [403, 'REGISTRY_FORBIDDEN'], [404, 'REGISTRY_NOT_FOUND'], [501, 'REGISTRY_BAD_RESPONSE']])('status %i is final: %s', async (status, code) => {
    server.handler = (_request, response) => { sendJson(response, status, {}); };
    await expectCode(client.getManifest('app', 'v1'), code);
    expect(server.requests).toHaveLength(1);
  });

  test('nobody listening', async () => {
    await server.close();
    const error = await expectCode(client.listTags('app'), 'REGISTRY_UNREACHABLE');
    expect(error.message).toContain('ECONNREFUSED');
    expect(told).toHaveLength(3);
    server = await startScriptedServer(() => undefined);
  });

  // A byte now and then is no silence.
  test.each<[string, number, (client: RegistryClient) => Promise<unknown>, string, string]>([
    ['a manifest', 200, (impatient) => impatient.getManifest('app', 'v1'), 'REGISTRY_UNREACHABLE', 'not whole within the time allowed'],
    ['a listing', 200, (impatient) => impatient.listTags('app'), 'REGISTRY_UNREACHABLE', 'not whole within the time allowed'],
    ['what an error says', 404, (impatient) => impatient.getManifest('app', 'v1'), 'REGISTRY_NOT_FOUND', '404'],
  ])('%s that comes byte by byte', async (_name, status, ask, code, words) => {
    const impatient = new RegistryClient(server.host, { limits: { ...quick, documentTimeoutMs: 300, attempts: 2 } });
    const drips = new Set<NodeJS.Timeout>();
    server.handler = (_request, response) => {
      response.writeHead(status, { 'content-length': '4000', 'content-type': mediaTypes.ociManifest });
      drips.add(setInterval(() => response.write(' '), 20));
    };
    const startedMs = performance.now();
    expect((await expectCode(ask(impatient), code)).message).toContain(words);
    expect(performance.now() - startedMs).toBeLessThan(5000);
    await impatient.close();
    for (const drip of drips) clearInterval(drip);
  });

  test('a silent server', async () => {
    const impatient = new RegistryClient(server.host, { limits: { ...quick, headersTimeoutMs: 100, attempts: 2 } });
    server.handler = () => undefined;
    await expectCode(impatient.listTags('app'), 'REGISTRY_UNREACHABLE');
    await impatient.close();
  });

  test('the caller can stop it at once', async () => {
    server.handler = (_request, response) => { sendJson(response, 503, {}, { 'retry-after': '30' }); };
    const stop = new AbortController();
    setTimeout(() => { stop.abort(); }, 100);
    const startMs = performance.now();
    await expectCode(client.listTags('app', { signal: stop.signal }), 'INTERRUPTED');
    expect(performance.now() - startMs).toBeLessThan(20_000);
    await expectCode(client.listTags('app', { signal: stop.signal }), 'INTERRUPTED');
  });
});

describe('Retry-After', () => {
  test('is waited for, and longer than a backoff', async () => {
    server.handler = (_request, response) => {
      if (server.requests.length === 1) sendJson(response, 429, {}, { 'retry-after': '1' });
      else sendJson(response, 200, { tags: [] });
    };
    const startMs = performance.now();
    await client.listTags('app');
    expect(performance.now() - startMs).toBeGreaterThan(950);
  });

  test('is not waited for beyond its limit: the error says how long', async () => {
    server.handler = (_request, response) => { sendJson(response, 429, {}, { 'retry-after': '3600' }); };
    const error = await expectCode(client.listTags('app'), 'REGISTRY_RATE_LIMITED');
    expect(error.data['retryAfterMs']).toBe(3_600_000);
    expect(server.requests).toHaveLength(1);
  });

  test('is read as seconds or as a date, and never trusted to be either', () => {
    expect(parseRetryAfter('5')).toBe(5000);
    expect(parseRetryAfter('Wed, 21 Oct 2015 07:28:10 GMT', Date.UTC(2015, 9, 21, 7, 28, 0))).toBe(10_000);
    expect(parseRetryAfter('Wed, 21 Oct 2015 07:28:10 GMT', Date.UTC(2016, 0, 1))).toBe(0);
    for (const text of [undefined, '', '-1', '1e9', 'soon', '99999999999']) expect(parseRetryAfter(text)).toBeUndefined();
  });
});

describe('blobs', () => {
  test('a body that is cut continues where it ended', async () => {
    server.handler = (request, response) => { serve(request.headers['range'], response, content, server.requests.length < 4 ? server.requests.length * 70_000 : content.length); };
    expect((await collect(client.openBlob('app', blob))).equals(content)).toBe(true);
    expect(server.requests).toHaveLength(4);
    expect(server.requests[1]?.headers['range']).toMatch(/^bytes=[0-9]+-$/);
  });

  test('a server without Range sends the whole again, and the known part is skipped', async () => {
    server.handler = (_request, response) => { serve(undefined, response, content, server.requests.length < 3 ? 100_000 : content.length); };
    expect((await collect(client.openBlob('app', blob))).equals(content)).toBe(true);
    expect(server.requests).toHaveLength(3);
  });

  test('a body that stalls is given up and continued', async () => {
    server.handler = (request, response) => {
      if (server.requests.length > 1) serve(request.headers['range'], response);
      else response.writeHead(200, { 'content-length': String(content.length) }).write(content.subarray(0, 1000));
    };
    expect((await collect(client.openBlob('app', blob))).equals(content)).toBe(true);
  });

  test('a range from elsewhere is never joined on', async () => {
    server.handler = (request, response) => {
      if (request.headers['range'] === undefined) serve(undefined, response, content, 100_000);
      else response.writeHead(206, { 'content-range': `bytes 200000-${String(content.length - 1)}/${String(content.length)}` }).end(content.subarray(200_000));
    };
    const error = await expectCode(collect(client.openBlob('app', blob)), 'REGISTRY_BAD_RESPONSE');
    expect(error.message).toContain('got byte 200000');
  });

  test('wrong bytes end in an error after the last of them, not in a blob', async () => {
    const wrong = Buffer.from(content);
    wrong[123_456] = wrong[123_456]! ^ 1;
    server.handler = (_request, response) => { serve(undefined, response, wrong); };
    await expectCode(collect(client.openBlob('app', blob)), 'DIGEST_MISMATCH');
    await expectCode(client.readBlob('app', blob, content.length), 'DIGEST_MISMATCH');
  });

  test('more bytes than the descriptor names are not passed on', async () => {
    const longer = Buffer.concat([content, Buffer.alloc(1_000_000)]);
    server.handler = (_request, response) => { response.writeHead(200, { 'transfer-encoding': 'chunked' }).end(longer); };
    let got = 0;
    const reading = (async () => { for await (const chunk of client.openBlob('app', blob)) got += chunk.length; })();
    await expectCode(reading, 'DIGEST_MISMATCH');
    expect(got).toBeLessThanOrEqual(content.length);
  });

  test('a body that was compressed on the way is refused', async () => {
    server.handler = (_request, response) => { response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(content)); };
    await expectCode(collect(client.openBlob('app', blob)), 'REGISTRY_BAD_RESPONSE');
    await expectCode(client.openBlobRange('app', blob.digest, 5), 'REGISTRY_BAD_RESPONSE');
    expect(server.requests[0]?.headers['accept-encoding']).toBe('identity');
  });

  test('a missing blob is said to be missing', async () => {
    await expectCode(collect(client.openBlob('app', blob)), 'BLOB_MISSING');
    await expectCode(client.openBlobRange('app', blob.digest, 5), 'BLOB_MISSING');
    expect(await client.headBlob('app', blob.digest)).toBeUndefined();
  });

  test('a blob larger than wanted in memory is not asked for', async () => {
    await expectCode(client.readBlob('app', blob, 1000), 'LIMIT_EXCEEDED');
    expect(server.requests).toHaveLength(0);
  });

  test('an empty blob', async () => {
    server.handler = (_request, response) => { response.writeHead(200, { 'content-length': '0' }).end(); };
    expect(await collect(client.openBlob('app', { ...blob, digest: sha256Digest(Buffer.alloc(0)), size: 0 }))).toHaveLength(0);
  });

  test('ranges are reported as they came', async () => {
    const ask = async (handler: ScriptedServer['handler']): Promise<object> => {
      server.handler = handler;
      const { status, offset, totalBytes, body } = await client.openBlobRange('app', blob.digest, 1000, { ifRange: '"a"' });
      const got = await collect(body);
      return { status, offset, totalBytes, got: got.length };
    };
    expect(await ask((_request, response) => { response.writeHead(206, { 'content-range': 'bytes 1000-1499/300000', etag: '"a"' }).end(content.subarray(1000, 1500)); }))
      .toEqual({ status: 206, offset: 1000, totalBytes: 300_000, got: 500 });
    expect(server.requests[0]?.headers).toMatchObject({ range: 'bytes=1000-', 'if-range': '"a"' });
    expect(await ask((_request, response) => { response.writeHead(200, { 'content-length': '300000', etag: 'W/"b"' }).end(content); }))
      .toEqual({ status: 200, offset: 0, totalBytes: 300_000, got: 300_000 });
    expect(await ask((_request, response) => { response.writeHead(206, { 'content-range': 'bytes 1001-1500/300000' }).end(content.subarray(1001, 1501)); }))
      .toMatchObject({ status: 206, offset: 1001 });
    expect(await ask((_request, response) => { response.writeHead(206, { 'content-range': 'bytes 9-5/300000' }).end(); })).toMatchObject({ status: 206, offset: null });
    expect(await ask((_request, response) => { response.writeHead(416, { 'content-range': 'bytes */300000' }).end(); })).toMatchObject({ status: 416, offset: null, totalBytes: 300_000 });
    expect(await ask((_request, response) => { response.writeHead(503).end(); })).toMatchObject({ status: 503 });
    expect(server.requests).toHaveLength(6);
  });
});

describe('what a server says', () => {
  test('is shown, in one line, printable, bounded, and without what was in the URL', async () => {
    const elsewhere = await startScriptedServer((_request, response) => { response.writeHead(403, { 'content-type': 'application/json' }).end(JSON.stringify({ errors: [{ code: 'DENIED', message: `a\u001b[31m\n${'x'.repeat(100_000)}` }] })); });
    server.handler = (_request, response) => { response.writeHead(307, { location: `${elsewhere.origin}/store?X-Signature=verysecret` }).end(); };
    const error = await failure(collect(client.openBlob('app', blob)));
    expect(error.code).toBe('REGISTRY_FORBIDDEN');
    expect(error.message.length).toBeLessThan(700);
    expect(JSON.stringify([error.message, error.data])).not.toMatch(/verysecret|\\u001b|\\n/);
    await elsewhere.close();
  });

  test('a redirect in a circle ends', async () => {
    server.handler = (request, response) => { response.writeHead(302, { location: request.url }).end(); };
    await expectCode(client.listTags('app'), 'REGISTRY_BAD_RESPONSE');
    expect(server.requests).toHaveLength(6);
  });

  test.each(['file:///etc/passwd', '', 'http://', 'gopher://127.0.0.1/'])('a redirect to %j is not followed', async (location) => {
    server.handler = (_request, response) => { response.writeHead(302, { location }).end(); };
    await expectCode(client.listTags('app'), 'REGISTRY_BAD_RESPONSE');
  });

  test('pages are followed on the same host only, and never for ever', async () => {
    server.handler = (request, response) => { sendJson(response, 200, { tags: [request.url] }, { link: '</v2/app/tags/list?last=b&n=1>; rel="next"' }); };
    const circle = await expectCode(client.listTags('app'), 'REGISTRY_BAD_RESPONSE');
    expect(circle.message).toContain('circle');
    server.handler = (_request, response) => { sendJson(response, 200, { tags: ['a'] }, { link: '<http://127.0.0.1:1/v2/app/tags/list>; rel="next"' }); };
    await expectCode(client.listTags('app'), 'REGISTRY_BAD_RESPONSE');
    let page = 0;
    server.handler = (_request, response) => { sendJson(response, 200, { tags: [String(page)] }, page++ < 3 ? { link: `</v2/app/tags/list?p=${String(page)}>; rel="next"` } : {}); };
    expect(await client.listTags('app')).toEqual(['0', '1', '2', '3']);
    server.handler = (_request, response) => { sendJson(response, 200, { tags: ['a'] }, { link: `</v2/app/tags/list?p=${String(page++)}>; rel="next"` }); };
    const few = new RegistryClient(server.host, { limits: { ...quick, pages: 7 } });
    await expectCode(few.listTags('app'), 'LIMIT_EXCEEDED');
    await few.close();
  });

  test.each(['<html>hello</html>', '[]', '{"tags":[1]}', '{"tags":{}}', '', '{"tags":'])('a list that is %j is refused', async (text) => {
    server.handler = (_request, response) => { response.writeHead(200).end(text); };
    await expectCode(client.listTags('app'), 'REGISTRY_BAD_RESPONSE');
  });

  test('manifests have the digest that they are asked by, or that the registry names', async () => {
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [] }));
    server.handler = (_request, response) => { response.writeHead(200, { 'content-type': mediaTypes.ociIndex }).end(bytes); };
    expect((await client.getManifest('app', 'v1')).descriptor).toEqual({ mediaType: mediaTypes.ociIndex, digest: sha256Digest(bytes), size: bytes.length });
    await expectCode(client.getManifest('app', blob.digest), 'DIGEST_MISMATCH');
    server.handler = (_request, response) => { response.writeHead(200, { 'docker-content-digest': blob.digest }).end(bytes); };
    await expectCode(client.getManifest('app', 'v1'), 'DIGEST_MISMATCH');
    server.handler = (_request, response) => { response.writeHead(200).end(Buffer.alloc(5_000_000, 0x20)); };
    await expectCode(client.getManifest('app', 'v1'), 'REGISTRY_BAD_RESPONSE');
  });

  test.each([['text/html; charset=utf-8', '<html>Please log in</html>'], ['text/plain', ''], ['application/json', '[]']])('a page of type %s in place of a manifest is the doing of whoever answers, not of the image', async (type, text) => {
    server.handler = (_request, response) => { response.writeHead(200, { 'content-type': type }).end(text); };
    const error = await expectCode(client.getManifest('app', 'v1'), 'REGISTRY_BAD_RESPONSE');
    expect(error.message).toContain(type.split(';')[0]);
    expect(server.requests).toHaveLength(1);
  });

  test('what this process lacks is no broken connection', () => {
    const shortage = new RangeError('WebAssembly.Instance(): Out of memory: Cannot allocate Wasm memory for new instance');
    expect(transportError(shortage, new URL('http://registry.test/v2/'), 'a manifest', undefined)).toBe(shortage);
    expect(transportError(Object.assign(new Error('connect EMFILE'), { code: 'EMFILE' }), new URL('http://registry.test/v2/'), 'a manifest', undefined)).toMatchObject({ code: 'EMFILE' });
    expect(transportError(new RangeError('other'), new URL('http://registry.test/v2/'), 'a manifest', undefined)).toMatchObject({ code: 'REGISTRY_UNREACHABLE' });
  });

  test('names that are no names never reach the network', async () => {
    await expectCode(client.listTags('../../etc'), 'USAGE');
    await expectCode(client.getManifest('app', 'a/b?c'), 'USAGE');
    await expectCode(client.getManifest('app?x', 'v1'), 'USAGE');
    expect(server.requests).toHaveLength(0);
  });
});
