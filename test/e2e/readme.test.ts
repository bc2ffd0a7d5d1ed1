import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { projectRoot, run } from '../../bench/process.js';
import { freePort } from '../support/free-port.js';

/** The sh blocks below a heading of the README. */
async function blocksBelow(heading: string): Promise<string[]> {
  const text = await readFile(join(projectRoot, 'README.md'), 'utf8');
  const section = text.split(/^## /m).find((part) => part.startsWith(`${heading}\n`)) ?? '';
  return [...section.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map((match) => match[1] ?? '');
}

test('the quick start of the README works as it is written', async () => {
  const blocks = await blocksBelow('Quick start');
  const server = blocks.find((block) => block.includes('delta-server serve')) ?? '';
  const device = blocks.find((block) => block.includes('device pull')) ?? '';
  expect(server).not.toBe('');
  expect(device).not.toBe('');

  const work = await mkdtemp(join(tmpdir(), 'whittle-readme-'));
  const port = String(await freePort());
  // As after `npm link`; the port is the one thing that a test cannot take as written.
  await mkdir(join(work, 'bin'));
  for (const name of ['delta-server', 'device']) await symlink(join(projectRoot, 'bin', `${name}.js`), join(work, 'bin', name));
  await symlink(join(projectRoot, 'test'), join(work, 'test'));
  const env = { ...process.env, PATH: `${join(work, 'bin')}:${process.env['PATH'] ?? ''}` };
  const script = (block: string): string[] => ['bash', '-euc', block.replaceAll(':8080', `:${port}`)];

  const [file, ...args] = script(server);
  const serving = spawn(file ?? '', args, { cwd: work, env, stdio: 'ignore', detached: true });
  try {
    const ready = async (): Promise<boolean> => (await fetch(`http://127.0.0.1:${port}/v2/`).catch(() => null))?.ok === true;
    for (let attempt = 0; attempt < 600 && !(await ready()); attempt++) await sleep(100);
    const outcome = await run(script(device), { cwd: work, env: { PATH: env.PATH } });
    expect(`${outcome.stdout}${outcome.stderr}`).toContain('3.10.9');
    expect(outcome.exitCode).toBe(0);
  } finally {
    if (serving.pid !== undefined) process.kill(-serving.pid, 'SIGTERM');
    await new Promise((resolve) => serving.once('close', resolve));
    await rm(work, { recursive: true, force: true, maxRetries: 5 });
  }
});
