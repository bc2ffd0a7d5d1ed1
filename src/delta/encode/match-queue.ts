import { throwIfAborted } from '../../core/interruption.js';
import { serverAddon, type NativeContent } from '../../core/native.js';
import type { Basis, BasisContent } from '../basis.js';
import type { ChecksumList } from '../checksum-list.js';
import type { Expansion } from '../expansion.js';
import type { ContentRef } from '../plan.js';
import { nativeContent } from '../segments.js';
import { scratchContent } from '../inflated-content.js';
import { plannedText } from './checksum-lists.js';
import { expand } from './expander.js';
import { returnFreeMemory } from './free-memory.js';

/** A file to difference: its target entry and its sources. */
export interface MatchTask {
  readonly layer: number;
  readonly entry: number;
  /** Size of the file, expanded. */
  readonly sizeBytes: number;
  readonly sources: readonly ContentRef[];
  readonly expansion: Expansion | null;
  readonly checksums: ChecksumList | null;
}

/** A file whose matches are known. Its contents stay open until `close()`. */
export interface MatchedFile {
  readonly task: MatchTask;
  readonly sources: readonly NativeContent[];
  readonly target: BasisContent;
  /** Triples newPos, oldPos, length (see matchFile). */
  readonly ops: Float64Array;
  close(): Promise<void>;
}

/**
 * What a match takes at most: sources and the index of them, target and its costs, and the index's table. With less
 * the matcher turns to a coarser search, so this is rather too much than too little. A large one begins when all is given back
 * that others left: those are where a computation takes most.
 */
const matchMemory = { perSourceByte: 5, perTargetByte: 3, tableBytes: 66 * 2 ** 20, tablePerSourceByte: 8, largeBytes: 64 * 2 ** 20 } as const;

/** Files matched before their turn comes: each may hold two scratch files open. */
const filesAhead = 256;

/** What matches are looked for in, and what that may take. */
export interface MatchQueueOptions {
  readonly basis: Basis;
  readonly target: Basis;
  readonly threads: number;
  /** See MatchOptions. */
  readonly labelPasses: number;
  readonly memoryBytes: number;
  readonly scratchDir: string;
  readonly signal?: AbortSignal;
}

/**
 * Matches files ahead of their encoding, as many at a time as threads and memory allow, and gives them in order. Files may
 * be added while others are matched; `abandon()` ends it in any case.
 */
export class MatchQueue {
  /** Null ends a layer. */
  readonly #tasks: (MatchTask | null)[] = [];
  readonly #pending: Promise<MatchedFile | null>[] = [];
  #arrival: (() => void) | null = null;
  #failure: { readonly error: unknown } | null = null;
  readonly #waiting: { readonly bytes: number; readonly run: () => void }[] = [];
  #running = 0;
  #usedBytes = 0;
  #heldBytes = 0;

  constructor(private readonly options: MatchQueueOptions) {}

  /** Adds a file behind all others and returns at once. Throws what `fail` was given. */
  add(task: MatchTask): void {
    this.#put(task);
  }

  /** Says that the layer's files were added. */
  endLayer(): void {
    this.#put(null);
  }

  #put(task: MatchTask | null): void {
    if (this.#failure !== null) throw this.#failure.error;
    this.#tasks.push(task);
    this.#fill();
  }

  /** Leaves this much of the memory to somebody else until it is told otherwise. What is found does not depend on it. */
  hold(bytes: number): void {
    this.#heldBytes = bytes;
    this.#admit();
  }

  /** The next of the files in the order in which they were added, null at the end of a layer; waits for it to be added. The caller closes it. */
  async next(): Promise<MatchedFile | null> {
    for (;;) {
      if (this.#failure !== null) throw this.#failure.error;
      const first = this.#pending.shift();
      if (first !== undefined) {
        this.#fill();
        return first;
      }
      await new Promise<void>((resolve) => { this.#arrival = resolve; });
    }
  }

  /** Makes `next` and `add` throw `error` from now on. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#arrival?.();
  }

  /** Closes what was not taken, once it is done. */
  async abandon(): Promise<void> {
    this.#tasks.length = 0;
    this.hold(0);
    for (const result of await Promise.allSettled(this.#pending.splice(0))) if (result.status === 'fulfilled') await result.value?.close();
  }

  #fill(): void {
    while (this.#pending.length < filesAhead) {
      const task = this.#tasks.shift();
      if (task === undefined) break;
      const file = task === null ? Promise.resolve(null) : this.#match(task);
      // The failure is reported when the file's turn comes; until then it must not count as unhandled.
      file.catch(() => undefined);
      this.#pending.push(file);
    }
    this.#arrival?.();
    this.#arrival = null;
  }

  async #match(task: MatchTask): Promise<MatchedFile> {
    const sourceBytes = task.sources.reduce((sum, ref) => sum + (this.options[ref.from].layers[ref.layer]?.entries.at(ref.entry)?.header.sizeBytes ?? 0), 0) + inflatedBytes(task);
    const tableBytes = Math.min(matchMemory.tableBytes, sourceBytes * matchMemory.tablePerSourceByte);
    const bytes = Math.min(this.options.memoryBytes, sourceBytes * matchMemory.perSourceByte + task.sizeBytes * matchMemory.perTargetByte + tableBytes);
    await this.#take(bytes);
    const opened: BasisContent[] = [];
    const close = async (): Promise<void> => { for (const content of opened.splice(0)) await content.close(); };
    try {
      throwIfAborted(this.options.signal);
      if (this.#failure !== null) throw this.#failure.error;
      for (const ref of task.sources) opened.push(await this.options[ref.from].openContent(ref.layer, ref.entry, { callerVerifies: true }));
      const contents = [...opened];
      let target = await this.options.target.openContent(task.layer, task.entry);
      opened.push(target);
      if (task.checksums !== null) {
        contents[0] = await scratchContent(plannedText(task.checksums), this.options.scratchDir);
        opened.push(contents[0]);
      }
      if (task.expansion !== null) {
        const expanded = await expand(target, contents, task.expansion, this.options.scratchDir);
        target = expanded.target;
        opened.push(target);
        if (expanded.inflated !== null) {
          contents.push(expanded.inflated);
          opened.push(expanded.inflated);
        }
      }
      if (bytes >= matchMemory.largeBytes) returnFreeMemory();
      const sources = contents.map(nativeContent);
      const ops = sources.length === 0 ? new Float64Array(0) : await serverAddon().matchFile({ sources, target: nativeContent(target), memoryLimitBytes: Math.max(bytes, 16 * 2 ** 20), threads: this.options.threads, labelPasses: this.options.labelPasses });
      return { task, sources, target, ops, close };
    } catch (error) {
      await close();
      throw error;
    } finally {
      this.#give(bytes);
    }
  }

  #take(bytes: number): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push({ bytes, run: resolve });
      this.#admit();
    });
  }

  #give(bytes: number): void {
    this.#running--;
    this.#usedBytes -= bytes;
    this.#admit();
  }

  /** Lets files begin in their order; while memory is held, small ones need not wait for a large one before them. */
  #admit(): void {
    for (let at = 0; at < this.#waiting.length; ) {
      const { bytes, run } = this.#waiting[at]!;
      if (!this.#mayRun(bytes)) {
        if (this.#heldBytes === 0) return;
        at++;
        continue;
      }
      this.#waiting.splice(at, 1);
      this.#running++;
      this.#usedBytes += bytes;
      run();
    }
  }

  #mayRun(bytes: number): boolean {
    if (this.#running >= this.options.threads) return false;
    // A file that needs all of the memory runs alone; memory that is held comes back.
    return (this.#running === 0 && this.#heldBytes === 0) || this.#usedBytes + bytes <= this.options.memoryBytes - this.#heldBytes;
  }
}

function inflatedBytes(task: MatchTask): number {
  return (task.expansion?.inflated ?? []).reduce((sum, range) => sum + range.sizeBytes, 0);
}
