import { mkdir, readdir, rename, rm, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { systemErrorCode } from '../core/errors.js';
import { parseDigest } from '../oci/digest.js';
import { bufferBlob, layoutIndex, layoutMarker, type BlobInput, type LayoutContents } from './blob-input.js';
import { syncDirectory, temporaryName, writeDurably, writeError } from './new-file.js';
import { verifiedBytes } from './verify.js';

async function writeBlobs(dir: string, blobs: LayoutContents['blobs']): Promise<void> {
  const folders = new Set<string>();
  const seen = new Set<string>();
  for await (const blob of blobs) {
    const { algorithm, hex } = parseDigest(blob.descriptor.digest);
    const folder = join(dir, 'blobs', algorithm);
    if (seen.has(blob.descriptor.digest)) continue;
    seen.add(blob.descriptor.digest);
    if (!folders.has(folder)) await mkdir(folder, { recursive: true });
    folders.add(folder);
    await writeDurably(join(folder, hex), verified(blob));
  }
  await mkdir(join(dir, 'blobs'), { recursive: true });
  for (const folder of [...folders, join(dir, 'blobs')]) await syncDirectory(folder);
}

function verified(blob: BlobInput): AsyncIterable<Buffer> {
  return verifiedBytes(blob.open(), blob.descriptor, `blob ${blob.descriptor.digest}`);
}

async function fill(dir: string, contents: LayoutContents): Promise<void> {
  await mkdir(dir);
  await writeBlobs(dir, contents.blobs);
  await writeDurably(join(dir, 'oci-layout'), bufferBlob('text/plain', layoutMarker()).open());
  await writeDurably(join(dir, 'index.json'), bufferBlob('text/plain', layoutIndex(contents)).open());
  await syncDirectory(dir);
}

async function isEmptyDirectory(path: string): Promise<boolean> {
  try {
    return (await readdir(path)).length === 0;
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return false;
    throw error;
  }
}

/**
 * Writes an OCI image layout as the new directory `dir` (which may exist when it is empty). When it returns, the
 * layout is whole and durable; on an error nothing of it remains. Throws DIGEST_MISMATCH, STORAGE_*, USAGE (exists
 * already), and what the blobs' readers throw.
 */
export async function writeLayout(dir: string, contents: LayoutContents): Promise<void> {
  const temporary = temporaryName(dir);
  try {
    await fill(temporary, contents);
    if (await isEmptyDirectory(dir)) await rmdir(dir);
    await rename(temporary, dir);
    await syncDirectory(dirname(dir));
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw writeError(error, dir);
  }
}
