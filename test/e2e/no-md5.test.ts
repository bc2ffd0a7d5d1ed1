import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { program, runOk } from '../../bench/process.js';
import { orderDelta, startService } from '../../bench/services.js';
import { lastJson } from '../../bench/whittle.js';
import { makeImage, noise, type ImageFile } from '../support/images.js';

/** What OpenSSL in FIPS mode does, for Node as it is installed has no such module to load. */
const refusal = `
const crypto = require('node:crypto');
const { createHash } = crypto;
crypto.createHash = (name, ...rest) => {
  if (name === 'md5') throw Object.assign(new Error('error:0308010C:digital envelope routines::unsupported'), { code: 'ERR_OSSL_EVP_UNSUPPORTED' });
  return createHash(name, ...rest);
};
require('node:module').syncBuiltinESMExports();
`;

/** Files, and the list of their checksums as a package has it. */
function version(seed: number): ImageFile[] {
  const files = Array.from({ length: 40 }, (_, at) => ({ path: `usr/f${String(at)}`, content: Buffer.concat([noise(2000, at), noise(20, 1000 * seed + at)]) }));
  const lines = files.map(({ path, content }) => `${createHash('md5').update(content).digest('hex')}  ${path}\n`);
  return [...files, { path: 'var/lib/dpkg/info/app.md5sums', content: lines.join('') }];
}

test('where MD5 is not allowed, a delta that needs it is made and applied all the same, and is the same', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'whittle-no-md5-'));
  const [old, next] = [await makeImage(join(folder, 'app'), '1.0', [version(1)]), await makeImage(join(folder, 'app'), '2.0', [version(2)])];
  await writeFile(join(folder, 'refuse.cjs'), refusal);
  const env = { NODE_OPTIONS: `--require ${join(folder, 'refuse.cjs')}` };
  const service = await startService([`oci:${join(folder, 'app')}`], join(folder, 'root'), 'small');
  try {
    await orderDelta(service.port, 'app', old.configDigest, next.manifestDigest);
    const pull = (tag: string): string[] => [...program('device'), 'pull', `127.0.0.1:${String(service.port)}/app:${tag}`, '--root', join(folder, 'store'), '--json'];
    await runOk(pull('1.0'));
    expect(lastJson(await runOk(pull('2.0'), { env }))).toMatchObject({ event: 'committed', way: 'delta', configDigest: next.configDigest });

    const compute = async (name: string, environment: Record<string, string>): Promise<Buffer> => {
      const source = (tag: string): string => `oci:${join(folder, 'app')}:${tag}`;
      await runOk([...program('delta-server'), 'compute', source('1.0'), source('2.0'), '-o', join(folder, name)], { env: environment });
      return readFile(join(folder, name));
    };
    const allowed = await compute('allowed.delta', {});
    expect((await compute('refused.delta', env)).equals(allowed)).toBe(true);
  } finally {
    await service.stop();
    await rm(folder, { recursive: true, force: true });
  }
});
