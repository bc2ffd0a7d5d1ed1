import { randomBytes } from 'node:crypto';
import { access, constants, open, realpath, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { isWhittleError, systemErrorCode, WhittleError } from '../core/errors.js';

/** A name beside `path` that nothing has yet. */
function temporaryName(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`);
}

/** The error for a file that could not be written: STORAGE_FULL, STORAGE_PERMISSION, STORAGE_READ_ONLY, USAGE or STORAGE_IO. Its hints are of that file's place, not of a store. */
export function writeError(error: unknown, path: string): WhittleError {
  if (isWhittleError(error)) return error;
  const systemCode = systemErrorCode(error) ?? 'unknown error';
  const options = { cause: error, data: { systemCode } };
  switch (systemCode) {
    case 'ENOSPC':
    case 'EDQUOT': return new WhittleError('STORAGE_FULL', `${path}: no space left (${systemCode})`, { ...options, hint: 'Free some space there, or name another place.' });
    case 'EACCES':
    case 'EPERM': return new WhittleError('STORAGE_PERMISSION', `${path}: may not be written (${systemCode})`, { ...options, hint: 'Name a place that this user may write to.' });
    case 'EROFS': return new WhittleError('STORAGE_READ_ONLY', `${path}: read-only filesystem`, { ...options, hint: 'Name a place on a filesystem that is not read-only.' });
    case 'ENOENT':
    case 'ENOTDIR': return new WhittleError('USAGE', `${path}: the folder does not exist`, { ...options, hint: 'Make the folder first, or name another place.' });
    case 'EISDIR': return new WhittleError('USAGE', `${path} exists already`, options);
    default: return new WhittleError('STORAGE_IO', `${path}: cannot be written (${systemCode})`, options);
  }
}

/** Makes the names in a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function fill(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const handle = await open(path, 'wx', 0o644);
  try {
    await write(handle);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes a new file in place and makes its content durable; the caller syncs the directory. The error is the system's. */
async function writeDurably(path: string, chunks: AsyncIterable<Buffer>): Promise<void> {
  await fill(path, (handle) => writeAll(handle, chunks));
}

/** Writes every chunk at the handle's position, whole. */
async function writeAll(handle: FileHandle, chunks: AsyncIterable<Buffer>): Promise<void> {
  for await (const chunk of chunks) {
    for (let done = 0; done < chunk.length;) done += (await handle.write(chunk, done, chunk.length - done)).bytesWritten;
  }
}

/** Whether `path` is a device, a pipe or a socket: what takes bytes but is no file. */
async function takesStream(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => null);
  return found !== null && !found.isFile() && !found.isDirectory();
}

async function stream(path: string, chunks: AsyncIterable<Buffer>): Promise<void> {
  const handle = await open(path, 'w');
  try {
    await writeAll(handle, chunks);
  } finally {
    await handle.close();
  }
}

/** Through symbolic links, as a shell's redirection goes; a name that leads nowhere is itself the place. */
async function placeOf(path: string): Promise<string> {
  return realpath(path).catch(() => path);
}

/**
 * Writes a file under a temporary name beside `path` and renames it when it is whole and durable. A file that stands
 * there is replaced; on an error it stays and nothing else remains. Where `path` is a symbolic link, that is so for the
 * file that it leads to. What is no file, such as /dev/null or a named pipe, is never replaced: the bytes are written
 * into it. Throws STORAGE_*, USAGE, and what `chunks` throws.
 */
export async function replaceFile(path: string, chunks: AsyncIterable<Buffer>): Promise<void> {
  try {
    if (await takesStream(path)) await stream(path, chunks);
    else await replaceWhole(await placeOf(path), chunks);
  } catch (error) {
    throw writeError(error, path);
  }
}

/** Writes everything into a stream that is open already, such as standard output, and leaves it open. Throws STORAGE_*, and what `chunks` throws. */
export async function writeInto(stream: Writable, chunks: AsyncIterable<Buffer>, name: string): Promise<void> {
  try {
    await pipeline(chunks, stream, { end: false });
  } catch (error) {
    throw writeError(error, name);
  }
}

/** Whether `replaceFile` could write at `path` as things are, asked before the work whose result goes there. Throws what `replaceFile` would. */
export async function checkPlace(path: string): Promise<void> {
  try {
    if (await takesStream(path)) return;
    const place = await placeOf(path);
    if ((await stat(place).catch(() => null))?.isDirectory() === true) throw new WhittleError('USAGE', `${path} is a directory`);
    await access(dirname(place), constants.W_OK | constants.X_OK);
  } catch (error) {
    throw writeError(error, path);
  }
}

async function replaceWhole(path: string, chunks: AsyncIterable<Buffer>): Promise<void> {
  const temporary = temporaryName(path);
  try {
    await writeDurably(temporary, chunks);
    await rename(temporary, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
