import { appendFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { keyOf, type Injection } from './faults.js';
import { shareOf } from './index.js';
import { CampaignRecord } from './record.js';

const injections: readonly Injection[] = ['fsync', 'renameat'].flatMap((name) => [1, 2, 3].flatMap((when): Injection[] => {
  const call = { name, when, text: '', below: when === 3 ? 'refs' : null };
  return [{ call, fault: { kind: 'kill' } }, { call, fault: { kind: 'error', errno: 'EIO' } }];
}));

let folder: string;
let path: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'whittle-record-'));
  path = join(folder, 'record');
});

afterEach(async () => {
  await rm(folder, { recursive: true });
});

function lineOf(injection: Injection, missed: boolean, problems: readonly string[] = []): Parameters<CampaignRecord['add']>[0] {
  return { fault: keyOf(injection), what: '', missed, problems };
}

test('the shares of a campaign have each fault exactly once', () => {
  fc.assert(fc.property(fc.array(fc.integer(), { maxLength: 60 }), fc.integer({ min: 1, max: 9 }), (all, of) => {
    const places = all.map((_, at) => at);
    const shares = Array.from({ length: of }, (_, at) => shareOf(places, { index: at + 1, of }));
    expect(shares.flat().sort((a, b) => a - b)).toEqual(places);
    expect(Math.max(...shares.map(({ length }) => length)) - Math.min(...shares.map(({ length }) => length))).toBeLessThanOrEqual(1);
  }));
});

test('a run goes on where the one before stopped: what was checked is not checked again, also when the last line was cut off', async () => {
  expect(new Set(injections.map(keyOf)).size).toBe(injections.length);
  const [first, second, third] = injections;
  if (first === undefined || second === undefined || third === undefined) throw new Error('there are twelve');
  const before = await CampaignRecord.open(path);
  await before.add(lineOf(first, false));
  await before.add(lineOf(second, false, ['wrong']));
  const line = JSON.stringify(lineOf(third, false));
  await appendFile(path, line.slice(0, 20));
  const after = await CampaignRecord.open(path);
  expect(injections.map((each) => after.has(each)).slice(0, 3)).toEqual([true, true, false]);
  await after.add(lineOf(third, false));
  const last = await CampaignRecord.open(path);
  expect(injections.filter((each) => last.has(each))).toEqual([first, second, third]);
  expect(last.summary(injections)).toBe('checked in all: 3 of 12 faults (2 SIGKILL, 1 errors, 0 lies), 1 with a violation; 0 missed the store each time');
  expect((await readFile(path, 'utf8')).split('\n')).toHaveLength(5);
});

test('a fault that missed the store is tried again, but not for ever, and never counts as checked', async () => {
  const [first] = injections;
  if (first === undefined) throw new Error('there are twelve');
  for (const done of [false, false, false]) {
    const record = await CampaignRecord.open(path);
    expect(record.has(first)).toBe(done);
    await record.add(lineOf(first, true));
  }
  const record = await CampaignRecord.open(path);
  expect(record.has(first)).toBe(true);
  expect(record.summary(injections)).toBe('checked in all: 0 of 12 faults (0 SIGKILL, 0 errors, 0 lies), 0 with a violation; 1 missed the store each time');
});
