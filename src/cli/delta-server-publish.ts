import { formatBytes, formatCount, formatExact, formatRatio, shortDigest } from '../core/format.js';
import { WhittleError } from '../core/errors.js';
import type { DeltaProfile } from '../delta/index.js';
import { publish, type PublishEvent, type PublishOutcome, type PublishResult } from '../server/publish/publish.js';
import { parseCount, parseMemory, parseThreads } from './delta-server-compute.js';
import type { Output } from './output.js';
import { createProgress, type Progress } from './progress.js';

/** Flags of `delta-server publish` as commander gives them. */
export interface PublishFlags {
  readonly to?: string;
  readonly basisTags?: string;
  readonly last?: string;
  readonly delta?: string;
  readonly pushImage?: boolean;
  readonly force?: boolean;
  readonly dryRun?: boolean;
  readonly profile: DeltaProfile;
  readonly memory: string;
  readonly threads?: string;
  readonly jobs: string;
  readonly platform?: string;
  readonly creds?: string;
}

/** Most old versions that `--last` takes. */
const maxLast = 256;

/** `delta-server publish`: computes deltas to an image and puts them beside it in a registry. Throws the first failure after everything else is done. */
export async function runPublish(images: readonly string[], flags: PublishFlags, output: Output, signal: AbortSignal): Promise<void> {
  checkArguments(images, flags);
  const jobs = parseCount(flags.jobs, '--jobs', 16);
  const view = new PublishView(output, flags.dryRun === true);
  try {
    const result = await publish({
      to: flags.to ?? null, target: flags.delta === undefined ? (images.at(-1) ?? null) : null, bases: images.slice(0, -1), deltaFile: flags.delta ?? null,
      basisTags: flags.basisTags ?? null, last: flags.last === undefined ? null : parseCount(flags.last, '--last', maxLast),
      force: flags.force === true, dryRun: flags.dryRun === true, pushImage: flags.pushImage === true,
      profile: flags.profile, memoryLimitBytes: parseMemory(flags.memory), jobs,
      threads: flags.threads === undefined ? Math.max(1, Math.floor(parseThreads(undefined) / jobs)) : parseThreads(flags.threads),
      platform: flags.platform, creds: flags.creds, signal, onEvent: (event) => { view.on(event); },
      onRetry: (error) => { view.say(`trying again: ${error.message}`); },
    });
    view.end(result);
    if (result.failure !== null) throw result.failure;
  } finally {
    view.stop();
  }
}

function checkArguments(images: readonly string[], flags: PublishFlags): void {
  const wrong = (message: string, hint: string): WhittleError => new WhittleError('USAGE', `publish: ${message}`, { hint });
  const selects = flags.basisTags !== undefined || flags.last !== undefined;
  if (flags.delta !== undefined) {
    if (images.length > 0 || selects) throw wrong('--delta brings its images with it', 'Name no image and no tags beside --delta FILE.delta.');
    if (flags.to === undefined) throw wrong('--to is missing', 'Say where to: --to docker://HOST/REPOSITORY');
    return;
  }
  if (images.length === 0) throw wrong('no image is named', 'Write: delta-server publish BASIS TARGET --to docker://HOST/REPOSITORY');
  if (images.length === 1 && !selects) throw wrong('there is a target and no basis', 'Name the basis before it, or choose old versions with --basis-tags or --last.');
}

/** Shows a publication: one bar over all its deltas, and a line for each. */
class PublishView {
  readonly #progress: Progress;

  constructor(private readonly output: Output, private readonly dryRun: boolean) {
    this.#progress = createProgress({ quiet: output.options.quiet === true || output.options.json === true });
  }

  on(event: PublishEvent): void {
    switch (event.event) {
      case 'target': this.#target(event); break;
      case 'begin': if (event.deltas > 0 && !this.dryRun) this.#progress.start(`publishing ${formatCount(event.deltas, 'delta')}`, 1000, { unit: 'steps' }); break;
      case 'progress': this.#progress.update(Math.floor(event.share * 1000)); break;
      case 'delta': this.#delta(event.outcome); break;
    }
  }

  #target({ name, repository, configDigest, pushedBytes }: Extract<PublishEvent, { event: 'target' }>): void {
    const pushed = pushedBytes === null ? '' : this.dryRun ? ', which would be pushed' : `, pushed (${formatBytes(pushedBytes)} sent)`;
    this.say(`target ${name} (image ${shortDigest(configDigest)}${pushed}), to ${repository}`);
  }

  #delta(outcome: PublishOutcome): void {
    if (this.output.options.json === true) return;
    if (outcome.result === 'failed') {
      this.#progress.log(`${outcome.basis}: failed: ${outcome.message ?? ''} (${outcome.code ?? ''})`);
      return;
    }
    for (const { digest, problem } of outcome.broken) this.say(`${outcome.basis}: the delta ${shortDigest(digest)} that is published is of no use: ${problem}`);
    this.say(describe(outcome));
  }

  say(text: string): void {
    if (this.output.options.quiet !== true && this.output.options.json !== true) this.#progress.log(text);
  }

  end(result: PublishResult): void {
    this.stop();
    this.output.json({ repository: result.repository, targetManifest: result.targetManifest, dryRun: this.dryRun, deltas: result.outcomes });
    const count = (what: PublishOutcome['result']): number => result.outcomes.filter((each) => each.result === what).length;
    const [published, planned, failed] = [count('published'), count('planned'), count('failed')];
    const others = result.outcomes.length - published - planned - failed;
    const parts = [
      this.dryRun ? `${formatCount(planned, 'delta')} to publish` : `${formatCount(published, 'delta')} published`,
      ...(others > 0 ? [`${String(others)} left as they are`] : []), ...(failed > 0 ? [`${String(failed)} failed`] : []),
    ];
    this.output.print(`${result.repository}: ${parts.join(', ')}`);
  }

  stop(): void {
    this.#progress.stop();
  }
}

function describe({ basis, result, deltaBytes, layerPullBytes, deltaDigest, listedBy, replaced, left }: PublishOutcome): string {
  const [delta, layers] = [deltaBytes ?? 0, layerPullBytes ?? 0];
  switch (result) {
    case 'published': return `${basis}: ${formatExact(delta)} bytes instead of ${formatExact(layers)} (${formatRatio(layers, delta)})${listedBy === 'tag' ? ', in the fallback tag' : ''}${replaced.length > 0 ? ', in place of the one before' : ''}${left.length > 0 ? `; the registry lets nobody delete the one before (${left.map(shortDigest).join(', ')}), which stays listed` : ''}`;
    case 'exists': return `${basis}: published already (${shortDigest(deltaDigest ?? '')})`;
    case 'not-smaller': return `${basis}: not published: the delta (${formatExact(delta)} bytes) is not smaller than the layers (${formatExact(layers)} bytes)`;
    case 'same-image': return `${basis}: the same image as the target, or as a basis before it`;
    case 'planned': return deltaBytes === null ? `${basis}: would be computed, and published if smaller than the layers (${formatExact(layers)} bytes)` : `${basis}: would be published: ${formatExact(delta)} bytes instead of ${formatExact(layers)}`;
    case 'failed': return `${basis}: failed`;
  }
}
