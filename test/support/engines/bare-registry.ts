import { startOciRegistry } from '../oci-registry.js';
import { digestOf } from '../images.js';
import { publishReal, pushMade, remoteAt } from '../publish.js';
import type { EngineWorld } from './containerd-world.js';

/** A registry that makes no deltas of its own: what is there was published. */
export interface BareRegistry {
  /** `127.0.0.1:port/app:v1`. */
  image(version: number): string;
  /** The repository: `127.0.0.1:port/app`. */
  readonly repository: string;
  /** Puts an index of this version and of an image for another platform, which is not there, under `tag`; gives its digest. */
  putIndex(version: number, tag: string): string;
  /** Makes a tag mean another manifest or index. */
  retag(tag: string, digest: string): void;
  close(): Promise<void>;
}

/** One with the versions of a world, the deltas from 1 to 2 and from 2 to 3, and none from 1 to 3. */
export async function startBareRegistry(world: EngineWorld): Promise<BareRegistry> {
  const registry = await startOciRegistry();
  const to = remoteAt(registry.host, 'app');
  try {
    for (const image of world.versions) await pushMade(to, image);
    for (const from of [1, 2]) await publishReal(to, world.version(from), world.version(from + 1));
  } catch (error) {
    await registry.close();
    throw error;
  } finally {
    await to.client.close();
  }
  const repository = `${registry.host}/app`;
  return {
    repository, image: (version) => `${repository}:v${String(version)}`, close: () => registry.close(),
    retag: (tag, digest) => { registry.repository('app').tags.set(tag, digest); },
    putIndex: (version, tag) => {
      const mediaType = 'application/vnd.oci.image.manifest.v1+json';
      const { manifest, manifestDigest } = world.version(version);
      const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
      const bytes = Buffer.from(JSON.stringify({
        schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [
          { mediaType, digest: digestOf(`another platform of ${tag}`), size: 500, platform: { os: 'linux', architecture: 's390x' } },
          { mediaType, digest: manifestDigest, size: manifest.length, platform: { os: 'linux', architecture } },
        ],
      }));
      const { manifests, tags } = registry.repository('app');
      manifests.set(digestOf(bytes), { bytes, mediaType: 'application/vnd.oci.image.index.v1+json' });
      tags.set(tag, digestOf(bytes));
      return digestOf(bytes);
    },
  };
}
