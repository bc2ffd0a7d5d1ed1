import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from '@jest/globals';
import { program, run, type Outcome } from '../../bench/process.js';
import { makeMemoryRegistry } from '../support/memory-registry.js';
import { startScriptedServer } from '../support/scripted-server.js';
import { selfSigned, TestProxy } from '../support/test-proxy.js';
import { testWithTools } from '../support/tools.js';

testWithTools('openssl')('both programs reach a registry with a private authority behind a proxy, by the environment alone', async () => {
  const tls = await selfSigned('DNS:registry.test');
  if (tls === null) throw new Error('openssl made no certificate');
  const memory = await makeMemoryRegistry();
  const registry = await startScriptedServer(({ method, url, headers }, response) => {
    const { status, headers: head, body } = url.endsWith('/tags/list') ? { status: 200, headers: {}, body: Buffer.from('{"tags":[]}') } : memory.answer({ origin: 'first', method, url, headers });
    response.writeHead(status, { ...head, 'content-length': String(body.length) }).end(method === 'HEAD' ? undefined : body);
  }, tls);
  const proxy = new TestProxy(() => registry.host);
  const scratch = await mkdtemp(join(tmpdir(), 'whittle-behind-'));
  try {
    proxy.login = 'me:secret';
    const authority = join(scratch, 'ca.pem');
    await writeFile(authority, tls.cert);
    const HTTPS_PROXY = `http://me:secret@${await proxy.listen()}`;
    const device = (image: string, env: Record<string, string>): Promise<Outcome> => run([...program('device'), 'pull', '--delta', `registry.test/app:${image}`, '--root', join(scratch, 'store')], { env });
    const wary = await device('v1', { HTTPS_PROXY });
    expect([wary.exitCode, wary.stderr]).toEqual([5, expect.stringContaining('NODE_EXTRA_CA_CERTS=')]);
    const env = { HTTPS_PROXY, NODE_EXTRA_CA_CERTS: authority };
    expect(await device('v1', env)).toMatchObject({ exitCode: 0 });
    const updated = await device('v2', env);
    expect(updated).toMatchObject({ exitCode: 0 });
    expect(updated.stdout + updated.stderr).toMatch(/smaller than the layers/);
    expect((await run([...program('delta-server'), 'deltas', 'docker://registry.test/app@' + memory.v2.manifestDigest, '--json'], { env })).stdout).toContain(memory.delta.manifestDigest);
    expect(new Set(proxy.asked)).toEqual(new Set(['CONNECT registry.test:443']));
    const lost = await device('v2', { ...env, HTTPS_PROXY: HTTPS_PROXY.replace('secret', 'wrong') });
    expect([lost.exitCode, lost.stderr]).toEqual([5, expect.stringMatching(/the proxy 127\.0\.0\.1:[0-9]+ wants a login \(407\)/)]);
    expect(lost.stderr).not.toContain('wrong');
  } finally {
    await proxy.close();
    await registry.close();
    await rm(scratch, { recursive: true, force: true });
  }
});
