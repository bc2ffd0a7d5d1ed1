import type { Readable } from 'node:stream';
import type { Agent, buildConnector, Dispatcher } from 'undici';
import { WhittleError } from '../core/errors.js';
import { badResponse, DocumentTimeout, transportError, type ResponseHead, type Subject } from './failures.js';
import type { RegistryLimits } from './limits.js';
import type { ProxyFinder } from './proxy.js';
import { ReceiveGate } from './receive-gate.js';

/** Methods that the distribution protocol uses. */
export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** Bytes to send, with the length that Content-Length will say. */
export interface RequestBody {
  readonly sizeBytes: number;
  readonly content: Buffer | AsyncIterable<Buffer>;
}

/** One HTTP request, made once. */
export interface WireRequest {
  readonly method: Method;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: RequestBody | undefined;
  readonly subject: Subject;
  readonly signal?: AbortSignal | undefined;
}

/** A response whose body has not been read. Whoever holds it reads the body to its end, or calls `discard`. */
export interface WireResponse extends ResponseHead {
  /** Where it came from, after redirects. */
  readonly url: URL;
  /** The body as received, never decoded. Destroy it to give up; an error of it is the transport's, not a WhittleError. */
  readonly body: Readable;
  /** Time in which a document is to be here whole. */
  readonly documentTimeoutMs: number;
  /** Gets rid of the body; keeps the connection when little is left of it. */
  discard(): Promise<void>;
}

/** How every request is made. */
export interface WireOptions {
  readonly limits: RegistryLimits;
  /** PEM certificates to trust instead of the usual ones. */
  readonly ca?: string | Buffer | readonly (string | Buffer)[] | undefined;
  readonly userAgent: string;
  /** Undefined: every host is reached directly. */
  readonly proxies?: ProxyFinder | undefined;
  /** Most bytes that the bodies of all answers may have together; default: no bound. */
  readonly maxReceivedBytes?: number | undefined;
}

function ignore(): void {
  // An abandoned body reports its abandonment; nobody is left to hear it.
}

/** Gives up a body that is not here whole in time: a server that sends a byte now and then would hold its reader for ever. */
async function inTime<T>(body: Readable, timeoutMs: number, reading: () => Promise<T>): Promise<T> {
  const timer = setTimeout(() => body.destroy(new DocumentTimeout()), timeoutMs);
  try {
    return await reading();
  } finally {
    clearTimeout(timer);
  }
}

function wrap(url: URL, data: Dispatcher.ResponseData, documentTimeoutMs: number): WireResponse {
  const { body, headers } = data;
  body.on('error', ignore);
  return {
    url, status: data.statusCode, body, documentTimeoutMs,
    header: (name) => {
      const value = headers[name];
      return Array.isArray(value) ? value.join(', ') : value;
    },
    discard: async () => {
      await inTime(body, documentTimeoutMs, () => body.dump({ limit: 64 * 1024 })).catch(ignore);
    },
  };
}

/** Sends single HTTP requests: no redirects, no login, no retries. Owns the connections; the holder closes it. */
export class Wire {
  readonly limits: RegistryLimits;
  readonly #agentOptions: Agent.Options;
  readonly #connect: buildConnector.BuildOptions;
  readonly #proxies: ProxyFinder | undefined;
  /** Origins of proxies that requests went to. */
  readonly #proxyOrigins = new Set<string>();
  /** Made when it is first needed: of all modules the client takes the longest to load, and images in files need none. */
  #agent: Promise<Dispatcher> | undefined;
  readonly #userAgent: string;
  readonly #gate: ReceiveGate;

  constructor({ limits, ca, userAgent, proxies, maxReceivedBytes }: WireOptions) {
    this.limits = limits;
    this.#userAgent = userAgent;
    this.#proxies = proxies;
    this.#connect = { timeout: limits.connectTimeoutMs, ...(ca === undefined ? {} : { ca: typeof ca === 'string' || Buffer.isBuffer(ca) ? ca : [...ca] }) };
    this.#gate = new ReceiveGate(maxReceivedBytes ?? Infinity);
    this.#agentOptions = {
      connections: limits.connections,
      headersTimeout: limits.headersTimeoutMs,
      bodyTimeout: limits.bodyTimeoutMs,
      maxHeaderSize: 32 * 1024,
    };
  }

  async #open(): Promise<Dispatcher> {
    const { Agent } = await import('undici');
    return new Agent({ ...this.#agentOptions, connect: await this.#connector() }).compose(this.#gate.interceptor);
  }

  async #connector(): Promise<buildConnector.BuildOptions | buildConnector.connector> {
    if (this.#proxies === undefined) return this.#connect;
    const { tunnelConnector } = await import('./tunnel.js');
    return tunnelConnector(this.#proxies, (origin) => this.#proxyOrigins.has(origin), this.#connect);
  }

  /** Where a request goes, and what it says there: plain http is asked of its proxy by the whole URL. */
  #route(url: URL): { origin: string; path: string; headers: Record<string, string> } {
    const proxy = url.protocol === 'http:' ? this.#proxies?.(url) : undefined;
    if (proxy === undefined) return { origin: url.origin, path: url.pathname + url.search, headers: {} };
    const { origin } = proxy.url;
    this.#proxyOrigins.add(origin);
    return { origin, path: url.origin + url.pathname + url.search, headers: { host: url.host, ...(proxy.authorization === undefined ? {} : { 'proxy-authorization': proxy.authorization }) } };
  }

  /** Bytes of the bodies of all answers so far, read or not. */
  get receivedBytes(): number {
    return this.#gate.receivedBytes;
  }

  /** Sends one request. Rejects with REGISTRY_UNREACHABLE, REGISTRY_TLS, REGISTRY_BAD_RESPONSE, BUDGET_EXCEEDED or INTERRUPTED. */
  async send({ method, url, headers, body, subject, signal }: WireRequest): Promise<WireResponse> {
    try {
      this.#agent ??= this.#open();
      const agent = await this.#agent;
      const route = this.#route(url);
      const data = await agent.request({
        origin: route.origin, path: route.path, method,
        headers: {
          ...route.headers,
          'user-agent': this.#userAgent,
          // A body compressed on the way has other bytes than its digest says.
          'accept-encoding': 'identity',
          ...headers,
          ...(body === undefined ? {} : { 'content-length': String(body.sizeBytes) }),
        },
        ...(body === undefined ? {} : { body: Buffer.isBuffer(body.content) ? body.content : iterableBody(body.content) }),
        ...(signal === undefined ? {} : { signal }),
      });
      return wrap(url, data, this.limits.documentTimeoutMs);
    } catch (error) {
      throw transportError(error, url, subject, signal);
    }
  }

  /** Ends every connection, busy ones too. */
  async close(): Promise<void> {
    await (await this.#agent)?.destroy();
  }
}

/** The HTTP client takes any async iterable at run time; its types name only streams. */
function iterableBody(content: AsyncIterable<Buffer>): Readable {
  return content as unknown as Readable;
}

/**
 * Reads a whole body of at most `maxBytes`. A longer one is REGISTRY_BAD_RESPONSE; so is one that was compressed on
 * the way.
 */
export async function readBody(response: WireResponse, maxBytes: number, subject: Subject, signal?: AbortSignal): Promise<Buffer> {
  return collect(response, maxBytes, () => badResponse(response.url, subject, `the answer is longer than ${String(maxBytes)} bytes`), subject, signal);
}

async function collect(response: WireResponse, maxBytes: number, tooLong: () => WhittleError, subject: Subject, signal?: AbortSignal): Promise<Buffer> {
  refuseEncoding(response, subject);
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  try {
    await inTime(response.body, response.documentTimeoutMs, async () => {
      for await (const chunk of response.body as AsyncIterable<Buffer>) {
        sizeBytes += chunk.length;
        if (sizeBytes > maxBytes) throw tooLong();
        chunks.push(chunk);
      }
    });
  } catch (error) {
    throw transportError(error, response.url, subject, signal);
  }
  return Buffer.concat(chunks);
}

/**
 * `readBody` for a reader who can afford only `allowedBytes` (undefined: no such bound): a body that says that it is longer is
 * given up unread. Throws LIMIT_EXCEEDED for one that is longer, and what `readBody` throws.
 */
export async function readAffordable(response: WireResponse, maxBytes: number, allowedBytes: number | undefined, subject: Subject, signal?: AbortSignal): Promise<Buffer> {
  if (allowedBytes === undefined || allowedBytes >= maxBytes) return readBody(response, maxBytes, subject, signal);
  const tooLong = (): WhittleError => new WhittleError('LIMIT_EXCEEDED', `${subject} is longer than the ${String(allowedBytes)} bytes that may be spent on it`);
  const length = Number(response.header('content-length') ?? Number.NaN);
  if (length > allowedBytes) {
    response.body.destroy();
    throw tooLong();
  }
  return collect(response, allowedBytes, tooLong, subject, signal);
}

/** The beginning of a body, at most `maxBytes`; never fails. */
export async function readStart(response: WireResponse, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  try {
    await inTime(response.body, response.documentTimeoutMs, async () => {
      for await (const chunk of response.body as AsyncIterable<Buffer>) {
        chunks.push(chunk);
        sizeBytes += chunk.length;
        if (sizeBytes >= maxBytes) break;
      }
    });
  } catch {
    // What came before the break may still say why the request failed.
  }
  return Buffer.concat(chunks).subarray(0, maxBytes);
}

/** Throws REGISTRY_BAD_RESPONSE (and gives up the body) when something on the way compressed it. */
export function refuseEncoding(response: WireResponse, subject: Subject): void {
  const encoding = (response.header('content-encoding') ?? '').trim().toLowerCase();
  if (encoding === '' || encoding === 'identity') return;
  response.body.destroy();
  throw badResponse(response.url, subject, `the body was re-encoded on the way (Content-Encoding: ${encoding.slice(0, 40)})`, true);
}
