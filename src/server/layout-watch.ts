import { setTimeout as sleep } from 'node:timers/promises';
import { errorCodeOf } from '../core/errors.js';
import type { Catalog, SourceContent } from './catalog.js';
import { fileStamp, type LoadedSource } from './load-sources.js';

/** What a watch tells the log: what a layout has now, or why it could not be read again and is served as it was. */
export type WatchEvent =
  | { readonly event: 'images'; readonly source: string; readonly added: readonly string[]; readonly removed: readonly string[] }
  | { readonly event: 'unread'; readonly source: string; readonly code: string; readonly message: string };

/** What is watched, and who reads it. */
export interface LayoutWatchOptions {
  readonly catalog: Catalog;
  /** In the order in which they were named. */
  readonly sources: readonly LoadedSource[];
  readonly reload: (text: string) => Promise<readonly SourceContent[]>;
  readonly log: (event: WatchEvent) => void;
  /** Default two seconds. */
  readonly intervalMs?: number | undefined;
}

interface Watched {
  readonly loaded: LoadedSource;
  seen: string;
  contents: readonly SourceContent[];
  /** What was last said to be wrong. */
  problem: string;
}

/**
 * Looks every few seconds whether the `index.json` of a layout is another, and has its images read again: whatever pushes into a
 * layout writes that file last. By asking, not by inotify, which tells nothing of what another machine writes over NFS. A layout that
 * cannot be read (half written, a blob still to come) is served as it was and tried again at the next look.
 */
export class LayoutWatch {
  readonly #sources: readonly Watched[];
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;

  constructor(private readonly options: LayoutWatchOptions) {
    this.#sources = options.sources.map((loaded): Watched => ({ loaded, seen: loaded.stamp, contents: loaded.contents, problem: '' }));
    this.#ended = this.#run(options.intervalMs ?? 2000);
  }

  /** Ends the watch; what is being read is read to its end. */
  async close(): Promise<void> {
    this.#stop.abort();
    await this.#ended;
  }

  async #run(intervalMs: number): Promise<void> {
    const { signal } = this.#stop;
    if (this.#sources.every(({ loaded }) => loaded.indexPath === null)) return;
    for (;;) {
      // Rejects only when the watch ends, which is looked at below.
      await sleep(intervalMs, undefined, { signal, ref: false }).catch(() => undefined);
      for (const source of this.#sources) {
        if (signal.aborted) return;
        await this.#look(source);
      }
    }
  }

  async #look(source: Watched): Promise<void> {
    const { text, indexPath } = source.loaded;
    if (indexPath === null) return;
    const stamp = await fileStamp(indexPath);
    if (stamp === source.seen) return;
    try {
      const contents = await this.options.reload(text);
      const changes = this.options.catalog.update(this.#sources.flatMap((each) => (each === source ? contents : each.contents)));
      Object.assign(source, { seen: stamp, contents, problem: '' });
      if (changes.added.length + changes.removed.length > 0) this.options.log({ event: 'images', source: text, ...changes });
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (message !== source.problem) this.options.log({ event: 'unread', source: text, code: errorCodeOf(error), message });
      source.problem = message;
    }
  }
}
