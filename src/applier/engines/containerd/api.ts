import { WhittleError } from '../../../core/errors.js';
import { GrpcConnection, grpcStatus, isStatus } from './grpc.js';
import { containerdLimits } from './limits.js';
import * as messages from './messages.js';
import type { Message } from './messages.js';

/** An image's record: a name, and the descriptor that it stands for. */
export type ImageRecord = Message<typeof messages.image>;
/** A blob of the content store: digest, size, labels. */
export type ContentInfo = Message<typeof messages.contentInfo>;
/** A snapshot: its key, its parent's, its kind (`messages.snapshotKind`), its labels. */
export type SnapshotInfo = Message<typeof messages.snapshotInfo>;
/** What keeps content and snapshots from containerd's garbage collector. */
export type Lease = Message<typeof messages.lease>;
/** One mount that makes up a snapshot's tree. */
export type Mount = Message<typeof messages.mount>;
/** Labels of anything in containerd. */
export type Labels = ReadonlyMap<string, string>;

/** Whose images are meant, and how they are kept. */
export interface ContainerdScope {
  readonly namespace: string;
  readonly snapshotter: string;
}

const service = (name: string, method: string): string => `/containerd.services.${name}.v1.${name.replace(/^./, (first) => first.toUpperCase())}/${method}`;

/**
 * containerd's API for one namespace and snapshotter. Calls throw ENGINE_FAILED (containerd's own words, and its status in
 * the data), ENGINE_UNREACHABLE, ENGINE_DENIED, LIMIT_EXCEEDED, INTERRUPTED. The lease given with a call holds what it makes.
 */
export class ContainerdApi {
  private constructor(private readonly connection: GrpcConnection, readonly scope: ContainerdScope, private readonly signal: AbortSignal) {}

  /** Connects to the daemon behind a unix socket. The caller calls `close`. */
  static async open(socketPath: string, scope: ContainerdScope, signal: AbortSignal): Promise<ContainerdApi> {
    return new ContainerdApi(await GrpcConnection.open(socketPath), scope, signal);
  }

  /** Ends the connection; calls that are under way fail. */
  close(): Promise<void> {
    return this.connection.close();
  }

  /** Where the snapshotter keeps its snapshots, in its own words; undefined when it does not say. */
  async snapshotterRoot(): Promise<string | undefined> {
    const request = messages.pluginsRequest.encode({ filters: [`type==io.containerd.snapshotter.v1,id==${this.scope.snapshotter}`] });
    const { plugins } = messages.pluginsResponse.decode(await this.#send(service('introspection', 'Plugins'), request));
    return plugins.find(({ id }) => id === this.scope.snapshotter)?.exports.get('root');
  }

  /** Makes the namespace, unless it is there. */
  async ensureNamespace(): Promise<void> {
    const request = messages.createNamespaceRequest.encode({ namespace: { name: this.scope.namespace, labels: new Map() } });
    try {
      await this.#send('/containerd.services.namespaces.v1.Namespaces/Create', request);
    } catch (error) {
      if (!isStatus(error, grpcStatus.alreadyExists)) throw error;
    }
  }

  /** The records of all images of the namespace. */
  async images(): Promise<readonly ImageRecord[]> {
    const { images } = messages.listImagesResponse.decode(await this.#send(service('images', 'List'), messages.listImagesRequest.encode({})));
    return images;
  }

  /** Undefined when there is none of that name. */
  async image(name: string): Promise<ImageRecord | undefined> {
    return orUndefined(async () => messages.imageResponse.decode(await this.#send(service('images', 'Get'), messages.getImageRequest.encode({ name }))).image);
  }

  /** Makes `name` stand for `target`, whatever it stood for: one step of containerd's database, durable when it returns. */
  async putImage(name: string, target: NonNullable<ImageRecord['target']>, labels: Labels): Promise<void> {
    const image = { name, target, labels, createdAt: undefined, updatedAt: undefined };
    try {
      await this.#send(service('images', 'Create'), messages.createImageRequest.encode({ image }));
    } catch (error) {
      if (!isStatus(error, grpcStatus.alreadyExists)) throw error;
      const paths = ['target', ...[...labels.keys()].map((key) => `labels.${key}`)];
      await this.#send(service('images', 'Update'), messages.updateImageRequest.encode({ image, updateMask: { paths } }));
    }
  }

  /** Every blob of the namespace. */
  async contents(): Promise<ContentInfo[]> {
    const all: ContentInfo[] = [];
    for await (const bytes of this.#stream(service('content', 'List'), messages.listContentRequest.encode({}))) addAll(all, messages.listContentResponse.decode(bytes).info, 'blobs');
    return all;
  }

  /** Undefined when the blob is not in the namespace. */
  async contentInfo(digest: string): Promise<ContentInfo | undefined> {
    return orUndefined(async () => messages.contentInfoResponse.decode(await this.#send(service('content', 'Info'), messages.contentInfoRequest.encode({ digest }))).info);
  }

  /** The bytes of a blob as they come. Proves nothing. */
  async *content(digest: string): AsyncGenerator<Buffer, void, void> {
    for await (const bytes of this.#stream(service('content', 'Read'), messages.readContentRequest.encode({ digest }))) {
      yield Buffer.from(messages.readContentResponse.decode(bytes).data);
    }
  }

  /** Adds labels to a blob, or changes them. */
  async labelContent(digest: string, labels: Labels): Promise<void> {
    const request = { info: { digest, size: 0, labels }, updateMask: { paths: [...labels.keys()].map((key) => `labels.${key}`) } };
    await this.#send(service('content', 'Update'), messages.updateContentRequest.encode(request));
  }

  /** Takes a blob out of the namespace, if it is there. Its bytes go when containerd collects its garbage, unless another namespace has it. */
  async removeContent(digest: string): Promise<void> {
    await orUndefined(() => this.#cleanUp(service('content', 'Delete'), messages.deleteContentRequest.encode({ digest })));
  }

  /** Puts a small blob with its labels; one that is there already gets the labels. What a killed writer left under `ref` is dropped. */
  async putContent(lease: string, ref: string, digest: string, data: Buffer, labels: Labels): Promise<void> {
    await orUndefined(() => this.#send(service('content', 'Abort'), messages.abortRequest.encode({ ref }), lease));
    const common = { ref, total: data.length, expected: digest };
    const requests = [
      messages.writeContentRequest.encode({ ...common, action: messages.writeAction.write, offset: 0, data }),
      messages.writeContentRequest.encode({ ...common, action: messages.writeAction.commit, offset: data.length, labels }),
    ];
    try {
      const answers = this.connection.stream(this.#call(service('content', 'Write'), requests, lease));
      while ((await answers.next()).done !== true);
    } catch (error) {
      if (!isStatus(error, grpcStatus.alreadyExists)) throw error;
      await this.labelContent(digest, labels);
      await this.hold(lease, { id: digest, type: 'content' });
    }
  }

  /** Every snapshot of the namespace and snapshotter. */
  async snapshots(): Promise<SnapshotInfo[]> {
    const all: SnapshotInfo[] = [];
    const request = messages.listSnapshotsRequest.encode({ snapshotter: this.scope.snapshotter });
    for await (const bytes of this.#stream(service('snapshots', 'List'), request)) addAll(all, messages.listSnapshotsResponse.decode(bytes).info, 'snapshots');
    return all;
  }

  /** Undefined when there is none under that name or key. */
  async snapshot(key: string): Promise<SnapshotInfo | undefined> {
    return orUndefined(async () => messages.statSnapshotResponse.decode(await this.#send(service('snapshots', 'Stat'), this.#snapshotKey(key))).info);
  }

  /** A new writable snapshot on `parent` ('' for none), and where it is. ENGINE_FAILED with alreadyExists when the key is taken. */
  prepare(lease: string, key: string, parent: string): Promise<readonly Mount[]> {
    return this.#mounts('Prepare', messages.prepareSnapshotRequest.encode({ snapshotter: this.scope.snapshotter, key, parent }), lease);
  }

  /** A read-only snapshot that shows what is under `parent`, and where that is. */
  view(lease: string, key: string, parent: string): Promise<readonly Mount[]> {
    return this.#mounts('View', messages.prepareSnapshotRequest.encode({ snapshotter: this.scope.snapshotter, key, parent }), lease);
  }

  /** Where an uncommitted snapshot is. */
  mounts(key: string): Promise<readonly Mount[]> {
    return this.#mounts('Mounts', this.#snapshotKey(key));
  }

  async #mounts(method: string, request: Buffer, lease?: string): Promise<readonly Mount[]> {
    return messages.mountsResponse.decode(await this.#send(service('snapshots', method), request, lease)).mounts;
  }

  /** Makes what `key` holds the snapshot `name`. ENGINE_FAILED with alreadyExists when somebody was quicker. */
  async commitSnapshot(lease: string, name: string, key: string, labels: Labels): Promise<void> {
    await this.#send(service('snapshots', 'Commit'), messages.commitSnapshotRequest.encode({ snapshotter: this.scope.snapshotter, name, key, labels }), lease);
  }

  /** Removes a snapshot, if it is there. */
  async removeSnapshot(key: string): Promise<void> {
    await orUndefined(() => this.#cleanUp(service('snapshots', 'Remove'), this.#snapshotKey(key)));
  }

  /** All leases of the namespace, whosever they are. */
  async leases(): Promise<readonly Lease[]> {
    return messages.listLeasesResponse.decode(await this.#send(service('leases', 'List'), messages.listLeasesRequest.encode({}))).leases;
  }

  /** Makes a lease; one that is there already stays, and false says so. */
  async ensureLease(id: string, labels: Labels): Promise<boolean> {
    try {
      await this.#send(service('leases', 'Create'), messages.createLeaseRequest.encode({ id, labels }));
      return true;
    } catch (error) {
      if (!isStatus(error, grpcStatus.alreadyExists)) throw error;
      return false;
    }
  }

  /** Lets go of what only the lease holds. With `sync`, containerd has collected it when this returns. */
  async deleteLease(id: string, sync: boolean): Promise<void> {
    await orUndefined(() => this.#cleanUp(service('leases', 'Delete'), messages.deleteLeaseRequest.encode({ id, sync })));
  }

  /** Holds a blob ("content") or snapshot ("snapshots/<snapshotter>") against the garbage collector. */
  async hold(lease: string, resource: { readonly id: string; readonly type: string }): Promise<void> {
    await this.#send(service('leases', 'AddResource'), messages.addResourceRequest.encode({ id: lease, resource }));
  }

  #snapshotKey(key: string): Buffer {
    return messages.snapshotKeyRequest.encode({ snapshotter: this.scope.snapshotter, key });
  }

  #call(path: string, requests: readonly Buffer[], lease?: string): Parameters<GrpcConnection['stream']>[0] {
    const metadata = { 'containerd-namespace': this.scope.namespace, ...(lease === undefined ? {} : { 'containerd-lease': lease }) };
    return { path, requests, metadata, signal: this.signal };
  }

  #send(path: string, request: Buffer, lease?: string): Promise<Buffer> {
    return this.connection.unary(this.#call(path, [request], lease));
  }

  /** Also after an interruption: what was made is taken back. */
  #cleanUp(path: string, request: Buffer): Promise<Buffer> {
    return this.connection.unary({ ...this.#call(path, [request]), signal: undefined });
  }

  #stream(path: string, request: Buffer): AsyncGenerator<Buffer, void, void> {
    return this.connection.stream(this.#call(path, [request]));
  }
}

/** What `action` gives; undefined when containerd says that there is no such thing. */
async function orUndefined<T>(action: () => Promise<T>): Promise<T | undefined> {
  try {
    return await action();
  } catch (error) {
    if (isStatus(error, grpcStatus.notFound)) return undefined;
    throw error;
  }
}

function addAll<T>(all: T[], more: readonly T[], what: string): void {
  for (const each of more) all.push(each);
  if (all.length > containerdLimits.maxListed) throw new WhittleError('LIMIT_EXCEEDED', `containerd lists more than ${containerdLimits.maxListed} ${what} (maxListed)`);
}
