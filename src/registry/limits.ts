/** Bounds on what a registry may cost: time, attempts, bytes. Every one can be set per client. */
export interface RegistryLimits {
  /** Time to open a connection, TLS included. */
  readonly connectTimeoutMs: number;
  /** Time from a sent request to the head of its response. */
  readonly headersTimeoutMs: number;
  /** Longest silence within a response's body. */
  readonly bodyTimeoutMs: number;
  /** Time for all of a document: a manifest, a page of a listing, a token, what an error says. Blobs have none. */
  readonly documentTimeoutMs: number;
  /** Tries of one request, the first included. */
  readonly attempts: number;
  /** First pause between tries; doubled each time, with up to as much again at random. */
  readonly backoffMs: number;
  /** Longest pause between tries. */
  readonly backoffMaxMs: number;
  /** Time after which no further try of one request begins. */
  readonly retryTimeMs: number;
  /** Longest Retry-After that is waited for; a longer one ends the request with its error. */
  readonly retryAfterMaxMs: number;
  /** Redirects followed for one request. */
  readonly redirects: number;
  /** Bytes read of an error's body. */
  readonly errorBodyBytes: number;
  /** Bytes of a token response. */
  readonly tokenBodyBytes: number;
  /** Pages of one listing (tags, catalog, referrers). */
  readonly pages: number;
  /** Bytes of one page of a listing. */
  readonly pageBytes: number;
  /** Entries of one listing. */
  readonly entries: number;
  /** Connections kept to one host. */
  readonly connections: number;
  /** Blobs up to this size are uploaded in one request, larger ones in chunks of this size. */
  readonly uploadChunkBytes: number;
  /** Time that telling a registry of an upload that is given up may take. */
  readonly abandonTimeoutMs: number;
  /** Pause before a fallback tag is read back, so that a racing publisher's write is seen. */
  readonly tagSettleMs: number;
}

/** What applies unless a client is told otherwise. */
export const defaultRegistryLimits: RegistryLimits = {
  connectTimeoutMs: 15_000,
  headersTimeoutMs: 60_000,
  bodyTimeoutMs: 60_000,
  documentTimeoutMs: 600_000,
  attempts: 5,
  backoffMs: 250,
  backoffMaxMs: 10_000,
  retryTimeMs: 120_000,
  retryAfterMaxMs: 60_000,
  redirects: 5,
  errorBodyBytes: 16 * 1024,
  tokenBodyBytes: 1024 * 1024,
  pages: 1000,
  pageBytes: 8 * 1024 * 1024,
  entries: 100_000,
  connections: 8,
  uploadChunkBytes: 16 * 1024 * 1024,
  abandonTimeoutMs: 3000,
  tagSettleMs: 250,
};
