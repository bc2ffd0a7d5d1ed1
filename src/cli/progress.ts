import cliProgress from 'cli-progress';
import { formatBytes, formatDuration, formatRate } from '../core/format.js';
import { oneLine } from './output.js';

/** Shows how far one task is. Calls are cheap; a reporter throttles what it writes. */
export interface Progress {
  /** Begins a phase with its total (bytes unless `unit` is `steps`); ends the one before. `doneBytes` is where a resumed phase stands. */
  start(label: string, total: number, options?: { readonly done?: number; readonly unit?: 'bytes' | 'steps' }): void;
  /** Sets what is done in this phase; `total` may be corrected. */
  update(done: number, total?: number): void;
  /** Writes a line above the bar (or just a line). */
  log(line: string): void;
  /** Ends the phase and leaves the terminal clean. Idempotent. */
  stop(): void;
}

/** Where progress goes. */
export interface ProgressOptions {
  /** Default: process.stderr. */
  readonly stream?: NodeJS.WriteStream;
  /** Shows nothing at all. */
  readonly quiet?: boolean;
  /** Least time between two lines when the stream is no terminal. Default 5000. */
  readonly lineIntervalMs?: number;
  /** What kind of terminal it is, if it is one. Default `$TERM`. */
  readonly terminal?: string;
  /** Monotonic clock in ms; tests replace it. */
  readonly now?: () => number;
}

/** A bar on a terminal, a line every few seconds elsewhere, silence with `quiet`. */
export function createProgress(options: ProgressOptions = {}): Progress {
  const stream = options.stream ?? process.stderr;
  if (options.quiet === true) return silentProgress;
  const now = options.now ?? (() => performance.now());
  // A dumb terminal (Emacs's shell, a logged serial line) shows what moves the cursor as it is written.
  return stream.isTTY && (options.terminal ?? process.env['TERM']) !== 'dumb' ? new BarProgress(stream, now) : new LineProgress(stream, now, options.lineIntervalMs ?? 5000);
}

/** Shows nothing. */
export const silentProgress: Progress = {
  start: () => undefined,
  update: () => undefined,
  log: () => undefined,
  stop: () => undefined,
};

/** Rate and time left of the current phase. A resumed phase counts only what was done since it began. */
class Phase {
  readonly #startedMs: number;
  readonly #initial: number;
  done: number;

  constructor(readonly label: string, public total: number, done: number, readonly unit: 'bytes' | 'steps', private readonly now: () => number) {
    this.#startedMs = now();
    this.#initial = done;
    this.done = done;
  }

  get elapsedMs(): number {
    return this.now() - this.#startedMs;
  }

  get percent(): number {
    return this.total > 0 ? Math.min(100, Math.floor((this.done / this.total) * 100)) : 100;
  }

  /** `12.3 MB of 45.6 MB, 1.2 MB/s, 27 s left`: as many of these as `room` has columns for. */
  facts(room = Infinity): string {
    if (this.unit === 'steps') return '';
    return this.#parts.reduce((line, part) => {
      const longer = line === '' ? part : `${line}, ${part}`;
      return longer.length <= room ? longer : line;
    }, '');
  }

  get #parts(): string[] {
    const perSecond = this.elapsedMs > 200 ? ((this.done - this.#initial) / this.elapsedMs) * 1000 : 0;
    const parts = [`${formatBytes(this.done)} of ${formatBytes(this.total)}`];
    if (perSecond > 0) parts.push(formatRate(perSecond));
    if (perSecond > 0 && this.done < this.total) parts.push(`${formatDuration(((this.total - this.done) / perSecond) * 1000)} left`);
    return parts;
  }
}

class LineProgress implements Progress {
  #phase: Phase | null = null;
  #lastMs = -Infinity;
  #said = false;

  constructor(private readonly stream: NodeJS.WriteStream, private readonly now: () => number, private readonly intervalMs: number) {}

  start(label: string, total: number, options: { readonly done?: number; readonly unit?: 'bytes' | 'steps' } = {}): void {
    this.stop();
    this.#phase = new Phase(oneLine(label), total, options.done ?? 0, options.unit ?? 'bytes', this.now);
    this.#lastMs = this.now();
    this.#said = false;
  }

  update(done: number, total?: number): void {
    const phase = this.#phase;
    if (phase === null) return;
    phase.done = done;
    if (total !== undefined) phase.total = total;
    if (this.now() - this.#lastMs < this.intervalMs) return;
    this.#lastMs = this.now();
    this.#said = true;
    this.#write(`${phase.label}: ${String(phase.percent)}%${phase.unit === 'bytes' ? ` (${phase.facts()})` : ''}`);
  }

  log(line: string): void {
    this.#write(oneLine(line));
  }

  stop(): void {
    const phase = this.#phase;
    this.#phase = null;
    // A phase too short to have had a line needs no last one either.
    if (phase !== null && this.#said && phase.done >= phase.total) this.#write(`${phase.label}: done in ${formatDuration(phase.elapsedMs)}`);
  }

  #write(line: string): void {
    this.stream.write(`${line}\n`);
  }
}

/** Columns of the longest facts: `1.06 MB of 2.32 MB, 1.21 MB/s, 59 min left`. */
const factsColumns = 42;
/** Columns of what stands around label, bar and facts: three spaces and `100%`. */
const fixedColumns = 7;

class BarProgress implements Progress {
  #phase: Phase | null = null;
  #bar: cliProgress.SingleBar | null = null;

  constructor(private readonly stream: NodeJS.WriteStream, private readonly now: () => number) {}

  start(label: string, total: number, options: { readonly done?: number; readonly unit?: 'bytes' | 'steps' } = {}): void {
    this.stop();
    this.#phase = new Phase(oneLine(label), total, options.done ?? 0, options.unit ?? 'bytes', this.now);
    this.#draw(this.#phase);
  }

  /** Serial consoles say that they have no columns at all. */
  get #columns(): number {
    return this.stream.columns > 0 ? this.stream.columns : 80;
  }

  /** The bar gives way to the facts, and the facts to a bar of eight columns. */
  #barColumns(phase: Phase): number {
    const besides = this.#columns - phase.label.length - fixedColumns;
    return Math.max(1, Math.min(24, besides, Math.max(8, besides - factsColumns)));
  }

  #roomFor(phase: Phase): number {
    return this.#columns - phase.label.length - fixedColumns - this.#barColumns(phase);
  }

  #draw(phase: Phase): void {
    this.#bar = new cliProgress.SingleBar({
      stream: this.stream, format: '{label} {bar} {percentage}% {facts}', barsize: this.#barColumns(phase), hideCursor: true, clearOnComplete: true,
      barCompleteChar: '█', barIncompleteChar: '░', fps: 5, etaBuffer: 1, gracefulExit: false, linewrap: false,
    });
    this.#bar.start(Math.max(1, phase.total), phase.done, { label: phase.label, facts: '' });
  }

  update(done: number, total?: number): void {
    const phase = this.#phase;
    if (phase === null || this.#bar === null) return;
    phase.done = done;
    if (total !== undefined && total !== phase.total) {
      phase.total = total;
      this.#bar.setTotal(Math.max(1, total));
    }
    this.#bar.update(phase.total > 0 ? Math.min(done, phase.total) : 1, { facts: phase.facts(this.#roomFor(phase)) });
  }

  log(line: string): void {
    const phase = this.#phase;
    this.#bar?.stop();
    this.#bar = null;
    this.stream.write(`${oneLine(line)}\n`);
    if (phase !== null) this.#draw(phase);
  }

  stop(): void {
    this.#bar?.stop();
    this.#bar = null;
    this.#phase = null;
  }
}
