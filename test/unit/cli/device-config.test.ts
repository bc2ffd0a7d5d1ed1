import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseDeviceConfig, readDeviceConfig } from '../../../src/cli/device-config.js';
import { isWhittleError } from '../../../src/core/errors.js';

let folder: string;
beforeAll(async () => { folder = await mkdtemp(join(tmpdir(), 'whittle-config-')); });
afterAll(async () => { await rm(folder, { recursive: true, force: true }); });

const parse = (value: unknown): unknown => parseDeviceConfig(Buffer.from(JSON.stringify(value)), 'device.json');

test('what is documented is taken, what is left out has its default', () => {
  expect(parse({})).toEqual({ into: 'store', engines: {} });
  const engines = { docker: { address: '/run/d.sock', root: '/var/lib/docker' }, containerd: { address: '/run/c.sock', namespace: 'k8s.io', snapshotter: 'overlayfs' }, podman: { root: '/a', runRoot: '/b' } };
  expect(parse({ into: 'docker', engines })).toEqual({ into: 'docker', engines });
});

test.each([
  [{ into: 'lxc' }, 'lxc'], [{ into: 5 }, 'into'], [{ ino: 'docker' }, 'ino'], [{ engines: [] }, 'engines'], [{ engines: { lxc: {} } }, 'lxc'], [{ engines: { docker: 5 } }, 'engines.docker'],
  [{ engines: { docker: { adress: '/a' } } }, 'adress'], [{ engines: { docker: { address: 'relative/d.sock' } } }, 'address'], [{ engines: { docker: { address: '/a\0b' } } }, 'address'],
  [{ engines: { docker: { root: `/${'a'.repeat(5000)}` } } }, 'root'], [{ engines: { containerd: { namespace: '../x' } } }, 'namespace'], [{ engines: { docker: { constructor: '/a' } } }, 'constructor'],
])('%j is refused, naming the field', (value, named) => {
  expect(() => parse(value)).toThrow(expect.objectContaining({ code: 'USAGE', message: expect.stringContaining(named) as unknown }));
});

test('whatever the bytes, there is a setting or a USAGE error', () => {
  fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
    try {
      expect(['store', 'docker', 'containerd', 'podman']).toContain(parseDeviceConfig(Buffer.from(text), 'device.json').into);
    } catch (error) {
      if (!isWhittleError(error)) throw error;
      expect(error.code).toBe('USAGE');
    }
  }));
});

test('a file that others may change, that is too large or was asked for in vain is refused; one that is only not there is none', async () => {
  const path = join(folder, 'device.json');
  await writeFile(path, '{"into": "docker"}');
  await chmod(path, 0o644);
  expect(await readDeviceConfig(path, true)).toEqual({ into: 'docker', engines: {} });
  await chmod(path, 0o666);
  await expect(readDeviceConfig(path, false)).rejects.toMatchObject({ code: 'USAGE', message: expect.stringContaining('others') as unknown });
  await chmod(path, 0o644);
  await writeFile(path, ' '.repeat(100_000));
  await expect(readDeviceConfig(path, false)).rejects.toMatchObject({ code: 'USAGE' });
  await expect(readDeviceConfig(join(folder, 'nothing'), true)).rejects.toMatchObject({ code: 'USAGE' });
  expect(await readDeviceConfig(join(folder, 'nothing'), false)).toEqual({ into: 'store', engines: {} });
});
