import { serverAddon, type NativeContent } from '../../core/native.js';
import type { Basis, BasisContent } from '../basis.js';
import type { Expansion } from '../expansion.js';
import type { ContentRef } from '../plan.js';
import { nativeContent } from '../segments.js';
import { expand } from './expander.js';

/** A file to difference: its target entry and its sources. */
export interface MatchTask {
  readonly layer: number;
  readonly entry: number;
  /** Size of the file, expanded. */
  readonly sizeBytes: number;
  readonly sources: readonly ContentRef[];
  readonly expansion: Expansion | null;
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
 * What a match takes at most: sources and their suffix array, target and its costs, and the search's tables. With less
 * the matcher turns to a coarser search, so this is rather too much than too little.
 */
const matchMemory = { perSourceByte: 8, perTargetByte: 4, tableBytes: 80 * 2 ** 20 } as const;

/**
 * Matches files ahead of their encoding, as many at a time as threads and memory allow, and gives them in order.
 */
export class MatchQueue {
  readonly #pending: Promise<MatchedFile>[] = [];
  #waiting: (() => void)[] = [];
  #running = 0;
  #usedBytes = 0;
  #next = 0;

  constructor(
    private readonly tasks: readonly MatchTask[],
    private readonly options: { readonly basis: Basis; readonly target: Basis; readonly threads: number; readonly memoryBytes: number; readonly scratchDir: string; readonly signal?: AbortSignal },
  ) {}

  /** The files in the order of the tasks. The caller closes each; what was not taken is closed when iteration ends. */
  async *files(): AsyncGenerator<MatchedFile> {
    try {
      for (;;) {
        while (this.#pending.length < this.options.threads * 8 && this.#next < this.tasks.length) this.#start();
        const first = this.#pending.shift();
        if (first === undefined) return;
        yield await first;
      }
    } finally {
      this.#next = this.tasks.length;
      for (const result of await Promise.allSettled(this.#pending)) if (result.status === 'fulfilled') await result.value.close();
    }
  }

  #start(): void {
    const task = this.tasks[this.#next++];
    if (task === undefined) return;
    const file = this.#match(task);
    // The failure is reported when the file's turn comes; until then it must not count as unhandled.
    file.catch(() => undefined);
    this.#pending.push(file);
  }

  async #match(task: MatchTask): Promise<MatchedFile> {
    const sourceBytes = task.sources.reduce((sum, ref) => sum + (this.options[ref.from].layers[ref.layer]?.entries.at(ref.entry)?.header.sizeBytes ?? 0), 0) + inflatedBytes(task);
    const bytes = Math.min(this.options.memoryBytes, sourceBytes * matchMemory.perSourceByte + task.sizeBytes * matchMemory.perTargetByte + Math.min(matchMemory.tableBytes, sourceBytes * 64));
    await this.#take(bytes);
    const opened: BasisContent[] = [];
    const close = async (): Promise<void> => { for (const content of opened.splice(0)) await content.close(); };
    try {
      this.options.signal?.throwIfAborted();
      for (const ref of task.sources) opened.push(await this.options[ref.from].openContent(ref.layer, ref.entry, { callerVerifies: true }));
      const contents = [...opened];
      let target = await this.options.target.openContent(task.layer, task.entry);
      opened.push(target);
      if (task.expansion !== null) {
        const expanded = await expand(target, contents, task.expansion, this.options.scratchDir);
        target = expanded.target;
        opened.push(target);
        if (expanded.inflated !== null) {
          contents.push(expanded.inflated);
          opened.push(expanded.inflated);
        }
      }
      const sources = contents.map(nativeContent);
      const ops = sources.length === 0 ? new Float64Array(0) : await serverAddon().matchFile({ sources, target: nativeContent(target), memoryLimitBytes: Math.max(bytes, 16 * 2 ** 20) });
      return { task, sources, target, ops, close };
    } catch (error) {
      await close();
      throw error;
    } finally {
      this.#give(bytes);
    }
  }

  async #take(bytes: number): Promise<void> {
    while (this.#running >= this.options.threads || (this.#running > 0 && this.#usedBytes + bytes > this.options.memoryBytes)) {
      await new Promise<void>((resolve) => { this.#waiting.push(resolve); });
    }
    this.#running++;
    this.#usedBytes += bytes;
  }

  #give(bytes: number): void {
    this.#running--;
    this.#usedBytes -= bytes;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }
}

function inflatedBytes(task: MatchTask): number {
  return (task.expansion?.inflated ?? []).reduce((sum, range) => sum + range.sizeBytes, 0);
}
