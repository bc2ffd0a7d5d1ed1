import { randomUUID } from 'node:crypto';
import { mkdtemp, open, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NativeContent } from '../../src/core/native.js';

/** Files that hold given bytes, as native code reads them. `close()` once at the end. */
export class ContentFiles {
  readonly #handles: FileHandle[] = [];
  /** Begun once, for files are made several at a time. */
  #directory: Promise<string> | undefined;

  /** A new file with these bytes; content covers all of it, or the given (offset, length) pairs. */
  async make(bytes: Uint8Array, extents: readonly number[] = [0, bytes.length]): Promise<NativeContent> {
    this.#directory ??= mkdtemp(join(tmpdir(), 'whittle-content-'));
    const handle = await open(join(await this.#directory, randomUUID()), 'wx+');
    this.#handles.push(handle);
    for (let at = 0; at < bytes.length; ) at += (await handle.write(bytes, at, bytes.length - at, at)).bytesWritten;
    const sizeBytes = extents.reduce((sum, number, index) => (index % 2 === 1 ? sum + number : sum), 0);
    return { fd: handle.fd, extents: Float64Array.from(extents), sizeBytes };
  }

  async close(): Promise<void> {
    for (const handle of this.#handles.splice(0)) await handle.close();
    if (this.#directory !== undefined) await rm(await this.#directory, { recursive: true });
  }
}

/** Bytes from a seeded xorshift generator: the same in every run. `alphabet` symbols from 0 on. */
export function seededBytes(sizeBytes: number, seed: number, alphabet = 256): Buffer {
  const bytes = Buffer.allocUnsafe(sizeBytes);
  let state = (seed * 2654435761 + 1) >>> 0 || 1;
  for (let index = 0; index < sizeBytes; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    bytes[index] = (state >>> 8) % alphabet;
  }
  return bytes;
}
