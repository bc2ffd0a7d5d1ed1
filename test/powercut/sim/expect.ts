import type { Tag } from './fixtures.js';

/** What a name may stand for: nothing, or an image and the one before it. */
export type RefValue = null | readonly [current: Tag, previous: Tag | null];

/** What must hold for a disk that lost its power at a certain moment. */
export interface Expectation {
  /** The store was opened once: it opens again without being made. */
  readonly created: boolean;
  /** By name (the tag alone): what it may stand for. Other names must not be there. */
  readonly refs: Readonly<Record<string, readonly RefValue[]>>;
  /** Layers of a stage that are whole and said to be durable. */
  readonly staged?: { readonly tag: Tag; readonly layers: readonly number[] };
  /** Frames of the delta's data that were said to be durable in the stage of v2. */
  readonly spooledFrames?: number;
  /** One file of v1's second layer is rotten, and may still be so. */
  readonly rotten?: boolean;
}

/** The file that is rotten in the repair scenarios. */
export const rottenFile = 'data/changed';

/** Keeps the expectation of a running scenario and tells of each change. */
export class Expecting {
  #now: Expectation;

  constructor(start: Expectation, private readonly tell: (now: Expectation) => void) {
    this.#now = start;
    tell(start);
  }

  get now(): Expectation {
    return this.#now;
  }

  set(change: Partial<Expectation>): void {
    this.#now = { ...this.#now, ...change };
    this.tell(this.#now);
  }

  /** While `work` runs, the name may stand for what it stood for or for `value`; after it for `value` alone. */
  async becomes<T>(name: string, value: RefValue, work: () => Promise<T>): Promise<T> {
    const before = this.#now.refs[name] ?? [null];
    this.set({ refs: { ...this.#now.refs, [name]: [...before, value] } });
    const result = await work();
    this.set({ refs: { ...this.#now.refs, [name]: [value] } });
    return result;
  }
}
