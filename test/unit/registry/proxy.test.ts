import { afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { RegistryClient, type TransportOptions } from '../../../src/registry/index.js';
import { environmentProxies } from '../../../src/registry/proxy.js';
import { selfSigned, TestProxy } from '../../support/test-proxy.js';
import { sendJson, startScriptedServer, type ScriptedServer } from '../../support/scripted-server.js';
import { testWithTools } from '../../support/tools.js';
import { expectCode, quick } from './support.js';

let tls: { key: string; cert: string };
let registry: ScriptedServer;
let proxy: TestProxy;
let at: string;
const clients: RegistryClient[] = [];

beforeAll(async () => {
  tls = await selfSigned('DNS:registry.test') ?? { key: '', cert: '' };
});
beforeEach(async () => {
  registry = await startScriptedServer((_request, response) => { sendJson(response, 200, { tags: ['v1'] }); }, tls.key === '' ? undefined : tls);
  proxy = new TestProxy(() => registry.host);
  at = await proxy.listen();
});
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
  await Promise.all([proxy.close(), registry.close()]);
});

function open(host: string, env: NodeJS.ProcessEnv, options: TransportOptions = {}): RegistryClient {
  const client = new RegistryClient(host, { limits: quick, env, ...options });
  clients.push(client);
  return client;
}

describe('a registry behind a proxy', () => {
  testWithTools('openssl')('is reached over TLS by a tunnel, with the certificate of the registry itself', async () => {
    const client = open('registry.test', { HTTPS_PROXY: `http://${at}` }, { ca: tls.cert });
    expect(await client.listTags('app')).toEqual(['v1']);
    expect(await client.listTags('app')).toEqual(['v1']);
    expect(new Set(proxy.asked)).toEqual(new Set(['CONNECT registry.test:443']));
    expect(registry.requests[0]?.headers).toMatchObject({ host: 'registry.test' });
    expect(registry.requests[0]?.headers['proxy-authorization']).toBeUndefined();
    await expectCode(open('other.test:8443', { https_proxy: at }, { ca: tls.cert }).listTags('app'), 'REGISTRY_TLS');
    expect(proxy.asked.at(-1)).toBe('CONNECT other.test:8443');
  });

  testWithTools('openssl')('that wants a login gets the one in its URL, and nobody else does', async () => {
    proxy.login = 'me:p@ss';
    const client = open('registry.test', { HTTPS_PROXY: `http://me:p%40ss@${at}` }, { ca: tls.cert });
    expect(await client.listTags('app')).toEqual(['v1']);
    const error = await expectCode(open('registry.test', { HTTPS_PROXY: `http://me:wrongpass@${at}` }, { ca: tls.cert }).listTags('app'), 'REGISTRY_UNREACHABLE');
    expect(error.message).toMatch(/^registry\.test: the proxy 127\.0\.0\.1:[0-9]+ wants a login \(407\)/);
    expect(`${error.message} ${error.hint} ${JSON.stringify(error.data)}`).not.toContain('wrongpass');
    expect(proxy.asked).toHaveLength(2);
  });

  test('and with no TLS is asked for through it, by the whole URL', async () => {
    const client = open('registry.test:5000', { http_proxy: at }, { plainHttp: true });
    expect(await client.listTags('app')).toEqual(['by proxy for registry.test:5000']);
    expect(proxy.asked).toEqual(['GET http://registry.test:5000/v2/app/tags/list']);
    proxy.login = 'me:pass';
    expect((await expectCode(client.listTags('app'), 'REGISTRY_UNREACHABLE')).message).toContain('407');
    expect(await open('registry.test:5000', { http_proxy: `me:pass@${at}` }, { plainHttp: true }).listTags('app')).toHaveLength(1);
  });

  test('that refuses, or is not there, is named', async () => {
    proxy.refuse = 403;
    expect((await expectCode(open('registry.test', { HTTPS_PROXY: at }).listTags('app'), 'REGISTRY_UNREACHABLE')).message).toContain('refuses the connection (403)');
    expect(proxy.asked).toHaveLength(1);
    const error = await expectCode(open('registry.test', { HTTPS_PROXY: 'http://127.0.0.1:1' }).listTags('app'), 'REGISTRY_UNREACHABLE');
    expect(error.message).toBe('registry.test: the proxy 127.0.0.1:1 cannot be reached (ECONNREFUSED)');
    const usage = await expectCode(open('registry.test', { HTTPS_PROXY: 'socks5://me:secret@host:1' }).listTags('app'), 'USAGE');
    expect(usage.message).not.toContain('secret');
  });

  test('is not asked for what is on this machine', async () => {
    const plain = await startScriptedServer((_request, response) => { sendJson(response, 200, { tags: ['direct'] }); });
    expect(await open(plain.host, { HTTP_PROXY: at, HTTPS_PROXY: at }).listTags('app')).toEqual(['direct']);
    expect(proxy.asked).toEqual([]);
    await plain.close();
  });
});

test('ALL_PROXY stands in for the variable of the protocol that is not set, and one that cannot be used is not gone round', async () => {
  const found = (env: NodeJS.ProcessEnv, url: string): string | undefined => environmentProxies(env)?.(new URL(url))?.url.host;
  for (const url of ['https://a.example', 'http://a.example']) {
    expect(found({ ALL_PROXY: 'http://p:1' }, url)).toBe('p:1');
    expect(found({ all_proxy: 'p:1', HTTP_PROXY: '', HTTPS_PROXY: '' }, url)).toBe('p:1');
    expect(found({ ALL_PROXY: 'socks5://p:1', HTTP_PROXY: 'q:2', HTTPS_PROXY: 'q:2' }, url)).toBe('q:2');
    expect(found({ ALL_PROXY: 'socks5://p:1', NO_PROXY: 'a.example' }, url)).toBeUndefined();
  }
  expect(found({ ALL_PROXY: 'p:1', HTTPS_PROXY: 'q:2' }, 'http://a.example')).toBe('p:1');
  const error = await expectCode(open('registry.test', { ALL_PROXY: 'socks5h://me:secret@host:1' }).listTags('app'), 'USAGE');
  expect([error.message, error.hint]).toEqual(['ALL_PROXY names no proxy that can be used', expect.stringMatching(/^Write ALL_PROXY=http:.*socks5.*NO_PROXY/)]);
  expect((await expectCode(open('registry.test', { ALL_PROXY: 'http://127.0.0.1:1' }).listTags('app'), 'REGISTRY_UNREACHABLE')).hint).toMatch(/^Check ALL_PROXY;/);
});

describe('NO_PROXY', () => {
  const goesDirect = (noProxy: string, url: string): boolean => environmentProxies({ HTTPS_PROXY: 'p:1', HTTP_PROXY: 'p:1', NO_PROXY: noProxy })?.(new URL(url)) === undefined;

  test.each<[string, string, boolean]>([
    ['', 'https://a.example', false], ['*', 'https://a.example', true],
    ['example', 'https://a.example', true], ['.a.example', 'https://b.a.example', true], ['*.a.example', 'https://b.a.example', true], ['a.example', 'https://ba.example', false],
    ['b.example, A.Example', 'https://a.example:5000', true], ['a.example:5000', 'https://a.example:5000', true], ['a.example:5000', 'https://a.example', false], ['a.example:443', 'https://a.example', true],
    ['10.0.0.0/8', 'http://10.2.3.4:5000', true], ['10.0.0.0/8', 'http://11.2.3.4', false], ['10.0.0.0/8', 'http://ten.example', false], ['10.1.2.3', 'http://10.1.2.3', true],
    ['fd00::/8', 'http://[fd00::1]:5000', true], ['[fd00::1]:5000', 'http://[fd00::1]:5000', true], ['fd00::1', 'http://[fd00::1]', true], ['10.0.0.0/99', 'http://10.0.0.1', false],
  ])('%j and %s: directly is %s', (noProxy, url, isDirect) => {
    expect(goesDirect(noProxy, url)).toBe(isDirect);
  });

  test('without a proxy nothing is looked at', () => {
    expect(environmentProxies({ NO_PROXY: 'x' })).toBeUndefined();
    expect(environmentProxies({ HTTPS_PROXY: '' })).toBeUndefined();
    expect(environmentProxies({ HTTP_PROXY: 'p:1' })?.(new URL('https://a.example'))).toBeUndefined();
    expect(environmentProxies({ HTTPS_PROXY: 'P:1', https_proxy: 'q:2' })?.(new URL('https://a.example'))?.url.host).toBe('q:2');
  });
});
