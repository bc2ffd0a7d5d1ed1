import { deltaLimits } from '../../delta/limits.js';
import { parseDeltaIndex } from '../../delta/index-blob.js';
import { findManifest, parseManifestOrIndex, parsePlatform, hostPlatform, referenceTarget, type Manifest } from '../../oci/index.js';
import { subjectOfTag } from '../../registry/index.js';
import { WhittleError } from '../../core/errors.js';
import { layersCarried } from './bundle.js';
import { publishLimits } from './limits.js';
import { listDeltas, mapLimited, orNull, publishedBytes, readDelta, type RemoteRepository } from './repository.js';

/** One delta of a list. Sizes in bytes. */
export interface ListedDelta {
  readonly digest: string;
  readonly basisConfig: string;
  readonly basisManifest: string | null;
  /** Tags of the repository that name the basis now. */
  readonly basisTags: readonly string[];
  readonly deltaBytes: number;
  /** The format version, which a device must read to take it. */
  readonly formatVersion: number;
  /** What the layers cost that the delta replaces; null when its index cannot be read. */
  readonly layerPullBytes: number | null;
}

/** The deltas to an image. */
export interface DeltaTable {
  readonly image: string;
  readonly manifestDigest: string;
  readonly configDigest: string;
  /** `api`: the referrers API; `tag`: the fallback tag. */
  readonly listedBy: 'api' | 'tag';
  /** Smallest first. */
  readonly deltas: readonly ListedDelta[];
}

/** Lists the deltas to the image that `where.reference` names, with what each saves. Throws IMAGE_*, REGISTRY_*, INTERRUPTED. */
export async function tabulateDeltas(where: RemoteRepository, options: { readonly platform?: string | undefined; readonly signal: AbortSignal }): Promise<DeltaTable> {
  const image = `${where.name}${where.reference.digest === undefined ? `:${referenceTarget(where.reference)}` : `@${where.reference.digest}`}`;
  const { digest, manifest } = await findImage(where, image, options);
  const { from, descriptors } = await listDeltas(where, digest, options.signal);
  const found = (await mapLimited(descriptors, publishLimits.requests, (each) => readDelta(where, each.digest, options.signal))).filter((each) => each !== null && each.targetManifest === digest);
  const tags = found.length === 0 ? new Map<string, string[]>() : await tagsByDigest(where, options.signal);
  const deltas = await mapLimited(found, publishLimits.requests, async (delta): Promise<ListedDelta> => {
    if (delta === null) throw new WhittleError('INTERNAL', 'a delta that is none was kept');
    return {
      digest: delta.digest, basisConfig: delta.basisConfig, basisManifest: delta.basisManifest ?? null, basisTags: tags.get(delta.basisManifest ?? '') ?? [],
      deltaBytes: publishedBytes(delta), formatVersion: delta.version, layerPullBytes: await layerBytes(where, delta.index, manifest, options.signal),
    };
  });
  return { image, manifestDigest: digest, configDigest: manifest.config.digest, listedBy: from, deltas: deltas.sort((a, b) => a.deltaBytes - b.deltaBytes) };
}

async function findImage({ client, repository, reference }: RemoteRepository, image: string, { platform, signal }: { readonly platform?: string | undefined; readonly signal: AbortSignal }): Promise<{ digest: string; manifest: Manifest }> {
  const read = async (target: string): Promise<{ digest: string; mediaType: string; bytes: Buffer }> => {
    const { bytes, descriptor } = await client.getManifest(repository, target, { signal });
    return { digest: descriptor.digest, mediaType: descriptor.mediaType, bytes };
  };
  const wanted = platform === undefined ? hostPlatform() : parsePlatform(platform);
  const { served, manifest } = await findManifest(await read(referenceTarget(reference)), wanted, image, ({ digest }) => read(digest));
  return { digest: served.digest, manifest };
}

/** Reads what the delta rebuilds out of its index. */
async function layerBytes({ client, repository }: RemoteRepository, index: Parameters<typeof client.readBlob>[1], target: Manifest, signal: AbortSignal): Promise<number | null> {
  const bytes = await orNull(() => client.readBlob(repository, index, deltaLimits.indexBytes, { signal }), ['BLOB_MISSING', 'DIGEST_MISMATCH', 'LIMIT_EXCEEDED']);
  return bytes === null ? null : orNull(() => layersCarried(parseDeltaIndex(bytes), target), ['DELTA_CORRUPT', 'DELTA_VERSION']);
}

/** Tags of a repository by the digest of the manifest that they name; those of an index by each of its images. */
export async function tagsByDigest({ client, repository, name }: RemoteRepository, signal: AbortSignal): Promise<Map<string, string[]>> {
  const tags = (await client.listTags(repository, { signal })).filter((tag) => subjectOfTag(tag) === undefined);
  if (tags.length > publishLimits.tags) throw new WhittleError('LIMIT_EXCEEDED', `${name} has more than ${String(publishLimits.tags)} tags`);
  const named = new Map<string, string[]>();
  await mapLimited(tags, publishLimits.requests, async (tag) => {
    const served = await orNull(() => client.getManifest(repository, tag, { signal }), ['REGISTRY_NOT_FOUND', 'IMAGE_MEDIA_TYPE']);
    const parsed = served === null ? null : await orNull(() => parseManifestOrIndex(served.bytes, tag, served.descriptor.mediaType), ['IMAGE_INVALID', 'IMAGE_MEDIA_TYPE']);
    if (served === null) return;
    const children = parsed?.kind === 'index' ? parsed.manifests.map((each) => each.digest) : [];
    for (const digest of [served.descriptor.digest, ...children]) named.set(digest, [...(named.get(digest) ?? []), tag]);
  });
  return named;
}
