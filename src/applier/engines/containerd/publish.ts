import { isWhittleError, WhittleError } from '../../../core/errors.js';
import { parseReference, type Manifest } from '../../../oci/index.js';
import { repositoryName } from '../../pull/options.js';
import { hexOf } from '../../store/layout.js';
import type { Target } from '../../store/target.js';
import type { ContainerdApi, ContentInfo, Labels } from './api.js';

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
 * Puts an image's config, manifest and index (if its name led to one) into containerd, byte for byte, and then its records, that of its name last: it is visible
 * with that. Labels tell containerd's garbage collector that the manifest needs the config, and the config the
 * snapshots; layers' blobs are not there, as after an unpacking that discards them. Gives the names.
 */
export async function publishImage(api: ContainerdApi, lease: string, { target, manifest, chain, name }: ImageToPublish): Promise<string[]> {
  const { namespace, snapshotter } = api.scope;
  const top = chain.at(-1);
  const configLabels = new Map(top === undefined ? [] : [[`containerd.io/gc.ref.snapshot.${snapshotter}`, top]]);
  await putDocument(api, lease, 'config', { digest: target.configDigest, bytes: target.config, labels: configLabels });
  await putDocument(api, lease, 'manifest', { digest: target.manifestDigest, bytes: target.manifest, labels: new Map([['containerd.io/gc.ref.content.config', target.configDigest]]) });
  const { index } = target;
  if (index !== undefined) await putDocument(api, lease, 'index', { digest: index.digest, bytes: index.bytes, labels: indexLabels(target) });
  const one = descriptorOf(manifest.mediaType, target.manifestDigest, target.manifest);
  const whole = index === undefined ? one : descriptorOf(index.mediaType, index.digest, index.bytes);
  const labels = namespace === kubernetes ? kubernetesLabels : new Map<string, string>();
  for (const [each, descriptor] of imageNames(namespace, target, name, { one, whole })) await api.putImage(each, descriptor, labels);
  return name === null ? [] : [name];
}

/**
 * An index needs the manifest of this platform; those of others are not there, as after containerd's own pull of one platform. The label is
 * the platform's own, beside those of others that somebody pulled.
 */
function indexLabels({ manifestDigest }: Target): ReadonlyMap<string, string> {
  return new Map([[`containerd.io/gc.ref.content.m.${hexOf(manifestDigest).slice(0, 16)}`, manifestDigest]]);
}

/** A small blob of an image, and what containerd's garbage collector is to know of it. */
interface ImageDocument {
  readonly digest: string;
  readonly bytes: Buffer;
  readonly labels: Labels;
}

/**
 * Puts a document into containerd. One that is there already, from an interrupted pull or for another image, is read back: where the
 * disk has changed it, it is put there anew. Throws ENGINE_FAILED when it stays as it is, since another namespace has it.
 */
async function putDocument(api: ContainerdApi, lease: string, kind: string, { digest, bytes, labels }: ImageDocument): Promise<void> {
  const there = await api.contentInfo(digest);
  const isDamaged = there !== undefined && !(await isThere(api, digest, bytes));
  if (isDamaged) await removeDamaged(api, lease, there);
  await api.putContent(lease, `${lease}-${kind}`, digest, bytes, isDamaged ? new Map([...there.labels, ...labels]) : labels);
  if (isDamaged && !(await isThere(api, digest, bytes))) {
    throw new WhittleError('ENGINE_FAILED', `containerd's blob ${digest} is damaged, and cannot be replaced while another namespace has it`, { hint: 'See docs/engines.md.' });
  }
}

async function isThere(api: ContainerdApi, digest: string, bytes: Buffer): Promise<boolean> {
  let at = 0;
  try {
    for await (const chunk of api.content(digest)) {
      if (!chunk.equals(bytes.subarray(at, at + chunk.length))) return false;
      at += chunk.length;
    }
  } catch (error) {
    if (isWhittleError(error) && error.code === 'ENGINE_FAILED') return false;
    throw error;
  }
  return at === bytes.length;
}

/** Its bytes go with the next collection only, and what its labels refer to must outlive that. */
async function removeDamaged(api: ContainerdApi, lease: string, { digest, labels }: ContentInfo): Promise<void> {
  for (const [label, id] of labels) {
    const type = /^containerd\.io\/gc\.ref\.(content|snapshot\.[^./]+)(\.|$)/.exec(label)?.[1];
    if (type !== undefined) await api.hold(lease, { id, type: type.replace('snapshot.', 'snapshots/') });
  }
  await api.removeContent(digest);
  const collector = `${lease}-collect`;
  await api.ensureLease(collector, new Map());
  await api.deleteLease(collector, true);
}

type RecordTarget = Parameters<ContainerdApi['putImage']>[1];

function descriptorOf(mediaType: string, digest: string, bytes: Buffer): RecordTarget {
  return { mediaType, digest, size: bytes.length, annotations: new Map<string, string>() };
}

/**
 * The names of an image's records, and what each stands for: the index, where there is one, so that an image pinned by the index's digest is
 * found. Kubernetes finds images by ID, by digest and by tag, each of which is a record; there the platform's own manifest has one too.
 */
function imageNames(namespace: string, target: Target, name: string | null, { one, whole }: { readonly one: RecordTarget; readonly whole: RecordTarget }): Map<string, RecordTarget> {
  if (name === null) return new Map([[target.configDigest, whole]]);
  if (namespace !== kubernetes) return new Map([[name, whole]]);
  const repository = repositoryName(parseReference(name));
  return new Map([[target.configDigest, whole], [`${repository}@${one.digest}`, one], [`${repository}@${whole.digest}`, whole], [name, whole]]);
}
