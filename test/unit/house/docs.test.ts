import { readdir, readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';

const root = fileURLToPath(new URL('../../..', import.meta.url));

async function pages(): Promise<{ name: string; text: string }[]> {
  const docs = (await readdir(join(root, 'docs'))).filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`);
  return Promise.all(['README.md', 'test/fixtures/README.md', ...docs].map(async (name) => ({ name, text: await readFile(join(root, name), 'utf8') })));
}

test('every link within the documentation leads somewhere', async () => {
  const broken: string[] = [];
  for (const { name, text } of await pages()) {
    const links = [...text.matchAll(/\]\(([^)\s]+)\)|<img[^>]+src="([^"]+)"/g)].map((match) => match[1] ?? match[2] ?? '');
    for (const link of links.filter((one) => !/^[a-z]+:/.test(one) && !one.startsWith('#'))) {
      const there = await stat(join(root, dirname(name), link.split('#')[0] ?? '')).then(() => true, () => false);
      if (!there) broken.push(`${name}: ${link}`);
    }
  }
  expect(broken).toEqual([]);
});

test('every npm script that the documentation names is there', async () => {
  const { scripts } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> };
  const named = (await pages()).flatMap(({ name, text }) => [...text.matchAll(/npm run (?:--?\S+ )*([\w:-]+)/g)].map((match) => ({ name, script: match[1] ?? '' })));
  expect(named.length).toBeGreaterThan(2);
  expect(named.filter(({ script }) => !(script in scripts))).toEqual([]);
});

test('the command lines of the documentation fit the programs: each names a command that its help lists', async () => {
  const cli = await Promise.all(['src/cli/device.ts', 'src/cli/delta-server.ts', 'src/cli/delta-server-registry.ts'].map((path) => readFile(join(root, path), 'utf8')));
  const deviceCommands = [...(cli[0] ?? '').matchAll(/(\w+)Command\b/g)].map((match) => match[1]);
  const serverCommands = [...cli.slice(1).join('').matchAll(/\.command\('(\w+)'\)/g)].map((match) => match[1]);
  expect(deviceCommands.length).toBeGreaterThan(5);
  expect(serverCommands.length).toBeGreaterThan(1);
  const unknown: string[] = [];
  for (const { name, text } of await pages()) {
    for (const block of text.matchAll(/^```sh\n([\s\S]*?)^```/gm)) {
      for (const line of (block[1] ?? '').split('\n')) {
        const match = /^\s*(device|delta-server) ([a-z]+)/.exec(line);
        if (match !== null && !(match[1] === 'device' ? deviceCommands : serverCommands).includes(match[2] ?? '')) unknown.push(`${name}: ${line}`);
      }
    }
  }
  expect(unknown).toEqual([]);
});
