import { execFile, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, openSync, closeSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from '@jest/globals';

const run = promisify(execFile);
const project = new URL('../../', import.meta.url).pathname;
let installed: string;
let code: string;

/** Whether V8 took the compiled code: `undefined` when it was given none, else what it says of it. `first` runs before the program is loaded. */
async function rejected(flags: readonly string[] = [], first = ''): Promise<string> {
  const probe = `${first}
    import { loadDevice, setDeviceFlags } from ${JSON.stringify(join(installed, 'bin/device-bundle.js'))};
    setDeviceFlags();
    console.log(String(loadDevice().script.cachedDataRejected));`;
  return (await run(process.execPath, [...flags, '--input-type=module', '-e', probe])).stdout.trim();
}

async function version(): Promise<string> {
  return (await run(process.execPath, [join(installed, 'bin/device.js'), '--version'])).stdout.trim();
}

beforeAll(() => {
  installed = mkdtempSync(join(tmpdir(), 'whittle-start-'));
  for (const part of ['bin', 'dist/bundle', 'package.json']) cpSync(join(project, part), join(installed, part), { recursive: true });
  for (const part of ['node_modules', 'native']) symlinkSync(join(project, part), join(installed, part));
  code = join(installed, 'dist/bundle/device.code');
});

afterAll(() => { rmSync(installed, { recursive: true, force: true }); });

const expected = (JSON.parse(readFileSync(join(project, 'package.json'), 'utf8')) as { version: string }).version;

test('the device starts from the code that the build compiled', async () => {
  expect(await rejected()).toBe('false');
  expect(await version()).toBe(expected);
});

test('code for other settings of V8, of another program, damaged or missing is passed over', async () => {
  const whole = readFileSync(code);
  expect(await rejected(['--no-opt'])).toBe('true');
  for (const at of [0, 40, Math.floor(whole.length / 2), whole.length - 1]) {
    const damaged = Buffer.from(whole);
    damaged[at] = (damaged[at] ?? 0) ^ 1;
    writeFileSync(code, damaged);
    expect(await rejected()).toBe('undefined');
    expect(await version()).toBe(expected);
  }
  writeFileSync(code, whole.subarray(0, 20));
  expect(await version()).toBe(expected);
  rmSync(code);
  expect(await rejected()).toBe('undefined');
  expect(await version()).toBe(expected);
});

test.each([['architecture', "Object.defineProperty(process, 'arch', { value: 'arm64' });"], ['build', "Object.defineProperty(process, 'config', { value: { variables: { v8_enable_sandbox: 1 } } });"]])('V8 is never given code that a Node of another %s compiled', async (_, pretend) => {
  expect(await rejected([], pretend)).toBe('undefined');
});

test('nothing of Node is left to load when V8 is set up: what Node carries compiled is only good for the settings that it starts with', async () => {
  const probe = join(installed, 'probe.cjs');
  writeFileSync(probe, `
    const v8 = require('node:v8');
    const set = v8.setFlagsFromString;
    let loaded;
    v8.setFlagsFromString = (flag) => { loaded ??= new Set(process.moduleLoadList); set(flag); };
    process.on('exit', () => { console.log('later: ' + (loaded ? process.moduleLoadList.filter((name) => name.startsWith('NativeModule') && !loaded.has(name)) : 'never set')); });`);
  const registry = createServer((_, response) => { response.writeHead(404).end(); }).listen(0, '127.0.0.1');
  try {
    await once(registry, 'listening');
    const image = `127.0.0.1:${String((registry.address() as AddressInfo).port)}/app:1`;
    const pull = run(process.execPath, ['--require', probe, join(installed, 'bin/device.js'), 'pull', image, '--root', join(installed, 'store')]);
    await expect(pull).rejects.toMatchObject({ stdout: 'later: \n', stderr: expect.stringContaining('answers 404') });
  } finally {
    registry.close();
  }
});

test('a program that ends before its work does is no success', () => {
  const bundle = join(installed, 'dist/bundle/device.cjs');
  const whole = readFileSync(bundle);
  try {
    for (const [main, status] of [['new Promise(() => {})', 13], ['process.exit(0)', 0], ['Promise.reject(new Error("as the test wants"))', 1], ['(process.exitCode = 4)', 4]] as const) {
      writeFileSync(bundle, `exports.main = async () => ${main};`);
      expect([main, spawnSync(process.execPath, [join(installed, 'bin/device.js')], { encoding: 'utf8' }).status]).toEqual([main, status]);
    }
  } finally {
    writeFileSync(bundle, whole);
  }
});

test('a program that was not built says so', async () => {
  rmSync(join(installed, 'dist'), { recursive: true });
  for (const program of ['device', 'delta-server']) {
    await expect(run(process.execPath, [join(installed, `bin/${program}.js`), '--version'])).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining('npm run build') });
  }
});

test.each(['device', 'delta-server'])('%s says in one line that its output could not be written, and a full disk behind its remarks changes nothing', (program) => {
  const full = openSync('/dev/full', 'w');
  try {
    const command = [join(project, `bin/${program}.js`)];
    const unheard = spawnSync(process.execPath, [...command, '--version'], { stdio: ['ignore', full, 'pipe'], encoding: 'utf8' });
    expect([unheard.status, unheard.stderr.split('\n')[0]]).toEqual([7, `${program}: standard output could not be written (ENOSPC)`]);
    expect(unheard.stderr.split('\n')).toHaveLength(3);
    const silent = spawnSync(process.execPath, [...command, 'no-such-command', '--json'], { stdio: ['ignore', 'pipe', full], encoding: 'utf8' });
    expect(silent.status).toBe(2);
    expect(JSON.parse(silent.stdout)).toMatchObject({ error: { code: 'USAGE' } });
  } finally {
    closeSync(full);
  }
});
