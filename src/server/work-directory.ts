import { rmSync } from 'node:fs';
import { access, constants, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemErrorCode, WhittleError } from '../core/errors.js';

/** Where large temporary files go: $TMPDIR when it is set, else /var/tmp, which unlike /tmp is seldom memory. */
async function temporaryBase(): Promise<string> {
  const { TMPDIR } = process.env;
  if (TMPDIR !== undefined && TMPDIR !== '') return TMPDIR;
  try {
    await access('/var/tmp', constants.W_OK | constants.X_OK);
    return '/var/tmp';
  } catch {
    return tmpdir();
  }
}

async function makeWorkDirectory(base: string): Promise<string> {
  try {
    return await mkdtemp(join(base, 'whittle-'));
  } catch (error) {
    if (!['ENOENT', 'ENOTDIR'].includes(systemErrorCode(error) ?? '')) throw error;
    throw new WhittleError('USAGE', `temporary files have no place: ${base} is no directory`, { cause: error, hint: 'Make it, or set TMPDIR to another.' });
  }
}

/** Runs `task` with a fresh directory and removes the directory whatever happens, also when the process is told to exit. */
export async function withWorkDirectory<T>(task: (directory: string) => Promise<T>): Promise<T> {
  const directory = await makeWorkDirectory(await temporaryBase());
  const onExit = (): void => { rmSync(directory, { recursive: true, force: true }); };
  process.on('exit', onExit);
  try {
    return await task(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
    process.off('exit', onExit);
  }
}
