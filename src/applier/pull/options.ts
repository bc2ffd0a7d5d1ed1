import type { Platform, Reference } from '../../oci/index.js';
import type { PullListener } from './events.js';
import { defaultPatience, type Patience } from './transfer.js';

/** What a pull is to do. */
export interface PullOptions {
  /** The image as the user wrote it. */
  readonly image: string;
  readonly reference: Reference;
  /** The platform to pick from an index. */
  readonly platform: Platform;
  /** The user named the platform: an image for another one is refused, not only remarked on. */
  readonly platformChosen: boolean;
  /** `prefer` is `auto` that says aloud when there is no delta; `never` pulls layers. */
  readonly delta: 'auto' | 'prefer' | 'never';
  /** How long to wait for a server that is still making the delta. */
  readonly deltaWaitMs: number;
  /** How long to wait for another pull of the same image. */
  readonly lockWaitMs: number;
  /** Bytes that may be received at most; null: no budget. */
  readonly maxBytes: number | null;
  /** Bytes per second; null: no limit. */
  readonly limitRate: number | null;
  /** Ends after the plan. */
  readonly dryRun: boolean;
  readonly patience: Patience;
  readonly onEvent: PullListener;
  readonly signal: AbortSignal;
}

/** What applies unless the caller says otherwise. */
export const pullDefaults = {
  delta: 'auto', deltaWaitMs: 600_000, lockWaitMs: 120_000, maxBytes: null, limitRate: null, dryRun: false, patience: defaultPatience,
} as const;

/** The name under which the store keeps a pulled image: every default written out. */
export function storeName(reference: Reference): string {
  const { registry, repository, tag, digest } = reference;
  return `${registry}/${repository}${digest === undefined ? `:${tag ?? 'latest'}` : `@${digest}`}`;
}

/** The part of such a name before tag or digest. */
export function repositoryName(reference: Reference): string {
  return `${reference.registry}/${reference.repository}`;
}
