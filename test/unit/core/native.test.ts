import { expect, test } from '@jest/globals';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { isWhittleError } from '../../../src/core/errors.js';
import { deviceAddon, loadAddon, serverAddon } from '../../../src/core/native.js';

const release = new URL('../../../native/build/Release/', import.meta.url);

function failureOf(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

test('both addons load and are loaded once', () => {
  expect(typeof deviceAddon().syncfs).toBe('function');
  expect(deviceAddon()).toBe(deviceAddon());
  expect(serverAddon()).toBe(serverAddon());
});

test('a missing addon is NATIVE_ADDON with its path, in one line', () => {
  const error = failureOf(() => loadAddon('whittle_device', pathToFileURL('/nonexistent/')));
  expect(isWhittleError(error) && error.code).toBe('NATIVE_ADDON');
  const { message } = error as Error;
  expect(message).toContain('/nonexistent/whittle_device.node');
  expect(message).not.toContain('\n');
});

test('a file that is no addon is NATIVE_ADDON', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'whittle-native-'));
  try {
    await writeFile(join(directory, 'broken.node'), 'not an ELF file');
    const error = failureOf(() => loadAddon('broken', pathToFileURL(`${directory}/`)));
    expect(isWhittleError(error) && error.code).toBe('NATIVE_ADDON');
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('syncfs resolves on an open file, rejects on a closed one and refuses what is no descriptor', async () => {
  const handle = await open(tmpdir(), 'r');
  await deviceAddon().syncfs(handle.fd);
  const { fd } = handle;
  await handle.close();
  await expect(deviceAddon().syncfs(fd)).rejects.toMatchObject({ code: 'EBADF' });
  for (const wrong of [-1, 1.5, Number.NaN, 2 ** 31, '1', null, undefined, {}, 10n]) {
    expect(failureOf(() => deviceAddon().syncfs(wrong as number))).toMatchObject({ name: 'TypeError' });
  }
});

const workerSource = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { openSync } = require('node:fs');
  const load = (name) => { const module = { exports: {} }; process.dlopen(module, workerData.release + name); return module.exports; };
  const first = load('whittle_device.node');
  const second = load('whittle_device.node');
  load('whittle_server.node');
  const fd = openSync('/tmp', 'r');
  const work = Promise.all([first.syncfs(fd), second.syncfs(fd)]);
  if (workerData.exitEarly) process.exit(3);
  else work.then(() => parentPort.postMessage('done'), (error) => parentPort.postMessage(String(error)));
`;

async function runWorker(exitEarly: boolean): Promise<{ messages: unknown[]; exitCode: number }> {
  const worker = new Worker(workerSource, { eval: true, workerData: { release: release.pathname, exitEarly } });
  const messages: unknown[] = [];
  worker.on('message', (message) => messages.push(message));
  const exitCode = await new Promise<number>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', resolve);
  });
  return { messages, exitCode };
}

test('addons load twice in a worker, beside the main thread, and work there', async () => {
  serverAddon();
  for (let round = 0; round < 3; round++) {
    expect(await runWorker(false)).toEqual({ messages: ['done'], exitCode: 0 });
  }
});

test('a worker that ends while native work is under way takes nothing down', async () => {
  for (let round = 0; round < 5; round++) expect((await runWorker(true)).exitCode).toBe(3);
});
