import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../bench/services.js';

/** Debian's docker-registry on loopback. */
export interface DockerRegistry {
  /** `127.0.0.1:port`, as image names want it. */
  readonly host: string;
  /** Ends it and waits until it is gone; its files stay. */
  stop(): Promise<void>;
}

/** Starts docker-registry (distribution 2.8) with its blobs below `folder`, and waits until it answers. */
export async function startDockerRegistry(folder: string): Promise<DockerRegistry> {
  const host = `127.0.0.1:${String(await freePort())}`;
  await mkdir(folder, { recursive: true });
  const config = join(folder, 'registry.yml');
  await writeFile(config, [
    'version: 0.1',
    'log: {level: error, accesslog: {disabled: true}}',
    `storage: {filesystem: {rootdirectory: ${JSON.stringify(join(folder, 'data'))}}, delete: {enabled: true}}`,
    `http: {addr: ${host}}`,
    '',
  ].join('\n'));
  const child = spawn('docker-registry', ['serve', config], { stdio: ['ignore', 'ignore', 'pipe'] });
  let words = '';
  child.stderr.on('data', (chunk: Buffer) => { words = (words + chunk.toString()).slice(-2000); });
  const gone = new Promise<void>((resolve) => { child.once('close', () => resolve()); child.once('error', () => resolve()); });
  for (let attempt = 0; attempt < 200 && child.exitCode === null; attempt++) {
    const answer = await fetch(`http://${host}/v2/`).catch(() => null);
    if (answer?.ok === true) return { host, stop: async () => { child.kill('SIGTERM'); await gone; } };
    await sleep(50);
  }
  child.kill('SIGKILL');
  throw new Error(`docker-registry does not answer: ${words}`);
}
