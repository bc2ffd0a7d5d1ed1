import { rmSync } from 'node:fs';
import { access, constants, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Where large temporary files go: $TMPDIR when it is set, else /var/tmp, which unlike /tmp is seldom memory. */
async function temporaryBase(): Promise<string> {
  if (process.env['TMPDIR'] !== undefined && process.env['TMPDIR'] !== '') return tmpdir();
  try {
    await access('/var/tmp', constants.W_OK | constants.X_OK);
    return '/var/tmp';
  } catch {
    return tmpdir();
  }
}

/** Runs `task` with a fresh directory and removes the directory whatever happens, also when the process is told to exit. */
export async function withWorkDirectory<T>(task: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(await temporaryBase(), 'whittle-'));
  const onExit = (): void => { rmSync(directory, { recursive: true, force: true }); };
  process.on('exit', onExit);
  try {
    return await task(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
    process.off('exit', onExit);
  }
}
