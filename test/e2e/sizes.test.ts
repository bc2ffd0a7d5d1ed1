import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { projectRoot } from '../../bench/process.js';
import { grown, measureSizes, type Sizes } from '../../bench/sizes.js';

test('no delta of the fixtures is more than 1% larger than on record (npm run bench:sizes puts new sizes on record)', async () => {
  const recorded = JSON.parse(await readFile(join(projectRoot, 'bench/sizes.json'), 'utf8')) as Sizes;
  expect(grown(recorded, await measureSizes())).toEqual([]);
});

test('growth by more than 1% is seen, and so are missing figures', () => {
  const recorded: Sizes = { one: { small: 10_000, fast: 20_000 }, two: { small: 5, fast: 5 } };
  expect(grown(recorded, { ...recorded, one: { small: 10_100, fast: 100 } })).toEqual([]);
  expect(grown(recorded, { ...recorded, one: { small: 10_101, fast: 20_000 } })).toEqual(['one small: 10101 bytes, 1.0% more than 10000']);
  expect(grown(recorded, { one: { small: 1, fast: 1 }, three: { small: 1, fast: 1 } })).toHaveLength(4);
});
