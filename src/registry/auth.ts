import { WhittleError } from '../core/errors.js';
import { throwIfAborted } from '../core/interruption.js';
import { parseJsonObject } from '../oci/json.js';
import { parseChallenges, type Challenge } from './challenge.js';
import type { Credential, CredentialProvider } from './credentials.js';
import { isLoopbackHost } from './endpoint.js';
import { badResponse, statusError } from './failures.js';
import { withRetries } from './retry.js';
import { readBody, readStart, type Wire, type WireResponse } from './wire.js';

/** A token is given up this long before the registry says it ends. */
const expiryMarginMs = 10_000;

/** How long a token holds when the registry does not say, as the token specification sets it. */
const defaultTokenSeconds = 60;

interface Token {
  readonly value: string;
  readonly expiresAtMs: number;
}

/** Whose logins are used, and for which registry. */
export interface AuthenticatorOptions {
  readonly registry: string;
  /** The registry's own origin: the only one that its login and tokens are ever sent to, the token realm aside. */
  readonly origin: string;
  readonly credentials: CredentialProvider | undefined;
  /** Whether the user allowed plain http for this registry. */
  readonly plainHttp: boolean;
  readonly wire: Wire;
}

/** Logs in at one registry: anonymous, Basic, or tokens by scope, which it keeps until they end. */
export class Authenticator {
  readonly #options: AuthenticatorOptions;
  readonly #tokens = new Map<string, Token>();
  readonly #pending = new Map<string, Promise<Token>>();
  /** By repository: each may have a login of its own. */
  readonly #basic = new Map<string, string>();

  constructor(options: AuthenticatorOptions) {
    this.#options = options;
  }

  /** The Authorization header to try first for these scopes; undefined when nothing is known yet. */
  known(scopes: readonly string[]): string | undefined {
    const key = scopeKey(scopes);
    const token = this.#tokens.get(key);
    if (token !== undefined && token.expiresAtMs > Date.now()) return `Bearer ${token.value}`;
    this.#tokens.delete(key);
    return this.#basic.get(repositoryOf(scopes));
  }

  /**
   * Answers a 401: returns another Authorization header to try, or undefined when there is none.
   * `tried` is the header that was refused. Throws when the login itself fails.
   */
  async answer(response: WireResponse, scopes: readonly string[], tried: string | undefined, signal?: AbortSignal): Promise<string | undefined> {
    const challenges = parseChallenges(response.header('www-authenticate') ?? '');
    const bearer = challenges.find((each) => each.scheme === 'bearer');
    if (bearer !== undefined) return this.#bearer(bearer, scopes, tried, signal);
    if (!challenges.some((each) => each.scheme === 'basic')) return undefined;
    const credential = await this.#credential(scopes);
    if (credential?.kind !== 'basic') return undefined;
    const header = basicHeader(credential);
    this.#basic.set(repositoryOf(scopes), header);
    return header === tried ? undefined : header;
  }

  async #credential(scopes: readonly string[]): Promise<Credential | undefined> {
    return this.#options.credentials?.(this.#options.registry, repositoryOf(scopes));
  }

  async #bearer(challenge: Challenge, scopes: readonly string[], tried: string | undefined, signal?: AbortSignal): Promise<string | undefined> {
    const key = scopeKey(scopes);
    // Another request may have renewed the token while this one was under way.
    const current = this.#tokens.get(key);
    if (current !== undefined && `Bearer ${current.value}` === tried) this.#tokens.delete(key);
    else if (current !== undefined && current.expiresAtMs > Date.now()) return `Bearer ${current.value}`;
    let pending = this.#pending.get(key);
    if (pending === undefined) {
      // One fetch for all who wait for it, so no single waiter's signal may end it; its own limits do.
      pending = this.#fetchToken(challenge, scopes).finally(() => this.#pending.delete(key));
      this.#pending.set(key, pending);
    }
    const token = await pending;
    throwIfAborted(signal);
    this.#tokens.set(key, token);
    return `Bearer ${token.value}`;
  }

  async #fetchToken(challenge: Challenge, scopes: readonly string[]): Promise<Token> {
    const { wire, registry } = this.#options;
    const realm = this.#realm(challenge);
    const credential = await this.#credential(scopes);
    const asked = [...new Set([...scopes, ...(challenge.parameters.get('scope')?.split(' ') ?? [])])].filter((scope) => scope !== '');
    const service = challenge.parameters.get('service');
    const subject = `a token for ${registry}`;
    return withRetries(async () => {
      const response = credential?.kind === 'identity-token'
        ? await wire.send({ method: 'POST', url: realm, subject, ...refreshForm(credential.token, service, asked) })
        : await wire.send({ method: 'GET', url: tokenUrl(realm, service, asked), subject, headers: credential === undefined ? {} : { authorization: basicHeader(credential) } });
      if (response.status !== 200) throw statusError(response, realm, subject, await readStart(response, wire.limits.errorBodyBytes));
      return parseToken(await readBody(response, wire.limits.tokenBodyBytes, subject), realm, subject);
    }, { limits: wire.limits });
  }

  /** The token endpoint. It receives the login, so it must be as safe as the registry is. */
  #realm(challenge: Challenge): URL {
    const { origin, plainHttp } = this.#options;
    const text = challenge.parameters.get('realm') ?? '';
    const url = URL.canParse(text) ? new URL(text) : undefined;
    const base = new URL(origin);
    if (url === undefined || url.username !== '' || url.password !== '') throw badResponse(base, 'login', 'the token realm is not a URL');
    const plainAllowed = base.protocol === 'http:' && (plainHttp || isLoopbackHost(url.host));
    if (url.protocol !== 'https:' && !(url.protocol === 'http:' && plainAllowed)) {
      throw new WhittleError('REGISTRY_TLS', `${base.host} wants the login sent to ${url.host} without TLS`);
    }
    return url;
  }
}

/** The repository that a request is for: of the first scope, for what it mounts from elsewhere comes after. */
function repositoryOf(scopes: readonly string[]): string {
  return /^repository:(.+):[^:]*$/.exec(scopes[0] ?? '')?.[1] ?? '';
}

function scopeKey(scopes: readonly string[]): string {
  return [...scopes].sort().join(' ');
}

function basicHeader(credential: Extract<Credential, { kind: 'basic' }>): string {
  return `Basic ${Buffer.from(`${credential.username}:${credential.password}`, 'utf8').toString('base64')}`;
}

function tokenUrl(realm: URL, service: string | undefined, scopes: readonly string[]): URL {
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set('service', service);
  for (const scope of scopes) url.searchParams.append('scope', scope);
  return url;
}

function refreshForm(token: string, service: string | undefined, scopes: readonly string[]): { headers: Record<string, string>; body: { sizeBytes: number; content: Buffer } } {
  const form = new URLSearchParams({ grant_type: 'refresh_token', client_id: 'whittle', refresh_token: token });
  if (service !== undefined) form.set('service', service);
  if (scopes.length > 0) form.set('scope', scopes.join(' '));
  const content = Buffer.from(form.toString());
  return { headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: { sizeBytes: content.length, content } };
}

function parseToken(bytes: Buffer, url: URL, subject: string): Token {
  let answer;
  try {
    answer = parseJsonObject(bytes, subject, bytes.length);
  } catch {
    // The parser's complaint is dropped: it may quote the token.
    throw badResponse(url, subject, 'the answer is not a JSON object');
  }
  const { token, access_token: accessToken, expires_in: expiresIn } = answer as { token?: unknown; access_token?: unknown; expires_in?: unknown };
  const value = [token, accessToken].find((each) => typeof each === 'string' && each !== '');
  if (typeof value !== 'string' || !/^[\x21-\x7e]+$/.test(value)) throw badResponse(url, subject, 'the answer has no token');
  const seconds = typeof expiresIn === 'number' && expiresIn > 0 ? Math.min(expiresIn, 86_400) : defaultTokenSeconds;
  return { value, expiresAtMs: Date.now() + Math.max(seconds * 1000 - expiryMarginMs, seconds * 500) };
}
