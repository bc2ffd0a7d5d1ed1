import { parseArgs } from 'node:util';
import { createProgress, silentProgress } from '../../src/cli/progress.js';
import { formatTable } from '../../src/cli/output.js';
import type { Campaign, CampaignOptions, CampaignRow, MutationRow, Part } from './campaign.js';
import { campaigns } from './campaigns.js';

const help = `Cuts the power, on purpose: runs real pulls, rollbacks, collections and recoveries, builds what a disk may hold
after a cut at each step, and checks each such state against the promises of docs/durability.md.

  npm run test:powercut -- [options]

  --harness NAME  ${[...Object.keys(campaigns), 'all'].join(', ')} (default: all)
  --states N      crash states to check, for each harness (default: each harness's own)
  --seed S        the number that everything is drawn from (default: 1); a failure names it
  --only TEXT     only scenarios (with --mutate: barriers) whose name contains TEXT
  --part I/N      only the I-th of N shares of all faults (--harness syscalls): N runs cover each fault once
  --record FILE   adds each fault to FILE once it was checked, and leaves out those that FILE has (--harness syscalls): a run
                  that was stopped goes on; what FILE has in all is said at the end
  --mutate        takes the product's barriers out one by one; each must be noticed
  --break BARRIER takes this one barrier out, for all of the run: with --harness sim one of docs/durability.md, with
                  --harness disk "every syncfs" or "every fsync"; the other harness has none
  --replay FILE   checks again one state that a failure has written down (with --harness)
  --reports DIR   where failures are written down (default: powercut-reports)
  --json          the result as one JSON document on standard output
  --quiet         no progress
  --help          this text

Ends with a table of fault classes, states and violations. Exit code: 0 nothing found, 1 a violation (or a barrier that
nobody misses), 2 wrong usage or a harness that could not run, 130 after Ctrl-C (the table then says how far it came).`;

/** What went wrong before anything ran. */
class UsageError extends Error {}

interface Settings {
  readonly names: readonly string[];
  readonly states: number | null;
  readonly seed: number;
  readonly only: string | null;
  readonly part: Part | null;
  readonly recordFile: string | null;
  readonly without: string | null;
  readonly mode: 'run' | 'mutate' | 'replay';
  readonly replay: string;
  readonly reportDir: string;
  readonly json: boolean;
  readonly quiet: boolean;
}

/** The result of one harness. `skipped`: why it did not run. */
interface HarnessResult {
  readonly harness: string;
  readonly skipped?: string;
  readonly rows?: readonly CampaignRow[];
  readonly mutations?: readonly MutationRow[];
  readonly violations?: readonly string[];
  readonly seconds: number;
}

function count(text: string, flag: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new UsageError(`${flag} takes a whole number, not ${JSON.stringify(text)}`);
  return Number(text);
}

function partOf(text: string): Part {
  const [, index, of] = /^(\d{1,6})\/(\d{1,6})$/.exec(text) ?? [];
  const part = { index: Number(index), of: Number(of) };
  if (!(part.index >= 1 && part.index <= part.of)) throw new UsageError(`--part takes a share such as 2/5, not ${JSON.stringify(text)}`);
  return part;
}

function settingsOf(argv: readonly string[]): Settings | 'help' {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const options = { harness: text, states: text, seed: text, only: text, part: text, record: text, break: text, replay: text, reports: text, mutate: flag, json: flag, quiet: flag, help: flag };
  let values: Partial<Record<keyof typeof options, string | boolean>>;
  try {
    ({ values } = parseArgs({ args: [...argv], options }));
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
  if (values.help === true) return 'help';
  const value = (name: keyof typeof options): string | null => (typeof values[name] === 'string' ? values[name] : null);
  const harness = value('harness') ?? 'all';
  if (harness !== 'all' && !Object.hasOwn(campaigns, harness)) throw new UsageError(`there is no harness ${JSON.stringify(harness)}; there are ${Object.keys(campaigns).join(', ')}`);
  const replay = value('replay');
  if (replay !== null && harness === 'all') throw new UsageError('--replay needs --harness');
  if (values.break !== undefined && harness === 'all') throw new UsageError('--break needs --harness: each has barriers of its own');
  return {
    names: harness === 'all' ? Object.keys(campaigns) : [harness],
    states: values.states === undefined ? null : count(value('states') ?? '', '--states'), seed: count(value('seed') ?? '1', '--seed'), only: value('only'), without: value('break'),
    part: values.part === undefined ? null : partOf(value('part') ?? ''), recordFile: value('record'),
    mode: replay !== null ? 'replay' : values.mutate === true ? 'mutate' : 'run', replay: replay ?? '',
    reportDir: value('reports') ?? 'powercut-reports', json: values.json === true, quiet: values.quiet === true,
  };
}

/** A run that took all faults must not look as if it had taken its share. */
function requireDivisible({ name, divisible = false }: Campaign, { part, recordFile }: Settings): void {
  if ((part !== null || recordFile !== null) && !divisible) throw new UsageError(`the harness ${name} draws its states: it has no --part and no --record`);
}

/** A barrier that is not taken out must not look as if nobody missed it. */
function requireBreakable({ name, breakable }: Campaign, without: string | null): void {
  if (without === null || breakable.includes(without)) return;
  if (breakable.length === 0) throw new UsageError(`the harness ${name} cannot take a barrier out: it runs the program as it is`);
  throw new UsageError(`the harness ${name} has no barrier ${JSON.stringify(without)}; it has ${breakable.join(', ')}`);
}

/** Runs one harness with a progress line of its own. */
async function runOne(campaign: Campaign, settings: Settings, signal: AbortSignal): Promise<HarnessResult> {
  requireBreakable(campaign, settings.without);
  requireDivisible(campaign, settings);
  const startedMs = performance.now();
  const seconds = (): number => Math.round((performance.now() - startedMs) / 100) / 10;
  const reason = await campaign.prerequisites();
  if (reason !== null) return { harness: campaign.name, skipped: reason, seconds: 0 };
  const progress = settings.quiet ? silentProgress : createProgress({ lineIntervalMs: 10_000 });
  let label = '';
  const options: CampaignOptions = {
    states: settings.states ?? campaign.defaultStates, seed: settings.seed, reportDir: settings.reportDir, only: settings.only,
    part: settings.part, recordFile: settings.recordFile, without: settings.without, signal,
    onProgress: (done, total, what) => {
      if (what !== label) progress.start(`${campaign.name}: ${what}`, total, { done, unit: 'steps' });
      label = what;
      progress.update(done, total);
    },
    onMessage: (text) => { for (const line of text.split('\n')) progress.log(line); },
  };
  try {
    switch (settings.mode) {
      case 'run': return { harness: campaign.name, rows: await campaign.run(options), seconds: seconds() };
      case 'mutate': return await mutateOne(campaign, options, seconds);
      case 'replay':
        if (campaign.replay === undefined) throw new UsageError(`the harness ${campaign.name} cannot replay`);
        return { harness: campaign.name, violations: await campaign.replay(settings.replay, options), seconds: seconds() };
    }
  } finally {
    progress.stop();
  }
}

async function mutateOne(campaign: Campaign, options: CampaignOptions, seconds: () => number): Promise<HarnessResult> {
  if (campaign.mutate === undefined) return { harness: campaign.name, skipped: 'it has no mutation run', seconds: 0 };
  return { harness: campaign.name, mutations: await campaign.mutate(options), seconds: seconds() };
}

function show(result: HarnessResult): string {
  const head = `harness ${result.harness}, ${String(result.seconds)} s`;
  if (result.skipped !== undefined) return `harness ${result.harness} did not run: ${result.skipped}\n`;
  if (result.mutations !== undefined) {
    const rows = result.mutations.map((row) => [row.barrier, row.noticed ? 'noticed' : 'NOT NOTICED', String(row.states), row.by]);
    return `${head}\n${formatTable([['barrier taken out', 'result', 'states', 'by'], ...rows], { header: true })}\n`;
  }
  if (result.violations !== undefined) return `${head}: ${result.violations.length === 0 ? 'the state holds' : result.violations.join('\n')}\n`;
  const rows = result.rows ?? [];
  const unmountable = rows.some((row) => row.unmountable !== undefined);
  const line = (name: string, of: readonly CampaignRow[]): string[] => [
    name, String(sum(of, 'states')), String(sum(of, 'violations')), ...(unmountable ? [String(of.reduce((total, row) => total + (row.unmountable ?? 0), 0))] : []),
  ];
  const table = [['fault class', 'states', 'violations', ...(unmountable ? ['not mountable'] : [])], ...rows.map((row) => line(row.faultClass, [row])), line('all', rows)];
  return `${head}\n${formatTable(table, { header: true })}\n`;
}

function sum(rows: readonly CampaignRow[], field: 'states' | 'violations'): number {
  return rows.reduce((total, row) => total + row[field], 0);
}

function isBad(result: HarnessResult): boolean {
  return (result.rows ?? []).some((row) => row.violations > 0) || (result.mutations ?? []).some((row) => !row.noticed) || (result.violations ?? []).length > 0;
}

/** Runs the command; the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  const settings = settingsOf(argv);
  if (settings === 'help') {
    process.stdout.write(`${help}\n`);
    return 0;
  }
  const stop = new AbortController();
  const onSignal = (): void => { stop.abort(); };
  // Once only: a second Ctrl-C ends the process at once.
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, onSignal);
  const results: HarnessResult[] = [];
  for (const name of settings.names) {
    const load = campaigns[name];
    if (load === undefined || stop.signal.aborted) continue;
    const result = await runOne(await load(), settings, stop.signal);
    results.push(result);
    if (!settings.json) process.stdout.write(show(result));
  }
  if (settings.json) process.stdout.write(`${JSON.stringify({ seed: settings.seed, interrupted: stop.signal.aborted, results })}\n`);
  if (stop.signal.aborted) return 130;
  if (results.some(isBad)) return 1;
  return results.every((result) => result.skipped !== undefined) ? 2 : 0;
}

/** `main` for the command line: what stops it is one line on standard error. */
export async function runCommand(): Promise<void> {
  try {
    process.exitCode = await main(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`test:powercut: ${error instanceof UsageError ? error.message : String((error as { stack?: unknown }).stack ?? error)}\n`);
    process.exitCode = 2;
  }
}
