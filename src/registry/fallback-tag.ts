import { isWhittleError, WhittleError } from '../core/errors.js';
import { pause } from '../core/interruption.js';
import type { Descriptor } from '../oci/descriptor.js';
import { parseDigest, sha256Digest } from '../oci/digest.js';
import { parseManifest } from '../oci/manifest.js';
import { mediaTypes } from '../oci/media-types.js';
import type { CallOptions, RegistryClient } from './client.js';
import { pushManifest } from './push.js';
import { fallbackTag, listReferrers, readFallbackTag } from './referrers.js';

/** A manifest with a subject, to be put where the subject is. */
export interface ReferrerToPush {
  /** As the list of referrers shall have it: with artifact type and annotations. */
  readonly descriptor: Descriptor;
  readonly bytes: Buffer;
  readonly subjectDigest: string;
}

/** Characters of a referrer's digest in its entry tag. */
const entryTagChars = 32;

/**
 * The tag that keeps one referrer known where there is no referrers API: the fallback tag is one document that racing writers
 * can overwrite for each other, and this tag is the writer's own, from which every other writer completes the document.
 */
export function entryTag(subjectDigest: string, referrerDigest: string): string {
  return `${fallbackTag(subjectDigest)}.${parseDigest(referrerDigest).hex.slice(0, entryTagChars)}`;
}

/** What a tag says when it is a fallback tag or an entry tag: the subject's digest. Undefined for every other tag. */
export function subjectOfTag(tag: string): { readonly subjectDigest: string; readonly entry: boolean } | undefined {
  const match = /^sha256-([0-9a-f]{64})(\.[0-9a-f]{32})?$/.exec(tag);
  return match === null ? undefined : { subjectDigest: `sha256:${match[1] ?? ''}`, entry: match[2] !== undefined };
}

/**
 * Puts a manifest beside its subject so that it is found from there: where the registry has the referrers API by that alone,
 * elsewhere through an entry tag and the fallback tag. Its blobs must be there. When this returns it is listed, and racing
 * writers that use this function do not lose it. Throws REGISTRY_*, INTERRUPTED.
 */
export async function pushReferrer(client: RegistryClient, repository: string, { descriptor, bytes, subjectDigest }: ReferrerToPush, options: CallOptions = {}): Promise<'api' | 'tag'> {
  const { subjectNoted } = await pushManifest(client, repository, descriptor.digest, descriptor.mediaType, bytes, options);
  if (subjectNoted) return 'api';
  const listed = await listReferrers(client, repository, subjectDigest, options);
  if (listed.status === 'ready' && listed.from === 'api' && listed.manifests.some((each) => each.digest === descriptor.digest)) return 'api';
  await pushManifest(client, repository, entryTag(subjectDigest, descriptor.digest), descriptor.mediaType, bytes, options);
  await updateFallbackTag(client, repository, subjectDigest, { added: [descriptor] }, options);
  return 'tag';
}

/** What is to become of a fallback tag. */
export interface FallbackChange {
  readonly added?: readonly Descriptor[];
  /** Digests. */
  readonly removed?: readonly string[];
}

/**
 * Adds `added` to and takes `removed` out of the fallback tag of a subject, for registries without a referrers API. They
 * cannot swap a tag atomically, so every writer completes what it writes from the entry tags, reads it back after a pause,
 * and writes again until it holds. Whoever writes last thereby repairs what an earlier write lost. Throws REGISTRY_*,
 * REGISTRY_UNAVAILABLE (retryable) when others kept overwriting it.
 */
export async function updateFallbackTag(client: RegistryClient, repository: string, subjectDigest: string, change: FallbackChange, options: CallOptions = {}): Promise<void> {
  await new FallbackUpdate(client, repository, subjectDigest, change, options).run();
}

class FallbackUpdate {
  readonly #tag: string;
  /** Entries by entry tag, as far as they have been read; null: there is no such manifest any more. */
  readonly #announced = new Map<string, Descriptor | null>();

  constructor(
    private readonly client: RegistryClient,
    private readonly repository: string,
    private readonly subjectDigest: string,
    private readonly change: FallbackChange,
    private readonly options: CallOptions,
  ) {
    this.#tag = fallbackTag(subjectDigest);
  }

  async run(): Promise<void> {
    const { limits } = this.client.transport;
    let held = false;
    for (let attempt = 0; attempt < limits.attempts * 4; attempt++) {
      const entries = await readFallbackTag(this.client, this.repository, this.subjectDigest, this.options);
      const wanted = await this.#wanted(entries);
      const holds = sameDigests(entries, wanted);
      // Once more after a pause: a writer that had read before this one wrote may write over it until then.
      if (holds && (held || attempt === 0)) return;
      held = holds;
      if (!holds) await this.#write(wanted);
      await pause(limits.tagSettleMs * (0.5 + Math.random()), this.options.signal);
    }
    throw new WhittleError('REGISTRY_UNAVAILABLE', `others keep changing the tag ${this.#tag} of ${this.client.registry}/${this.repository}`);
  }

  async #wanted(entries: readonly Descriptor[]): Promise<readonly Descriptor[]> {
    const { added = [], removed = [] } = this.change;
    const wanted = new Map<string, Descriptor>();
    for (const each of [...entries, ...(await this.#readAnnounced(entries)), ...added]) wanted.set(each.digest, each);
    for (const digest of removed) wanted.delete(digest);
    return [...wanted.values()];
  }

  /** What the entry tags of the subject name and the fallback tag does not list. */
  async #readAnnounced(entries: readonly Descriptor[]): Promise<readonly Descriptor[]> {
    const known = new Set([...entries, ...(this.change.added ?? [])].map((each) => entryTag(this.subjectDigest, each.digest)));
    const found: Descriptor[] = [];
    for (const tag of await this.#tags()) {
      if (!tag.startsWith(`${this.#tag}.`) || known.has(tag) || subjectOfTag(tag) === undefined) continue;
      if (!this.#announced.has(tag)) this.#announced.set(tag, await this.#readEntry(tag));
      const entry = this.#announced.get(tag);
      if (entry !== null && entry !== undefined) found.push(entry);
    }
    return found;
  }

  async #tags(): Promise<readonly string[]> {
    try {
      return await this.client.listTags(this.repository, this.options);
    } catch (error) {
      if (isWhittleError(error) && error.code === 'REGISTRY_NOT_FOUND') return [];
      throw error;
    }
  }

  async #readEntry(tag: string): Promise<Descriptor | null> {
    try {
      const { bytes, descriptor } = await this.client.getManifest(this.repository, tag, { ...this.options, accept: [mediaTypes.ociManifest] });
      const manifest = parseManifest(bytes, `tag ${tag} of ${this.repository}`, descriptor.mediaType);
      if (manifest.subject?.digest !== this.subjectDigest) return null;
      return { ...descriptor, artifactType: manifest.artifactType ?? manifest.config.mediaType, annotations: manifest.annotations };
    } catch (error) {
      // Deleted since it was listed, or nothing of ours.
      if (isWhittleError(error) && ['REGISTRY_NOT_FOUND', 'IMAGE_INVALID', 'IMAGE_MEDIA_TYPE'].includes(error.code)) return null;
      throw error;
    }
  }

  async #write(wanted: readonly Descriptor[]): Promise<void> {
    await pushManifest(this.client, this.repository, this.#tag, mediaTypes.ociIndex, indexOf(wanted), this.options);
  }
}

function sameDigests(a: readonly Descriptor[], b: readonly Descriptor[]): boolean {
  const digests = new Set(a.map((each) => each.digest));
  return digests.size === b.length && b.every((each) => digests.has(each.digest));
}

function indexOf(manifests: readonly Descriptor[]): Buffer {
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests }));
}

/** The digest of an index without entries, which is what an emptied fallback tag holds. */
export function emptyFallbackDigest(): string {
  return sha256Digest(indexOf([]));
}
