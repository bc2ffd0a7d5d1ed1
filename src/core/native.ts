import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { WhittleError } from './errors.js';

/**
 * Content for native code: the concatenation of `extents` (offset, length pairs, in bytes) of the open file `fd`.
 * `sizeBytes` is the sum of the lengths. Native code reads by pread and never closes; the caller keeps `fd` open
 * until the call's promise settles.
 */
export interface NativeContent {
  readonly fd: number;
  readonly extents: Float64Array;
  readonly sizeBytes: number;
}

/** What codec models and match parameters are tuned for: smallest delta, or quickest. */
export type CodecProfile = 'small' | 'fast';

/** What one file is matched against, and what that may take. */
export interface MatchOptions {
  /** Old content; positions count through their concatenation. */
  readonly sources: readonly NativeContent[];
  readonly target: NativeContent;
  /** Upper bound of native memory; larger inputs get a sparser index, never an error. */
  readonly memoryLimitBytes: number;
  /** At most this many threads work on it. Default 1. What is found does not depend on it. */
  readonly threads?: number;
  /** How often at most executables are matched again by what their references lead to. Default 0. */
  readonly labelPasses?: number;
}

/** Finds the target files that resemble given content. Deterministic. */
export interface BlockIndex {
  /** Says, before anything is added, that this content will be asked for: what none of those has in common is not kept then. */
  want(content: NativeContent): Promise<void>;
  /** Adds the content of a file under `id` (an unsigned 32-bit integer). Calls on one index run one at a time. */
  add(id: number, content: NativeContent): Promise<void>;
  /** Pairs (id, estimate of bytes in common), best first, at most 16. */
  query(content: NativeContent): Promise<Float64Array>;
  /** Forgets every file and gives the memory back at once: up to then it is the garbage collector's, which may be late. */
  clear(): void;
}

/** Codes segments of files as differences; models persist from segment to segment. */
export interface PatchEncoder {
  /** Adds a file to the segment. `ops` are triples newPos, oldPos, length as `matchFile` gives them. */
  add(file: { readonly sources: readonly NativeContent[]; readonly target: NativeContent; readonly ops: Float64Array }): void;
  /** Codes the segment: `streams` is self-delimiting. */
  flush(): Promise<{ readonly streams: Buffer; readonly stats: Readonly<Record<string, number>> }>;
  /** Frees its memory now instead of at the next garbage collection. Throws while `flush` runs; may be called twice. */
  close(): void;
}

/** Decodes what PatchEncoder wrote, segment by segment, in bounded memory. */
export interface PatchDecoder {
  /** Takes the streams of the next segment. */
  segment(streams: Buffer): void;
  /** Starts the segment's next file. */
  begin(file: { readonly sources: readonly NativeContent[]; readonly sizeBytes: number }): void;
  /**
   * Fills `out` (less only at the end of the file) and resolves to the number of bytes written. Rejects with `code`
   * DELTA_CORRUPT or BASIS_DAMAGED, also thrown by the other methods; the decoder is of no more use then.
   */
  next(out: Buffer): Promise<number>;
  /** `next` on the calling thread, for a few kilobytes: a hop to the thread pool and back takes longer than they do. Throws what `next` rejects with. */
  nextNow(out: Buffer): number;
  /** Throws unless the last segment was read to its end with no byte of it left over. */
  end(): void;
  /** Frees its memory now instead of at the next garbage collection. Throws while `next` runs; may be called twice. */
  close(): void;
}

/** What the device's addon has. */
export interface DeviceAddon {
  /** Writes back the whole filesystem that holds `fd`, durably. Rejects with the errno's name as `code`. */
  syncfs(fd: number): Promise<void>;
  /**
   * Runs encoded filesystem steps below the directory `rootFd` (`src/atomic/batch-codec.ts`). Resolves to the size of the
   * results, which are then in `results`, or to a Buffer with them when they do not fit. `commands` must not change meanwhile.
   */
  runBatch(rootFd: number, commands: Uint8Array, walkOnly: boolean, results: Uint8Array): Promise<Buffer | number>;
  /** `runBatch` on the calling thread, for steps that only look at what the kernel has in memory: a hop to the thread pool costs ten times as much. */
  runBatchNow(rootFd: number, commands: Uint8Array, walkOnly: boolean, results: Uint8Array): Buffer | number;
  /** Takes an advisory lock on an open file without waiting; false when another holder has it. It goes with the descriptor. */
  flock(fd: number, exclusive: boolean): boolean;
  /** Mounts an overlay of absolute paths, topmost layer first; `upper` and `work` empty for a read-only one. */
  mountOverlay(target: string, lowers: readonly string[], upper: string, work: string): Promise<void>;
  /** Unmounts what is mounted at an absolute path; EBUSY while it is in use. */
  unmount(target: string): Promise<void>;
  /**
   * Makes the brotli stream of a text that an encoder made by these decisions, into `out`, which it fills. Off the event loop; none
   * of the three may change meanwhile. Rejects with `code` DELTA_CORRUPT when they do not give a stream of that size.
   */
  rebuildBrotli(text: Buffer, decisions: Buffer, out: Buffer): Promise<void>;
  /** Memory that `rebuildBrotli` takes for a text of so many bytes beside its three buffers. */
  rebuildBrotliBytes(textBytes: number): number;
  /** The same for a raw deflate stream. */
  rebuildDeflate(text: Buffer, decisions: Buffer, out: Buffer): Promise<void>;
  /** Memory that `rebuildDeflate` takes for a text of so many bytes beside its three buffers. */
  rebuildDeflateBytes(textBytes: number): number;
  readonly PatchDecoder: {
    new (options: { readonly profile: CodecProfile }): PatchDecoder;
    /** Memory that a decoder of this profile takes. */
    memoryBytes(profile: CodecProfile): number;
  };
}

/** A PatchDecoder that also tells what each stream cost, for accounts of a delta. */
export interface PatchMeter extends Omit<PatchDecoder, 'close'> {
  /** Bits of information read so far: ops, residue, literals (docs/format-codec.md). */
  bits(): Float64Array;
}

/** What the server's addon has. */
export interface ServerAddon {
  /** Gives back to the system what the allocator keeps of freed memory. */
  returnFreeMemory(): void;
  /** What `rebuildBrotli` makes a brotli stream of beside its text; empty when it cannot: another text, or a large window. Deterministic. */
  brotliDecisions(stream: Buffer, text: Buffer): Promise<Buffer>;
  /** The same for `rebuildDeflate`; empty when it cannot: another text, or more copies in a block than are told. */
  deflateDecisions(stream: Buffer, text: Buffer): Promise<Buffer>;
  /** Which of the usual encoders may have made a raw deflate stream of a text: of each 0 for stock zlib, 1 for its memory level 9, 2 for GNU gzip, times 16, and the level. */
  deflateMakers(stream: Buffer, text: Buffer): Promise<Buffer>;
  /** Triples (newPos, oldPos, length): newPos ascending, not overlapping; what is not covered is literal. Deterministic. */
  matchFile(options: MatchOptions): Promise<Float64Array>;
  /** `wantedBytes`: the size of all that `want` will be told of. */
  readonly BlockIndex: new (options: { readonly memoryLimitBytes: number; readonly wantedBytes?: number }) => BlockIndex;
  readonly PatchEncoder: new (options: { readonly profile: CodecProfile; readonly threads: number }) => PatchEncoder;
  readonly PatchMeter: new (options: { readonly profile: CodecProfile }) => PatchMeter;
}

const releaseDirectory = new URL('../../native/build/Release/', import.meta.url);
const requireAddon = createRequire(import.meta.url);

/** Loads `<name>.node` from `directory`, by default where `npm install` builds it. Throws NATIVE_ADDON. */
export function loadAddon(name: string, directory: URL = releaseDirectory): unknown {
  const path = fileURLToPath(new URL(`${name}.node`, directory));
  try {
    return requireAddon(path) as unknown;
  } catch (cause) {
    const reason = String((cause as { message?: unknown }).message ?? cause).split('\n', 1)[0] ?? '';
    throw new WhittleError('NATIVE_ADDON', `cannot load the native addon ${path}: ${reason}`, { cause, data: { path } });
  }
}

let device: DeviceAddon | undefined;
let server: ServerAddon | undefined;

/** The addon of the device: decoder and Linux calls. Loaded at the first call. Throws NATIVE_ADDON. */
export function deviceAddon(): DeviceAddon {
  device ??= loadAddon('whittle_device') as DeviceAddon;
  return device;
}

/** The addon of the server: matcher and encoder. Loaded at the first call. Throws NATIVE_ADDON. */
export function serverAddon(): ServerAddon {
  server ??= loadAddon('whittle_server') as ServerAddon;
  return server;
}
