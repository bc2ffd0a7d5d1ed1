import { isWhittleError } from '../../core/errors.js';
import { deleteManifest, updateFallbackTag } from '../../registry/index.js';
import type { DeltaBundle } from './bundle.js';
import { pushBundle, type PushedBundle, type PushOptions } from './push-bundle.js';
import { orNull, type RemoteRepository } from './repository.js';

/** What pushing a delta in the place of others came to: digests of those that are gone, and of those that the registry lets nobody delete. */
export interface PushedInstead extends PushedBundle {
  readonly replaced: readonly string[];
  readonly left: readonly string[];
}

/**
 * Pushes a delta and then takes out `before`, deltas for the same devices, which may take either while both
 * are listed. One that cannot be deleted stays listed: its entry tag would bring it back into the fallback tag.
 * Throws what pushBundle and updateFallbackTag throw.
 */
export async function pushInstead(to: RemoteRepository, bundle: DeltaBundle, before: readonly string[], options: PushOptions = {}): Promise<PushedInstead> {
  const { client, repository } = to;
  const { signal } = options;
  const pushed = await pushBundle(to, bundle, options);
  const replaced: string[] = [];
  const left: string[] = [];
  for (const digest of before) {
    if (digest === bundle.descriptor.digest) continue;
    try {
      await orNull(() => deleteManifest(client, repository, digest, { signal }), ['REGISTRY_NOT_FOUND']);
      replaced.push(digest);
    } catch (error) {
      // The new delta is there: that the old one is too is to be said, and no failure.
      if (!isWhittleError(error) || error.code === 'INTERRUPTED') throw error;
      left.push(digest);
    }
  }
  if (pushed.listedBy === 'tag' && replaced.length > 0) await updateFallbackTag(client, repository, bundle.subjectDigest, { removed: replaced }, { signal });
  return { ...pushed, replaced, left };
}
