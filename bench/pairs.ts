import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { layoutTags, readImage, type Image } from './image.js';
import { projectRoot } from './process.js';

/** Two versions of one image. */
export interface Pair {
  readonly name: string;
  readonly basis: Image;
  readonly target: Image;
}

/** The pairs that the repository carries: each layout of test/fixtures/images with its two tags, the older first. */
export async function fixturePairs(): Promise<Pair[]> {
  const folder = join(projectRoot, 'test/fixtures/images');
  const pairs: Pair[] = [];
  for (const name of (await readdir(folder)).sort()) {
    const [oldTag, newTag] = await layoutTags(join(folder, name));
    pairs.push({ name, basis: await readImage(join(folder, name), oldTag), target: await readImage(join(folder, name), newTag) });
  }
  return pairs;
}

/** The pairs below a folder: DIR/<pair>/old and DIR/<pair>/new, each an OCI layout with one image. */
export async function folderPairs(folder: string): Promise<Pair[]> {
  const pairs: Pair[] = [];
  for (const name of (await readdir(folder)).sort()) {
    const sides = [join(folder, name, 'old'), join(folder, name, 'new')] as const;
    const there = await Promise.all(sides.map((side) => stat(join(side, 'index.json')).then(() => true, () => false)));
    if (!there.every(Boolean)) continue;
    const [oldTag, newTag] = await Promise.all(sides.map(async (side) => (await layoutTags(side))[0]));
    pairs.push({ name, basis: await readImage(sides[0], oldTag), target: await readImage(sides[1], newTag) });
  }
  if (pairs.length === 0) throw new Error(`${folder}: no pairs (want ${folder}/<pair>/old and /new, each an OCI layout)`);
  return pairs;
}

/** How the programs name an image of a layout. */
export function sourceName(image: Image): string {
  return image.tag === '' ? `oci:${image.layout}` : `oci:${image.layout}:${image.tag}`;
}
