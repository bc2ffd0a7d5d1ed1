import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { sourceName, type Pair } from './pairs.js';
import type { Figures } from './peers.js';
import { program, runOk, type Outcome } from './process.js';
import { orderDelta, startService } from './services.js';

/** What `delta-server compute --json` says; more fields may follow. */
interface ComputeReport { layerPullBytes: number; deltaBytes: number; computeMs: number; peakRssBytes: number; applyMs: number }

/** Whittle's figures on one pair: those that a peer has too, and what else is known. */
export interface WhittleFigures extends Figures {
  /** Whole `delta-server compute`: reading, decompressing, computing, checking its own delta. */
  readonly commandMs: number;
}

/** Figures of whole device programs on one pair. Times are of the process from start to exit, syncs to disk included. */
export interface DeviceFigures {
  /** `device pull --no-delta` of the target on a device with the basis: a layer pull. */
  readonly layerPullMs: number;
  readonly layerPullPeakRssBytes: number;
  /** `device pull --delta` from `delta-server serve`, the delta being ready there. */
  readonly deltaPullMs: number;
  readonly deltaPullPeakRssBytes: number;
  /** Rebuilding and hashing, as the device reports it, without waiting for the network and without the commit. */
  readonly applyMs: number;
  /** Every byte received, manifests, config and lists included, HTTP headers not. */
  readonly receivedBytes: number;
  /** The delta that was pulled. */
  readonly servedDeltaBytes: number;
}

/** Computes the delta of a pair with one profile; `work` is a folder that is made and removed here. */
export async function measureCompute(pair: Pair, profile: 'small' | 'fast', work: string): Promise<WhittleFigures> {
  await mkdir(work, { recursive: true });
  try {
    const outcome = await runOk([...program('delta-server'), 'compute', sourceName(pair.basis), sourceName(pair.target),
      '--profile', profile, '--json', '-o', join(work, 'bench.delta')], { watchMemory: true });
    const report = lastJson(outcome) as ComputeReport;
    return {
      deltaBytes: report.deltaBytes,
      computeMs: report.computeMs,
      computePeakRssBytes: Math.max(report.peakRssBytes, outcome.peakRssBytes),
      applyMs: report.applyMs,
      applyPeakRssBytes: null,
      commandMs: outcome.elapsedMs,
    };
  } finally {
    await rm(work, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** The last JSON object on stdout: one object, or one a line. */
export function lastJson(outcome: Outcome): unknown {
  const lines = outcome.stdout.trim().split('\n');
  const last = lines.at(-1) ?? '';
  return JSON.parse(last.startsWith('{') && last.endsWith('}') && last.length > 2 ? last : outcome.stdout) as unknown;
}

interface Committed { event: string; applyMs: number; deltaBytes: number; downloadedBytes: { total: number } }

/** Updates two fresh devices from the basis to the target, one by layers and one by the delta; `work` is made and removed here. */
export async function measureDevice(pair: Pair, profile: 'small' | 'fast', work: string): Promise<DeviceFigures> {
  await mkdir(work, { recursive: true });
  // The two versions may be in layouts of the same name or not: one repository name holds both.
  const sources = [pair.basis, pair.target].map((image) => `bench=${sourceName(image)}`);
  const service = await startService(sources, join(work, 'server'), profile);
  const image = (which: Pair['basis']): string => `127.0.0.1:${String(service.port)}/bench@${which.manifestDigest}`;
  const pull = (store: string, way: string, which: Pair['basis']): Promise<Outcome> =>
    runOk([...program('device'), 'pull', way, '--json', '--root', join(work, store), image(which)], { watchMemory: true });
  try {
    await pull('by-layers', '--no-delta', pair.basis);
    const layers = await pull('by-layers', '--no-delta', pair.target);
    await pull('by-delta', '--no-delta', pair.basis);
    await orderDelta(service.port, 'bench', pair.basis.configDigest, pair.target.manifestDigest);
    const delta = await pull('by-delta', '--delta', pair.target);
    const committed = lastJson(delta) as Committed;
    return {
      layerPullMs: layers.elapsedMs,
      layerPullPeakRssBytes: layers.peakRssBytes,
      deltaPullMs: delta.elapsedMs,
      deltaPullPeakRssBytes: delta.peakRssBytes,
      applyMs: committed.applyMs,
      receivedBytes: committed.downloadedBytes.total,
      servedDeltaBytes: committed.deltaBytes,
    };
  } finally {
    await service.stop();
    await rm(work, { recursive: true, force: true, maxRetries: 5 });
  }
}
