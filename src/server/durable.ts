import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, unlink, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { systemErrorCode } from '../core/errors.js';
import { syncDirectory } from '../registry/new-file.js';

/** Makes a directory and its missing ancestors; when it returns, their names are durable. */
export async function makeDirectory(path: string): Promise<void> {
  const firstMade = await mkdir(path, { recursive: true });
  if (firstMade === undefined) return;
  // Each new directory's name lives in its parent.
  for (let at = path; at.length >= firstMade.length; at = dirname(at)) await syncDirectory(dirname(at));
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
