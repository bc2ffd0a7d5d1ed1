import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { barriers } from '../../../src/atomic/barriers.js';
import type { CampaignRow, MutationRow } from '../campaign.js';

const root = fileURLToPath(new URL('../../..', import.meta.url));
/** What fits into CI on one busy core; on a desk less is enough for a first look. Cuts are drawn from the seed, so another seed draws others. */
const states = process.env['CI'] === 'true' ? 100_000 : 4000;
const seed = 1;
const wallMs = 1_200_000;

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

interface Document {
  readonly seed: number;
  readonly results: readonly { readonly harness: string; readonly rows?: readonly CampaignRow[]; readonly mutations?: readonly MutationRow[]; readonly violations?: readonly string[] }[];
}

let reports = '';

beforeAll(async () => { reports = await mkdtemp(join(tmpdir(), 'whittle-powercut-')); });

afterAll(async () => { await rm(reports, { recursive: true, force: true }); });

/** The command as a person runs it. */
function powercut(...words: string[]): Promise<Result> {
  return new Promise((resolve) => {
    const args = [join(root, 'test/powercut/run.js'), '--harness', 'sim', '--reports', reports, ...words];
    execFile(process.execPath, args, { cwd: root, timeout: wallMs, maxBuffer: 64 * 2 ** 20 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, stdout, stderr });
    });
  });
}

function rowsOf(result: Result): CampaignRow[] {
  const document = JSON.parse(result.stdout) as Document;
  return [...(document.results[0]?.rows ?? [])];
}

test('no crash state of pulls, rollbacks, collections, repairs and recoveries breaks a promise', async () => {
  const result = await powercut('--states', String(states), '--seed', String(seed), '--json');
  const rows = rowsOf(result);
  const violated = rows.filter((row) => row.violations > 0);
  expect({ violated, said: violated.length > 0 ? result.stderr : '' }).toEqual({ violated: [], said: '' });
  expect(result.code).toBe(0);
  expect(rows.reduce((sum, row) => sum + row.states, 0)).toBeGreaterThanOrEqual(states * 0.99);
  for (const name of ['delta pull', 'two pulls at once', 'repair', 'second cut, within recovery', 'third cut, within that recovery', 'cut within the pull after a cut', 'disk errors: EIO, once', 'a disk that lies']) {
    expect(rows.find((row) => row.faultClass === name)?.states ?? 0).toBeGreaterThan(0);
  }
}, wallMs);

test('each barrier, taken out alone, is missed', async () => {
  const result = await powercut('--mutate', '--json', '--states', '80000', '--seed', String(seed));
  const document = JSON.parse(result.stdout) as Document;
  const rows = document.results[0]?.mutations ?? [];
  expect(rows.map((row) => row.barrier)).toEqual(Object.keys(barriers));
  expect(rows.filter((row) => !row.noticed)).toEqual([]);
  expect(result.code).toBe(0);
}, wallMs);

test('every sync and every rename of the product is a barrier of the list, and every barrier is used', async () => {
  const used = new Set<string>();
  for (const folder of ['src/atomic', 'src/applier']) {
    for (const file of await readdir(join(root, folder), { recursive: true })) {
      if (!file.endsWith('.ts') || ['linux-fs.ts', 'durable-fs.ts', 'barriers.ts'].includes(file)) continue;
      const text = await readFile(join(root, folder, file), 'utf8');
      for (const name of Object.keys(barriers)) if (text.includes(`'${name}'`)) used.add(name);
      for (const kind of ['format', 'image', 'reference', 'stage']) {
        if (!new RegExp(`(writeFileDurably|writeRecord)\\(.*'${kind}'`).test(text)) continue;
        used.add(`${kind}.content`);
        used.add(`${kind}.name`);
      }
      // The port takes a barrier's name with each of its syncs; what goes past the port has none.
      expect({ file, past: /\.(sync|datasync)\(|from 'node:fs(\/promises)?'.*\b(fsync|rename)/.test(text) }).toEqual({ file, past: false });
    }
  }
  expect([...used].sort()).toEqual(Object.keys(barriers).sort());
});

test('docs/durability.md lists every barrier, with what it is for', async () => {
  const page = await readFile(join(root, 'docs/durability.md'), 'utf8');
  const listed = [...page.matchAll(/^\| `([a-z.]+)` \| ([^|]*) \|/gm)].map((match) => [match[1], match[2]]);
  expect(listed).toEqual(Object.entries(barriers));
});

test('docs/durability.md lists every file that syncs or renames past the port or in a batch', async () => {
  const page = await readFile(join(root, 'docs/durability.md'), 'utf8');
  const listed = [...page.matchAll(/^\| `(src\/[^`]*)` \|/gm)].map((match) => match[1]);
  const found: string[] = [];
  for (const file of await readdir(join(root, 'src'), { recursive: true })) {
    if (!file.endsWith('.ts') || file.startsWith('atomic/')) continue;
    const text = await readFile(join(root, 'src', file), 'utf8');
    if (/\.(sync|datasync|syncfs)\(|\b(rename|renameSync)\(|op: 'rename'/.test(text)) found.push(`src/${file}`);
  }
  expect(found.sort()).toEqual([...listed].sort());
});

test('a failure is written down, and can be looked at again', async () => {
  const result = await powercut('--states', '150', '--only', 'pull of an older image', '--json', '--break', 'file.rename');
  expect(result.code).toBe(1);
  expect(result.stderr).toMatch(/VIOLATION .*seed 1, cut after operation \d+/);
  const [file] = await readdir(reports);
  expect(file).toMatch(/^sim-1-\d+\.json$/);
  const again = await powercut('--replay', join(reports, file ?? ''), '--json');
  expect(again.code).toBe(1);
  expect((JSON.parse(again.stdout) as Document).results[0]?.violations?.length).toBeGreaterThan(0);
}, 120_000);

test('the command explains itself and refuses what it does not know', async () => {
  const help = await powercut('--help');
  expect(help.code).toBe(0);
  expect(help.stdout).toContain('--states N');
  expect(await powercut('--states', 'many')).toMatchObject({ code: 2, stderr: expect.stringContaining('--states takes a whole number') });
  expect(await powercut('--harness', 'none')).toMatchObject({ code: 2, stderr: expect.stringContaining('there is no harness') });
});
