import type { LogEntry, Piece } from './block-device.js';

/** Bytes that a disk writes whole or not at all. */
export const sectorBytes = 512;
/** Sectors of 4 KiB, which other disks write whole or not at all. */
const blockSectors = 8;

/** A write that was under way at the cut and did not reach the disk whole; `kept` are the sectors that did, as [from, to). */
export interface Loss {
  readonly index: number;
  readonly kept: readonly (readonly [number, number])[];
}

/**
 * What a power cut leaves: all that was written before the last flush that had ended at the cut, and of the writes between that
 * flush and the cut all but the losses. `cut` counts the entries of the recording that had happened.
 */
export interface CrashState {
  readonly cut: number;
  readonly losses: readonly Loss[];
  readonly how: 'boundary' | 'prefix' | 'subset' | 'torn';
}

/** A number from 0 up to but not including 1. */
export type Random = () => number;

/** A generator of numbers that depend on the seed alone (mulberry32). */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number from 0 to `limit` - 1. */
export function below(random: Random, limit: number): number {
  return Math.floor(random() * limit);
}

/** Index after the last flush before `cut`: what lies before is on the disk. */
function durableBefore(log: readonly LogEntry[], cut: number): number {
  for (let at = cut - 1; at >= 0; at--) if (log[at]?.kind === 'flush') return at + 1;
  return 0;
}

/** The writes that were under way at the cut: all since the last flush. */
export function writesUnderWay(log: readonly LogEntry[], cut: number): number[] {
  const found: number[] = [];
  for (let at = durableBefore(log, cut); at < cut; at++) if (log[at]?.kind === 'write') found.push(at);
  return found;
}

/** How the block server makes the state: the entries before `count` whole, then the pieces. */
export function piecesOf(log: readonly LogEntry[], state: CrashState): { readonly count: number; readonly pieces: Piece[] } {
  const lost = new Map(state.losses.map((loss) => [loss.index, loss.kept]));
  const pieces = writesUnderWay(log, state.cut).flatMap((index) => {
    const kept = lost.get(index) ?? [[0, sectorsOf(log, index)] as const];
    return kept.map(([from, to]) => ({ index, from, to }));
  });
  return { count: durableBefore(log, state.cut), pieces };
}

function sectorsOf(log: readonly LogEntry[], index: number): number {
  const entry = log[index];
  return entry?.kind === 'write' ? Math.ceil(entry.length / sectorBytes) : 0;
}

/** Whether 4 KiB of some write reached the disk in part, which is possible only where sectors are smaller. */
export function isTornWithinBlocks(log: readonly LogEntry[], { losses }: CrashState): boolean {
  const isWithin = (sector: number, index: number): boolean => sector % blockSectors !== 0 && sector !== sectorsOf(log, index);
  return losses.some(({ index, kept }) => kept.some((edges) => edges.some((edge) => isWithin(edge, index))));
}

/** Sectors of a write that survive when it is torn in units of `unit` sectors: its beginning, its end, or some units. */
function tear(random: Random, sectors: number, unit: number): [number, number][] {
  const units = Math.ceil(sectors / unit);
  const at = (count: number): number => Math.min(sectors, count * unit);
  const middle = below(random, units + 1);
  switch (below(random, 3)) {
    case 0: return [[0, at(middle)]];
    case 1: return [[at(middle), sectors]];
    default: {
      const kept: [number, number][] = [];
      for (let one = 0; one < units; one++) if (random() < 0.5) kept.push([at(one), at(one + 1)]);
      return kept;
    }
  }
}

function randomCut(random: Random, log: readonly LogEntry[]): number {
  return below(random, log.length + 1);
}

function subset(random: Random, log: readonly LogEntry[]): CrashState {
  const cut = randomCut(random, log);
  const loseAbove = [0.1, 0.5, 0.9][below(random, 3)] ?? 0.5;
  const losses = writesUnderWay(log, cut).filter(() => random() < loseAbove).map((index) => ({ index, kept: [] }));
  return { cut, losses, how: 'subset' };
}

function torn(random: Random, log: readonly LogEntry[]): CrashState {
  const cut = randomCut(random, log);
  const unit = random() < 0.5 ? 1 : blockSectors;
  const underWay = writesUnderWay(log, cut);
  const last = underWay.at(-1);
  // Either the write that the cut hit, or any that were under way.
  const hit = random() < 0.4 ? underWay.filter((index) => index === last) : underWay.filter(() => random() < 0.4);
  return { cut, losses: hit.map((index) => ({ index, kept: tear(random, sectorsOf(log, index), unit) })), how: 'torn' };
}

/**
 * `count` crash states of a recording, none twice: flush boundaries first (at most a third, evenly spread), then cuts between
 * writes, writes lost in any combination, and writes torn at 512 bytes and at 4 KiB.
 */
export function* crashStates(log: readonly LogEntry[], count: number, random: Random): Generator<CrashState> {
  const seen = new Set<string>();
  let made = 0;
  const fresh = (state: CrashState): boolean => {
    const { count: whole, pieces } = piecesOf(log, state);
    // Marks change nothing on the disk, but what may be expected of it.
    const key = `${String(whole)} ${String(marksBefore(log, state.cut))} ${pieces.map(({ index, from, to }) => `${String(index)}:${String(from)}-${String(to)}`).join(' ')}`;
    if (seen.has(key)) return false;
    seen.add(key);
    made++;
    return true;
  };
  const boundaries = [0, ...log.flatMap((entry, at) => (entry.kind === 'flush' ? [at + 1] : [])), log.length];
  const step = Math.max(1, boundaries.length / Math.max(1, count / 3));
  for (let at = 0; at < boundaries.length && made < count; at += step) {
    const state: CrashState = { cut: boundaries[Math.floor(at)] ?? 0, losses: [], how: 'boundary' };
    if (fresh(state)) yield state;
  }
  for (let attempt = 0; made < count && attempt < count * 20; attempt++) {
    const kind = attempt % 3;
    const state: CrashState = kind === 0 ? { cut: randomCut(random, log), losses: [], how: 'prefix' } : kind === 1 ? subset(random, log) : torn(random, log);
    if (fresh(state)) yield state;
  }
}

function marksBefore(log: readonly LogEntry[], cut: number): number {
  let count = 0;
  for (let at = 0; at < cut; at++) if (log[at]?.kind === 'mark') count++;
  return count;
}

/** The state in words, for a person who looks for its cause: where it was cut and what of the last writes is missing. */
export function describeState(log: readonly LogEntry[], state: CrashState): string {
  const words = state.losses.map(({ index, kept }) => {
    const entry = log[index];
    const where = entry?.kind === 'write' ? `${String(entry.length)} bytes at ${String(entry.offset)}` : '?';
    return kept.length === 0 ? `write ${String(index)} (${where}) lost` : `write ${String(index)} (${where}) kept sectors ${kept.map(([from, to]) => `${String(from)}-${String(to)}`).join(',')}`;
  });
  return `cut after entry ${String(state.cut)} of ${String(log.length)}, ${String(writesUnderWay(log, state.cut).length)} writes under way, ${String(state.losses.length)} of them not whole${words.length === 0 ? '' : `: ${words.join('; ')}`}`;
}
