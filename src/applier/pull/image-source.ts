import type { Descriptor } from '../../oci/index.js';
import type { BlobSource } from './source.js';

/** A manifest or index as it was served; `digest` is computed from `bytes`. */
export interface ServedManifest {
  readonly digest: string;
  readonly mediaType: string;
  readonly bytes: Buffer;
}

/** What the source says of deltas for an image: there they are, or ask again later because one is being made. */
export type DeltaAnswer =
  | { readonly kind: 'ready'; readonly descriptors: readonly Descriptor[]; readonly sizeBytes: number; /** Why there is none, when the source says. */ readonly note?: string }
  | { readonly kind: 'pending'; readonly retryAfterMs: number; readonly sizeBytes: number };

/** How much of a list of deltas is wanted. */
export interface DeltaListBounds {
  /** More is LIMIT_EXCEEDED. */
  readonly allowedBytes: number;
  /** No further page is asked for once there are so many. */
  readonly enoughEntries: number;
  /** So many pages one after another may be without a delta; LIMIT_EXCEEDED when no page had one. */
  readonly idlePages: number;
}

/** Where a pull gets one image from: a repository in a registry, or an archive on a USB stick. */
export interface ImageSource {
  /** For messages: `host:port/repository`, or the file. No credentials. */
  readonly name: string;
  /** The manifest or index under a tag or digest, verified when it was asked for by digest. Throws what the registry client throws, LIMIT_EXCEEDED above `allowedBytes`. */
  manifest(target: string, signal: AbortSignal, allowedBytes: number): Promise<ServedManifest>;
  /** Whether a blob is there; absent where only fetching it would tell, as with a registry. */
  holds?(digest: string): Promise<boolean>;
  /** One blob of the image or of a delta. */
  blob(descriptor: Descriptor): BlobSource;
  /** Deltas whose subject is the manifest `subject`; `basis` are config digests of images that this device holds, best first. */
  deltas(subject: string, basis: readonly string[], signal: AbortSignal, bounds: DeltaListBounds): Promise<DeltaAnswer>;
  /** Bytes of all answers so far, also of those that were of no use; absent where nothing comes over a network. */
  receivedBytes?(): number;
  close(): Promise<void>;
}
