import { maxManifestBytes } from '../core/limits.js';
import { isWhittleError, WhittleError } from '../core/errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import { isDigest, sha256Digest, verifyDigest } from '../oci/digest.js';
import { parseJsonObject } from '../oci/json.js';
import { isIndexType, isManifestType, manifestAccept, mediaTypes } from '../oci/media-types.js';
import { isRepository, isTag } from '../oci/reference.js';
import { blobRange, type BlobRange } from './blob-range.js';
import { blobBytes } from './blob-stream.js';
import { badResponse, printable } from './failures.js';
import { parseContentLength } from './header-values.js';
import { collectStrings } from './paging.js';
import { Transport, type TransportOptions, type TransportRequest } from './transport.js';
import { collectVerified, verifiedBytes } from './verify.js';
import { readAffordable, refuseEncoding, type WireResponse } from './wire.js';

/** Options of every call that may take long. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Options of a read whose caller has only so many bytes to spend. */
export interface AffordableOptions extends CallOptions {
  /** A longer answer is given up with LIMIT_EXCEEDED, unread where it says its length. */
  readonly allowedBytes?: number | undefined;
}

/** A manifest or index as the registry holds it. `descriptor.digest` is the digest of `bytes`. */
export interface FetchedManifest {
  readonly descriptor: Descriptor;
  readonly bytes: Buffer;
}

/** Under which condition part of a blob is asked for. */
export interface RangeOptions extends CallOptions {
  /** A strong entity tag of an earlier answer: a registry whose content has changed then sends the whole. */
  readonly ifRange?: string | undefined;
}

/** Throws USAGE unless `repository` can be asked for. */
export function checkRepository(repository: string): void {
  if (!isRepository(repository)) throw new WhittleError('USAGE', `not a repository name: ${JSON.stringify(repository.slice(0, 260))}`);
}

/** Throws USAGE unless `target` is a tag or a digest. */
export function checkTarget(target: string): void {
  if (!isTag(target) && !isDigest(target)) throw new WhittleError('USAGE', `neither a tag nor a digest: ${JSON.stringify(target.slice(0, 160))}`);
}

/** Token scopes to read from a repository. */
export function pullScopes(repository: string): readonly string[] {
  return [`repository:${repository}:pull`];
}

/**
 * Reads from one OCI registry. Everything that comes back is verified against the digest it was asked by, but for
 * `openBlobRange`. Errors: REGISTRY_*, DIGEST_MISMATCH, LIMIT_EXCEEDED, INTERRUPTED. Requests are tried again as
 * `RegistryLimits` says. The holder calls `close()`.
 */
export class RegistryClient {
  /** For the other parts of this room (referrers, push). */
  readonly transport: Transport;

  /** `registry` is `host[:port]` as references name it. Throws USAGE when it is not. */
  constructor(readonly registry: string, options: TransportOptions = {}) {
    this.transport = new Transport(registry, options);
  }

  /** Reads a manifest or index by tag or digest and checks its digest. `accept` defaults to all image types. */
  async getManifest(repository: string, target: string, options: AffordableOptions & { readonly accept?: readonly string[] } = {}): Promise<FetchedManifest> {
    const request = this.#manifestRequest('GET', repository, target, options);
    return this.transport.retry(async () => {
      const response = await this.transport.once(request);
      const bytes = await readAffordable(response, maxManifestBytes, options.allowedBytes, request.subject, options.signal);
      return { bytes, descriptor: manifestDescriptor(response, request, bytes, target) };
    }, options.signal);
  }

  /** The descriptor of a manifest without its content, or undefined when there is none. The size is 0 when the registry does not say it. */
  async headManifest(repository: string, target: string, options: CallOptions & { readonly accept?: readonly string[] } = {}): Promise<Descriptor | undefined> {
    const request = this.#manifestRequest('HEAD', repository, target, options);
    const response = await this.transport.request({ ...request, accept: [200, 404] });
    await response.discard();
    if (response.status === 404) return undefined;
    const digest = response.header('docker-content-digest') ?? (isDigest(target) ? target : undefined);
    if (digest === undefined || !isDigest(digest)) return (await this.getManifest(repository, target, options)).descriptor;
    if (isDigest(target) && digest !== target) throw badResponse(response.url, request.subject, 'the registry names another digest');
    return { mediaType: contentType(response) ?? mediaTypes.ociManifest, digest, size: Number(response.header('content-length') ?? 0) || 0 };
  }

  /**
   * The bytes of a blob, verified: the iteration ends normally only if they have the descriptor's size and digest.
   * A connection that breaks is replaced by one that continues. BLOB_MISSING when the registry does not have it.
   */
  openBlob(repository: string, descriptor: Descriptor, options: CallOptions = {}): AsyncGenerator<Buffer, void, void> {
    const request = this.#blobRequest('GET', repository, descriptor.digest, options);
    return verifiedBytes(missingBlob(blobBytes(this.transport, request, descriptor)), descriptor, request.subject);
  }

  /** A whole blob in memory, verified. A descriptor above `maxBytes` is LIMIT_EXCEEDED. */
  async readBlob(repository: string, descriptor: Descriptor, maxBytes: number, options: CallOptions = {}): Promise<Buffer> {
    const request = this.#blobRequest('GET', repository, descriptor.digest, options);
    return collectVerified(missingBlob(blobBytes(this.transport, request, descriptor)), descriptor, request.subject, maxBytes);
  }

  /** Size of a blob, or undefined when the registry does not have it. */
  async headBlob(repository: string, digest: string, options: CallOptions = {}): Promise<{ readonly sizeBytes: number | undefined } | undefined> {
    const response = await this.transport.request({ ...this.#blobRequest('HEAD', repository, digest, options), accept: [200, 404] });
    await response.discard();
    if (response.status === 404) return undefined;
    return { sizeBytes: parseContentLength(response.header('content-length')) };
  }

  /**
   * Asks once for a blob from byte `offset` on (0: the whole) and reports what came, without judging it: see
   * `BlobRange`. Follows redirects and logs in. Throws REGISTRY_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND (BLOB_MISSING),
   * transport errors, and REGISTRY_BAD_RESPONSE for a body that was compressed on the way. The caller reads or
   * destroys the body.
   */
  async openBlobRange(repository: string, digest: string, offset: number, options: RangeOptions = {}): Promise<BlobRange> {
    const { ifRange, signal } = options;
    const request = this.#blobRequest('GET', repository, digest, { signal });
    const headers = offset === 0 ? {} : { range: `bytes=${String(offset)}-`, ...(ifRange === undefined ? {} : { 'if-range': ifRange }) };
    const response = await this.#onceForGood({ ...request, headers });
    refuseEncoding(response, request.subject);
    return blobRange(response);
  }

  /** All tags of a repository, in the registry's order. */
  async listTags(repository: string, options: CallOptions = {}): Promise<readonly string[]> {
    checkRepository(repository);
    const request: TransportRequest = {
      method: 'GET', target: `/v2/${repository}/tags/list`, scopes: pullScopes(repository), subject: `tags of ${repository}`, accept: [200], signal: options.signal,
    };
    return collectStrings(this.transport, request, 'tags');
  }

  /** Ends every connection, busy ones too. */
  async close(): Promise<void> {
    await this.transport.close();
  }

  /** One request that answers with statuses which trying again may cure, and throws the others. */
  async #onceForGood(request: TransportRequest): Promise<WireResponse> {
    const curable = [200, 206, 408, 412, 416, 425, 429, 500, 502, 503, 504];
    try {
      return await this.transport.once({ ...request, accept: curable });
    } catch (error) {
      throw asMissingBlob(error);
    }
  }

  #manifestRequest(method: 'GET' | 'HEAD', repository: string, target: string, options: CallOptions & { readonly accept?: readonly string[] }): TransportRequest {
    checkRepository(repository);
    checkTarget(target);
    return {
      method, target: `/v2/${repository}/manifests/${target}`, scopes: pullScopes(repository), accept: [200], signal: options.signal,
      headers: { accept: (options.accept ?? manifestAccept).join(', ') },
      subject: `manifest ${target} of ${this.registry}/${repository}`,
    };
  }

  #blobRequest(method: 'GET' | 'HEAD', repository: string, digest: string, options: CallOptions): TransportRequest {
    checkRepository(repository);
    checkTarget(digest);
    return {
      method, target: `/v2/${repository}/blobs/${digest}`, scopes: pullScopes(repository), accept: [200], signal: options.signal,
      subject: `blob ${digest} of ${this.registry}/${repository}`,
    };
  }
}

function contentType(response: WireResponse): string | undefined {
  const type = (response.header('content-type') ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
  return type === '' ? undefined : type;
}

/** What the content says it is, when the registry's Content-Type does not. A page of a proxy or a login is no broken image. */
function claimedType(bytes: Buffer, response: WireResponse, what: string): string {
  let type: unknown;
  try {
    type = parseJsonObject(bytes, what, maxManifestBytes)['mediaType'];
  } catch {
    throw badResponse(response.url, what, `the answer is no manifest (its type is ${printable(contentType(response) ?? 'not said')})`);
  }
  return typeof type === 'string' ? type : mediaTypes.ociManifest;
}

function manifestDescriptor(response: WireResponse, request: TransportRequest, bytes: Buffer, target: string): Descriptor {
  const { subject } = request;
  const served = response.header('docker-content-digest');
  const expected = isDigest(target) ? target : served;
  if (expected !== undefined && isDigest(expected)) verifyDigest(bytes, expected, subject);
  const type = contentType(response);
  const known = type !== undefined && (isManifestType(type) || isIndexType(type));
  return { mediaType: known ? type : claimedType(bytes, response, subject), digest: expected !== undefined && isDigest(expected) ? expected : sha256Digest(bytes), size: bytes.length };
}

function asMissingBlob(error: unknown): unknown {
  if (!isWhittleError(error) || error.code !== 'REGISTRY_NOT_FOUND') return error;
  return new WhittleError('BLOB_MISSING', error.message, { cause: error, data: error.data });
}

async function* missingBlob(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
  try {
    yield* source;
  } catch (error) {
    throw asMissingBlob(error);
  }
}
