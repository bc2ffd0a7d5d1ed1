import { hasProgram } from '../../../bench/process.js';
import type { Campaign, CampaignOptions, CampaignRow, MutationRow } from '../campaign.js';
import { wantingForDisks } from './block-device.js';
import { runDisks, type DiskResult } from './campaign.js';
import { filesystems, mkfsPrograms } from './filesystems.js';
import { scenarios } from './scenarios.js';

/** What this machine lacks for the harness; empty where it has all. */
export function wantingForHarness(): string[] {
  return [...wantingForDisks(), ...['g++', 'strace', ...mkfsPrograms].filter((name) => !hasProgram(name))];
}

function rowOf(result: DiskResult): CampaignRow {
  return { faultClass: `${result.filesystem}: ${result.scenario}`, states: result.states, violations: result.violations.length, unmountable: result.unmountable.length };
}

async function run(options: CampaignOptions): Promise<CampaignRow[]> {
  const { only } = options;
  const broken = barriers.find(({ name }) => name === options.without);
  const results = await runDisks({
    ...(broken === undefined ? {} : { wrapper: without(broken.systemCalls) }),
    states: options.states, seed: options.seed, filesystems, signal: options.signal,
    scenarios: only === null ? undefined : scenarios.map(({ name }) => name).filter((name) => name.includes(only)),
    onProgress: (done, total) => { options.onProgress(done, total, 'crash states'); },
    onMessage: (text) => { options.onMessage(text); },
  });
  for (const { name } of filesystems) {
    const of = results.filter(({ filesystem }) => filesystem === name);
    options.onMessage(summaryOf(name, of));
    for (const [reason, count] of countsOf(of.flatMap(({ unmountable }) => unmountable.map(({ reason, isTorn }) => `${reason}, ${isTorn ? 'a write' : 'no write'} torn within 4 KiB`)))) options.onMessage(`${name}: not mountable: ${String(count)} of ${reason}`);
  }
  return results.map(rowOf);
}

/** One line on what was done with a filesystem, and how fast. */
function summaryOf(name: string, results: readonly DiskResult[]): string {
  const sum = (field: 'states' | 'secondCuts' | 'nextPulls' | 'elapsedMs' | 'writes' | 'flushes'): number => results.reduce((total, result) => total + result[field], 0);
  return `${name}: ${String(sum('states'))} states (${String(sum('secondCuts'))} of them cuts within recovery, ${String(sum('nextPulls'))} with a next pull), `
    + `${(sum('states') / Math.max(0.001, sum('elapsedMs') / 1000)).toFixed(1)} a second, of ${String(sum('writes'))} recorded writes and ${String(sum('flushes'))} flushes`;
}

/** How often each text is there. */
function countsOf(texts: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return counts;
}

/** Barriers that strace can take out of the program: the system calls never reach the kernel and seem to succeed. */
export const barriers: readonly { readonly name: string; readonly systemCalls: string }[] = [
  { name: 'every syncfs', systemCalls: 'syncfs' },
  { name: 'every fsync', systemCalls: 'fsync,fdatasync' },
];

/** Runs a program without these system calls. */
function without(systemCalls: string): string[] {
  return ['strace', '-f', '-qq', '-o', '/dev/null', '-e', `trace=${systemCalls}`, '-e', `inject=${systemCalls}:retval=0`];
}

/**
 * Runs pulls without a barrier and looks for a crash state that breaks a promise, on the filesystems that owe nothing more
 * than they must. A single fsync is not offered: these filesystems write their whole journal at the next one, so that only the
 * simulated filesystem misses each of them.
 */
export async function withoutBarrier(systemCalls: string, options: Pick<CampaignOptions, 'states' | 'seed' | 'signal'>): Promise<DiskResult[]> {
  return runDisks({
    states: options.states, seed: options.seed, signal: options.signal, stopAtFirst: true,
    filesystems: filesystems.filter(({ name }) => name !== 'ext4'), scenarios: ['full-pull', 'delta-pull'],
    wrapper: without(systemCalls),
  });
}

async function mutate(options: CampaignOptions): Promise<MutationRow[]> {
  const rows: MutationRow[] = [];
  const wanted = barriers.filter(({ name }) => options.only === null || name.includes(options.only));
  for (const { name, systemCalls } of wanted) {
    options.onProgress(rows.length, wanted.length, 'barriers');
    const results = await withoutBarrier(systemCalls, options);
    const first = results.flatMap(({ violations }) => violations)[0];
    rows.push({ barrier: name, noticed: first !== undefined, states: results.reduce((sum, { states }) => sum + states, 0), by: first?.split('\n')[0] ?? '' });
  }
  options.onProgress(rows.length, wanted.length, 'barriers');
  return rows;
}

/** Real filesystems on a block device that records every write and flush. */
export const diskCampaign: Campaign = {
  name: 'disk',
  summary: 'the real program on ext4, xfs and btrfs, on a block device that records every write and flush; root, FUSE and loop devices',
  defaultStates: 1500,
  breakable: barriers.map(({ name }) => name),
  prerequisites: () => {
    const wanting = wantingForHarness();
    return wanting.length === 0 ? null : `it wants ${wanting.join(', ')}`;
  },
  run,
  mutate,
};
