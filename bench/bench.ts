import { spawnSync } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { formatTable } from '../src/cli/output.js';
import { layerPullBytes, missingLayers, writeTars } from './image.js';
import { fixturePairs, folderPairs, type Pair } from './pairs.js';
import { knownPeers, measurePeer, sha256, shellPeer, type Figures, type Peer } from './peers.js';
import { hasProgram, projectRoot, withScratch } from './process.js';
import { howMeasured, markdown, pairTable, picture, withoutFigures, type BenchResult, type PairResult, type ToolResult } from './report.js';
import { measureCompute, measureDevice, type DeviceFigures, type WhittleFigures } from './whittle.js';

const usage = `usage: npm run bench -- [options]

  --pairs DIR               measure DIR/<pair>/{old,new}, OCI layouts, instead of the fixtures
  --only NAME               measure only this pair (may be repeated)
  --profile small|fast      profile of Whittle's deltas (may be repeated; default: both)
  --peer NAME='COMMAND'     one more tool: a shell command with {old}, {new} and {out} (may be repeated)
  --peer-apply NAME='COMMAND'   how that tool applies: {old}, {out}, {restored}
  --no-peers                only Whittle
  --no-device               do not run the device program
  --timeout SECONDS         for one command of a peer (default 600)
  --out DIR                 where bench.json, bench.md and bench.svg go (default bench/results)`;

interface Options {
  pairs: Pair[];
  profiles: ('small' | 'fast')[];
  peers: Peer[];
  device: boolean;
  timeoutMs: number;
  out: string;
  command: string;
}

async function readOptions(): Promise<Options | null> {
  const { values } = parseArgs({
    options: {
      pairs: { type: 'string' }, only: { type: 'string', multiple: true }, profile: { type: 'string', multiple: true },
      peer: { type: 'string', multiple: true }, 'peer-apply': { type: 'string', multiple: true }, 'no-peers': { type: 'boolean' },
      'no-device': { type: 'boolean' }, timeout: { type: 'string' }, out: { type: 'string' }, help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help === true) return null;
  const all = values.pairs === undefined ? await fixturePairs() : await folderPairs(resolve(values.pairs));
  const unknown = (values.only ?? []).filter((name) => !all.some((pair) => pair.name === name));
  if (unknown.length > 0) throw new Error(`no such pair: ${unknown.join(', ')}`);
  const profiles = values.profile ?? ['small', 'fast'];
  if (!profiles.every((name) => name === 'small' || name === 'fast')) throw new Error('--profile is small or fast');
  return {
    pairs: values.only === undefined ? all : all.filter((pair) => values.only?.includes(pair.name)),
    profiles: profiles.map((name) => (name === 'fast' ? 'fast' : 'small')),
    peers: values['no-peers'] === true ? [] : [...knownPeers(), ...extraPeers(values.peer ?? [], values['peer-apply'] ?? [])],
    device: values['no-device'] !== true,
    timeoutMs: Number(values.timeout ?? 600) * 1000,
    out: resolve(values.out ?? join(projectRoot, 'bench/results')),
    command: ['npm run bench', ...(process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : [])].join(' '),
  };
}

function extraPeers(diffs: readonly string[], applies: readonly string[]): Peer[] {
  const split = (text: string): [string, string] => {
    const at = text.indexOf('=');
    if (at < 1) throw new Error(`want NAME='COMMAND', not ${text}`);
    return [text.slice(0, at), text.slice(at + 1)];
  };
  const applyOf = new Map(applies.map(split));
  return diffs.map(split).map(([name, command]) => shellPeer(name, command, applyOf.get(name) ?? null));
}

async function measurePair(pair: Pair, options: Options, work: string): Promise<PairResult> {
  const say = (text: string): void => { process.stderr.write(`${pair.name}: ${text}\n`); };
  const oldTar = join(work, 'old.tar');
  const newTar = join(work, 'new.tar');
  const oldBytes = await writeTars(pair.basis.layout, pair.basis.layers, oldTar);
  const newBytes = await writeTars(pair.target.layout, missingLayers(pair.basis, pair.target), newTar);
  const whittle: Record<string, WhittleFigures> = {};
  const device: Record<string, DeviceFigures> = {};
  const tools: ToolResult[] = [];
  for (const profile of options.profiles) {
    say(`whittle ${profile}`);
    const computed = await measureCompute(pair, profile, join(work, 'whittle'));
    whittle[profile] = computed;
    let figures: Figures = computed;
    if (options.device) {
      say(`device, ${profile}`);
      const pulled = await measureDevice(pair, profile, join(work, 'device'));
      device[profile] = pulled;
      figures = { ...computed, applyMs: pulled.applyMs, applyPeakRssBytes: pulled.deltaPullPeakRssBytes };
    }
    tools.push({ tool: `whittle ${profile}`, ours: true, figures });
  }
  const job = { oldTar, oldBytes, newTar, newBytes, newSha256: await sha256(newTar), work: join(work, 'peer'), timeoutMs: options.timeoutMs };
  for (const peer of options.peers) {
    say(peer.name);
    tools.push({ tool: peer.name, ours: false, figures: await measurePeer(peer, job) });
  }
  return { pair: pair.name, layerPullBytes: layerPullBytes(pair.basis, pair.target), basisBytes: oldBytes, targetBytes: newBytes, whittle, device, tools };
}

/** Versions of the peers, as they say themselves. */
function versions(): Record<string, string> {
  const found: Record<string, string> = { node: process.version };
  const asks: [string, string[]][] = [['xdelta3', ['-V']], ['zstd', ['--version']], ['rdiff', ['--version']], ['casync', ['--version']], ['ostree', ['--version']]];
  for (const [name, args] of asks) {
    if (!hasProgram(name)) continue;
    const { stdout, stderr } = spawnSync(name, args, { encoding: 'utf8' });
    found[name] = /\d+\.\d+\.\d+|\d+\.\d+|\b\d+\b/.exec(`${stdout}${stderr}`.replace(/\d+-bit/, ''))?.[0] ?? 'unknown';
  }
  return found;
}

async function main(options: Options, work: string): Promise<void> {
  const pairs: PairResult[] = [];
  for (const pair of options.pairs) {
    const result = await measurePair(pair, options, work);
    pairs.push(result);
    process.stdout.write(`\n${pair.name}\n${formatTable(pairTable(result), { header: true, indent: '  ' })}\n`);
    for (const line of withoutFigures(result)) process.stdout.write(`  ${line}\n`);
  }
  const how = { ...howMeasured, ...Object.fromEntries(options.peers.map((peer) => [`command of ${peer.name}`, peer.how])) };
  const machine = `${String(cpus().length)} cores, ${process.arch}, ${process.platform}`;
  const result: BenchResult = { date: new Date().toISOString().slice(0, 10), machine, versions: versions(), how, pairs };
  await mkdir(options.out, { recursive: true });
  await writeFile(join(options.out, 'bench.json'), `${JSON.stringify(result, null, 1)}\n`);
  await writeFile(join(options.out, 'bench.md'), markdown(result, options.command));
  await writeFile(join(options.out, 'bench.svg'), picture(result));
  process.stdout.write(`\n${Object.entries(howMeasured).map(([name, text]) => `${name}: ${text}`).join('\n')}\n\nbench.json, bench.md and bench.svg are in ${options.out}\n`);
}

await withScratch('whittle-bench-', async (work) => {
  const options = await readOptions();
  if (options === null) process.stdout.write(`${usage}\n`);
  else await main(options, work);
}, (message) => { process.stderr.write(`bench: ${message}\n`); });
