import { bytes, flag, integer, MessageType, nested, nestedList, text, textMap, texts, type MessageOf } from './wire.js';

/** The messages of containerd's API that are spoken here: names, field numbers and types are its protocol's. Fields of no use here are left out. */

const timestamp = new MessageType({ seconds: integer(1), nanos: integer(2) });
const fieldMask = new MessageType({ paths: texts(1) });

const descriptor = new MessageType({ mediaType: text(1), digest: text(2), size: integer(3), annotations: textMap(5) });
export const mount = new MessageType({ type: text(1), source: text(2), target: text(3), options: texts(4) });

export const contentInfo = new MessageType({ digest: text(1), size: integer(2), labels: textMap(5) });
export const contentInfoRequest = new MessageType({ digest: text(1) });
export const contentInfoResponse = new MessageType({ info: nested(1, contentInfo) });
export const updateContentRequest = new MessageType({ info: nested(1, contentInfo), updateMask: nested(2, fieldMask) });
export const listContentRequest = new MessageType({ filters: texts(1) });
export const listContentResponse = new MessageType({ info: nestedList(1, contentInfo) });
export const readContentRequest = new MessageType({ digest: text(1), offset: integer(2), size: integer(3) });
export const readContentResponse = new MessageType({ offset: integer(1), data: bytes(2) });
export const deleteContentRequest = new MessageType({ digest: text(1) });
export const abortRequest = new MessageType({ ref: text(1) });
export const writeAction = { write: 1, commit: 2 } as const;
export const writeContentRequest = new MessageType({ action: integer(1), ref: text(2), total: integer(3), expected: text(4), offset: integer(5), data: bytes(6), labels: textMap(7) });

export const image = new MessageType({ name: text(1), labels: textMap(2), target: nested(3, descriptor), createdAt: nested(7, timestamp), updatedAt: nested(8, timestamp) });
export const getImageRequest = new MessageType({ name: text(1) });
export const imageResponse = new MessageType({ image: nested(1, image) });
export const createImageRequest = new MessageType({ image: nested(1, image) });
export const updateImageRequest = new MessageType({ image: nested(1, image), updateMask: nested(2, fieldMask) });
export const listImagesRequest = new MessageType({ filters: texts(1) });
export const listImagesResponse = new MessageType({ images: nestedList(1, image) });

export const lease = new MessageType({ id: text(1), createdAt: nested(2, timestamp), labels: textMap(3) });
export const createLeaseRequest = new MessageType({ id: text(1), labels: textMap(3) });
export const deleteLeaseRequest = new MessageType({ id: text(1), sync: flag(2) });
export const listLeasesRequest = new MessageType({ filters: texts(1) });
export const listLeasesResponse = new MessageType({ leases: nestedList(1, lease) });
const leaseResource = new MessageType({ id: text(1), type: text(2) });
export const addResourceRequest = new MessageType({ id: text(1), resource: nested(2, leaseResource) });

const namespace = new MessageType({ name: text(1), labels: textMap(2) });
export const createNamespaceRequest = new MessageType({ namespace: nested(1, namespace) });

export const snapshotKind = { view: 1, active: 2, committed: 3 } as const;
export const snapshotInfo = new MessageType({ name: text(1), parent: text(2), kind: integer(3), labels: textMap(6) });
export const prepareSnapshotRequest = new MessageType({ snapshotter: text(1), key: text(2), parent: text(3), labels: textMap(4) });
export const mountsResponse = new MessageType({ mounts: nestedList(1, mount) });
export const snapshotKeyRequest = new MessageType({ snapshotter: text(1), key: text(2) });
export const commitSnapshotRequest = new MessageType({ snapshotter: text(1), name: text(2), key: text(3), labels: textMap(4) });
export const statSnapshotResponse = new MessageType({ info: nested(1, snapshotInfo) });
export const listSnapshotsRequest = new MessageType({ snapshotter: text(1), filters: texts(2) });
export const listSnapshotsResponse = new MessageType({ info: nestedList(1, snapshotInfo) });

const plugin = new MessageType({ type: text(1), id: text(2), exports: textMap(5) });
export const pluginsRequest = new MessageType({ filters: texts(1) });
export const pluginsResponse = new MessageType({ plugins: nestedList(1, plugin) });

/** What a message type's messages are. */
export type Message<T> = T extends MessageType<infer F> ? MessageOf<F> : never;
