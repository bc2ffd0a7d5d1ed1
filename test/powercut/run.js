import { mkdir, readdir, readFile, rename, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { transform } from '@swc/core';

/**
 * `npm run test:powercut`: brings the JavaScript of the harness and of the product up to date in `.built/`, next to this file,
 * and runs it; `npm run bench:wear` does so with another command of the same harness. Types are the type checker's business, so nothing here waits for it.
 */
const root = fileURLToPath(new URL('../..', import.meta.url));
const built = fileURLToPath(new URL('.built', import.meta.url));

async function modifiedMs(path) {
  return stat(path).then((facts) => facts.mtimeMs, () => 0);
}

async function buildFolder(folder) {
  for (const entry of await readdir(join(root, folder), { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory() && entry.name !== '.built') await buildFolder(path);
    else if (entry.isFile() && /(?<!\.d)\.ts$/.test(entry.name) && !entry.name.endsWith('.test.ts')) await buildFile(path);
    else if (entry.isFile() && entry.name.endsWith('.js')) await copyFile(path);
  }
}

async function buildFile(path) {
  const source = join(root, path);
  const target = join(built, path.replace(/\.ts$/, '.js'));
  if (await modifiedMs(target) > await modifiedMs(source)) return;
  const { code } = await transform(await readFile(source, 'utf8'), {
    filename: source, jsc: { target: 'es2022', parser: { syntax: 'typescript' } }, module: { type: 'es6' }, sourceMaps: 'inline',
  });
  await write(target, code);
}

async function copyFile(path) {
  const target = join(built, path);
  if (await modifiedMs(target) <= await modifiedMs(join(root, path))) await write(target, await readFile(join(root, path)));
}

// Two runs may build at once: a file is never seen half written.
async function write(path, content) {
  const temporary = `${path}.${process.pid}`;
  await mkdir(dirname(path), { recursive: true });
  await writeFile(temporary, content);
  await rename(temporary, path);
}

for (const folder of ['src', 'bench', 'test/support', 'test/powercut']) await buildFolder(folder);
// The addons and the fixtures are found relative to the code that loads them.
for (const name of ['native', 'package.json', 'bin', 'dist', 'test/fixtures']) {
  await symlink(join(root, name), join(built, name)).catch((error) => {
    if (error.code !== 'EEXIST') throw error;
  });
}
const [first, ...words] = process.argv.slice(2);
if (first === 'wear') {
  const { runCommand } = await import(join(built, 'test/powercut/wear/main.js'));
  await runCommand(words);
} else {
  const { runCommand } = await import(join(built, 'test/powercut/main.js'));
  await runCommand();
}
