import { open, type FileHandle } from 'node:fs/promises';
import { systemErrorCode, WhittleError } from '../core/errors.js';

const pieceBytes = 512 * 1024;

/** The error for a file operation that failed: IMAGE_NOT_FOUND for a path that is not there, else IMAGE_UNREADABLE. */
export function fileError(error: unknown, path: string): WhittleError {
  const code = systemErrorCode(error) ?? 'unknown error';
  return code === 'ENOENT' || code === 'ENOTDIR'
    ? new WhittleError('IMAGE_NOT_FOUND', `${path} does not exist`, { cause: error })
    : new WhittleError('IMAGE_UNREADABLE', `${path} cannot be used (${code})`, { cause: error, data: { systemCode: code } });
}

/** Opens a file for reading; the caller closes it. Throws IMAGE_NOT_FOUND, IMAGE_UNREADABLE. */
export async function openFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (error) {
    throw fileError(error, path);
  }
}

/** Reads exactly `lengthBytes` at `offset`, or fewer where the file ends. */
export async function readAt(handle: FileHandle, offset: number, lengthBytes: number, path: string): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(lengthBytes);
  let filled = 0;
  try {
    while (filled < lengthBytes) {
      const { bytesRead } = await handle.read(buffer, filled, lengthBytes - filled, offset + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
  } catch (error) {
    throw fileError(error, path);
  }
  return buffer.subarray(0, filled);
}

/** A stretch of an open file in order. Ends early where the file does. */
export async function* fileRange(handle: FileHandle, offset: number, lengthBytes: number, path: string): AsyncGenerator<Buffer, void, void> {
  for (let done = 0; done < lengthBytes;) {
    const piece = await readAt(handle, offset + done, Math.min(pieceBytes, lengthBytes - done), path);
    if (piece.length === 0) return;
    done += piece.length;
    yield piece;
  }
}

/** A whole file in order, opened when the iteration begins and closed when it ends. */
export async function* fileBytes(path: string): AsyncGenerator<Buffer, void, void> {
  const handle = await openFile(path);
  try {
    yield* fileRange(handle, 0, Number.MAX_SAFE_INTEGER, path);
  } finally {
    await handle.close();
  }
}
