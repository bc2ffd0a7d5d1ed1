import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { digestOf } from './images.js';

/** One request as it came, and how it was answered. */
export interface RegistryRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  status: number;
  sentBytes: number;
}

/** How a registry is to behave. */
export interface OciRegistryOptions {
  /** Answers the referrers API and says OCI-Subject. Default true. */
  readonly referrers?: boolean;
  /** Lets manifests be deleted; false answers 405. Default true. */
  readonly deletes?: boolean;
  /** Entries of a page of referrers, unfiltered. Default 100. */
  readonly pageEntries?: number;
  /** Answers before the registry does; true when it has answered. */
  readonly intercept?: (request: RegistryRequest, response: ServerResponse) => boolean | Promise<boolean>;
}

/** A registry in memory, on loopback: OCI distribution 1.1, written for these tests and no other product. */
export interface OciRegistry {
  /** `127.0.0.1:port`. */
  readonly host: string;
  readonly requests: RegistryRequest[];
  /** Bytes of the bodies of all requests so far, as they came. */
  readonly receivedBytes: number;
  /** Repositories by name. */
  readonly repositories: ReadonlyMap<string, Repository>;
  /** The repository of that name, made when it is not there. */
  repository(name: string): Repository;
  close(): Promise<void>;
}

interface StoredManifest {
  readonly bytes: Buffer;
  readonly mediaType: string;
}

interface Repository {
  readonly manifests: Map<string, StoredManifest>;
  readonly tags: Map<string, string>;
  readonly blobs: Map<string, Buffer>;
  readonly uploads: Map<string, Buffer[]>;
}

class Refusal extends Error {
  constructor(readonly status: number, readonly code: string, readonly headers: Record<string, string> = {}) {
    super(code);
  }
}

/** Starts one; the caller closes it. */
export async function startOciRegistry(options: OciRegistryOptions = {}): Promise<OciRegistry> {
  const repositories = new Map<string, Repository>();
  const requests: RegistryRequest[] = [];
  let receivedBytes = 0;
  const repository = (name: string): Repository => {
    const known = repositories.get(name) ?? { manifests: new Map(), tags: new Map(), blobs: new Map(), uploads: new Map() };
    repositories.set(name, known);
    return known;
  };
  const server = createServer((incoming, outgoing) => {
    const seen: RegistryRequest = { method: incoming.method ?? '', url: incoming.url ?? '', headers: incoming.headers, status: 0, sentBytes: 0 };
    requests.push(seen);
    outgoing.on('finish', () => { seen.status = outgoing.statusCode; });
    const run = async (): Promise<void> => {
      if (await options.intercept?.(seen, outgoing) === true) return;
      const chunks: Buffer[] = [];
      const exchange = (): Exchange => new Exchange({ options, repositories, repository, seen, body: Buffer.concat(chunks), response: outgoing });
      try {
        for await (const chunk of incoming as AsyncIterable<Buffer>) {
          receivedBytes += chunk.length;
          chunks.push(chunk);
        }
      } catch (error) {
        // What came of a chunk before the connection broke is kept.
        if (seen.method === 'PATCH') await exchange().run();
        throw error;
      }
      await exchange().run();
    };
    run().catch(() => outgoing.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    host: `127.0.0.1:${String((server.address() as AddressInfo).port)}`, requests, repositories, repository,
    get receivedBytes() { return receivedBytes; },
    close: () => new Promise<void>((resolve) => {
      server.close(() => { resolve(); });
      server.closeAllConnections();
    }),
  };
}

interface ExchangeInput {
  readonly options: OciRegistryOptions;
  readonly repositories: ReadonlyMap<string, Repository>;
  readonly repository: (name: string) => Repository;
  readonly seen: RegistryRequest;
  readonly body: Buffer;
  readonly response: ServerResponse;
}

/** One request and its answer. */
class Exchange {
  readonly #url: URL;

  constructor(private readonly x: ExchangeInput) {
    this.#url = new URL(x.seen.url, 'http://registry');
  }

  async run(): Promise<void> {
    try {
      await this.#route();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#send(error.status, Buffer.from(JSON.stringify({ errors: [{ code: error.code, message: error.code.toLowerCase() }] })), { 'content-type': 'application/json', ...error.headers });
    }
  }

  async #route(): Promise<void> {
    const { method } = this.x.seen;
    const path = this.#url.pathname;
    if (path === '/v2/') { this.#send(200, Buffer.from('{}')); return; }
    const match = /^\/v2\/(.+?)\/(manifests|referrers|tags|blobs\/uploads|blobs)\/([^/]*)$/.exec(path);
    if (match === null) throw new Refusal(404, 'NAME_UNKNOWN');
    const [, name = '', kind = '', what = ''] = match;
    const writes = method === 'PUT' || method === 'POST' || method === 'PATCH';
    const repository = writes ? this.x.repository(name) : this.x.repositories.get(name);
    if (repository === undefined) throw new Refusal(404, 'NAME_UNKNOWN');
    switch (kind) {
      case 'manifests': this.#manifest(repository, name, what); break;
      case 'referrers': this.#referrers(repository, name, what); break;
      case 'tags': this.#send(200, Buffer.from(JSON.stringify({ name, tags: [...repository.tags.keys()].sort() })), { 'content-type': 'application/json' }); break;
      case 'blobs': this.#blob(repository, what); break;
      default: this.#upload(repository, name, what);
    }
    await Promise.resolve();
  }

  #manifest(repository: Repository, name: string, target: string): void {
    const { method, headers } = this.x.seen;
    if (method === 'PUT') { this.#putManifest(repository, name, target, headers['content-type'] ?? ''); return; }
    const digest = repository.tags.get(target) ?? target;
    const stored = repository.manifests.get(digest);
    if (stored === undefined) throw new Refusal(404, 'MANIFEST_UNKNOWN');
    if (method !== 'DELETE') {
      this.#send(200, stored.bytes, { 'content-type': stored.mediaType, 'docker-content-digest': digest });
      return;
    }
    if (this.x.options.deletes === false) throw new Refusal(405, 'UNSUPPORTED', { allow: 'GET, HEAD, PUT' });
    if (repository.tags.has(target)) repository.tags.delete(target);
    else {
      repository.manifests.delete(digest);
      for (const [tag, named] of repository.tags) if (named === digest) repository.tags.delete(tag);
    }
    this.#send(202, Buffer.alloc(0));
  }

  #putManifest(repository: Repository, name: string, target: string, mediaType: string): void {
    const digest = digestOf(this.x.body);
    if (target.includes(':') && target !== digest) throw new Refusal(400, 'DIGEST_INVALID');
    const manifest = JSON.parse(this.x.body.toString('utf8')) as { config?: { digest: string }; layers?: { digest: string }[]; manifests?: { digest: string }[]; subject?: { digest: string } };
    for (const blob of [manifest.config, ...(manifest.layers ?? [])]) if (blob !== undefined && !repository.blobs.has(blob.digest)) throw new Refusal(404, 'MANIFEST_BLOB_UNKNOWN');
    for (const child of manifest.manifests ?? []) if (!repository.manifests.has(child.digest)) throw new Refusal(404, 'MANIFEST_UNKNOWN');
    repository.manifests.set(digest, { bytes: this.x.body, mediaType });
    if (!target.includes(':')) repository.tags.set(target, digest);
    const noted = manifest.subject !== undefined && this.x.options.referrers !== false;
    this.#send(201, Buffer.alloc(0), { location: `/v2/${name}/manifests/${digest}`, 'docker-content-digest': digest, ...(noted ? { 'oci-subject': manifest.subject?.digest ?? '' } : {}) });
  }

  #referrers(repository: Repository, name: string, subject: string): void {
    if (this.x.options.referrers === false) throw new Refusal(404, 'UNSUPPORTED');
    const type = this.#url.searchParams.get('artifactType');
    const found = [...repository.manifests].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([digest, { bytes, mediaType }]) => {
      const manifest = JSON.parse(bytes.toString('utf8')) as { subject?: { digest: string }; artifactType?: string; config?: { mediaType: string }; annotations?: Record<string, string> };
      if (manifest.subject?.digest !== subject) return [];
      const artifactType = manifest.artifactType ?? manifest.config?.mediaType;
      return type !== null && artifactType !== type ? [] : [{ mediaType, digest, size: bytes.length, artifactType, annotations: manifest.annotations }];
    });
    const first = Number(this.#url.searchParams.get('from') ?? 0);
    const page = this.x.options.pageEntries ?? 100;
    const more = first + page < found.length ? { link: `</v2/${name}/referrers/${subject}?from=${String(first + page)}${type === null ? '' : `&artifactType=${encodeURIComponent(type)}`}>; rel="next"` } : {};
    const mediaType = 'application/vnd.oci.image.index.v1+json';
    this.#send(200, Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests: found.slice(first, first + page) })), {
      'content-type': mediaType, ...(type === null ? {} : { 'oci-filters-applied': 'artifactType' }), ...more,
    });
  }

  #blob(repository: Repository, digest: string): void {
    const bytes = repository.blobs.get(digest);
    if (bytes === undefined) throw new Refusal(404, 'BLOB_UNKNOWN');
    const range = /^bytes=(\d+)-(\d*)$/.exec(this.x.seen.headers.range ?? '');
    const first = Number(range?.[1] ?? 0);
    if (range === null) { this.#send(200, bytes, { 'content-type': 'application/octet-stream', 'docker-content-digest': digest, etag: `"${digest}"` }); return; }
    if (first >= bytes.length) throw new Refusal(416, 'RANGE_INVALID', { 'content-range': `bytes */${String(bytes.length)}` });
    const last = range[2] === '' ? bytes.length - 1 : Math.min(bytes.length - 1, Number(range[2]));
    this.#send(206, bytes.subarray(first, last + 1), { 'content-range': `bytes ${String(first)}-${String(last)}/${String(bytes.length)}`, etag: `"${digest}"` });
  }

  #upload(repository: Repository, name: string, id: string): void {
    const { method } = this.x.seen;
    if (method === 'POST' && id === '') { this.#beginUpload(repository, name); return; }
    const parts = repository.uploads.get(id);
    if (parts === undefined) throw new Refusal(404, 'BLOB_UPLOAD_UNKNOWN');
    const held = parts.reduce((sum, part) => sum + part.length, 0);
    const place = { location: `/v2/${name}/blobs/uploads/${id}`, range: `0-${String(Math.max(0, held - 1))}` };
    if (method === 'GET') { this.#send(204, Buffer.alloc(0), place); return; }
    if (method === 'DELETE') {
      repository.uploads.delete(id);
      this.#send(204, Buffer.alloc(0));
      return;
    }
    const range = /^(\d+)-(\d+)$/.exec(this.x.seen.headers['content-range'] ?? '');
    if (range !== null && Number(range[1]) !== held) throw new Refusal(416, 'BLOB_UPLOAD_INVALID', place);
    parts.push(this.x.body);
    if (method === 'PATCH') {
      this.#send(202, Buffer.alloc(0), { ...place, range: `0-${String(held + this.x.body.length - 1)}` });
      return;
    }
    const bytes = Buffer.concat(parts);
    const digest = this.#url.searchParams.get('digest') ?? '';
    if (digestOf(bytes) !== digest) throw new Refusal(400, 'DIGEST_INVALID');
    repository.uploads.delete(id);
    repository.blobs.set(digest, bytes);
    this.#send(201, Buffer.alloc(0), { location: `/v2/${name}/blobs/${digest}`, 'docker-content-digest': digest });
  }

  #beginUpload(repository: Repository, name: string): void {
    const mount = this.#url.searchParams.get('mount') ?? '';
    const from = this.x.repositories.get(this.#url.searchParams.get('from') ?? '');
    const mounted = from?.blobs.get(mount);
    if (mounted !== undefined) {
      repository.blobs.set(mount, mounted);
      this.#send(201, Buffer.alloc(0), { location: `/v2/${name}/blobs/${mount}` });
      return;
    }
    const id = String(repository.uploads.size + this.x.seen.url.length * 1000 + Math.floor(Math.random() * 1e9));
    repository.uploads.set(id, []);
    this.#send(202, Buffer.alloc(0), { location: `/v2/${name}/blobs/uploads/${id}`, range: '0-0' });
  }

  #send(status: number, body: Buffer, headers: Record<string, string> = {}): void {
    const { response, seen } = this.x;
    response.writeHead(status, { ...headers, ...(status === 204 ? {} : { 'content-length': String(body.length) }) });
    if (seen.method === 'HEAD') { response.end(); return; }
    seen.sentBytes += body.length;
    response.end(body);
  }
}
