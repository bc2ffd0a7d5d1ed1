import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fixturePairs, folderPairs, type Pair } from '../../../bench/pairs.js';
import { hasProgram, killRunning } from '../../../bench/process.js';
import { formatTable } from '../../../src/cli/output.js';
import { wantingForDisks } from '../disk/block-device.js';
import { contentsOfPair } from './contents.js';
import { measureTimes, measureWear, servePair, type PairedTimes, type Wear } from './measure.js';
import { pullWords, wearTools, type WearTool } from './tools.js';

const help = `What an update costs a device's flash, and what its barriers cost in time. Needs root, FUSE and loop devices.

  npm run bench:wear -- [options]

  --pairs DIR   measure DIR/<pair>/{old,new}, OCI layouts, instead of the fixtures
  --only NAME   only this pair (may be repeated)
  --tool NAME   only tools whose name contains this (may be repeated): ${wearTools.map(({ name }) => name).join(', ')}
  --time        measure time instead: the same pull with its barriers and without them, in turn
  --runs N      how often each (with --time; default 5)
  --json        the result as one JSON document on standard output
  --help        this text

Bytes: each tool brings the old image onto an ext4 filesystem of its own, on a block device that records every write (that of
the harness "disk"); then it brings the new one. Every byte that the device receives from then until the filesystem is
unmounted counts, and is sorted by what its block is in the end:

  changed     files with content that the old image has not (a file's last block is whole)
  rewritten   files with content that the old image has: another time, mode, owner or place
  records     other files that are there in the end: what the tool notes down for itself
  passing     blocks that nobody uses in the end: files that came and went
  fs          directories, inodes, bitmaps, extents
  journal     the filesystem's journal

"x" is all of it over the bytes of changed content, each content counted once. "pool" is the same without "rewritten": what a store
would cost that keeps content apart from metadata and writes the latter anew.

Time: the pull is run on ext4 on a loop device over a file here, with all its syncs and with a library before it whose
fsync, fdatasync and syncfs do nothing; the ratio is of the medians.`;

interface Options {
  readonly pairs: readonly Pair[];
  readonly tools: readonly WearTool[];
  readonly time: boolean;
  readonly runs: number;
  readonly json: boolean;
}

class UsageError extends Error {}

async function readOptions(argv: readonly string[]): Promise<Options | null> {
  const many = { type: 'string', multiple: true } as const;
  const flag = { type: 'boolean' } as const;
  const { values } = parseArgs({ args: [...argv], options: { pairs: { type: 'string' }, only: many, tool: many, time: flag, runs: { type: 'string' }, json: flag, help: flag } });
  if (values.help === true) return null;
  const all = values.pairs === undefined ? await fixturePairs() : await folderPairs(resolve(values.pairs));
  const unknown = (values.only ?? []).filter((name) => !all.some((pair) => pair.name === name));
  if (unknown.length > 0) throw new UsageError(`there is no pair ${unknown.join(', ')}; there are ${all.map(({ name }) => name).join(', ')}`);
  const tools = wearTools.filter(({ name }) => values.tool?.some((text) => name.includes(text)) !== false);
  if (tools.length === 0) throw new UsageError(`no tool is called so; there are ${wearTools.map(({ name }) => name).join(', ')}`);
  const runs = Number(values.runs ?? 5);
  if (!Number.isSafeInteger(runs) || runs < 1) throw new UsageError(`--runs takes a whole number above 0, not ${values.runs ?? ''}`);
  return { pairs: values.only === undefined ? all : all.filter(({ name }) => values.only?.includes(name)), tools, time: values.time === true, runs, json: values.json === true };
}

/** What came of one pair. */
interface PairWear {
  readonly pair: string;
  readonly changedBytes: number;
  readonly wear: readonly Wear[];
}

interface PairTimes extends PairedTimes {
  readonly pair: string;
  readonly way: string;
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function wearOf(pair: Pair, tools: readonly WearTool[], scratch: string, signal: AbortSignal): Promise<PairWear> {
  const contents = await contentsOfPair(pair);
  const service = await servePair(pair, join(scratch, pair.name));
  try {
    const wear: Wear[] = [];
    for (const tool of tools) {
      say(`${pair.name}: ${tool.name}`);
      try {
        wear.push(await measureWear(tool, pair, service, contents));
      } catch (error) {
        if (signal.aborted) throw error;
        say(`${pair.name}: ${tool.name} did not do it: ${messageOf(error)}`);
      }
    }
    return { pair: pair.name, changedBytes: contents.changedBytes, wear };
  } finally {
    await service.stop();
  }
}

function kib(bytes: number): string {
  return String(Math.round(bytes / 1024));
}

function ratio(bytes: number, of: number): string {
  return of === 0 ? '-' : (bytes / of).toFixed(2);
}

function wearTable({ changedBytes, wear }: PairWear): string[][] {
  const head = ['KiB', 'changed', 'rewritten', 'records', 'passing', 'fs', 'journal', 'all', 'flushes', 'x', 'pool'];
  return [head, ...wear.map(({ tool, worn, totalBytes, flushes }) => [
    tool, kib(worn.changed), kib(worn.rewritten), kib(worn.records), kib(worn.passing), kib(worn.directories + worn.tables), kib(worn.journal), kib(totalBytes),
    String(flushes), ratio(totalBytes, changedBytes), ratio(totalBytes - worn.rewritten, changedBytes),
  ])];
}

async function timesOf(pair: Pair, runs: number, scratch: string): Promise<PairTimes[]> {
  const service = await servePair(pair, join(scratch, pair.name));
  try {
    const found: PairTimes[] = [];
    for (const way of ['--delta', '--no-delta'] as const) {
      say(`${pair.name}: ${way}`);
      const times = await measureTimes(pair, service, runs, (root, which) => pullWords({ pair, service }, root, which, which === 'basis' ? '--no-delta' : way));
      found.push({ pair: pair.name, way, ...times });
    }
    return found;
  } finally {
    await service.stop();
  }
}

/** The middle of some numbers. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] ?? 0 : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
}

function timeTable(times: readonly PairTimes[]): string[][] {
  const ms = (value: number): string => String(Math.round(value));
  return [['pull', 'with, ms', 'without, ms', 'ratio', 'ratio of the quickest'], ...times.map(({ pair, way, withMs, withoutMs }) => [
    `${pair} ${way}`, ms(median(withMs)), ms(median(withoutMs)), (median(withMs) / median(withoutMs)).toFixed(2), (Math.min(...withMs) / Math.min(...withoutMs)).toFixed(2),
  ])];
}

async function runWear(options: Options, scratch: string, signal: AbortSignal): Promise<PairWear[]> {
  const results: PairWear[] = [];
  for (const { name, wanting } of options.tools) if (wanting.length > 0) say(`${name} does not run: it wants ${wanting.join(', ')}`);
  for (const pair of options.pairs) {
    const result = await wearOf(pair, options.tools.filter(({ wanting }) => wanting.length === 0), scratch, signal);
    results.push(result);
    if (!options.json) process.stdout.write(`\n${pair.name}: ${kib(result.changedBytes)} KiB of changed content\n${formatTable(wearTable(result), { header: true, indent: '  ' })}\n`);
  }
  return results;
}

async function runTimes(options: Options, scratch: string): Promise<PairTimes[]> {
  const results: PairTimes[] = [];
  for (const pair of options.pairs) results.push(...(await timesOf(pair, options.runs, scratch)));
  if (!options.json) process.stdout.write(`\n${formatTable(timeTable(results), { header: true })}\n`);
  return results;
}

/** What this machine lacks; empty where it has all. */
export function wantingForWear(): string[] {
  return [...wantingForDisks(), ...['g++', 'mkfs.ext4', 'filefrag', 'debugfs', 'dumpe2fs'].filter((name) => !hasProgram(name))];
}

/** Runs the command; sets the exit code: 0, 2 when it could not run, 130 after Ctrl-C. Nothing stays mounted. */
export async function runCommand(argv: readonly string[]): Promise<void> {
  const stop = new AbortController();
  const onSignal = (): void => {
    stop.abort();
    // What waits for them fails, and clears up as it does after any failure.
    killRunning().catch((error: unknown) => { say(String(error)); });
  };
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, onSignal);
  const scratch = await mkdtemp(join(tmpdir(), 'whittle-wear-servers-'));
  try {
    const options = await readOptions(argv);
    if (options === null) {
      process.stdout.write(`${help}\n`);
      return;
    }
    const wanting = wantingForWear();
    if (wanting.length > 0) throw new UsageError(`this machine lacks ${wanting.join(', ')}`);
    const results = options.time ? { times: await runTimes(options, scratch) } : { wear: await runWear(options, scratch, stop.signal) };
    if (options.json) process.stdout.write(`${JSON.stringify(results)}\n`);
  } catch (error) {
    say(`bench:wear: ${stop.signal.aborted ? 'stopped' : messageOf(error)}`);
    process.exitCode = stop.signal.aborted ? 130 : 2;
  } finally {
    await rm(scratch, { recursive: true, force: true, maxRetries: 5 });
  }
}
