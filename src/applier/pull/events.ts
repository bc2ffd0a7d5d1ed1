/** Bytes received over the network, by what they were for. */
export interface DownloadedBytes {
  /** Manifests and indexes of the image and of deltas. */
  readonly manifest: number;
  readonly config: number;
  /** Lists of deltas. */
  readonly referrers: number;
  /** Index blobs of deltas. */
  readonly index: number;
  /** Data blobs of deltas. */
  readonly data: number;
  /** Layer blobs. */
  readonly layers: number;
  /** Tokens, errors, and what came of answers that broke or were wrong. */
  readonly other: number;
  readonly total: number;
}

/** What a pull did, in numbers. */
export interface PullFigures {
  readonly downloadedBytes: DownloadedBytes;
  /** Received bytes that an earlier attempt had already received. */
  readonly refetchedBytes: number;
  /** What a pull by layers would have downloaded: the layers that the store lacked, config and manifest. */
  readonly layerPullBytes: number;
  /** Bytes of the delta that was used (of all deltas of a chain, and what its images need); 0 without one. */
  readonly deltaBytes: number;
  readonly wallMs: number;
  /** Time spent rebuilding layers, without waiting for the network. */
  readonly applyMs: number;
  readonly commitMs: number;
  readonly peakRssBytes: number;
  /** File content written into the store. */
  readonly writtenBytes: number;
  /** File content that was linked or was there already. */
  readonly reusedBytes: number;
}

/** One download of a plan: a delta (its manifest, index and data, and manifest and config of an image that it only passes), or a layer. */
export type PlanStep = {
  /** Of the delta's manifest, or of the layer's blob. */
  readonly digest: string;
  /** Exact bytes to download, and those that an interrupted pull left here. */
  readonly downloadBytes: number;
  readonly heldBytes: number;
} & (
  | { readonly kind: 'layer' }
  | { readonly kind: 'delta'; readonly basisConfig: string; readonly targetManifest: string; readonly targetConfig: string }
);

/** How a pull gets what is missing. */
export type PullWay = 'delta' | 'layers' | 'nothing';

/** What a pull tells while it runs. Digests are `sha256:<hex>`; sizes are bytes, times ms. */
export type PullEvent =
  | { readonly event: 'resolved'; readonly image: string; readonly manifestDigest: string; readonly configDigest: string; readonly from: string }
  | { readonly event: 'current'; readonly image: string; readonly manifestDigest: string; readonly configDigest: string; readonly into?: string }
  | { readonly event: 'waiting'; readonly reason: 'delta' | 'lock'; readonly waitMs: number }
  | {
      /** `into`, here and below: the engine that the image goes to; absent for the device's own store. */
      readonly event: 'plan'; readonly into?: string; readonly way: PullWay; readonly downloadBytes: number; readonly heldBytes: number; readonly layerPullBytes: number;
      /** What the whole pull receives, if nothing has to come twice: lists, manifests, tokens and the like too, those of the plan included. */
      readonly receivedBytes: number;
      readonly missingLayers: number; readonly totalLayers: number;
      /** In the order in which they are fetched; several deltas are a chain. */
      readonly steps: readonly PlanStep[];
      readonly deltaDigest?: string; readonly basisManifest?: string; readonly basisConfig?: string;
      /** Why it is not a delta, when it is not. */
      readonly reason?: string;
    }
  | { readonly event: 'progress'; /** `apply` comes when all is downloaded, and counts bytes of the delta. */ readonly phase: 'download' | 'apply' | 'verify'; readonly doneBytes: number; readonly totalBytes: number }
  | { readonly event: 'retry'; readonly reason: string; readonly pauseMs: number; readonly attempt: number }
  | { readonly event: 'fallback'; readonly code: string; readonly reason: string }
  | { readonly event: 'note'; readonly text: string }
  | { readonly event: 'applied'; readonly way: PullWay; readonly layers: number; readonly applyMs: number }
  | ({ readonly event: 'committed'; readonly into?: string; readonly image: string; readonly manifestDigest: string; readonly configDigest: string; readonly way: PullWay } & PullFigures);

/** Receives the events of a pull; must not throw. */
export type PullListener = (event: PullEvent) => void;
