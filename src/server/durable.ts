import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, unlink, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { systemErrorCode } from '../core/errors.js';

/** Makes a directory and its missing ancestors; when it returns, their names are durable. */
export async function makeDirectory(path: string): Promise<void> {
  const firstMade = await mkdir(path, { recursive: true });
  if (firstMade === undefined) return;
  // Each new directory's name lives in its parent.
  for (let at = path; at.length >= firstMade.length; at = dirname(at)) await syncDirectory(dirname(at));
}

/** Makes a directory's entries durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes a small file as `writeStreamDurably` does. */
export async function writeFileDurably(path: string, bytes: Buffer): Promise<void> {
  await writeStreamDurably(path, [bytes]);
}

/**
 * Writes a file so that after a crash it is either whole or as it was before: a temporary file in the same
 * directory, fsync, rename, fsync of the directory. When `chunks` throws, the file is as it was. Returns its size.
 */
export async function writeStreamDurably(path: string, chunks: AsyncIterable<Buffer> | Iterable<Buffer>): Promise<number> {
  let sizeBytes = 0;
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`);
  try {
    const handle = await open(temporary, 'wx', 0o644);
    try {
      for await (const chunk of chunks) {
        await writeAll(handle, chunk, sizeBytes);
        sizeBytes += chunk.length;
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await removeIfThere(temporary);
    throw error;
  }
  await syncDirectory(dirname(path));
  return sizeBytes;
}

/** Writes all of `chunk` at `position`, however little the system takes at a time. */
export async function writeAll(file: FileHandle, chunk: Buffer, position: number): Promise<void> {
  for (let done = 0; done < chunk.length; ) {
    const { bytesWritten } = await file.write(chunk, done, chunk.length - done, position + done);
    done += bytesWritten;
  }
}

/** Moves a whole file to its final name on the same filesystem, durably: fsync, rename, fsync of the directory. */
export async function moveFileDurably(from: string, to: string): Promise<void> {
  const handle = await open(from, 'r+');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(from, to);
  await syncDirectory(dirname(to));
}

/** Unlinks a file; it is no error when there is none. */
export async function removeIfThere(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
  }
}

/** Digest (`<algorithm>:<hex>`) and size of what a file holds now; null when there is no such file. */
export async function digestFile(path: string, algorithm: 'sha256' | 'sha512' = 'sha256'): Promise<{ digest: string; sizeBytes: number } | null> {
  const hash = createHash(algorithm);
  let sizeBytes = 0;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 18 }) as AsyncIterable<Buffer>) {
      hash.update(chunk);
      sizeBytes += chunk.length;
    }
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return null;
    throw error;
  }
  return { digest: `${algorithm}:${hash.digest('hex')}`, sizeBytes };
}
