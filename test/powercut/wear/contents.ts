import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { extract } from 'tar-stream';
import { missingLayers, writeTars, type Image, type Layer } from '../../../bench/image.js';
import type { Pair } from '../../../bench/pairs.js';

/** What an update is made of, by the sha256 (hex) of whole files. Empty files count nowhere. */
export interface Contents {
  /** Contents that the basis has. */
  readonly held: ReadonlySet<string>;
  /** Contents that only the target has. */
  readonly changed: ReadonlySet<string>;
  /** Bytes of the changed contents, each counted once. */
  readonly changedBytes: number;
}

/** sha256 of bytes, hex. */
export function contentDigest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Size of each content in these layers. Another reader than the product's, so that neither can hide the other's mistake. */
async function contentsOf(image: Image, layers: readonly Layer[], tar: string): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const layer of layers) {
    await writeTars(image.layout, [layer], tar);
    const reader = createReadStream(tar).pipe(extract());
    for await (const entry of reader) {
      const hash = createHash('sha256');
      for await (const chunk of entry) hash.update(chunk);
      const { size = 0, type } = entry.header;
      if (size > 0 && (type === 'file' || type === 'contiguous-file')) found.set(hash.digest('hex'), size);
    }
  }
  return found;
}

/** Reads both images of a pair. */
export async function contentsOfPair(pair: Pair): Promise<Contents> {
  const folder = await mkdtemp(join(tmpdir(), 'whittle-wear-tars-'));
  try {
    const tar = join(folder, 'layer.tar');
    const held = new Set((await contentsOf(pair.basis, pair.basis.layers, tar)).keys());
    const target = await contentsOf(pair.target, missingLayers(pair.basis, pair.target), tar);
    const changed = [...target].filter(([digest]) => !held.has(digest));
    return { held, changed: new Set(changed.map(([digest]) => digest)), changedBytes: changed.reduce((sum, [, size]) => sum + size, 0) };
  } finally {
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** What a file on the disk holds, as far as an update is concerned. */
export async function kindOfFile(path: Buffer, contents: Contents): Promise<'changed' | 'rewritten' | 'records'> {
  const digest = contentDigest(await readFile(path));
  if (contents.changed.has(digest)) return 'changed';
  return contents.held.has(digest) ? 'rewritten' : 'records';
}
