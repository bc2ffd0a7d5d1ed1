import { isWhittleError, WhittleError } from '../core/errors.js';
import type { Descriptor } from '../oci/descriptor.js';
import { sha256Digest } from '../oci/digest.js';
import { isTag } from '../oci/reference.js';
import { checkRepository, checkTarget, pullScopes, type CallOptions, type RegistryClient } from './client.js';
import { badResponse } from './failures.js';
import { backOff, retryAfterOf } from './retry.js';
import type { WireResponse } from './wire.js';

/** Bytes of a blob to upload, from any offset on: an upload that breaks continues in the middle. */
export interface BlobToPush {
  readonly descriptor: Descriptor;
  open(offset: number): AsyncIterable<Buffer>;
}

/** How a blob is pushed. */
export interface PushBlobOptions extends CallOptions {
  /** Another repository of the same registry that has the blob: it is then linked instead of sent. */
  readonly mountFrom?: string | undefined;
  /** Told how many bytes the registry has taken. */
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
}

/** How a blob came to be in the registry. */
export type PushedBlob = 'exists' | 'mounted' | 'uploaded';

/** Token scopes to write to a repository. */
function pushScopes(repository: string): readonly string[] {
  return [`repository:${repository}:pull,push`];
}

/** An upload in progress: where the registry wants the rest. */
interface Upload {
  location: URL;
  offset: number;
}

class BlobPush {
  readonly #subject: string;
  readonly #scopes: readonly string[];

  constructor(
    private readonly client: RegistryClient,
    private readonly repository: string,
    private readonly blob: BlobToPush,
    private readonly options: PushBlobOptions,
  ) {
    this.#subject = `upload of ${blob.descriptor.digest} to ${client.registry}/${repository}`;
    const from = options.mountFrom;
    this.#scopes = [...pushScopes(repository), ...(from === undefined ? [] : pullScopes(from))];
  }

  async run(): Promise<PushedBlob> {
    const { client, repository, blob, options } = this;
    if ((await client.headBlob(repository, blob.descriptor.digest, options)) !== undefined) return 'exists';
    const upload = await this.#begin(options.mountFrom);
    if (upload === undefined) return 'mounted';
    try {
      await this.#sendAll(upload);
    } catch (error) {
      await this.#abandon(upload);
      throw error;
    }
    return 'uploaded';
  }

  /** Sends the blob, going on where the registry says that it stopped whenever that breaks. */
  async #sendAll(upload: Upload): Promise<void> {
    const { limits } = this.client.transport;
    for (let failures = 0; ;) {
      const before = upload.offset;
      try {
        await this.#send(upload);
        return;
      } catch (error) {
        failures = upload.offset > before ? 1 : failures + 1;
        if (!isWhittleError(error) || !mayGoOn(error) || failures >= limits.attempts) throw error;
        // As for every other request: a server that wants to be left alone for longer than that is left alone.
        if ((retryAfterOf(error) ?? 0) > limits.retryAfterMaxMs) throw error;
        await backOff(failures, limits, this.options.signal, retryAfterOf(error));
        Object.assign(upload, await this.#resume(upload));
      }
    }
  }

  /** Tells the registry that nobody goes on with an upload, so that what came of it need not lie there until its own purge. */
  async #abandon(upload: Upload): Promise<void> {
    const { limits } = this.client.transport;
    try {
      const response = await this.client.transport.once({
        method: 'DELETE', target: upload.location, scopes: this.#scopes, subject: this.#subject, accept: [200, 202, 204],
        // Not the caller's signal: that may be why it is given up.
        signal: AbortSignal.timeout(limits.abandonTimeoutMs),
      });
      await response.discard();
    } catch {
      // Registries need not know this request, and what went wrong is thrown by the caller.
    }
  }

  /** Opens an upload, or links the blob from another repository: then there is nothing to send, and undefined is returned. */
  async #begin(mountFrom?: string): Promise<Upload | undefined> {
    const query = mountFrom === undefined ? '' : `?mount=${encodeURIComponent(this.blob.descriptor.digest)}&from=${encodeURIComponent(mountFrom)}`;
    const response = await this.client.transport.request({
      method: 'POST', target: `/v2/${this.repository}/blobs/uploads/${query}`, scopes: this.#scopes, subject: this.#subject,
      accept: mountFrom === undefined ? [202] : [201, 202], signal: this.options.signal,
    });
    await response.discard();
    return response.status === 201 ? undefined : { location: this.#location(response), offset: 0 };
  }

  #location(response: WireResponse): URL {
    const location = response.header('location') ?? '';
    if (location === '' || !URL.canParse(location, response.url.href)) throw badResponse(response.url, this.#subject, 'an upload without a usable Location');
    const url = new URL(location, response.url);
    if (url.protocol !== 'https:' && url.protocol !== response.url.protocol) throw new WhittleError('REGISTRY_TLS', `${response.url.host} wants the upload sent to ${url.host} without TLS`, { hint: 'Behind a proxy of its own a registry must be told that it is reached by TLS: X-Forwarded-Proto, or its setting for its own URL.' });
    url.username = '';
    url.password = '';
    return url;
  }

  /** Sends what is missing: small blobs with the closing request, large ones in chunks before it. */
  async #send(upload: Upload): Promise<void> {
    const { descriptor } = this.blob;
    const { uploadChunkBytes } = this.client.transport.limits;
    while (descriptor.size - upload.offset > uploadChunkBytes) await this.#sendChunk(upload, uploadChunkBytes);
    const { offset } = upload;
    // Only an upload that begins here may send its bytes with the closing request: some registries drop them otherwise.
    if (offset > 0 && offset < descriptor.size) await this.#sendChunk(upload, descriptor.size - offset);
    await this.#finish(upload);
  }

  async #sendChunk(upload: Upload, sizeBytes: number): Promise<void> {
    const { offset } = upload;
    const response = await this.client.transport.once({
      method: 'PATCH', target: upload.location, scopes: this.#scopes, subject: this.#subject, accept: [202], signal: this.options.signal,
      headers: { 'content-type': 'application/octet-stream', 'content-range': `${String(offset)}-${String(offset + sizeBytes - 1)}` },
      body: () => ({ sizeBytes, content: take(this.blob.open(offset), sizeBytes) }),
    });
    await response.discard();
    upload.location = this.#location(response);
    upload.offset = takenBytes(response) ?? offset + sizeBytes;
    if (upload.offset > this.blob.descriptor.size) throw badResponse(response.url, this.#subject, 'the registry took more than was sent');
    if (upload.offset <= offset) throw badResponse(response.url, this.#subject, 'the registry takes nothing of what is sent', true);
    this.options.onProgress?.(upload.offset);
  }

  async #finish(upload: Upload): Promise<void> {
    const { descriptor } = this.blob;
    const { offset } = upload;
    const rest = descriptor.size - offset;
    const target = new URL(upload.location);
    // Appended as text: parsing and writing the query anew could change the registry's own parameters.
    target.search = `${target.search === '' ? '?' : `${target.search}&`}digest=${encodeURIComponent(descriptor.digest)}`;
    const response = await this.client.transport.once({
      method: 'PUT', target, scopes: this.#scopes, subject: this.#subject, accept: [201, 204], signal: this.options.signal,
      headers: { 'content-type': 'application/octet-stream' },
      body: () => ({ sizeBytes: rest, content: rest === 0 ? Buffer.alloc(0) : take(this.blob.open(offset), rest) }),
    });
    await response.discard();
    this.options.onProgress?.(descriptor.size);
  }

  /** Asks how much of an upload arrived; begins a new one when the registry has forgotten it. */
  async #resume(upload: Upload): Promise<Upload> {
    const response = await this.client.transport.request({
      method: 'GET', target: upload.location, scopes: this.#scopes, subject: this.#subject, accept: [200, 202, 204, 400, 404, 405, 416], signal: this.options.signal,
    });
    await response.discard();
    const taken = takenBytes(response);
    if (response.status > 299 || taken === undefined || taken > this.blob.descriptor.size) {
      const fresh = await this.#begin();
      if (fresh === undefined) throw badResponse(response.url, this.#subject, 'no upload could be opened');
      return fresh;
    }
    const location = response.header('location') === undefined ? upload.location : this.#location(response);
    return { location, offset: taken };
  }
}

/** Whether an upload may go on after an error. 416: the registry holds another number of bytes than we think, and says how many when it is asked. */
function mayGoOn(error: WhittleError): boolean {
  return error.code !== 'INTERRUPTED' && (error.retryable || error.data['status'] === 416);
}

/** Bytes that the registry holds of an upload, from its Range header (`0-499`; `0-0` also stands for nothing, so one byte may be sent twice). */
function takenBytes(response: WireResponse): number | undefined {
  const match = /^(?:bytes=)?0-([0-9]{1,15})$/.exec((response.header('range') ?? '').trim());
  if (match === null) return undefined;
  const last = Number(match[1]);
  return last === 0 ? 0 : last + 1;
}

/** The first `sizeBytes` of a stream. Ends early where the stream does: the HTTP client then notices the wrong length. */
async function* take(source: AsyncIterable<Buffer>, sizeBytes: number): AsyncGenerator<Buffer, void, void> {
  let left = sizeBytes;
  for await (const chunk of source) {
    yield chunk.length > left ? chunk.subarray(0, left) : chunk;
    left -= Math.min(left, chunk.length);
    if (left === 0) return;
  }
}

/**
 * Brings a blob into a repository, in the cheapest way that works: it is there already, it is linked from another
 * repository, or it is uploaded. An upload that breaks continues where the registry says that it stopped. The
 * registry checks the digest. Throws REGISTRY_*, INTERRUPTED.
 */
export async function pushBlob(client: RegistryClient, repository: string, blob: BlobToPush, options: PushBlobOptions = {}): Promise<PushedBlob> {
  checkRepository(repository);
  if (options.mountFrom !== undefined) checkRepository(options.mountFrom);
  return new BlobPush(client, repository, blob, options).run();
}

/** What a pushed manifest became. */
export interface PushedManifest {
  readonly digest: string;
  /** Whether the registry noted the manifest's subject itself, so that no fallback tag is needed. */
  readonly subjectNoted: boolean;
}

/** Puts a manifest or index under a tag, or under its own digest. Everything that it names must be there. Throws REGISTRY_*, INTERRUPTED. */
export async function pushManifest(client: RegistryClient, repository: string, target: string, mediaType: string, bytes: Buffer, options: CallOptions = {}): Promise<PushedManifest> {
  checkRepository(repository);
  checkTarget(target);
  const digest = sha256Digest(bytes);
  if (!isTag(target) && target !== digest) throw new WhittleError('DIGEST_MISMATCH', `the manifest to push has the digest ${digest}, not ${target}`);
  for (let failures = 1; ; failures++) {
    try {
      return await putManifest(client, repository, target, digest, mediaType, bytes, options);
    } catch (error) {
      if (!isPassingRefusal(error) || failures === client.transport.limits.attempts) throw error;
      await backOff(failures, client.transport.limits, options.signal);
    }
  }
}

/**
 * Some registries write the link of a blob in place: while another client pushes the same blob, what this manifest names reads as
 * invalid for a moment. The manifest's own digest was worked out from its bytes.
 */
function isPassingRefusal(error: unknown): boolean {
  return isWhittleError(error) && error.data['status'] === 400 && String(error.data['said']).startsWith('DIGEST_INVALID');
}

async function putManifest(client: RegistryClient, repository: string, target: string, digest: string, mediaType: string, bytes: Buffer, options: CallOptions): Promise<PushedManifest> {
  const response = await client.transport.request({
    method: 'PUT', target: `/v2/${repository}/manifests/${target}`, scopes: pushScopes(repository), accept: [201], signal: options.signal,
    headers: { 'content-type': mediaType }, body: () => ({ sizeBytes: bytes.length, content: bytes }), subject: `manifest ${target} of ${client.registry}/${repository}`,
  });
  await response.discard();
  return { digest, subjectNoted: response.header('oci-subject') !== undefined };
}

/** Deletes a manifest by digest or tag. REGISTRY_NOT_FOUND when it is not there, REGISTRY_DELETES_OFF where the registry lets nobody delete. */
export async function deleteManifest(client: RegistryClient, repository: string, target: string, options: CallOptions = {}): Promise<void> {
  checkRepository(repository);
  checkTarget(target);
  const response = await client.transport.request({
    method: 'DELETE', target: `/v2/${repository}/manifests/${target}`, scopes: [`repository:${repository}:delete`], accept: [200, 202, 204, 405, 501], signal: options.signal,
    subject: `manifest ${target} of ${client.registry}/${repository}`,
  });
  await response.discard();
  if (response.status < 400) return;
  throw new WhittleError('REGISTRY_DELETES_OFF', `${client.registry} answers ${String(response.status)} for a delete in ${repository}: deletes are switched off there`, { data: { status: response.status } });
}
