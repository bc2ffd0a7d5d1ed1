import { WhittleError } from '../core/errors.js';
import { isDigest, isRepository, isTag } from '../oci/index.js';
import type { ImageLayer } from '../registry/layer.js';

/** A file that holds exactly one blob. */
export interface BlobPlace {
  readonly path: string;
  readonly sizeBytes: number;
}

/** A manifest, image index or artifact manifest that can be asked for by digest. */
export interface ServedManifest {
  readonly digest: string;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** An image of one platform that deltas can be made from and to. */
export interface ServedImage {
  readonly manifest: ServedManifest;
  readonly configDigest: string;
  /** In manifest order. */
  readonly layers: readonly ImageLayer[];
}

/** Everything that one `--images` source brings: what its tag names, and what hangs below that. */
export interface SourceContent {
  readonly repository: string;
  /** Null for a source that is known by digest alone. */
  readonly tag: string | null;
  /** What the tag names: an image's manifest or an index. */
  readonly root: ServedManifest;
  /** Every manifest and index below `root`, itself included. */
  readonly manifests: readonly ServedManifest[];
  /** Images of single platforms that deltas can be made of. */
  readonly images: readonly ServedImage[];
  /** Every blob of those manifests by digest. */
  readonly blobs: ReadonlyMap<string, BlobPlace>;
}

interface Repository {
  readonly tags: Map<string, string>;
  readonly manifests: Map<string, ServedManifest>;
  readonly blobs: Map<string, BlobPlace>;
}

/** Names of images (`repository:tag`) that mean something else than before, and those that mean nothing any more. */
export interface CatalogChanges {
  readonly added: readonly string[];
  readonly removed: readonly string[];
}

/** The images that a server knows, by repository. Filled at start, and brought up to date when a layout has other images; deltas live elsewhere. */
export class Catalog {
  readonly #repositories = new Map<string, Repository>();
  readonly #byManifest = new Map<string, ServedImage>();
  readonly #byConfig = new Map<string, ServedImage>();
  readonly #blobs = new Map<string, BlobPlace>();

  /** Adds what a source brings. Throws USAGE when its tag is taken by other content. */
  add(source: SourceContent): void {
    const { repository: name, tag, root } = source;
    if (!isRepository(name)) throw new WhittleError('USAGE', `not a repository name: ${JSON.stringify(name)}`, { hint: 'Put NAME= before the source; names are lowercase words joined by . _ - and /.' });
    if (tag !== null && !isTag(tag)) throw new WhittleError('USAGE', `not a tag: ${JSON.stringify(tag)}`);
    const repository: Repository = this.#repositories.get(name) ?? { tags: new Map(), manifests: new Map(), blobs: new Map() };
    const known = tag === null ? undefined : repository.tags.get(tag);
    if (known !== undefined && known !== root.digest) {
      throw new WhittleError('USAGE', `two sources are both ${name}:${tag ?? ''}`, { hint: 'Put NAME= before one of them, so that their names differ.' });
    }
    this.#repositories.set(name, repository);
    if (tag !== null) repository.tags.set(tag, root.digest);
    for (const manifest of source.manifests) repository.manifests.set(manifest.digest, manifest);
    for (const image of source.images) {
      this.#byManifest.set(image.manifest.digest, image);
      if (!this.#byConfig.has(image.configDigest)) this.#byConfig.set(image.configDigest, image);
    }
    for (const [digest, place] of source.blobs) {
      repository.blobs.set(digest, place);
      this.#blobs.set(digest, place);
    }
  }

  /**
   * Makes the tags those that `sources` bring. What was known before stays known by its digest: devices may be in the middle of
   * reading it, and have it as the basis of the next delta. Throws USAGE as `add` does; then nothing has changed.
   */
  update(sources: readonly SourceContent[]): CatalogChanges {
    const fresh = new Catalog();
    for (const source of sources) fresh.add(source);
    const [before, now] = [this.#names(), fresh.#names()];
    for (const [name, { tags, manifests, blobs }] of fresh.#repositories) {
      const known = this.#repositories.get(name);
      this.#repositories.set(name, { tags, manifests: new Map([...known?.manifests ?? [], ...manifests]), blobs: new Map([...known?.blobs ?? [], ...blobs]) });
    }
    for (const [digest, image] of fresh.#byManifest) this.#byManifest.set(digest, image);
    for (const [digest, image] of fresh.#byConfig) this.#byConfig.set(digest, image);
    for (const [digest, place] of fresh.#blobs) this.#blobs.set(digest, place);
    return {
      added: [...now].filter(([name, digest]) => before.get(name) !== digest).map(([name]) => name),
      removed: [...before.keys()].filter((name) => !now.has(name)),
    };
  }

  /** What each name means. */
  #names(): Map<string, string> {
    return new Map([...this.#repositories].flatMap(([name, { tags }]) => [...tags].map(([tag, digest]): [string, string] => [`${name}:${tag}`, digest])));
  }

  /** Names of all repositories, sorted. */
  repositories(): string[] {
    return [...this.#repositories.keys()].sort();
  }

  /** Whether any image was added under this repository name. */
  has(repository: string): boolean {
    return this.#repositories.has(repository);
  }

  /** Tags of a repository, sorted as the spec says (by bytes); undefined for an unknown repository. */
  tags(repository: string): string[] | undefined {
    const known = this.#repositories.get(repository);
    return known === undefined ? undefined : [...known.tags.keys()].sort();
  }

  /** Tags of a repository in the order in which they were added. */
  tagsAsAdded(repository: string): string[] {
    return [...(this.#repositories.get(repository)?.tags.keys() ?? [])];
  }

  /** Names of all repositories in the order in which they were added. */
  repositoriesAsAdded(): string[] {
    return [...this.#repositories.keys()];
  }

  /** A manifest by tag or digest. */
  manifest(repository: string, reference: string): ServedManifest | undefined {
    const known = this.#repositories.get(repository);
    if (known === undefined) return undefined;
    return known.manifests.get(isDigest(reference) ? reference : known.tags.get(reference) ?? '');
  }

  /** A blob of an image of this repository. */
  blob(repository: string, digest: string): BlobPlace | undefined {
    return this.#repositories.get(repository)?.blobs.get(digest);
  }

  /** A blob of any image. */
  anyBlob(digest: string): BlobPlace | undefined {
    return this.#blobs.get(digest);
  }

  /** An image by the digest of its manifest, in any repository. */
  imageByManifest(digest: string): ServedImage | undefined {
    return this.#byManifest.get(digest);
  }

  /** An image by the digest of its config (its image ID), in any repository; the first one added when several have it. */
  imageByConfig(digest: string): ServedImage | undefined {
    return this.#byConfig.get(digest);
  }
}
