import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { WhittleError } from '../../../core/errors.js';
import { sha256Digest } from '../../../oci/index.js';

/** An image that podman shall fetch. */
export interface FedImage {
  readonly manifest: Buffer;
  readonly mediaType: string;
  readonly config: Buffer;
  /** The diffID of the one layer that podman has not; its bytes follow when podman asks for them. Null: it has all. */
  readonly incoming: string | null;
}

/**
 * A registry of one image, for one podman on this machine: it listens on the loopback interface only, and answers only
 * below a path that nobody else knows. Podman takes a layer as a stream from a registry, and from nowhere else.
 */
export class PodmanFeed {
  readonly #server: Server;
  readonly #token = randomBytes(16).toString('hex');
  #image: FedImage | null = null;
  #asked: ((response: ServerResponse) => void) | null = null;

  private constructor() {
    this.#server = createServer((request, response) => {
      try {
        this.#answer(request, response);
      } catch {
        response.destroy();
      }
    });
    this.#server.requestTimeout = 0;
    this.#server.headersTimeout = 0;
  }

  /** Starts to listen on a free port. The caller closes it. */
  static async open(): Promise<PodmanFeed> {
    const feed = new PodmanFeed();
    await new Promise<void>((settle, fail) => {
      feed.#server.once('error', (cause) => { fail(new WhittleError('ENGINE_FAILED', `no port of the loopback interface can be had: ${cause.message}`, { cause })); });
      feed.#server.listen(0, '127.0.0.1', settle);
    });
    return feed;
  }

  /** Where the image is: host, port and path, as a registry's configuration names it. */
  get location(): string {
    return `127.0.0.1:${String((this.#server.address() as AddressInfo).port)}/${this.#token}`;
  }

  /** Offers an image in place of the one before. Resolves when podman asks for the layer `incoming`: its bytes go into the response. */
  offer(image: FedImage): Promise<ServerResponse> {
    this.#image = image;
    return new Promise((settle) => { this.#asked = settle; });
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { method = '', url = '' } = request;
    const found = method === 'GET' || method === 'HEAD' ? this.#find(url) : null;
    if (found === null) {
      response.writeHead(404, { 'content-length': 0 });
      response.end();
    } else if (found === 'incoming') {
      response.writeHead(200, { 'content-type': 'application/octet-stream' });
      this.#asked?.(response);
      this.#asked = null;
    } else {
      response.writeHead(200, { 'content-type': found.mediaType, 'content-length': found.body.length, 'docker-content-digest': sha256Digest(found.body) });
      response.end(method === 'HEAD' ? undefined : found.body);
    }
  }

  /** What a URL stands for. The layer that comes in is there once. */
  #find(url: string): { readonly mediaType: string; readonly body: Buffer } | 'incoming' | null {
    const image = this.#image;
    if (url === '/v2/') return { mediaType: 'application/json', body: Buffer.from('{}') };
    const path = `/v2/${this.#token}/`;
    if (image === null || !url.startsWith(path)) return null;
    const [kind, reference = ''] = url.slice(path.length).split('/');
    if (kind === 'manifests') return { mediaType: image.mediaType, body: image.manifest };
    if (kind !== 'blobs') return null;
    if (reference === sha256Digest(image.config)) return { mediaType: 'application/octet-stream', body: image.config };
    return reference === image.incoming && this.#asked !== null ? 'incoming' : null;
  }

  /** Breaks all connections and stops to listen. Idempotent. */
  async close(): Promise<void> {
    this.#image = null;
    this.#server.closeAllConnections();
    await new Promise<void>((settle) => { this.#server.close(() => { settle(); }); });
  }
}
