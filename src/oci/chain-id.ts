import { createHash } from 'node:crypto';

/** The chainID of a stack of layers, bottom first: it names the filesystem that they make together. Undefined for no layers. */
export function chainId(diffIds: readonly string[]): string | undefined {
  return chainIds(diffIds).at(-1);
}

/** The chainIDs of every prefix of a stack of layers: `[i]` covers layers 0 to i. */
export function chainIds(diffIds: readonly string[]): readonly string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const parent = chain.at(-1);
    chain.push(parent === undefined ? diffId : `sha256:${createHash('sha256').update(`${parent} ${diffId}`).digest('hex')}`);
  }
  return chain;
}
