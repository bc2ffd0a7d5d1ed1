import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { mediaTypes, sha256Digest, type Descriptor } from '../../../src/oci/index.js';
import { fallbackTag, listReferrers, RegistryClient } from '../../../src/registry/index.js';
import { sendJson, startScriptedServer, type Handler, type ScriptedServer } from '../../support/scripted-server.js';
import { testWithTools } from '../../support/tools.js';
import { expectCode, quick } from './support.js';

const subject = sha256Digest(Buffer.from('subject'));
const entry = (name: string, artifactType: string): Descriptor => ({ mediaType: mediaTypes.ociManifest, digest: sha256Digest(Buffer.from(name)), size: 3, artifactType });
const [a, b, other] = [entry('a', 'x/a'), entry('b', 'x/a'), entry('c', 'x/other')];
const index = (...manifests: Descriptor[]): object => ({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests });

let server: ScriptedServer;
let client: RegistryClient;
beforeEach(async () => {
  server = await startScriptedServer((_request, response) => { sendJson(response, 404, {}); });
  client = new RegistryClient(server.host, { limits: quick });
});
afterEach(async () => {
  await client.close();
  await server.close();
});
const indexType = { 'content-type': mediaTypes.ociIndex };

describe('referrers', () => {
  test('are asked for by type and basis, filtered here whatever the registry did, page by page', async () => {
    server.handler = (request, response) => {
      if (request.url.includes('page=2')) sendJson(response, 200, index(b), indexType);
      else sendJson(response, 200, index(a, other), { ...indexType, link: `</v2/app/referrers/${subject}?page=2>; rel="next"` });
    };
    expect(await listReferrers(client, 'app', subject, { artifactType: 'x/a', basis: [a.digest, b.digest] })).toEqual({ status: 'ready', from: 'api', manifests: [a, b] });
    const query = new URL(server.requests[0]?.url ?? '', server.origin).searchParams;
    expect([query.get('artifactType'), query.getAll('basis')]).toEqual(['x/a', [a.digest, b.digest]]);
    expect(await listReferrers(client, 'app', subject)).toMatchObject({ manifests: [a, other, b] });
  });

  test('pages without an entry of the type are not read for ever, and such of other types hide none', async () => {
    let pages = 0;
    const withPages = (content: (page: number) => readonly Descriptor[]): void => {
      pages = 0;
      server.handler = (_request, response) => { sendJson(response, 200, index(...content(++pages)), { ...indexType, link: `</v2/app/referrers/${subject}?page=${String(pages)}>; rel="next"` }); };
    };
    const bounds = { artifactType: 'x/a', idlePages: 3, enoughEntries: 2 };
    withPages(() => []);
    const error = await expectCode(listReferrers(client, 'app', subject, bounds), 'LIMIT_EXCEEDED');
    expect([error.message, pages]).toEqual([expect.stringContaining('3 pages in a row without one that is wanted'), 3]);
    withPages((page) => (page === 3 ? [a] : [other, other]));
    expect(await listReferrers(client, 'app', subject, bounds)).toMatchObject({ manifests: [a] });
    expect(pages).toBe(6);
    withPages((page) => (page % 3 === 0 ? [b] : [other, other, other]));
    expect(await listReferrers(client, 'app', subject, bounds)).toMatchObject({ manifests: [b, b] });
    expect(pages).toBe(6);
  });

  test('a server that is making one says when to come back, within bounds', async () => {
    const reply = async (headers: Record<string, string>): Promise<unknown> => {
      server.handler = (_request, response) => { response.writeHead(202, headers).end(); };
      return listReferrers(client, 'app', subject);
    };
    expect(await reply({ 'retry-after': '3' })).toEqual({ status: 'pending', retryAfterMs: 3000 });
    expect(await reply({})).toEqual({ status: 'pending', retryAfterMs: 1000 });
    expect(await reply({ 'retry-after': '999999' })).toEqual({ status: 'pending', retryAfterMs: 60_000 });
  });

  test.each<[string, Handler]>([
    ['404', (_request, response) => { sendJson(response, 404, {}); }],
    ['405', (_request, response) => { sendJson(response, 405, {}); }],
    ['a page for people', (_request, response) => { response.writeHead(200, { 'content-type': 'text/html' }).end('<html>'); }],
  ])('without the API (%s) the fallback tag is read', async (_name, answer) => {
    server.handler = (request, response) => {
      if (request.url.endsWith(`/manifests/${fallbackTag(subject)}`)) sendJson(response, 200, index(a, other), indexType);
      else return answer(request, response);
    };
    expect(await listReferrers(client, 'app', subject, { artifactType: 'x/a' })).toEqual({ status: 'ready', from: 'tag', manifests: [a] });
    expect(fallbackTag(subject)).toBe(subject.replace(':', '-'));
  });

  test('neither API nor tag is no referrers', async () => {
    expect(await listReferrers(client, 'app', subject)).toEqual({ status: 'ready', from: 'tag', manifests: [] });
  });

  test.each<[string, object, string]>([
    ['an index with a bad digest', { ...index(), manifests: [{ ...a, digest: 'sha256:x' }] }, 'IMAGE_INVALID'],
    ['no index', { errors: [] }, 'IMAGE_INVALID'],
  ])('%s is refused', async (_name, answer, code) => {
    server.handler = (_request, response) => { sendJson(response, 200, answer, indexType); };
    await expectCode(listReferrers(client, 'app', subject), code);
  });

  test('a failing API is a failure, not an absence', async () => {
    server.handler = (_request, response) => { sendJson(response, 500, {}); };
    await expectCode(listReferrers(client, 'app', subject), 'REGISTRY_UNAVAILABLE');
  });
});

describe('TLS', () => {
  testWithTools('openssl')('a private authority is trusted when named, and not otherwise; a redirect to plain http is refused', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'tls-test-'));
    await promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', join(dir, 'key'), '-out', join(dir, 'cert')]);
    const tls = { key: await readFile(join(dir, 'key'), 'utf8'), cert: await readFile(join(dir, 'cert'), 'utf8') };
    const secure = await startScriptedServer((_request, response) => { sendJson(response, 200, { tags: ['v1'] }); }, tls);
    const trusting = new RegistryClient(secure.host, { limits: quick, ca: tls.cert });
    const wary = new RegistryClient(secure.host, { limits: quick, plainHttp: false });
    expect(await trusting.listTags('app')).toEqual(['v1']);
    const error = await expectCode(wary.listTags('app'), 'REGISTRY_TLS');
    expect(error.message).toContain('SELF_SIGNED');
    const seen = server.requests.length;
    secure.handler = (_request, response) => { response.writeHead(302, { location: `${server.origin}/v2/app/tags/list` }).end(); };
    await expectCode(trusting.listTags('app'), 'REGISTRY_TLS');
    expect(server.requests).toHaveLength(seen);
    await Promise.all([trusting.close(), wary.close(), secure.close(), rm(dir, { recursive: true })]);
  });
});
