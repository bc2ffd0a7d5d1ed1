/** What one harness of the power-cut campaign offers. `test:powercut` runs it; `campaigns.ts` lists the harnesses. */
export interface Campaign {
  /** What `--harness` calls it. */
  readonly name: string;
  /** One line for `--help`. */
  readonly summary: string;
  /** States of a run without `--states`. */
  readonly defaultStates: number;
  /** Why it cannot run on this machine, in one sentence; null when it can. */
  prerequisites(): string | null | Promise<string | null>;
  /** Runs about `options.states` crash states. A violation is reported and counted, not thrown; throws only when the harness itself fails. */
  run(options: CampaignOptions): Promise<CampaignRow[]>;
  /** Whether it offers `--part` and `--record`: its faults can be counted, so that several runs can cover each of them once. */
  readonly divisible?: boolean;
  /** What `--break` may name; a harness that runs the program as it is has none. */
  readonly breakable: readonly string[];
  /** Takes out the product's barriers one by one (`--mutate`). Absent: this harness has no such run. */
  mutate?(options: CampaignOptions): Promise<MutationRow[]>;
  /** Checks one state again that a failure has written down (`--replay FILE`); its violations, none when it holds. Absent: not offered. */
  replay?(file: string, options: CampaignOptions): Promise<string[]>;
}

/** One of several shares of a campaign. */
export interface Part {
  readonly index: number;
  readonly of: number;
}

/** What a run works with. */
export interface CampaignOptions {
  /** Crash states to check in all. */
  readonly states: number;
  /** Everything that is drawn is drawn from this number. */
  readonly seed: number;
  /** Folder for what a failure leaves behind; made when it is needed. */
  readonly reportDir: string;
  /** Only scenarios (or barriers, with `--mutate`) whose name contains this. */
  readonly only: string | null;
  /** Which share of the faults this run takes: number `index`, from 1, of `of` that are as good as equal. Null: all. */
  readonly part: Part | null;
  /** A file to which each fault is added when it was checked; those that it has already are not checked again. Null: none. */
  readonly recordFile: string | null;
  /** One of `breakable` that does nothing during the run (`--break`). */
  readonly without: string | null;
  /** Called as often as you like. */
  onProgress(done: number, total: number, label: string): void;
  /** A line for people: a violation with its seed and trace, a remark. */
  onMessage(text: string): void;
  /** Aborted by Ctrl-C: stop soon, clean up, return the rows so far. */
  readonly signal: AbortSignal;
}

/** One line of the table at the end. */
export interface CampaignRow {
  readonly faultClass: string;
  /** Crash states that were recovered and checked. */
  readonly states: number;
  readonly violations: number;
  /** States in which the filesystem could not be mounted: the filesystem's fault, counted apart. */
  readonly unmountable?: number;
}

/** What became of the product without one barrier. */
export interface MutationRow {
  readonly barrier: string;
  /** Whether a state was found that breaks a promise. */
  readonly noticed: boolean;
  /** States checked until then (or in all). */
  readonly states: number;
  /** The first violation, in one line. */
  readonly by: string;
}
