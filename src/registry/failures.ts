import { isShortage, isWhittleError, systemErrorCode, WhittleError } from '../core/errors.js';
import { interruption } from '../core/interruption.js';
import type { ErrorCode } from '../core/error-codes.js';
import { isJsonObject } from '../oci/json.js';
import { redactUrl } from './endpoint.js';
import { parseRetryAfter } from './header-values.js';

/** What was asked for, for messages: `manifest v1 of app`, `blob sha256:… of app`. */
export type Subject = string;

/** The head of a response, with header names in lower case. */
export interface ResponseHead {
  readonly status: number;
  header(name: string): string | undefined;
}

/** What OpenSSL calls an answer in plain text where its handshake was due, by version. */
const plainAnswers = ['ERR_SSL_WRONG_VERSION_NUMBER', 'ERR_SSL_PACKET_LENGTH_TOO_LONG'];
const plainHint = 'Plain http is spoken with this machine only; device speaks it with others when it is given --plain-http, which is safe where nobody on the way can be a danger.';
const tlsCodes = /^(ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH|EPROTO$)/;

/** One line of printable text out of what a server wrote, at most 300 characters. */
export function printable(text: string): string {
  return text.replace(/[\p{C}\p{Z}]+/gu, ' ').trim().slice(0, 300);
}

/** The registry's own words in an error body (`{"errors":[{"code","message"}]}`), or undefined. */
function registryMessage(body: Buffer): string | undefined {
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
  if (!isJsonObject(value)) return undefined;
  const first: unknown = Array.isArray(value['errors']) ? value['errors'][0] : value;
  if (!isJsonObject(first)) return undefined;
  const parts = [first['code'], first['message'] ?? first['details'] ?? first['error_description']].filter((part) => typeof part === 'string' && part !== '');
  return parts.length === 0 ? undefined : printable(parts.join(': '));
}

function codeOfStatus(status: number): { code: ErrorCode; retryable: boolean } {
  switch (status) {
    case 401: return { code: 'REGISTRY_UNAUTHORIZED', retryable: false };
    case 403: return { code: 'REGISTRY_FORBIDDEN', retryable: false };
    case 404: return { code: 'REGISTRY_NOT_FOUND', retryable: false };
    case 407: return { code: 'REGISTRY_UNREACHABLE', retryable: false };
    case 408: return { code: 'REGISTRY_UNAVAILABLE', retryable: true };
    case 429: return { code: 'REGISTRY_RATE_LIMITED', retryable: true };
    case 501: return { code: 'REGISTRY_BAD_RESPONSE', retryable: false };
    default: return status >= 500 ? { code: 'REGISTRY_UNAVAILABLE', retryable: true } : { code: 'REGISTRY_BAD_RESPONSE', retryable: false };
  }
}

/** The error for a response whose status is not one that was asked for. `body` is the beginning of its body. */
export function statusError(head: ResponseHead, url: URL, subject: Subject, body: Buffer): WhittleError {
  const { code, retryable } = codeOfStatus(head.status);
  const said = registryMessage(body);
  const retryAfterMs = parseRetryAfter(head.header('retry-after'));
  return new WhittleError(code, `${url.host} answers ${String(head.status)} for ${subject}${said === undefined ? '' : ` (${said})`}`, {
    retryable,
    data: { status: head.status, url: redactUrl(url), ...(said === undefined ? {} : { said }), ...(retryAfterMs === undefined ? {} : { retryAfterMs }) },
  });
}

/** The error for a response that breaks the protocol. `retryable` when another try may come out well (a proxy's fault). */
export function badResponse(url: URL, subject: Subject, problem: string, retryable = false): WhittleError {
  return new WhittleError('REGISTRY_BAD_RESPONSE', `${url.host}: ${subject}: ${problem}`, { retryable, data: { url: redactUrl(url) } });
}

/** Ends the body of a document that takes too long. */
export class DocumentTimeout extends Error {
  readonly code = 'DOCUMENT_TIMEOUT';

  constructor() {
    super('the document takes too long');
  }
}

/** Turns what the HTTP client threw into the project's error; what this process itself lacks is returned as it is. */
export function transportError(error: unknown, url: URL, subject: Subject, signal: AbortSignal | undefined): unknown {
  if (isWhittleError(error)) return error;
  if (signal?.aborted === true) return interruption(signal);
  // No link and no server broke: this process gets no more memory or files.
  if (isShortage(error)) return error;
  const code = systemErrorCode(error) ?? 'unknown error';
  const data = { url: redactUrl(url), systemCode: code };
  if (plainAnswers.includes(code)) return new WhittleError('REGISTRY_TLS', `${url.host}: it does not speak TLS, but perhaps plain http (${code})`, { cause: error, data, hint: plainHint });
  if (tlsCodes.test(code)) return new WhittleError('REGISTRY_TLS', `${url.host}: no trusted TLS connection (${code})`, { cause: error, data });
  if (code.startsWith('HPE_') || code === 'UND_ERR_HEADERS_OVERFLOW') return new WhittleError('REGISTRY_BAD_RESPONSE', `${url.host}: ${subject}: not an HTTP answer (${code})`, { cause: error, data, retryable: code !== 'UND_ERR_HEADERS_OVERFLOW' });
  if (code === 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH') return badResponse(url, subject, 'the body does not have the length that its header says', true);
  return new WhittleError('REGISTRY_UNREACHABLE', `${url.host}: ${subject}: ${failureText(code)}`, { cause: error, data });
}

function failureText(code: string): string {
  switch (code) {
    case 'ECONNREFUSED': return 'nothing answers at this address (ECONNREFUSED)';
    case 'ENOTFOUND': return 'the host name is unknown (ENOTFOUND)';
    case 'EAI_AGAIN': return 'the host name could not be looked up (EAI_AGAIN)';
    case 'UND_ERR_CONNECT_TIMEOUT': return 'no connection within the time allowed';
    case 'UND_ERR_HEADERS_TIMEOUT': return 'no answer within the time allowed';
    case 'UND_ERR_BODY_TIMEOUT': return 'the answer stopped in the middle';
    case 'DOCUMENT_TIMEOUT': return 'the answer was not whole within the time allowed';
    default: return `the connection broke (${code})`;
  }
}
