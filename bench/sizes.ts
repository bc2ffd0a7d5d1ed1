import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fixturePairs } from './pairs.js';
import { measureCompute } from './whittle.js';

/** Delta sizes in bytes, by pair and profile. */
export type Sizes = Record<string, Record<'small' | 'fast', number>>;

/** Computes the delta of every fixture with both profiles. The same code on the same images gives the same sizes. */
export async function measureSizes(): Promise<Sizes> {
  const work = await mkdtemp(join(tmpdir(), 'whittle-sizes-'));
  const sizes: Sizes = {};
  try {
    for (const pair of await fixturePairs()) {
      const size = async (profile: 'small' | 'fast'): Promise<number> => (await measureCompute(pair, profile, join(work, profile))).deltaBytes;
      sizes[pair.name] = { small: await size('small'), fast: await size('fast') };
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return sizes;
}

/** What grew by more than 1% against the sizes on record, or is new or gone; empty when nothing did. */
export function grown(recorded: Sizes, measured: Sizes): string[] {
  const found: string[] = [];
  for (const name of new Set([...Object.keys(recorded), ...Object.keys(measured)])) {
    for (const profile of ['small', 'fast'] as const) {
      const [before, now] = [recorded[name]?.[profile], measured[name]?.[profile]];
      if (before === undefined || now === undefined) found.push(`${name} ${profile}: ${before === undefined ? 'not on record' : 'not measured'}`);
      else if (now > before * 1.01) found.push(`${name} ${profile}: ${String(now)} bytes, ${((now / before - 1) * 100).toFixed(1)}% more than ${String(before)}`);
    }
  }
  return found;
}
