import { formatBytes, formatDuration, formatExact, formatMemory } from '../src/core/format.js';
import { drawSavings, type BarGroup } from './picture.js';
import type { Figures } from './peers.js';
import type { DeviceFigures, WhittleFigures } from './whittle.js';

/** Links that update times are worked out for. */
export const links = [
  { name: '64 kbit/s', bitsPerSecond: 64e3 },
  { name: '1 Mbit/s', bitsPerSecond: 1e6 },
  { name: '20 Mbit/s', bitsPerSecond: 20e6 },
] as const;

/** One tool on one pair: figures, or why there are none. */
export interface ToolResult {
  readonly tool: string;
  readonly ours: boolean;
  readonly figures: Figures | string;
}

/** All that was measured on one pair. */
export interface PairResult {
  readonly pair: string;
  readonly layerPullBytes: number;
  /** Uncompressed layers of the basis, and of the target those that the basis lacks. */
  readonly basisBytes: number;
  readonly targetBytes: number;
  readonly whittle: Readonly<Record<string, WhittleFigures>>;
  /** By profile; empty when the device program was not run. */
  readonly device: Readonly<Record<string, DeviceFigures>>;
  readonly tools: readonly ToolResult[];
}

/** A whole run. */
export interface BenchResult {
  readonly date: string;
  readonly machine: string;
  readonly versions: Readonly<Record<string, string>>;
  /** How each figure was measured, by its name. */
  readonly how: Readonly<Record<string, string>>;
  readonly pairs: readonly PairResult[];
}

/** How each figure is measured, for the reports. */
export const howMeasured: Readonly<Record<string, string>> = {
  'layer pull': 'Sum of the compressed layer blobs whose uncompressed digest (diffID) the basis lacks.',
  'delta, Whittle': 'Manifest, index blob and data blob of the delta artifact, as `delta-server compute --json` reports them.',
  'delta, peers': 'Size of the file that the tool writes for one file of all basis layers and one of the target\'s missing layers, uncompressed. Nothing is added for manifests.',
  'compute time': 'Whittle: computeMs of `delta-server compute --json`, from unpacked basis and target, without the self-check. Peers: wall clock of the command.',
  'apply time': 'Whittle: applyMs of `device pull --delta --json`: rebuilding and hashing, neither network nor final sync. Peers: wall clock of the command, which neither hashes nor syncs.',
  memory: 'Largest resident set of any one process of the command (VmHWM, read every 10 ms).',
  'update time': 'Simulated: bytes times 8 over the link\'s rate, plus the measured apply time. No latency, no loss. For the layer pull, apply is `device pull --no-delta` from loopback.',
};

const time = (ms: number | null): string => (ms === null ? '-' : formatDuration(ms));
const memory = (sizeBytes: number | null): string => (sizeBytes === null || sizeBytes === 0 ? '-' : formatMemory(sizeBytes));

function updateTime(deltaBytes: number, applyMs: number | null, bitsPerSecond: number): string {
  return time((deltaBytes * 8000) / bitsPerSecond + (applyMs ?? 0));
}

/** Rows of the table of one pair, its header first; tools without figures have none. */
export function pairTable(pair: PairResult): string[][] {
  const rows = [['tool', 'bytes', 'x less', 'compute', 'memory', 'apply', 'memory', ...links.map((link) => link.name)]];
  const device = Object.values(pair.device)[0];
  const layerApplyMs = device?.layerPullMs ?? null;
  rows.push(['layer pull', formatExact(pair.layerPullBytes), '1.0', '-', '-', time(layerApplyMs), memory(device?.layerPullPeakRssBytes ?? null),
    ...links.map((link) => updateTime(pair.layerPullBytes, layerApplyMs, link.bitsPerSecond))]);
  for (const { tool, figures } of pair.tools) {
    if (typeof figures === 'string') continue;
    const { deltaBytes, computeMs, computePeakRssBytes, applyMs, applyPeakRssBytes } = figures;
    rows.push([tool, formatExact(deltaBytes), (pair.layerPullBytes / deltaBytes).toFixed(1), time(computeMs), memory(computePeakRssBytes), time(applyMs),
      memory(applyPeakRssBytes), ...links.map((link) => updateTime(deltaBytes, applyMs, link.bitsPerSecond))]);
  }
  return rows;
}

/** Tools that gave no figures on a pair, each with the reason. */
export function withoutFigures(pair: PairResult): string[] {
  return pair.tools.flatMap(({ tool, figures }) => (typeof figures === 'string' ? [`${tool}: no figures: ${figures}`] : []));
}

/** The run as a Markdown page. */
export function markdown(result: BenchResult, command: string): string {
  const lines = ['# Benchmark', '', `Written by \`${command}\` on ${result.date}, ${result.machine}.`, '', ...Object.entries(result.versions).map(([name, version]) => `- ${name}: ${version}`), ''];
  for (const pair of result.pairs) {
    lines.push(`## ${pair.pair}`, '', `Basis ${formatBytes(pair.basisBytes)}, target ${formatBytes(pair.targetBytes)} of layers that the basis lacks, both uncompressed.`, '');
    const [header, ...rows] = pairTable(pair);
    lines.push(`| ${header!.join(' | ')} |`, `|${header!.map(() => '---').join('|')}|`, ...rows.map((row) => `| ${row.join(' | ')} |`), '', ...withoutFigures(pair).flatMap((line) => [line, '']));
  }
  lines.push('## How each figure was measured', '', ...Object.entries(result.how).map(([name, how]) => `- **${name}**: ${how}`), '');
  return lines.join('\n');
}

/** The run as a picture. Pairs with no layer to pull have no bars. */
export function picture(result: BenchResult): string {
  const groups: BarGroup[] = result.pairs.filter((pair) => pair.layerPullBytes > 0).map((pair) => ({
    title: `${pair.pair}: a layer pull downloads ${formatBytes(pair.layerPullBytes)}`,
    bars: pair.tools.flatMap(({ tool, ours, figures }) =>
      typeof figures === 'string' ? [] : [{ tool, ours, deltaBytes: figures.deltaBytes, times: pair.layerPullBytes / figures.deltaBytes }],
    ).sort((a, b) => b.times - a.times),
  }));
  return drawSavings('How much less a device downloads', 'Layer pull divided by delta; longer is better. Right: bytes of the delta.', groups,
    'npm run bench. All tools in one run on the same layers; Whittle\'s deltas include their manifest and index.');
}
