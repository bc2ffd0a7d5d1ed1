import { createHash } from 'node:crypto';
import { isWhittleError, WhittleError } from '../../core/errors.js';
import { parseDeltaIndex, type DeltaIndex } from '../../delta/index-blob.js';
import { deltaLimits } from '../../delta/limits.js';
import { readDelta, type PublishedDelta, type RemoteRepository } from './repository.js';

/** The images between which a published delta has to be. */
export interface DeltaEnds {
  readonly basisConfig: string;
  readonly targetManifest: string;
  readonly targetConfig: string;
  /** In manifest order. */
  readonly targetDiffIds: readonly string[];
  /** Null where only the digest of the basis is known. */
  readonly basisDiffIds: readonly string[] | null;
}

/** A published delta that no device can use, and why. */
export interface BrokenDelta {
  readonly digest: string;
  readonly problem: string;
}

/** What a part of a delta that is lost or damaged is read with; anything else says nothing of the delta. */
const brokenCodes = ['BLOB_MISSING', 'DIGEST_MISMATCH', 'LIMIT_EXCEEDED', 'DELTA_CORRUPT', 'DELTA_VERSION', 'REGISTRY_BAD_RESPONSE'];

/** The deltas between two images that are published. */
export interface Standing {
  readonly digests: readonly string[];
  /** One that need not be made again; null when there is none, or all shall be. */
  readonly whole: string | null;
  readonly broken: readonly BrokenDelta[];
}

/** Looks at the published deltas between two images, as far as that goes without applying them; with `force`, which makes all anew, not at all. Throws REGISTRY_*, INTERRUPTED. */
export async function standing(to: RemoteRepository, known: readonly PublishedDelta[], ends: DeltaEnds, { force, signal }: { readonly force: boolean; readonly signal: AbortSignal }): Promise<Standing> {
  let whole: string | null = null;
  const broken: BrokenDelta[] = [];
  for (const delta of force ? [] : known) {
    const problem = await problemOf(to, delta, ends, signal);
    if (problem === null) whole ??= delta.digest;
    else broken.push({ digest: delta.digest, problem });
  }
  return { digests: known.map(({ digest }) => digest), whole, broken };
}

/**
 * Why a published delta cannot lead from one of these images to the other; null when nothing shows. Its index is read and
 * compared, and its data is read and held against its frames: what is lost in a registry, or was pushed there by somebody else,
 * devices would ask for in vain for as long as nothing takes its place.
 */
async function problemOf(to: RemoteRepository, delta: PublishedDelta, ends: DeltaEnds, signal: AbortSignal): Promise<string | null> {
  try {
    const index = parseDeltaIndex(await to.client.readBlob(to.repository, delta.index, deltaLimits.indexBytes, { signal }));
    return indexProblem(delta, index, ends) ?? (await dataProblem(to, delta, index, signal));
  } catch (error) {
    if (isWhittleError(error) && brokenCodes.includes(error.code)) return error.message;
    throw error;
  }
}

function indexProblem(delta: PublishedDelta, { basis, target, layers, basisLayers, dataSizeBytes }: DeltaIndex, ends: DeltaEnds): string | null {
  const differs = (what: string): string => `its index is of another ${what}`;
  if (basis.configDigest !== ends.basisConfig || (delta.basisManifest ?? '') !== basis.manifestDigest) return differs('basis than its manifest says');
  if (target.configDigest !== ends.targetConfig || target.manifestDigest !== ends.targetManifest || (delta.targetConfig ?? ends.targetConfig) !== ends.targetConfig) return differs('target');
  if (layers.length !== ends.targetDiffIds.length || layers.some(({ diffId }, at) => diffId !== ends.targetDiffIds[at])) return differs('target: its layers are not those of the image');
  const held = ends.basisDiffIds === null ? null : new Set(ends.basisDiffIds);
  if (held !== null && [...basisLayers, ...layers.filter(({ how }) => how === 'basis').map(({ diffId }) => diffId)].some((diffId) => !held.has(diffId))) return differs('basis: that has not all of its layers');
  return dataSizeBytes === delta.data.size ? null : 'its data has another size than its index says';
}

async function dataProblem(to: RemoteRepository, { data }: PublishedDelta, { frames }: DeltaIndex, signal: AbortSignal): Promise<string | null> {
  let hash = createHash('sha256');
  let [at, left] = [0, frames[0]?.sizeBytes ?? 0];
  for await (const chunk of to.client.openBlob(to.repository, data, { signal })) {
    for (let from = 0; from < chunk.length; ) {
      const piece = chunk.subarray(from, from + left);
      hash.update(piece);
      from += piece.length;
      left -= piece.length;
      if (left > 0) continue;
      if (frames[at]?.digest.equals(hash.digest()) !== true) return `its data is not what its index says (frame ${String(at)})`;
      hash = createHash('sha256');
      left = frames[++at]?.sizeBytes ?? Infinity;
    }
  }
  return at === frames.length ? null : 'its data is shorter than its index says';
}

/** Throws when the registry has a delta broken though it was just pushed: what it takes for there it does not store anew. */
export async function requireWhole(to: RemoteRepository, digest: string, ends: DeltaEnds, signal: AbortSignal): Promise<void> {
  const delta = await readDelta(to, digest, signal);
  const problem = delta === null ? 'its manifest is not what was pushed' : await problemOf(to, delta, ends, signal);
  if (problem === null) return;
  throw new WhittleError('DELTA_CORRUPT', `${to.name} keeps its broken copy of the delta ${digest}: ${problem}`, { hint: 'Delete its blobs in the registry\'s storage, and publish again.' });
}
