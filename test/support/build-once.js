import { execFile } from 'node:child_process';
import { readdir, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = fileURLToPath(new URL('../..', import.meta.url));
const stamp = join(root, 'dist', '.built');

async function newestMtimeMs(folder) {
  let newest = 0;
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    if (entry.isFile()) newest = Math.max(newest, (await stat(join(entry.parentPath ?? entry.path, entry.name))).mtimeMs);
  }
  return newest;
}

/** Brings dist/ up to date with src/, so that tests of the programs never run stale code. Throws what the compiler says. */
export default async function buildOnce() {
  const builtMs = await stat(stamp).then((facts) => facts.mtimeMs, () => 0);
  if (builtMs >= await newestMtimeMs(join(root, 'src'))) return;
  const startedAt = new Date();
  try {
    for (const project of ['tsconfig.build.json', 'tsconfig.bench.json']) {
      await promisify(execFile)(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', project], { cwd: root });
    }
    await promisify(execFile)(process.execPath, [join(root, 'bundle-device.mjs')], { cwd: root });
  } catch (error) {
    // The compiler writes its output even when it finds type errors; `npm run typecheck` is the judge of those.
    process.stderr.write(`build before the end-to-end tests: ${error.stdout ?? error.message}\n`);
  }
  await writeFile(stamp, '');
  await utimes(stamp, startedAt, startedAt);
}
