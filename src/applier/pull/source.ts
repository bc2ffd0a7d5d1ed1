import type { Readable } from 'node:stream';

/** What a server answered to a request for (part of) a blob, before it is believed. */
export interface BlobReply {
  readonly status: number;
  /** A response header by its lower-case name. */
  header(name: string): string | undefined;
  /** The body as received, not decoded. Destroy it to give up the transfer. */
  readonly body: Readable;
}

/** Where one blob comes from. */
export interface BlobSource {
  /** What is fetched and from where, for messages; no credentials in it. */
  readonly name: string;
  /**
   * Asks for the blob from byte `from` on (0: the whole), with `If-Range: ifRange` when it is not null. Answers
   * any status as a reply, except those that asking again cannot cure, which it throws as a WhittleError that is
   * not `retryable`. Follows redirects. Rejects when `signal` aborts, and the body fails then too.
   */
  open(from: number, ifRange: string | null, signal: AbortSignal): Promise<BlobReply>;
}
