import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import type { Writable } from 'node:stream';
import { WhittleError } from '../core/errors.js';
import { formatBytes, formatDuration, formatExact, formatMemory, formatRatio, parseBytes, shortDigest } from '../core/format.js';
import { peakRssBytes } from '../core/memory.js';
import type { DeltaProfile } from '../delta/index.js';
import { checkPlace } from '../registry/new-file.js';
import { computeArtifact, type ComputedArtifact, type ComputePhase } from '../server/compute.js';
import { writeDeltaArchive } from '../server/delta-archive.js';
import { openImage, type OpenedImage } from '../server/sources.js';
import { withWorkDirectory } from '../server/work-directory.js';
import { formatTable, outputAsPlace, type Output } from './output.js';
import { createProgress, type Progress } from './progress.js';

/** Flags of `delta-server compute` as commander gives them. */
export interface ComputeFlags {
  readonly output?: string;
  readonly profile: DeltaProfile;
  readonly memory: string;
  readonly threads?: string;
  readonly platform?: string;
  readonly creds?: string;
}

/** Least memory that a computation can be bounded to. */
const minMemoryBytes = 64 * 2 ** 20;

/** Reads `--memory`. Throws USAGE. */
export function parseMemory(text: string): number {
  const sizeBytes = parseBytes(text, '--memory');
  if (sizeBytes < minMemoryBytes) throw new WhittleError('USAGE', `--memory: ${text} is less than ${formatMemory(minMemoryBytes)}`, { hint: 'A computation needs at least that.' });
  return sizeBytes;
}

/** Reads a flag that counts something, from 1 to `max`. Throws USAGE. */
export function parseCount(text: string, flag: string, max: number): number {
  const count = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (count < 1 || count > max) throw new WhittleError('USAGE', `${flag}: not a number from 1 to ${String(max)}: ${JSON.stringify(text.slice(0, 20))}`);
  return count;
}

/** Most processors that a computation uses unless it is told how many. */
const mostThreads = 16;

/** Reads `--threads`; without it all processors, up to 16. Throws USAGE. */
export function parseThreads(text: string | undefined): number {
  return text === undefined ? Math.min(mostThreads, availableParallelism()) : parseCount(text, '--threads', 64);
}

/** Where `-o` leads: a file, standard output for `-`, or nowhere. Throws USAGE, and what `checkPlace` throws. */
async function placeOf(name: string | undefined, output: Output): Promise<string | Writable | null> {
  if (name === '-') return outputAsPlace('-o -', { what: 'delta', instead: '-o FILE' }, output);
  if (name === undefined) return null;
  const path = resolve(name);
  await checkPlace(path);
  return path;
}

/** `delta-server compute`: makes one delta, proves it, writes it when asked to and says what it saves. */
export async function runCompute(basisName: string, targetName: string, flags: ComputeFlags, output: Output, signal: AbortSignal): Promise<void> {
  const startedMs = performance.now();
  const memoryLimitBytes = parseMemory(flags.memory);
  const threads = parseThreads(flags.threads);
  const place = await placeOf(flags.output, output);
  const progress = createProgress({ quiet: output.options.quiet === true || output.options.json === true });
  const open = { platform: flags.platform, creds: flags.creds, signal };
  const basis = await openImage(basisName, open);
  try {
    const target = await openImage(targetName, open);
    try {
      await withWorkDirectory(async (directory) => {
        const artifact = await computeArtifact({
          basis: basis.input, target: target.input, directory, profile: flags.profile, memoryLimitBytes, threads, signal, onProgress: showPhases(progress),
        });
        progress.stop();
        const archiveBytes = place === null ? null : await writeDeltaArchive(place, artifact, target, signal);
        const outcome = { basisName, targetName, basis, target, artifact, path: typeof place === 'string' ? place : null, archiveBytes, totalMs: Math.round(performance.now() - startedMs) };
        output.json(jsonOf(outcome, { profile: flags.profile, memoryLimitBytes, threads }));
        if (place === null || typeof place === 'string') output.print(tableOf(outcome));
        else output.note(tableOf(outcome));
      });
    } finally {
      await target.close();
    }
  } finally {
    progress.stop();
    await basis.close();
  }
}

const phaseLabels: Readonly<Record<ComputePhase, string>> = { unpack: 'unpacking', compute: 'computing', check: 'applying the delta' };

function showPhases(progress: Progress): (phase: ComputePhase, done: number, total: number) => void {
  let current: ComputePhase | null = null;
  return (phase, done, total) => {
    if (phase !== current) {
      current = phase;
      progress.start(phaseLabels[phase], total, { unit: phase === 'check' ? 'steps' : 'bytes' });
    }
    progress.update(done, total);
  };
}

interface Outcome {
  readonly basisName: string;
  readonly targetName: string;
  readonly basis: OpenedImage;
  readonly target: OpenedImage;
  readonly artifact: ComputedArtifact;
  readonly path: string | null;
  readonly archiveBytes: number | null;
  readonly totalMs: number;
}

function jsonOf(outcome: Outcome, settings: Readonly<Record<string, unknown>>): unknown {
  const { artifact, basis, target, totalMs } = outcome;
  const [, index, data] = artifact.manifest.blobs;
  const image = (name: string, opened: OpenedImage): unknown => ({ source: name, manifestDigest: opened.input.manifest.digest, configDigest: opened.input.configDigest, platform: opened.platform });
  const { layers, ...report } = artifact.report;
  return {
    basis: image(outcome.basisName, basis), target: image(outcome.targetName, target),
    delta: { manifestDigest: artifact.manifest.digest, indexDigest: index.digest, dataDigest: data.digest },
    ...report, ratio: report.deltaBytes > 0 ? report.layerPullBytes / report.deltaBytes : null,
    totalMs, peakRssBytes: peakRssBytes(), ...settings, output: outcome.path, archiveBytes: outcome.archiveBytes, layers,
  };
}

function tableOf(outcome: Outcome): string {
  const { report } = outcome.artifact;
  const image = (name: string, opened: OpenedImage): string => `${name}  (image ${shortDigest(opened.input.configDigest)}, ${opened.platform})`;
  const size = (sizeBytes: number): string => `${formatExact(sizeBytes)} bytes  (${formatBytes(sizeBytes)})`;
  const rebuilt = report.layers.filter((layer) => layer.how === 'delta').length;
  const saving = report.layerPullBytes === 0 ? 'the basis has every layer already' : formatRatio(report.layerPullBytes, report.deltaBytes);
  const rows = [
    ['basis', image(outcome.basisName, outcome.basis)],
    ['target', image(outcome.targetName, outcome.target)],
    ['layers', `${String(report.layers.length)}: ${String(report.layers.length - rebuilt)} kept, ${String(rebuilt)} rebuilt (${formatExact(report.copiedFiles)} files copied, ${formatExact(report.patchedFiles)} patched)`],
    ['layer pull', size(report.layerPullBytes)],
    ['delta', `${size(report.deltaBytes)}  ${saving}`],
    ['time', `${formatDuration(report.computeMs)} to compute, ${formatDuration(report.unpackMs)} to unpack, ${formatDuration(report.applyMs)} to apply and verify`],
    ['peak memory', formatMemory(peakRssBytes())],
  ];
  if (outcome.path !== null) rows.push(['written', `${outcome.path}  (${formatBytes(outcome.archiveBytes ?? 0)})`]);
  return formatTable(rows);
}
