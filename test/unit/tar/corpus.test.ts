import { createHash } from 'node:crypto';
import { createReadStream, existsSync, readdirSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { createGunzip } from 'node:zlib';
import { describe, expect, test } from '@jest/globals';
import { joinHeader, TarScanner, type TarHeader } from '../../../src/tar/index.js';

/** Folders with OCI layouts of real images, from WHITTLE_CORPUS_LAYOUTS (separated by colons) or the fixtures. */
const roots = (process.env['WHITTLE_CORPUS_LAYOUTS'] ?? join(import.meta.dirname, '../../fixtures/images')).split(':').filter((root) => existsSync(root));

function layouts(root: string): string[] {
  if (existsSync(join(root, 'oci-layout'))) return [root];
  return readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory()).flatMap((entry) => layouts(join(root, entry.name)));
}

/** A layer's blob as an uncompressed stream; undefined for blobs that are no gzip or plain tar layer. */
async function openTar(path: string): Promise<NodeJS.ReadableStream | undefined> {
  const file = await open(path);
  const { buffer } = await file.read(Buffer.alloc(262), 0, 262, 0);
  await file.close();
  if (buffer[0] === 0x1f && buffer[1] === 0x8b) return createReadStream(path).pipe(createGunzip());
  return buffer.toString('latin1', 257, 262) === 'ustar' ? createReadStream(path) : undefined;
}

/** Hashes a tar as it is and as a scanner gives it back. */
async function bothDigests(tar: NodeJS.ReadableStream): Promise<{ was: string; is: string; headers: TarHeader[] }> {
  const was = createHash('sha256');
  const is = createHash('sha256');
  const headers: TarHeader[] = [];
  const scanner = new TarScanner({
    entry: (header) => {
      headers.push(header);
      is.update(joinHeader(header));
    },
    content: (chunk) => { is.update(chunk); },
    endContent: (padding) => { is.update(padding ?? Buffer.alloc((512 - ((headers.at(-1)?.sizeBytes ?? 0) % 512)) % 512)); },
    trailer: (zeroBytes, bytes) => { is.update(bytes ?? Buffer.alloc(zeroBytes)); },
  });
  for await (const chunk of tar as AsyncIterable<Buffer>) {
    was.update(chunk);
    scanner.write(chunk);
  }
  scanner.end();
  return { was: was.digest('hex'), is: is.digest('hex'), headers };
}

describe('layers of real images', () => {
  const found = roots.flatMap(layouts);
  test.each(found)('%s', async (layout) => {
    const blobs = join(layout, 'blobs/sha256');
    for (const name of readdirSync(blobs)) {
      const tar = await openTar(join(blobs, name));
      if (tar === undefined) continue;
      const { was, is, headers } = await bothDigests(tar);
      expect(is).toBe(was);
      expect(headers.filter(({ residue }) => residue.length > 0).length).toBeLessThanOrEqual(headers.length / 1000);
    }
  }, 300_000);
});
