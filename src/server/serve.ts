import { join } from 'node:path';
import type { DeltaProfile } from '../delta/index.js';
import { Catalog } from './catalog.js';
import { DeltaStore, type StoreReport } from './delta-store.js';
import { makeDirectory } from './durable.js';
import { listen, type HttpService, type ListenOptions, type RequestEvent } from './http/listen.js';
import { DeltaJobs, type JobEvent, type JobRunner } from './jobs.js';
import { LayoutWatch, type WatchEvent } from './layout-watch.js';
import { loadSources, readSource, type SourceOptions } from './load-sources.js';
import { lockRoot } from './root-lock.js';
import { workerRunner } from './worker-host.js';

/** What a server tells its log. */
export type ServerEvent =
  | RequestEvent
  | JobEvent
  | WatchEvent
  | ({ readonly event: 'store' } & StoreReport)
  | { readonly event: 'loading'; readonly source: string }
  | { readonly event: 'error'; readonly message: string; readonly error: unknown };

/** What is served, where, and what computations may take. */
export interface ServeOptions extends SourceOptions {
  /** `[NAME=]SOURCE` texts. */
  readonly images: readonly string[];
  /** Where deltas and copies of remote images are kept; made when missing. One server at a time. */
  readonly root: string;
  readonly host: string;
  /** 0 picks a free port. */
  readonly port: number;
  readonly profile: DeltaProfile;
  readonly memoryLimitBytes: number;
  readonly threads: number;
  /** Computations at a time. */
  readonly jobs: number;
  readonly log: (event: ServerEvent) => void;
  /** Replaces the worker processes, for tests. */
  readonly run?: JobRunner;
  /** Where the worker's program is, when it is not beside this module. */
  readonly workerPath?: string;
  /** See `LayoutWatchOptions`. */
  readonly watchIntervalMs?: number;
  /** See `DeltaJobsOptions`. */
  readonly failureMemoryMs?: number;
  readonly httpLimits?: ListenOptions['limits'];
}

/** A server that answers requests. */
export interface DeltaServer {
  readonly service: HttpService;
  readonly catalog: Catalog;
  readonly store: DeltaStore;
  /** Answers what is under way, ends every computation, frees the root. */
  close(): Promise<void>;
}

/**
 * Starts a delta server: takes the root, recovers what is in it, reads the images, listens. When it returns,
 * requests are answered. Throws SERVER_BUSY when another server has the root, USAGE for names and addresses that
 * cannot be, and what reading the images throws; then nothing stays open.
 */
export async function startServer(options: ServeOptions): Promise<DeltaServer> {
  const closers: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) await closer();
  };
  try {
    await makeDirectory(options.root);
    const lock = await lockRoot(options.root);
    closers.push(() => lock.release());
    const { store, report } = await DeltaStore.open(options.root);
    options.log({ event: 'store', ...report });
    const catalog = new Catalog();
    const copies = join(options.root, 'images');
    const sources = await loadSources(options.images, copies, options);
    for (const content of sources.flatMap(({ contents }) => contents)) catalog.add(content);
    const jobs = new DeltaJobs({
      store, concurrency: options.jobs, log: options.log, run: options.run ?? workerRunner({ ...options, catalog }),
      ...(options.failureMemoryMs !== undefined && { failureMemoryMs: options.failureMemoryMs }),
    });
    closers.push(() => jobs.close());
    const service = await listen({ catalog, store, jobs }, {
      host: options.host, port: options.port, onRequest: options.log, ...(options.httpLimits && { limits: options.httpLimits }),
      onError: (error) => { options.log({ event: 'error', message: error instanceof Error ? error.message : String(error), error }); },
    });
    closers.push(() => service.close());
    const watch = new LayoutWatch({ catalog, sources, reload: (text) => readSource(text, copies, new Set(), options), log: options.log, intervalMs: options.watchIntervalMs });
    closers.push(() => watch.close());
    return { service, catalog, store, close };
  } catch (error) {
    await close();
    throw error;
  }
}
