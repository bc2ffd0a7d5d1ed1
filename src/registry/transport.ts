import { WhittleError } from '../core/errors.js';
import { throwIfAborted } from '../core/interruption.js';
import { Authenticator } from './auth.js';
import type { CredentialProvider } from './credentials.js';
import { registryOrigin } from './endpoint.js';
import { environmentProxies } from './proxy.js';
import { badResponse, statusError, type Subject } from './failures.js';
import { defaultRegistryLimits, type RegistryLimits } from './limits.js';
import { withRetries, type OnRetry } from './retry.js';
import { readStart, Wire, type Method, type RequestBody, type WireResponse } from './wire.js';

/** How to reach a registry. */
export interface TransportOptions {
  /** Logins; without it every request is anonymous. */
  readonly credentials?: CredentialProvider | undefined;
  /** true: plain http for this registry. false: TLS even on loopback. Default: plain http on loopback only. */
  readonly plainHttp?: boolean | undefined;
  /** PEM certificates of the authorities to trust, instead of the usual ones; implies TLS. */
  readonly ca?: string | Buffer | readonly (string | Buffer)[] | undefined;
  readonly limits?: Partial<RegistryLimits> | undefined;
  /** Default `whittle`. */
  readonly userAgent?: string | undefined;
  readonly onRetry?: OnRetry | undefined;
  /** Where proxies are named; default: the process's. */
  readonly env?: NodeJS.ProcessEnv | undefined;
  /** Most bytes that the bodies of all answers may have together, tokens and errors too; one that would be too many is BUDGET_EXCEEDED. */
  readonly maxReceivedBytes?: number | undefined;
}

/** One request to a registry, as often as it has to be made. */
export interface TransportRequest {
  readonly method: Method;
  /** A path with query on the registry, or a URL that it gave (an upload's place). */
  readonly target: string | URL;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** Makes the body anew for each try. */
  readonly body?: (() => RequestBody) | undefined;
  /** Token scopes that the request needs. */
  readonly scopes: readonly string[];
  readonly subject: Subject;
  /** Statuses that are answers; every other one is thrown as an error. */
  readonly accept: readonly number[];
  readonly signal?: AbortSignal | undefined;
}

const redirectStatuses = new Set([301, 302, 303, 307, 308]);

/** Requests to one registry: with login, redirects and, where asked for, retries. The holder closes it. */
export class Transport {
  readonly limits: RegistryLimits;
  readonly origin: string;
  readonly #wire: Wire;
  readonly #auth: Authenticator;
  readonly #onRetry: OnRetry | undefined;

  constructor(registry: string, options: TransportOptions) {
    const plainHttp = options.plainHttp ?? (options.ca === undefined ? undefined : false);
    this.origin = registryOrigin(registry, plainHttp);
    this.limits = { ...defaultRegistryLimits, ...options.limits };
    this.#onRetry = options.onRetry;
    this.#wire = new Wire({ limits: this.limits, ca: options.ca, userAgent: options.userAgent ?? 'whittle', proxies: environmentProxies(options.env ?? process.env), maxReceivedBytes: options.maxReceivedBytes });
    this.#auth = new Authenticator({ registry, origin: this.origin, credentials: options.credentials, plainHttp: plainHttp === true, wire: this.#wire });
  }

  /** Bytes of the bodies of all answers so far, read or not. */
  get receivedBytes(): number {
    return this.#wire.receivedBytes;
  }

  /** Runs `operation` with this transport's retry rules: see `withRetries`. */
  async retry<T>(operation: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return withRetries(operation, { limits: this.limits, signal, onRetry: this.#onRetry });
  }

  /** `once`, tried again while that makes sense. Only for requests whose repetition does no harm. */
  async request(request: TransportRequest): Promise<WireResponse> {
    return this.retry(() => this.once(request), request.signal);
  }

  /** One request with login and redirects, no retries. A response with a status outside `accept` is thrown. */
  async once(request: TransportRequest): Promise<WireResponse> {
    throwIfAborted(request.signal);
    let url = this.#resolve(request);
    let authorization = this.#authorizationFor(url, request);
    let loginsLeft = 1;
    let redirectsLeft = this.limits.redirects;
    for (;;) {
      const response = await this.#send(request, url, authorization);
      if (request.accept.includes(response.status)) return response;
      if (response.status === 401 && url.origin === this.origin && loginsLeft-- > 0) {
        const next = await this.#login(response, request, authorization);
        if (next !== undefined) {
          await response.discard();
          authorization = next;
          continue;
        }
      }
      const target = this.#redirect(request, response);
      if (target === undefined) throw statusError(response, url, request.subject, await readStart(response, this.limits.errorBodyBytes));
      await response.discard();
      if (redirectsLeft-- <= 0) throw badResponse(url, request.subject, `more than ${String(this.limits.redirects)} redirects`);
      url = target;
      authorization = this.#authorizationFor(url, request);
    }
  }

  /** Ends every connection. */
  async close(): Promise<void> {
    await this.#wire.close();
  }

  #resolve(request: TransportRequest): URL {
    return typeof request.target === 'string' ? new URL(this.origin + request.target) : request.target;
  }

  /** Logins and tokens go to the registry's own origin and to nobody else, whatever a redirect says. */
  #authorizationFor(url: URL, request: TransportRequest): string | undefined {
    return url.origin === this.origin ? this.#auth.known(request.scopes) : undefined;
  }

  async #send(request: TransportRequest, url: URL, authorization: string | undefined): Promise<WireResponse> {
    const { method, headers, body, subject, signal } = request;
    return this.#wire.send({
      method, url, subject, signal, body: body?.(),
      headers: { ...headers, ...(authorization === undefined ? {} : { authorization }) },
    });
  }

  async #login(response: WireResponse, request: TransportRequest, tried: string | undefined): Promise<string | undefined> {
    try {
      return await this.#auth.answer(response, request.scopes, tried, request.signal);
    } catch (error) {
      await response.discard();
      throwIfAborted(request.signal);
      throw error;
    }
  }

  /** Where a redirect leads, or undefined when the response is none that may be followed. */
  #redirect(request: TransportRequest, response: WireResponse): URL | undefined {
    // A request with a body is repeated only where the status says that its method stays.
    const repeatable = request.method === 'GET' || request.method === 'HEAD' || response.status === 307 || response.status === 308;
    if (!redirectStatuses.has(response.status) || !repeatable) return undefined;
    const location = response.header('location') ?? '';
    if (!URL.canParse(location, response.url.href)) throw badResponse(response.url, request.subject, 'a redirect to nowhere');
    const target = new URL(location, response.url);
    if (target.protocol !== 'https:' && target.protocol !== 'http:') throw badResponse(response.url, request.subject, 'a redirect to something that is not http');
    if (response.url.protocol === 'https:' && target.protocol === 'http:') {
      response.body.destroy();
      throw new WhittleError('REGISTRY_TLS', `${response.url.host} redirects ${request.subject} from TLS to plain http at ${target.host}`);
    }
    target.username = '';
    target.password = '';
    return target;
  }
}
