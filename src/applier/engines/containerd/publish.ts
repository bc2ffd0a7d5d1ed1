import { parseReference, type Manifest } from '../../../oci/index.js';
import { repositoryName } from '../../pull/options.js';
import type { Target } from '../../store/target.js';
import type { ContainerdApi } from './api.js';

/** The namespace of Kubernetes. */
const kubernetes = 'k8s.io';
/** How images are marked that Kubernetes may use. */
const kubernetesLabels = new Map([['io.cri-containerd.image', 'managed']]);

/** An image whose snapshots are committed. */
export interface ImageToPublish {
  readonly target: Target;
  readonly manifest: Manifest;
  /** ChainIDs of the layers, bottom first. */
  readonly chain: readonly string[];
  /** Null for an image without a name: it gets its ID for one, or containerd would collect it. */
  readonly name: string | null;
}

/**
 * Puts an image's config and manifest into containerd, byte for byte, and then its records, that of its name last: it is visible
 * with that. Labels tell containerd's garbage collector that the manifest needs the config, and the config the
 * snapshots; layers' blobs are not there, as after an unpacking that discards them. Gives the names.
 */
export async function publishImage(api: ContainerdApi, lease: string, { target, manifest, chain, name }: ImageToPublish): Promise<string[]> {
  const { namespace, snapshotter } = api.scope;
  const top = chain.at(-1);
  const configLabels = new Map(top === undefined ? [] : [[`containerd.io/gc.ref.snapshot.${snapshotter}`, top]]);
  await api.putContent(lease, `${lease}-config`, target.configDigest, target.config, configLabels);
  await api.putContent(lease, `${lease}-manifest`, target.manifestDigest, target.manifest, new Map([['containerd.io/gc.ref.content.config', target.configDigest]]));
  const descriptor = { mediaType: manifest.mediaType, digest: target.manifestDigest, size: target.manifest.length, annotations: new Map<string, string>() };
  const labels = namespace === kubernetes ? kubernetesLabels : new Map<string, string>();
  for (const each of imageNames(namespace, target, name)) await api.putImage(each, descriptor, labels);
  return name === null ? [] : [name];
}

/** The names of an image's records. Kubernetes finds images by ID, by digest and by tag, each of which is a record. */
function imageNames(namespace: string, target: Target, name: string | null): string[] {
  if (name === null) return [target.configDigest];
  if (namespace !== kubernetes) return [name];
  return [...new Set([target.configDigest, `${repositoryName(parseReference(name))}@${target.manifestDigest}`, name])];
}
