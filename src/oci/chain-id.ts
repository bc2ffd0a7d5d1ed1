import { createHash } from 'node:crypto';

/** The chainIDs of every prefix of a stack of layers, bottom first: `[i]` names the filesystem that layers 0 to i make together. */
export function chainIds(diffIds: readonly string[]): readonly string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const parent = chain.at(-1);
    chain.push(parent === undefined ? diffId : `sha256:${createHash('sha256').update(`${parent} ${diffId}`).digest('hex')}`);
  }
  return chain;
}
