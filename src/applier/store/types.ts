import type { DurableFs } from '../../atomic/durable-fs.js';
import type { HeldBasis, HeldImage, PullStage } from '../engines/types.js';

/**
 * The device's images: extracted layers with their tar metadata, image records, references and stages under one
 * root directory. `docs/format-store.md` has the layout. Every call is safe beside other processes that use the same
 * root; errors are WhittleErrors (STORAGE_* and STORE_* besides those named at each call).
 */
export interface Store {
  /** Absolute path of the root directory. */
  readonly root: string;
  /** Whether layers are extracted with owners, device nodes and privileged xattrs (effective user is root). */
  readonly privileged: boolean;
  /** What recovery found and did when this store was opened. */
  readonly recovery: RecoveryReport;
  /** The port to the root directory; every path is relative to it. The fetch half keeps its durable files with it. */
  readonly fs: DurableFs;

  /** Every image whose record is readable, newest commit first, with the names that point to it. */
  images(): Promise<StoredImage[]>;
  /** Every name with its current and previous image, sorted by name. */
  references(): Promise<StoreReference[]>;
  /** The image that `name` (the exact string given to `commit`) points to. Undefined when there is none. */
  resolve(name: string): Promise<StoredImage | undefined>;
  /** The image with this manifest digest, or else the newest one with this config digest ("sha256:<hex>"). */
  findImage(digest: string): Promise<StoredImage | undefined>;
  /** Sizes, stages, damaged records; reads no content. */
  status(): Promise<StoreStatus>;
  /** Whether a committed layer with this diffID is present (its metadata is whole by its checksum; content is not re-hashed). */
  hasLayer(diffId: string): Promise<boolean>;
  /** Layers of `image` (diffIDs, each once) that are gone, whose metadata cannot be read or is not what its checksum says, or that the last verification found damaged. Reads no content. */
  damagedLayers(image: { readonly diffIds: readonly string[] }): Promise<string[]>;
  /**
   * The content of `image` as a delta's basis. `layers` gives the order (diffIDs, default: the image's layers in
   * manifest order, each once). `openContent` re-hashes before it gives a descriptor (BASIS_DAMAGED otherwise). Throws
   * BASIS_DAMAGED too when a layer's metadata is gone. The caller calls `close()` once; until then gc waits.
   */
  basis(image: HeldImage, options?: { readonly layers?: readonly string[] }): Promise<StoreBasis>;
  /**
   * Opens the stage for `target`, a new one or what an interrupted pull left. One holder at a time: throws STORE_BUSY
   * when another process holds it and `waitMs` (default 0) has passed. On disk when it returns: the stage's record.
   */
  stage(target: TargetImage, options?: StageOptions): Promise<Stage>;
  /** Whether an interrupted pull left a stage for the image with this manifest digest that nobody works on now. */
  hasLeftStage(manifestDigest: string): Promise<boolean>;
  /** Re-hashes everything of all images (or of `image`): damaged layers are listed, and marked for `damagedLayers`; nothing else is changed. */
  verify(options?: VerifyOptions): Promise<VerifyReport>;
  /**
   * Makes the previous image of `name` the current one (and the other way round) after verifying it. Durable when it
   * returns. Throws STORE_NO_PREVIOUS, IMAGE_UNKNOWN, or STORE_DAMAGED when the previous image is not whole.
   */
  rollback(name: string, options?: { readonly signal?: AbortSignal }): Promise<StoreReference>;
  /** Removes the reference; images and layers go at the next gc. Throws IMAGE_UNKNOWN. */
  removeReference(name: string): Promise<void>;
  /**
   * Deletes images that no reference (current or previous) and no mount uses, layers that no remaining image uses, and
   * stages nobody holds that are older than `stageMaxAgeMs` (default: `staleStageMs`; 0: all). STORE_BUSY while
   * a pull, verify or export runs.
   */
  gc(options?: { readonly stageMaxAgeMs?: number; readonly signal?: AbortSignal }): Promise<GcReport>;
  /** The layer's tar, bit for bit, from the store. Chunks are owned by the caller. Throws STORE_DAMAGED at its end (or before) when content is not what the diffID says. */
  layerTar(diffId: string): AsyncIterable<Buffer>;
  /** Size of that tar in bytes. Throws STORE_DAMAGED when the layer is absent or its metadata is unreadable. */
  layerTarSizeBytes(diffId: string): Promise<number>;
  /** Mounts the image's layers at `mountPoint` (an existing directory) with overlayfs. MOUNT_NEEDS_ROOT, MOUNT_FAILED. */
  mount(image: StoredImage, mountPoint: string, options?: { readonly writable?: boolean }): Promise<void>;
  /** Undoes `mount`; a writable mount's changes are deleted. MOUNT_NEEDS_ROOT, MOUNT_FAILED. */
  umount(mountPoint: string): Promise<void>;
  /** Free bytes for this user on the store's filesystem. */
  freeBytes(): Promise<number>;
  /** Releases descriptors and locks. Idempotent. */
  close(): Promise<void>;
}

/** One committed image. */
export interface StoredImage extends HeldImage {
  readonly manifestDigest: string;
  readonly manifestMediaType: string;
  readonly manifest: Buffer;
  /** What was pulled, as the user wrote it. */
  readonly source: string;
  /** When it was committed, ISO 8601; informative, the device's clock may be wrong. */
  readonly committedAt: string;
}

/** A name and the images it stands for. */
export interface StoreReference {
  readonly name: string;
  /** Manifest digests. */
  readonly current: string;
  readonly previous: string | null;
}

/** What a stage is for. Digests are computed, never believed. */
export interface TargetImage {
  readonly manifest: Buffer;
  readonly manifestMediaType: string;
  readonly config: Buffer;
  /** The index that the image's name led to, of which this is one platform; places that keep indexes keep it too. */
  readonly index?: TargetIndex | undefined;
}

/** An index of images for several platforms. */
export interface TargetIndex {
  readonly bytes: Buffer;
  readonly mediaType: string;
  readonly digest: string;
}

/** How a stage is opened. */
export interface StageOptions {
  /** How long to wait for another holder; default 0. */
  readonly waitMs?: number;
  readonly signal?: AbortSignal;
  /** Layers to build anew although the store has them (repair); commit exchanges them. */
  readonly replaceLayers?: readonly string[];
  /** Told about each reused, linked or refused thing worth a line in a log. */
  readonly onNote?: (note: string) => void;
}

/** A basis in the store; closing it lets gc run again. */
export type StoreBasis = HeldBasis;

/**
 * An uncommitted apply. As a TargetSink it takes the layers that a delta rebuilds: `layer` is the index in the target's
 * manifest, entries come in ascending order. Nothing is durable before `checkpoint` or `commit`. Closing it leaves it on disk for a later pull; `discard` deletes it with its spool.
 */
export interface Stage extends PullStage {
  readonly manifestDigest: string;
  readonly configDigest: string;
  readonly intake: 'kept';
  /** True when an interrupted pull left something here. */
  readonly resumed: boolean;
  /**
   * Whether the layer needs no more work: committed in the store (and not to be replaced), or whole in this stage. A layer
   * left by an interrupted pull is re-hashed from disk first.
   */
  hasLayer(layer: number): Promise<boolean>;
  /**
   * Takes a layer in full: uncompressed tar bytes, extracted as they come. Chunks may be reused after the next is asked
   * for. Throws TAR_CORRUPT, TAR_UNSAFE, LAYER_MISMATCH (digest is not the diffID); the layer's part of the stage is then gone.
   */
  writeLayerTar(layer: number, chunks: AsyncIterable<Buffer>): Promise<void>;
  /** Makes everything staged so far durable (one syncfs). */
  checkpoint(): Promise<void>;
  /**
   * Commits: every layer present, synced, re-read from disk and proven against its diffID (`verify: false` skips the
   * re-reading), moved into place, then the image record, last the reference. Durable when it returns; the stage and its
   * spool are gone. Throws STAGE_INCOMPLETE, STORE_DAMAGED (a reused layer is rotten: `data.layers`, comma-separated).
   * `name` null commits the image without a reference (used by repair).
   */
  commit(options: CommitOptions): Promise<StoredImage>;
}

/** File content that a stage has dealt with: written anew, linked from the basis (or reflinked), or found. */
export interface StageCounters {
  readonly writtenBytes: number;
  readonly writtenFiles: number;
  readonly linkedBytes: number;
  readonly linkedFiles: number;
  /** Found already on disk by a resumed stage. */
  readonly keptBytes: number;
  readonly keptFiles: number;
}

/** What `Stage.commit` needs to know. */
export interface CommitOptions {
  /** The name that shall mean the image; null: none. */
  readonly name: string | null;
  /** What was pulled, for the record. */
  readonly source: string;
  /** Whether every layer is read back and proven first; default true. */
  readonly verify?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/** What `Store.verify` may be told. */
export interface VerifyOptions {
  /** Only this image; default all. */
  readonly image?: StoredImage;
  readonly signal?: AbortSignal;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/** One thing that is not as recorded. `path` is for people (non-UTF-8 bytes replaced). */
export interface Damage {
  readonly kind: 'content' | 'metadata' | 'missing' | 'extra' | 'record';
  readonly path: string;
  readonly detail: string;
}

/** What is wrong with one layer. */
export interface LayerDamage {
  readonly diffId: string;
  /** At most `storeLimits.maxListedDamages` of them; `damageCount` is the whole number. */
  readonly damages: readonly Damage[];
  readonly damageCount: number;
  /** Images (manifest digests) that use this layer. */
  readonly images: readonly string[];
}

/** What `Store.verify` found. */
export interface VerifyReport {
  readonly imageCount: number;
  readonly layerCount: number;
  readonly checkedBytes: number;
  readonly damagedLayers: readonly LayerDamage[];
  /** Records (references, images) that could not be read, and those of named images that are gone. */
  readonly damagedRecords: readonly string[];
}

/** What `Store.gc` did. */
export interface GcReport {
  readonly removedImages: readonly string[];
  readonly removedLayers: readonly string[];
  readonly removedStages: number;
  /** Bytes on disk that went with layers and stages. */
  readonly freedBytes: number;
  /** Records that cannot be read, or that a name means and that are gone: images, and where one of theirs is among them layers too, were spared for them. */
  readonly damagedRecords: readonly string[];
}

/** What opening the store found and did. */
export interface RecoveryReport {
  /** Leftovers of interrupted operations that were removed or finished. */
  readonly removed: number;
  readonly finished: number;
  /** Records whose newest generation was unreadable, so that the previous one is in use. */
  readonly fellBack: readonly string[];
}

/** A pull that is not committed. */
export interface StageStatus {
  readonly manifestDigest: string;
  /** Space that it takes on disk. */
  readonly sizeBytes: number;
  /** Whether a process works on it now. */
  readonly active: boolean;
}

/** What `Store.status` tells. */
export interface StoreStatus {
  readonly root: string;
  readonly privileged: boolean;
  readonly imageCount: number;
  readonly layerCount: number;
  /** Bytes on disk of layers; files that layers share are counted once. */
  readonly layerBytes: number;
  readonly freeBytes: number;
  readonly references: readonly StoreReference[];
  readonly stages: readonly StageStatus[];
  readonly damagedRecords: readonly string[];
  readonly mounts: readonly { readonly mountPoint: string; readonly manifestDigest: string; readonly writable: boolean }[];
}

/** How a store is opened. */
export interface OpenStoreOptions {
  /** Makes the root when it is absent (parents too); otherwise STORE_ABSENT. */
  readonly create?: boolean;
  /** Reads only: no recovery, no locks kept. Works on a read-only filesystem. */
  readonly readOnly?: boolean;
  /** How long to wait for another process that opens the store or commits; default `storeLockWaitMs`. */
  readonly waitMs?: number;
  /** Replaces the real filesystem (tests). */
  readonly fs?: DurableFs;
  /** Replaces the real filesystem at and above the root (tests). */
  readonly openFs?: (path: string) => Promise<DurableFs>;
}
