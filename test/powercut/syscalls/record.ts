import { appendFile, readFile } from 'node:fs/promises';
import { keyOf, type Injection } from './faults.js';

/** What came of one fault, as one line of JSON. */
export interface RecordedFault {
  /** What `keyOf` calls it. */
  readonly fault: string;
  /** Its description, for people. */
  readonly what: string;
  /** It hit something else than the store. */
  readonly missed: boolean;
  readonly problems: readonly string[];
}

/** Calls come in another order now and then: a fault that missed the store so often is not tried again. */
const maxMisses = 3;

/** What several runs have checked, in a file that grows with each fault. A last line that a cut left incomplete does not count. */
export class CampaignRecord {
  readonly #faults: Map<string, RecordedFault[]>;

  private constructor(private readonly path: string | null, lines: readonly RecordedFault[]) {
    this.#faults = new Map();
    for (const line of lines) this.#remember(line);
  }

  /** `path` null: nothing is written, all is forgotten with this object. */
  static async open(path: string | null): Promise<CampaignRecord> {
    const text = path === null ? '' : await readFile(path, 'utf8').catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
      throw error;
    });
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    if (path !== null && whole.length < text.length) await appendFile(path, '\n');
    return new CampaignRecord(path, whole.split('\n').flatMap(lineOf));
  }

  #remember(line: RecordedFault): void {
    this.#faults.set(line.fault, [...(this.#faults.get(line.fault) ?? []), line]);
  }

  /** Whether the fault needs no further try. */
  has(injection: Injection): boolean {
    const tries = this.#faults.get(keyOf(injection)) ?? [];
    return tries.some(({ missed }) => !missed) || tries.length >= maxMisses;
  }

  async add(line: RecordedFault): Promise<void> {
    this.#remember(line);
    if (this.path !== null) await appendFile(this.path, `${JSON.stringify(line)}\n`);
  }

  /** One line on all of `injections`: how many were checked, by kind, and with what result. */
  summary(injections: readonly Injection[]): string {
    const hits = injections.filter((injection) => this.#faults.get(keyOf(injection))?.some(({ missed }) => !missed) === true);
    const count = (kind: Injection['fault']['kind']): string => String(hits.filter(({ fault }) => fault.kind === kind).length);
    const missed = injections.filter((injection) => this.has(injection)).length - hits.length;
    const violations = hits.filter((injection) => this.#faults.get(keyOf(injection))?.some(({ problems }) => problems.length > 0) === true).length;
    return `checked in all: ${String(hits.length)} of ${String(injections.length)} faults (${count('kill')} SIGKILL, ${count('error')} errors, ${count('lie')} lies), `
      + `${String(violations)} with a violation; ${String(missed)} missed the store each time`;
  }
}

function lineOf(text: string): RecordedFault[] {
  try {
    const line = JSON.parse(text) as Partial<RecordedFault>;
    if (typeof line.fault !== 'string' || typeof line.missed !== 'boolean' || !Array.isArray(line.problems)) return [];
    return [{ fault: line.fault, what: line.what ?? '', missed: line.missed, problems: line.problems }];
  } catch {
    return [];
  }
}
