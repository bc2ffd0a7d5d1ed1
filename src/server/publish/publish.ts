import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorCodeOf, WhittleError } from '../../core/errors.js';
import { deltaFormatVersion } from '../../delta/format.js';
import type { DeltaProfile } from '../../delta/index-blob.js';
import { formatReference, isTag, type Reference } from '../../oci/index.js';
import { parseSourceSpec, type OnRetry, type TransportOptions } from '../../registry/index.js';
import { layerPullBytes } from '../image-input.js';
import { openImage, type OpenedImage } from '../sources.js';
import { withWorkDirectory } from '../work-directory.js';
import { computeInWorker } from '../worker-host.js';
import { bundleOfWork, openBundle, type DeltaBundle } from './bundle.js';
import { requireWhole, standing, type BrokenDelta, type DeltaEnds, type Standing } from './check-published.js';
import { publishLimits } from './limits.js';
import { LayerCopies } from './local-image.js';
import { pushImage, type PushOptions } from './push-bundle.js';
import { pushInstead } from './push-instead.js';
import { listDeltas, mapLimited, openRepository, readDelta, type PublishedDelta, type RemoteRepository } from './repository.js';
import { selectTags } from './tags.js';

/** What to publish. */
export interface PublishOptions {
  /** `docker://host/repository`; null: where the target is, which is then in a registry. */
  readonly to: string | null;
  /** The new image; null with `deltaFile`. */
  readonly target: string | null;
  /** Old images by name. */
  readonly bases: readonly string[];
  /** Old images among the repository's tags: those that fit a glob, and the newest so many before the target. */
  readonly basisTags: string | null;
  readonly last: number | null;
  /** A `.delta` file that was computed before, instead of images. */
  readonly deltaFile: string | null;
  /** Publishes also what is there already, and takes out what was there. */
  readonly force: boolean;
  /** Says what would be done; computes and pushes nothing. */
  readonly dryRun: boolean;
  /** Pushes the target too when the repository does not have it. */
  readonly pushImage: boolean;
  readonly profile: DeltaProfile;
  /** Of each computation. */
  readonly memoryLimitBytes: number;
  readonly threads: number;
  /** Computations at a time. */
  readonly jobs: number;
  readonly platform?: string | undefined;
  /** For the repository, and for sources in the same registry. */
  readonly creds?: string | undefined;
  readonly signal: AbortSignal;
  readonly onEvent: (event: PublishEvent) => void;
  readonly onRetry?: OnRetry | undefined;
  readonly limits?: TransportOptions['limits'];
  /** The program of a computation's process; tests replace it. */
  readonly workerPath?: string | undefined;
}

/** What publishing tells while it runs. */
export type PublishEvent =
  | { readonly event: 'target'; readonly name: string; readonly repository: string; readonly manifestDigest: string; readonly configDigest: string; readonly pushedBytes: number | null }
  | { readonly event: 'begin'; readonly deltas: number }
  /** How much of all is done, between 0 and 1. */
  | { readonly event: 'progress'; readonly share: number }
  | { readonly event: 'delta'; readonly outcome: PublishOutcome };

/** What became of one old image. Sizes are null where they are not known. */
export interface PublishOutcome {
  /** As it was named, or found. */
  readonly basis: string;
  readonly basisConfig: string | null;
  /** `same-image`: the basis is the target itself, or a basis already named. `planned`: what a dry run leaves undone. */
  readonly result: 'published' | 'exists' | 'not-smaller' | 'same-image' | 'planned' | 'failed';
  readonly deltaDigest: string | null;
  readonly deltaBytes: number | null;
  readonly layerPullBytes: number | null;
  readonly sentBytes: number;
  readonly listedBy: 'api' | 'tag' | null;
  /** Deltas for the same devices that were there before: those that were taken out for this one, and those that the registry lets nobody take out. */
  readonly replaced: readonly string[];
  readonly left: readonly string[];
  /** Deltas for the same devices that were there before and cannot be what they say, or are not whole in the registry. */
  readonly broken: readonly BrokenDelta[];
  readonly code: string | null;
  readonly message: string | null;
}

/** What publishing came to. */
export interface PublishResult {
  readonly repository: string;
  readonly targetManifest: string;
  readonly outcomes: readonly PublishOutcome[];
  /** The first failure of one of the deltas; the others were done all the same. */
  readonly failure: Error | null;
}

/** Share of one delta's work that computing it is; the rest is the upload. */
const computeShare = 0.9;

/**
 * Publishes deltas to an image beside it in a registry: what is there already is left, what would not be smaller than the
 * layers is not pushed, all others are computed (each in its own process) or taken from a file, proven, and pushed. Running it
 * again does what is left. Throws USAGE, IMAGE_*, REGISTRY_*, INTERRUPTED; what goes wrong with one of several deltas is in the result.
 */
export async function publish(options: PublishOptions): Promise<PublishResult> {
  const to = openRepository(options.to ?? destinationOf(options), '--to', options);
  try {
    return options.deltaFile === null ? await new Publication(to, options).run() : await publishFile(to, options.deltaFile, options);
  } finally {
    await to.client.close();
  }
}

function destinationOf({ target }: PublishOptions): string {
  if (target?.startsWith('docker://') !== true) throw new WhittleError('USAGE', 'no repository to publish to', { hint: 'Name it: --to docker://HOST/REPOSITORY. Only a target that is in a registry needs no --to.' });
  const { registry, repository } = referenceOf(target);
  return `docker://${formatReference({ registry, repository })}`;
}

function referenceOf(source: string): Reference {
  const spec = parseSourceSpec(source);
  if (spec.transport !== 'docker') throw new WhittleError('USAGE', `${source} is not in a registry`);
  return spec.reference;
}

const nothing = { basisConfig: null, deltaDigest: null, deltaBytes: null, layerPullBytes: null, sentBytes: 0, listedBy: null, replaced: [], left: [], broken: [], code: null, message: null } as const;

/** Publishes the delta in a `.delta` file. */
async function publishFile(to: RemoteRepository, path: string, options: PublishOptions): Promise<PublishResult> {
  const { signal, onEvent } = options;
  const { bundle, target } = await openBundle(path);
  try {
    await requireTarget(to, target.descriptor.digest, options);
    onEvent({ event: 'target', name: path, repository: to.name, manifestDigest: target.descriptor.digest, configDigest: target.configDigest, pushedBytes: null });
    onEvent({ event: 'begin', deltas: 1 });
    const known = (await publishedBases(to, target.descriptor.digest, signal)).get(bundle.basisConfig) ?? [];
    const ends = { basisConfig: bundle.basisConfig, targetManifest: target.descriptor.digest, targetConfig: target.configDigest, targetDiffIds: target.diffIds, basisDiffIds: null };
    const there = await standing(to, known, ends, options);
    const facts = { ...nothing, basis: path, basisConfig: bundle.basisConfig, deltaDigest: bundle.descriptor.digest, deltaBytes: bundle.deltaBytes, layerPullBytes: bundle.layerPullBytes, broken: there.broken };
    const onProgress = (done: number, total: number): void => { onEvent({ event: 'progress', share: done / total }); };
    const outcome: PublishOutcome = there.whole !== null ? { ...facts, result: 'exists', deltaDigest: there.whole }
      : bundle.deltaBytes >= bundle.layerPullBytes ? { ...facts, result: 'not-smaller' }
        : options.dryRun ? { ...facts, result: 'planned' }
          : { ...facts, result: 'published', ...(await replaceDeltas(to, bundle, { ends, known: there }, { signal, onProgress })) };
    onEvent({ event: 'delta', outcome });
    return { repository: to.name, targetManifest: target.descriptor.digest, outcomes: [outcome], failure: null };
  } finally {
    await bundle.close();
  }
}

/** A device that pulls from the repository must find the image there. */
async function requireTarget({ client, repository, name }: RemoteRepository, digest: string, { signal }: PublishOptions): Promise<void> {
  if ((await client.headManifest(repository, digest, { signal })) !== undefined) return;
  throw new WhittleError('IMAGE_NOT_FOUND', `${name} does not have the target (${digest}), so no device could find the delta there`, {
    hint: 'Push the image first (skopeo copy --preserve-digests …), or let publish do it: --push-image.',
  });
}

/** Deltas to a manifest that the repository has: their digests by config digest of the basis. Those of another format version are for other devices. */
async function publishedBases(to: RemoteRepository, subject: string, signal: AbortSignal): Promise<ReadonlyMap<string, readonly PublishedDelta[]>> {
  const { descriptors } = await listDeltas(to, subject, signal);
  const found = new Map<string, PublishedDelta[]>();
  for (const delta of await mapLimited(descriptors, publishLimits.requests, ({ digest }) => readDelta(to, digest, signal))) {
    // A list may name what is of another image: no device takes that.
    if (delta?.version === deltaFormatVersion && delta.targetManifest === subject) found.set(delta.basisConfig, [...(found.get(delta.basisConfig) ?? []), delta]);
  }
  return found;
}

/** Pushes a delta, takes out what stood in its place, and makes sure that what was broken is not any more. */
async function replaceDeltas(to: RemoteRepository, bundle: DeltaBundle, { ends, known }: { readonly ends: DeltaEnds; readonly known: Standing }, options: PushOptions & { readonly signal: AbortSignal }): ReturnType<typeof pushInstead> {
  const pushed = await pushInstead(to, bundle, known.digests, options);
  const { digest } = bundle.descriptor;
  if (known.broken.some((each) => each.digest === digest)) await requireWhole(to, digest, ends, options.signal);
  return pushed;
}

/** One basis to publish from. */
interface Candidate {
  readonly name: string;
  readonly image: OpenedImage;
  /** Deltas from it to the target that are published. */
  readonly known: Standing;
  readonly ends: DeltaEnds;
}

function endsOf({ input: basis }: OpenedImage, { input: target }: OpenedImage): DeltaEnds {
  const diffIds = (image: typeof basis): string[] => image.layers.map(({ diffId }) => diffId);
  return { basisConfig: basis.configDigest, targetManifest: target.manifest.digest, targetConfig: target.configDigest, targetDiffIds: diffIds(target), basisDiffIds: diffIds(basis) };
}

class Publication {
  readonly #shares = new Map<string, number>();
  readonly #outcomes: PublishOutcome[] = [];
  readonly #opened: OpenedImage[] = [];
  #total = 0;
  #failure: Error | null = null;
  /** One update of the target's list at a time: racing is for others. */
  #listing: Promise<unknown> = Promise.resolve();

  constructor(private readonly to: RemoteRepository, private readonly options: PublishOptions) {}

  async run(): Promise<PublishResult> {
    const targetName = this.options.target ?? '';
    try {
      const target = await this.#open(targetName);
      const pushedBytes = await this.#bringTarget(target, targetName);
      const manifestDigest = target.input.manifest.digest;
      this.options.onEvent({ event: 'target', name: targetName, repository: this.to.name, manifestDigest, configDigest: target.input.configDigest, pushedBytes });
      const names = await this.#basisNames(targetName);
      const known = pushedBytes === null ? await publishedBases(this.to, manifestDigest, this.options.signal) : new Map<string, readonly PublishedDelta[]>();
      const candidates = await this.#candidates(names, target, known);
      this.options.onEvent({ event: 'begin', deltas: candidates.length });
      this.#total = candidates.length;
      if (this.options.dryRun) for (const { name, image, known } of candidates) this.#report({ ...nothing, basis: name, basisConfig: image.input.configDigest, result: 'planned', broken: known.broken, layerPullBytes: layerPullBytes(image.input, target.input) });
      else if (candidates.length > 0) await withWorkDirectory((directory) => this.#publishAll(candidates, target, directory));
      return { repository: this.to.name, targetManifest: manifestDigest, outcomes: this.#outcomes, failure: this.#failure };
    } finally {
      for (const image of this.#opened) await image.close();
    }
  }

  async #open(name: string): Promise<OpenedImage> {
    const { creds, platform, signal } = this.options;
    const spec = parseSourceSpec(name);
    // A login that was given for one registry is not shown to another.
    const own = spec.transport === 'docker' && spec.reference.registry === this.to.reference.registry;
    const image = await openImage(name, { platform, signal, creds: own ? creds : undefined });
    this.#opened.push(image);
    return image;
  }

  /** Sees to it that the repository has the target; bytes sent for it, or null when it was there. */
  async #bringTarget(target: OpenedImage, name: string): Promise<number | null> {
    const { to, options } = this;
    const { digest } = target.input.manifest;
    if (!options.pushImage || (await to.client.headManifest(to.repository, digest, { signal: options.signal })) !== undefined) {
      await requireTarget(to, digest, options);
      return null;
    }
    if (options.dryRun) return 0;
    const spec = parseSourceSpec(name);
    const mountFrom = spec.transport === 'docker' && spec.reference.registry === to.reference.registry ? spec.reference.repository : undefined;
    return pushImage(to, target.source, tagOf(name), { signal: options.signal, mountFrom });
  }

  /** Every basis that was named or is meant by a selection of tags. */
  async #basisNames(targetName: string): Promise<readonly string[]> {
    const { bases, basisTags, last, signal } = this.options;
    const names = [...bases];
    if (basisTags !== null || last !== null) {
      const tags = await this.to.client.listTags(this.to.repository, { signal });
      const target = tagOf(targetName) ?? undefined;
      const chosen = selectTags(tags, { glob: basisTags ?? undefined, last: last ?? undefined, target });
      if (chosen.length === 0) throw new WhittleError('IMAGE_NOT_FOUND', `${this.to.name} has no tag that ${basisTags === null ? 'is an older version' : `fits ${JSON.stringify(basisTags)}`}`, { hint: 'See its tags with: skopeo list-tags docker://HOST/REPOSITORY' });
      names.push(...chosen.map((tag) => `docker://${this.to.name}:${tag}`));
    }
    if (names.length > publishLimits.bases) throw new WhittleError('LIMIT_EXCEEDED', `${String(names.length)} old images at once; at most ${String(publishLimits.bases)} are taken`, { hint: 'Choose fewer with --last N.' });
    return names;
  }

  /** The bases that are worth a computation. All others are reported at once. */
  async #candidates(names: readonly string[], target: OpenedImage, known: ReadonlyMap<string, readonly PublishedDelta[]>): Promise<readonly Candidate[]> {
    const seen = new Set([target.input.configDigest]);
    const candidates: Candidate[] = [];
    for (const name of names) {
      try {
        const image = await this.#open(name);
        const { configDigest } = image.input;
        if (seen.has(configDigest)) {
          this.#report({ ...nothing, basis: name, basisConfig: configDigest, result: 'same-image' });
          continue;
        }
        const ends = endsOf(image, target);
        const there = await standing(this.to, known.get(configDigest) ?? [], ends, this.options);
        if (there.whole !== null) this.#report({ ...nothing, basis: name, basisConfig: configDigest, result: 'exists', deltaDigest: there.whole, broken: there.broken });
        else candidates.push({ name, image, known: there, ends });
        seen.add(configDigest);
      } catch (error) {
        this.#failed(name, null, error);
      }
    }
    return candidates;
  }

  async #publishAll(candidates: readonly Candidate[], target: OpenedImage, directory: string): Promise<void> {
    const copies = new LayerCopies(directory);
    await mapLimited(candidates, this.options.jobs, async (candidate, at) => {
      const work = join(directory, `job-${String(at)}`);
      await mkdir(work);
      try {
        this.#report(await this.#publishOne(candidate, target, copies, work));
      } catch (error) {
        this.#failed(candidate.name, candidate.image.input.configDigest, error);
      } finally {
        await rm(work, { recursive: true, force: true });
      }
      this.#progress(candidate.name, 1);
    });
  }

  async #publishOne(candidate: Candidate, target: OpenedImage, copies: LayerCopies, directory: string): Promise<PublishOutcome> {
    const { options } = this;
    const { name, image, known } = candidate;
    const job = {
      basis: await copies.localImage(image.source, name), target: await copies.localImage(target.source, options.target ?? ''), directory,
      profile: options.profile, memoryLimitBytes: options.memoryLimitBytes, threads: options.threads,
    };
    const done = await computeInWorker(job, { signal: options.signal, workerPath: options.workerPath, onProgress: (share) => { this.#progress(name, share * computeShare); } });
    const bundle = await bundleOfWork(done, target.input.manifest.digest);
    const facts = { ...nothing, basis: name, basisConfig: bundle.basisConfig, deltaDigest: bundle.descriptor.digest, deltaBytes: bundle.deltaBytes, layerPullBytes: bundle.layerPullBytes, broken: known.broken };
    if (bundle.deltaBytes >= bundle.layerPullBytes) return { ...facts, result: 'not-smaller', deltaDigest: null };
    return { ...facts, result: 'published', ...(await this.#push(candidate, bundle)) };
  }

  /** Uploads run beside the computations of others, one after another among themselves: they share one link and one list. */
  #push({ name, known, ends }: Candidate, bundle: DeltaBundle): ReturnType<typeof pushInstead> {
    const pushed = this.#listing.then(() => replaceDeltas(this.to, bundle, { ends, known }, {
      signal: this.options.signal, onProgress: (done, total) => { this.#progress(name, computeShare + (1 - computeShare) * (done / total)); },
    }));
    this.#listing = pushed.catch(() => undefined);
    return pushed;
  }

  #failed(basis: string, basisConfig: string | null, error: unknown): void {
    if (this.options.signal.aborted) throw error;
    this.#failure ??= error instanceof Error ? error : new Error(String(error));
    const code = errorCodeOf(error);
    this.#report({ ...nothing, basis, basisConfig, result: 'failed', code, message: error instanceof Error ? error.message : String(error) });
  }

  #report(outcome: PublishOutcome): void {
    this.#outcomes.push(outcome);
    this.options.onEvent({ event: 'delta', outcome });
  }

  #progress(name: string, share: number): void {
    this.#shares.set(name, share);
    const done = [...this.#shares.values()].reduce((sum, each) => sum + each, 0);
    this.options.onEvent({ event: 'progress', share: this.#total === 0 ? 1 : done / this.#total });
  }
}

/** The tag under which a source stands, where it names one. */
function tagOf(source: string): string | null {
  const spec = parseSourceSpec(source);
  if (spec.transport === 'docker') return spec.reference.tag ?? (spec.reference.digest === undefined ? 'latest' : null);
  const tag = spec.tag?.slice(spec.tag.lastIndexOf(':') + 1);
  return tag !== undefined && isTag(tag) ? tag : null;
}
