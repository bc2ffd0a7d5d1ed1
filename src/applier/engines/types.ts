import type { DurableFs } from '../../atomic/durable-fs.js';
import type { Basis } from '../../delta/basis.js';
import type { LayerPlan } from '../../delta/plan.js';
import type { TargetSink } from '../../delta/sink.js';
import type { CommitOptions, StageCounters, StageOptions, Store, TargetImage } from '../store/types.js';

/** An image that a place holds whole, so that a delta may start from it. */
export interface HeldImage {
  /** Null where the place keeps no manifest (Docker does not). */
  readonly manifestDigest: string | null;
  /** Of an image that a name led to: the index behind that name, null for none; absent where the place keeps no indexes. */
  readonly indexDigest?: string | null;
  /** The image ID. */
  readonly configDigest: string;
  readonly config: Buffer;
  /** Layers in manifest order; a diffID may repeat. */
  readonly diffIds: readonly string[];
  /** Names whose current image this is, every default written out (`docker.io/library/app:latest`). */
  readonly names: readonly string[];
  /** Larger is newer. */
  readonly sequence: number;
}

/** An image's layers as a delta's basis, held against the place's garbage collector until `close`, which may be called twice. */
export interface HeldBasis extends Basis {
  readonly image: HeldImage;
  close(): Promise<void>;
}

/** Which layers a basis shall have (diffIDs, in this order). Default: the image's layers in manifest order, each once. */
export interface BasisOptions {
  readonly layers?: readonly string[];
}

/**
 * Where a pull puts its image: the device's own store, or a container engine. Resolving, planning, fetching and applying
 * know nothing more of it.
 */
export interface ImagePlace {
  /** For messages: "the store", "docker". */
  readonly name: string;
  /** The port to the device's root directory, where spools are. */
  readonly fs: DurableFs;
  /** The store that takes images without a name on the way to another one; null where a pull may leave no image but the one that is wanted. */
  readonly passing: Store | null;
  images(): Promise<HeldImage[]>;
  /** The image that `name` means here. */
  resolve(name: string): Promise<HeldImage | undefined>;
  /** Layers of an image that are known to be damaged; absent where the place looks after its layers itself. Reads no content. */
  damagedLayers?(image: HeldImage): Promise<readonly string[]>;
  basis(image: HeldImage, options?: BasisOptions): Promise<HeldBasis>;
  /** Takes the lock for `target` and opens its spool. Changes nothing that a user of the place could see. STORE_BUSY. */
  stage(target: TargetImage, options?: StageOptions): Promise<PullStage>;
  /** Whether an interrupted pull of the image with this manifest digest left a stage that nobody works on now. */
  hasLeftStage(manifestDigest: string): Promise<boolean>;
}

/**
 * How a stage takes what it is given. `kept`: what `checkpoint` was called after stays over an interruption, so layers may
 * come as they arrive. `streamed`: nothing stays before `commit`; so everything is fetched, and proven, before
 * the first byte is given, and layers in full come with their size.
 */
export type Intake = 'kept' | 'streamed';

/** What a stage and an engine's sink have in common. */
export interface LayerSink extends TargetSink {
  readonly intake: Intake;
  /** The basis that `copyEntry` origins refer to; the sink does not close it. */
  useBasis(basis: HeldBasis): void;
  /** What is going to be made of a layer, told before its `beginLayer`, and whether it is the last that the delta makes; for a sink that keeps only what will be asked for. */
  planned?(layer: number, plan: LayerPlan, isLast: boolean): void;
  /** Whether the layer needs no more work: the place has it, or this sink has it whole. */
  hasLayer(layer: number): Promise<boolean>;
  /**
   * Takes a layer in full: uncompressed tar bytes, which must have the layer's diffID. Chunks may be reused after the next is
   * asked for. `sizeBytes` is their number, known only when `intake` is `streamed`. Throws TAR_CORRUPT, TAR_UNSAFE, LAYER_MISMATCH.
   */
  writeLayerTar(layer: number, chunks: AsyncIterable<Buffer>, sizeBytes?: number): Promise<void>;
  /** Makes all layers given so far durable; does nothing where `intake` is `streamed`. */
  checkpoint(): Promise<void>;
  /** The image becomes visible, as one step, under its name (null: without one). Durable when it returns. Throws STAGE_INCOMPLETE. */
  commit(options: CommitOptions): Promise<HeldImage>;
  /** Removes what was given. */
  discard(): Promise<void>;
  /** Leaves what is kept to a later pull. Idempotent; does nothing after commit or discard. */
  close(): Promise<void>;
  readonly counters: StageCounters;
}

/** An uncommitted image together with the lock and the spool that a pull needs. */
export interface PullStage extends LayerSink {
  /** diffIDs of the target in manifest order. */
  readonly diffIds: readonly string[];
  /** Directory for what is downloaded, relative to the place's `fs` (and its absolute path); goes with the stage. */
  readonly spool: { readonly path: string; readonly absolutePath: string };
  /** Throws STORAGE_FULL, with the numbers, when spool or image surely do not fit where they go. */
  requireSpace(needs: SpaceNeeds): Promise<void>;
}

/** The container engines that images can be pulled into. */
export const engineNames = ['docker', 'containerd', 'podman'] as const;

/** One of them. */
export type EngineName = (typeof engineNames)[number];

/** How to reach an engine, from flags and the device's config file. Each engine has a default for what is absent. */
export interface EngineSettings {
  /** Absolute path of its unix socket (Docker, containerd), or of its program (Podman). */
  readonly address?: string | undefined;
  /** Absolute path of the directory where it keeps its images (Docker's data-root, containerd's root, Podman's graph root). */
  readonly root?: string | undefined;
  /** Absolute path of its directory for running state (Podman's run root). */
  readonly runRoot?: string | undefined;
  /** containerd's namespace. */
  readonly namespace?: string | undefined;
  /** containerd's snapshotter. */
  readonly snapshotter?: string | undefined;
}

/** What opening an engine takes. */
export interface EngineContext {
  readonly settings: EngineSettings;
  /** The device's root directory; engines keep derived data (such as proven layer metadata) below `engines/`. */
  readonly fs: DurableFs;
  /** Told of what is worth a line in a log, such as an image that cannot serve as a basis. */
  readonly onNote: (note: string) => void;
  readonly signal: AbortSignal;
}

/** What a sink is begun with. */
export interface BeginOptions {
  /** Absolute path of a directory for scratch files; what is left in it is removed with the pull's stage. */
  readonly scratchDirectory: string;
  readonly signal?: AbortSignal | undefined;
  readonly onNote: (note: string) => void;
  /** Layers (diffIDs) that the engine's own copies did not give, so that they must come anew. */
  readonly replaceLayers: readonly string[];
}

/**
 * A container engine on this machine. Everything it says is checked; nothing of its store is changed but through its own
 * interface or by its own rules. Throws ENGINE_UNREACHABLE, ENGINE_FAILED.
 */
export interface Engine {
  readonly name: EngineName;
  /** Every image whose layers can be read as a basis, newest first. */
  images(): Promise<HeldImage[]>;
  /** The image that `name` (every default written out) means to the engine. */
  resolve(name: string): Promise<HeldImage | undefined>;
  /** Throws BASIS_DAMAGED when a layer is gone or its metadata does not give its diffID. */
  basis(image: HeldImage, options?: BasisOptions): Promise<HeldBasis>;
  /** Prepares to take an image. Nothing is visible to the engine's users before `commit`, and nothing is asked of it before the first layer. */
  begin(target: TargetImage, options: BeginOptions): Promise<LayerSink>;
  /** Where its images go, to know beforehand whether there is room; null where it cannot be seen from here. */
  storage(): Promise<EngineStorage | null>;
  /** Releases connections and locks. Idempotent. */
  close(): Promise<void>;
}

/** Where an engine keeps images. */
export interface EngineStorage {
  /** Absolute path of a directory of that filesystem. */
  readonly path: string;
  /** How many times the bytes of a layer that it has not are written there at once; 0 where only what changed is. */
  readonly layerCopies: number;
}

/** What a pull takes on disk at least. */
export interface SpaceNeeds {
  /** To be downloaded into the spool. */
  readonly spoolBytes: number;
  /** Of the image, as it is downloaded: what it becomes is not smaller. */
  readonly imageBytes: number;
  /** Of the layers that the place has not, packed. */
  readonly layerBytes: number;
}

/** What the module of an engine exports: makes the connection. Throws ENGINE_UNREACHABLE, ENGINE_DENIED, ENGINE_UNSUPPORTED, ENGINE_FAILED. */
export type OpenEngine = (context: EngineContext) => Promise<Engine>;
