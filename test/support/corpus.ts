import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot, runOk } from '../../bench/process.js';
import { hasTool } from './tools.js';

/**
 * Real image pairs that are too large for the repository. WHITTLE_CORPUS names their folder; without it they are looked
 * for beside the checkout. The folder holds either packed pairs with their `unpack` script, or pairs already unpacked.
 */
export interface Corpus {
  /** Names of the pairs; empty where there is no corpus. */
  readonly pairs: readonly string[];
  /** What is wanting before the corpus can be used. */
  readonly wanting: readonly string[];
  /** Gives the OCI layouts of a pair (tags `old` and `new`); unpacks below `scratch` when need be. */
  layouts(pair: string, scratch: string): Promise<{ basis: string; target: string }>;
}

/** Finds the corpus. Synchronous, since tests are named after its pairs. */
export function findCorpus(): Corpus {
  const folder = process.env['WHITTLE_CORPUS'] ?? join(projectRoot, '../shared/corpus');
  if (!existsSync(folder)) return { pairs: [], wanting: ['the corpus (WHITTLE_CORPUS)'], layouts: () => Promise.reject(new Error('no corpus')) };
  const packed = existsSync(join(folder, 'unpack'));
  return packed ? packedCorpus(folder) : unpackedCorpus(folder);
}

function packedCorpus(folder: string): Corpus {
  const { pairs } = JSON.parse(readFileSync(join(folder, 'pairs.json'), 'utf8')) as { pairs: { name: string }[] };
  return {
    pairs: pairs.map((pair) => pair.name),
    wanting: ['python3', 'xz', 'zstd'].filter((tool) => !hasTool(tool)),
    layouts: async (pair, scratch) => {
      await runOk(['python3', join(folder, 'unpack'), scratch, pair]);
      return { basis: join(scratch, pair, 'old'), target: join(scratch, pair, 'new') };
    },
  };
}

function unpackedCorpus(folder: string): Corpus {
  const pairs = readdirSync(folder).filter((name) => existsSync(join(folder, name, 'old/index.json')) && existsSync(join(folder, name, 'new/index.json')));
  return { pairs, wanting: [], layouts: (pair) => Promise.resolve({ basis: join(folder, pair, 'old'), target: join(folder, pair, 'new') }) };
}
