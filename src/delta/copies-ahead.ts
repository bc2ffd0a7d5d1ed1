import { groupFrom } from '../core/groups.js';
import type { Basis, BasisBytes, BasisEntry } from './basis.js';
import type { ContentPlan } from './plan.js';

const groupLimits = { members: 64, bytes: 256 * 1024, memberBytes: 128 * 1024 } as const;

/** Entries before `end`, of which `copied` are copies of small contents that are on their way. */
interface Group {
  readonly end: number;
  readonly copied: readonly number[];
  readonly contents: Promise<readonly (BasisBytes | undefined)[]>;
}

const noGroup: Group = { end: 0, copied: [], contents: Promise.resolve([]) };

/** One layer's entries: what becomes of each, how large it is, and the entry of the basis that it is a copy of (null for others). */
export interface AheadEntries {
  readonly content: readonly ContentPlan[];
  sizeBytes(entry: number): number;
  origin(entry: number): BasisEntry | null;
}

/**
 * Reads the small contents that a layer copies from the basis in groups, the next while the last is used: opening and
 * reading thousands of files one by one takes longer than all else that is done with them. Of a basis that reads no groups
 * it gives nothing. `close` it before the basis.
 */
export class CopiesAhead {
  #group: Group = noGroup;
  #contents: readonly (BasisBytes | undefined)[] = [];
  #next = 0;
  #ahead: Group;

  constructor(private readonly basis: Basis, private readonly entries: AheadEntries) {
    this.#ahead = this.#read(0);
  }

  /** Whether `take` may be asked for `entry` at once: it is in the group that is here. */
  has(entry: number): boolean {
    return entry < this.#group.end || this.#ahead.end <= this.#group.end;
  }

  /** Waits until `has` says so. Go in ascending order. */
  async reach(entry: number): Promise<void> {
    while (!this.has(entry)) {
      this.#group = this.#ahead;
      this.#contents = await this.#group.contents;
      this.#next = 0;
      this.#ahead = this.#read(this.#group.end);
    }
  }

  /** The content that `entry` copies; undefined when it is to be opened by itself. Ask in ascending order; it is good until the next is asked for. */
  take(entry: number): BasisBytes | undefined {
    const { copied } = this.#group;
    while ((copied[this.#next] ?? entry) < entry) this.#next++;
    return copied[this.#next] === entry ? this.#contents[this.#next] : undefined;
  }

  /** Waits for what is being read. */
  async close(): Promise<void> {
    await this.#ahead.contents;
  }

  #read(start: number): Group {
    const { entries, basis } = this;
    if (basis.readContents === undefined) return noGroup;
    const { end, members } = groupFrom(start, entries.content.length, groupLimits, (entry) => (entries.content[entry]?.kind === 'copy' ? entries.sizeBytes(entry) : 0));
    const copied: number[] = [];
    const wanted: BasisEntry[] = [];
    for (const entry of members) {
      const origin = entries.origin(entry);
      if (origin === null) continue;
      copied.push(entry);
      wanted.push(origin);
    }
    // Whatever is wrong is said by whoever opens the content by itself.
    const contents = wanted.length === 0 ? Promise.resolve([]) : basis.readContents(wanted).catch(() => []);
    return { end, copied, contents };
  }
}
