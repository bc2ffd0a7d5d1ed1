import { isWhittleError, WhittleError } from '../../core/errors.js';
import { pause } from '../../core/interruption.js';
import { deleteManifest, emptyFallbackDigest, readFallbackTag, subjectOfTag, updateFallbackTag } from '../../registry/index.js';
import { tagsByDigest } from './deltas.js';
import { publishLimits } from './limits.js';
import { listDeltas, mapLimited, orNull, publishedBytes, readDelta, type PublishedDelta, type RemoteRepository } from './repository.js';

/** What is removed, and who is told. */
export interface PruneOptions {
  /** Says what would be removed, and removes nothing. */
  readonly dryRun: boolean;
  /** Keeps deltas whose target is there, even though their basis is not. */
  readonly keepBasisGone: boolean;
  readonly signal: AbortSignal;
  readonly onEvent: (event: PruneEvent) => void;
}

/** A delta that is of no use any more. */
export interface StaleDelta {
  readonly digest: string;
  /** Manifest digest of the target. */
  readonly targetManifest: string;
  readonly basisConfig: string;
  readonly deltaBytes: number;
  readonly why: 'target-gone' | 'basis-gone';
}

/** What pruning tells while it runs. */
export type PruneEvent =
  | { readonly event: 'stale'; readonly delta: StaleDelta }
  | { readonly event: 'removed'; readonly digest: string };

/** What pruning came to. */
export interface PruneResult {
  readonly repository: string;
  /** Deltas that were looked at. */
  readonly deltas: number;
  readonly stale: readonly StaleDelta[];
  /** Deltas that are gone now; 0 after a dry run. */
  readonly removed: number;
  /** Entries of fallback tags that led to nothing, of those taken out. */
  readonly entriesRemoved: number;
}

/**
 * Removes from a repository the deltas whose target or basis it no longer has. Images are found by their tags, and by what
 * deltas and fallback tags name; every absence is asked for again, after a pause, before anything is deleted, so that an image
 * which is just being pushed is not taken for one that is gone. Blobs are given back by the registry's own garbage collection.
 * Throws REGISTRY_* (REGISTRY_DELETES_OFF where nobody may delete; nothing is changed then), LIMIT_EXCEEDED, INTERRUPTED.
 */
export async function prune(where: RemoteRepository, options: PruneOptions): Promise<PruneResult> {
  return new Pruning(where, options).run();
}

/** Deltas to one image, and what of its list leads to nothing. */
interface SubjectState {
  readonly subject: string;
  readonly from: 'api' | 'tag';
  readonly deltas: readonly PublishedDelta[];
  readonly dangling: readonly string[];
}

class Pruning {
  /** Whether the repository has a manifest. */
  readonly #present = new Map<string, boolean>();

  constructor(private readonly where: RemoteRepository, private readonly options: PruneOptions) {}

  async run(): Promise<PruneResult> {
    const states = await this.#survey();
    const doubtful = await this.#staleOf(states);
    if (doubtful.length > 0) {
      await pause(this.where.client.transport.limits.tagSettleMs * 2, this.options.signal);
      this.#present.clear();
    }
    const stale = await this.#staleOf(states);
    for (const delta of stale) this.options.onEvent({ event: 'stale', delta });
    const deltas = states.reduce((sum, state) => sum + state.deltas.length, 0);
    if (this.options.dryRun) return { repository: this.where.name, deltas, stale, removed: 0, entriesRemoved: 0 };
    for (const { digest } of stale) {
      await this.#delete(digest);
      this.options.onEvent({ event: 'removed', digest });
    }
    const entriesRemoved = await this.#tidy(states, new Set(stale.map((each) => each.digest)));
    return { repository: this.where.name, deltas, stale, removed: stale.length, entriesRemoved };
  }

  /** Every image that deltas may lead to: tagged ones, those that fallback tags are for, and those that deltas start from. */
  async #survey(): Promise<readonly SubjectState[]> {
    const { client, repository } = this.where;
    const { signal } = this.options;
    const byDigest = await tagsByDigest(this.where, signal);
    const noted = (await client.listTags(repository, { signal })).flatMap((tag) => subjectOfTag(tag)?.subjectDigest ?? []);
    const seen = new Set<string>();
    const states: SubjectState[] = [];
    for (let found = [...byDigest.keys(), ...noted]; found.length > 0;) {
      const fresh = [...new Set(found)].filter((digest) => !seen.has(digest));
      for (const digest of fresh) seen.add(digest);
      if (seen.size > publishLimits.tags * 2) throw new WhittleError('LIMIT_EXCEEDED', `${this.where.name}: more than ${String(publishLimits.tags * 2)} images`);
      const next = await mapLimited(fresh, publishLimits.requests, (subject) => this.#look(subject));
      states.push(...next);
      found = next.flatMap((state) => state.deltas.flatMap((delta) => delta.basisManifest ?? []));
    }
    return states;
  }

  async #look(subject: string): Promise<SubjectState> {
    const { signal } = this.options;
    const { from, descriptors } = await listDeltas(this.where, subject, signal);
    const read = await mapLimited(descriptors, publishLimits.requests, async ({ digest }) => ({ digest, delta: await readDelta(this.where, digest, signal) }));
    return {
      subject, from, deltas: read.flatMap(({ delta }) => (delta?.targetManifest === subject ? [delta] : [])),
      dangling: read.flatMap(({ digest, delta }) => (delta === null ? [digest] : [])),
    };
  }

  async #staleOf(states: readonly SubjectState[]): Promise<readonly StaleDelta[]> {
    const all = states.flatMap((state) => state.deltas);
    const stale = await mapLimited(all, publishLimits.requests, async (delta): Promise<StaleDelta[]> => {
      const targetGone = !(await this.#has(delta.targetManifest));
      const basisGone = !targetGone && !this.options.keepBasisGone && delta.basisManifest !== undefined && !(await this.#has(delta.basisManifest));
      if (!targetGone && !basisGone) return [];
      const { digest, targetManifest, basisConfig } = delta;
      return [{ digest, targetManifest, basisConfig, deltaBytes: publishedBytes(delta), why: targetGone ? 'target-gone' : 'basis-gone' }];
    });
    return stale.flat();
  }

  async #has(digest: string): Promise<boolean> {
    const known = this.#present.get(digest);
    if (known !== undefined) return known;
    const there = (await this.where.client.headManifest(this.where.repository, digest, { signal: this.options.signal })) !== undefined;
    this.#present.set(digest, there);
    return there;
  }

  async #delete(digest: string): Promise<void> {
    const { client, repository } = this.where;
    // Somebody else may have been quicker.
    await orNull(() => deleteManifest(client, repository, digest, { signal: this.options.signal }), ['REGISTRY_NOT_FOUND']);
  }

  /** Takes what is gone out of the fallback tags, and drops tags that hold nothing any more. Returns how many dangling entries there were. */
  async #tidy(states: readonly SubjectState[], removed: ReadonlySet<string>): Promise<number> {
    const { client, repository } = this.where;
    const { signal } = this.options;
    let dangling = 0;
    let emptied = false;
    for (const state of states) {
      const gone = [...state.dangling, ...state.deltas.map((each) => each.digest).filter((digest) => removed.has(digest))];
      if (state.from !== 'tag' || gone.length === 0) continue;
      await updateFallbackTag(client, repository, state.subject, { removed: gone }, { signal });
      dangling += state.dangling.length;
      emptied ||= (await readFallbackTag(client, repository, state.subject, { signal })).length === 0;
    }
    if (emptied) await this.#dropEmpty();
    return dangling;
  }

  /** Every emptied fallback tag holds the same document: deleting it drops the tags that hold it at that moment, and no other. */
  async #dropEmpty(): Promise<void> {
    try {
      await this.#delete(emptyFallbackDigest());
    } catch (error) {
      // An empty list does no harm.
      if (!isWhittleError(error) || error.code === 'INTERRUPTED') throw error;
    }
  }
}
