import { constants, type Stats } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { isWhittleError, systemErrorCode, WhittleError } from '../core/errors.js';

const pieceBytes = 512 * 1024;

/** The error for a file operation that failed: IMAGE_NOT_FOUND for a path that is not there, else IMAGE_UNREADABLE. */
export function fileError(error: unknown, path: string): WhittleError {
  const code = systemErrorCode(error) ?? 'unknown error';
  return code === 'ENOENT' || code === 'ENOTDIR'
    ? new WhittleError('IMAGE_NOT_FOUND', `${path} does not exist`, { cause: error })
    : new WhittleError('IMAGE_UNREADABLE', `${path} cannot be used (${code})`, { cause: error, data: { systemCode: code } });
}

function kindOf(facts: Stats): string {
  if (facts.isDirectory()) return 'a directory';
  if (facts.isFIFO()) return 'a pipe';
  return facts.isCharacterDevice() ? 'a character device' : 'no file';
}

/** Opens a file for reading; the caller closes it. Throws IMAGE_NOT_FOUND, and IMAGE_UNREADABLE also when it is a directory, a pipe or the like. */
export async function openFile(path: string): Promise<FileHandle> {
  let handle: FileHandle | undefined;
  try {
    // Opening a pipe waits for a writer, out of reach of any signal.
    handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const facts = await handle.stat();
    if (facts.isFile() || facts.isBlockDevice()) return handle;
    throw new WhittleError('IMAGE_UNREADABLE', `${path} is ${kindOf(facts)}, and not a file`, { hint: 'Name the file itself: it is read from several places, so that a pipe or a directory does not do.' });
  } catch (error) {
    await handle?.close();
    throw isWhittleError(error) ? error : fileError(error, path);
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
