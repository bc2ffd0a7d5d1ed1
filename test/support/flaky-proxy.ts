import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';

/** One thing that goes wrong with one request. Byte counts are of the response's body. */
export type Fault =
  | { readonly kind: 'none' }
  /** The connection is reset after `afterBytes` of the body (0: before the headers) were sent, and `arrived` has settled where that matters: a reset loses what is on its way. */
  | { readonly kind: 'cut'; readonly afterBytes: number; readonly arrived?: () => Promise<unknown> }
  /** Nothing more comes after `afterBytes`; the connection stays open. */
  | { readonly kind: 'stall'; readonly afterBytes: number }
  /** The body comes in small pieces with pauses, at most `pieces` of them, then the rest at once. */
  | { readonly kind: 'drip'; readonly pieceBytes: number; readonly pauseMs: number; readonly pieces: number }
  /** Range is ignored: 200 and the whole. */
  | { readonly kind: 'ignore-range' }
  /** The range begins elsewhere. `honest`: Content-Range says so; otherwise it claims what was asked. */
  | { readonly kind: 'shift-range'; readonly byBytes: number; readonly honest: boolean }
  /** Another ETag than before, whatever the content; `If-Range` of the old one is not honoured (206 all the same) unless `conform`. */
  | { readonly kind: 'etag'; readonly tag: string; readonly conform: boolean }
  | { readonly kind: 'status'; readonly status: number; readonly retryAfter?: string }
  /** A well-framed body that is `byBytes` short of what its Content-Range or the descriptor says. */
  | { readonly kind: 'truncate'; readonly byBytes: number }
  /** A body with `byBytes` more than it should have. */
  | { readonly kind: 'extend'; readonly byBytes: number }
  /** Compressed on the way, with (`labelled`) or without Content-Encoding. */
  | { readonly kind: 'gzip'; readonly labelled: boolean }
  /** The right length, one byte wrong. */
  | { readonly kind: 'corrupt'; readonly atByte: number }
  /** Sent elsewhere: to a second origin on another port, `hops` times. */
  | { readonly kind: 'redirect'; readonly hops: number }
  /** Another total in Content-Range. */
  | { readonly kind: 'wrong-total'; readonly byBytes: number }
  /** No Content-Length: the body ends with the connection or its last chunk. */
  | { readonly kind: 'chunked' }
  /** After the right body more and more, without a length, until the client goes away (or `endlessBytes` were sent). */
  | { readonly kind: 'endless' }
  /** Something that is no HTTP. */
  | { readonly kind: 'garbage'; readonly text: string }
  /** A header of `sizeBytes`. */
  | { readonly kind: 'big-header'; readonly sizeBytes: number };

const filler = Buffer.alloc(65_536, 0x5a);

/** Where the fault `endless` gives up. */
const endlessBytes = 64 * 1024 * 1024;

/** A request to answer. */
export interface Asked {
  readonly method: string;
  /** Path with query. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly origin: 'first' | 'second';
}

/** An answer, before anything goes wrong with it. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

/** What the proxy saw and did. */
export interface ProxyRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly fault: Fault;
  /** Which of the proxy's two origins was asked. */
  readonly origin: 'first' | 'second';
  /** Body bytes handed to the socket. */
  sentBytes: number;
}

/** A proxy on loopback with a script of faults. */
export interface FlakyProxy {
  readonly port: number;
  /** `http://127.0.0.1:port`. */
  readonly url: string;
  readonly requests: ProxyRequest[];
  /** Faults for the next matching requests, in order; when they are used up nothing goes wrong. */
  readonly faults: Fault[];
  close(): Promise<void>;
}

export interface FlakyProxyOptions {
  /** `http://host:port` of the registry behind the proxy, or the registry itself. */
  readonly upstream: string | ((asked: Asked) => Answer);
  /** How long a cut waits for what was written before it. Default 20. */
  readonly cutAfterMs?: number;
  readonly faults?: readonly Fault[];
  /** Which requests use up a fault. Default: GET of blobs. */
  readonly match?: (method: string, url: string) => boolean;
}

/** Starts a proxy; the caller closes it. */
export async function startFlakyProxy(options: FlakyProxyOptions): Promise<FlakyProxy> {
  const faults = [...(options.faults ?? [])];
  const requests: ProxyRequest[] = [];
  const match = options.match ?? ((method, url) => method === 'GET' && url.includes('/blobs/'));
  const stop = new AbortController();
  let second = '';
  const handle = (origin: 'first' | 'second') => (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    const method = incoming.method ?? 'GET';
    const url = incoming.url ?? '/';
    const fault = origin === 'first' && match(method, url) ? (faults.shift() ?? { kind: 'none' as const }) : { kind: 'none' as const };
    const seen: ProxyRequest = { method, url, headers: incoming.headers, fault, origin, sentBytes: 0 };
    requests.push(seen);
    serve(options, second, seen, incoming, outgoing, stop.signal).catch(() => outgoing.destroy());
  };
  const servers = [createServer(handle('first')), createServer(handle('second'))] as const;
  for (const server of servers) await listen(server);
  second = origin(servers[1]);
  return {
    port: (servers[0].address() as AddressInfo).port,
    url: origin(servers[0]),
    requests,
    faults,
    close: async () => {
      stop.abort();
      await Promise.all(servers.map((server) => new Promise<void>((resolve) => {
        server.close(() => { resolve(); });
        server.closeAllConnections();
      })));
    },
  };
}

async function listen(server: Server): Promise<void> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
}

function origin(server: Server): string {
  return `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
}

interface Upstream {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly body: Buffer;
}

async function serve(options: FlakyProxyOptions, second: string, seen: ProxyRequest, incoming: IncomingMessage, outgoing: ServerResponse, signal: AbortSignal): Promise<void> {
  const { fault } = seen;
  if (fault.kind === 'cut' && fault.afterBytes === 0) {
    outgoing.destroy();
    return;
  }
  if (fault.kind === 'garbage') {
    outgoing.socket?.end(fault.text);
    return;
  }
  if (fault.kind === 'status') {
    answerStatus(outgoing, fault);
    return;
  }
  if (fault.kind === 'redirect' || seen.url.includes('x-hops=')) {
    const location = nextHop(second, seen, fault);
    if (location !== null) {
      outgoing.writeHead(307, { location });
      outgoing.end();
      return;
    }
  }
  const answer = await ask(options.upstream, seen, headersFor(incoming, fault), incoming);
  const { headers, body, status } = distort(answer, fault, seen);
  // Names as node gives them: lower case; hop-by-hop ones are this proxy's own business.
  delete headers['connection'];
  delete headers['transfer-encoding'];
  outgoing.writeHead(status, headers);
  if (seen.method === 'HEAD') {
    outgoing.end();
    return;
  }
  await send(outgoing, body, fault, { seen, signal, cutAfterMs: options.cutAfterMs ?? 20 });
}

function answerStatus(outgoing: ServerResponse, fault: Extract<Fault, { kind: 'status' }>): void {
  outgoing.writeHead(fault.status, { 'content-type': 'application/json', ...(fault.retryAfter === undefined ? {} : { 'retry-after': fault.retryAfter }) });
  outgoing.end('{"errors":[{"code":"UNKNOWN","message":"scripted"}]}');
}

/** Hops are counted in the query, which a registry ignores; the last one is served by the second origin. */
function nextHop(second: string, seen: ProxyRequest, fault: Fault): string | null {
  const url = new URL(seen.url, second);
  const left = fault.kind === 'redirect' ? fault.hops : Number(url.searchParams.get('x-hops')) - 1;
  url.searchParams.delete('x-hops');
  if (left <= 0) {
    (seen as { url: string }).url = url.pathname + url.search;
    return null;
  }
  url.searchParams.set('x-hops', String(left));
  return url.href;
}

function headersFor(incoming: IncomingMessage, fault: Fault): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = {};
  for (const [name, value] of Object.entries(incoming.headers)) if (value !== undefined && name !== 'host') headers[name] = value;
  delete headers['connection'];
  if (fault.kind === 'ignore-range') delete headers['range'];
  if (fault.kind === 'etag' && !fault.conform) delete headers['if-range'];
  if (fault.kind === 'etag' && fault.conform && headers['if-range'] !== undefined && headers['if-range'] !== fault.tag) delete headers['range'];
  if (fault.kind === 'etag') delete headers['if-range'];
  const range = /^bytes=(\d+)-$/.exec(headerText(headers['range']));
  if (fault.kind === 'shift-range' && range !== null) headers['range'] = `bytes=${String(Math.max(0, Number(range[1]) + fault.byBytes))}-`;
  return headers;
}

async function ask(upstream: FlakyProxyOptions['upstream'], seen: ProxyRequest, headers: Record<string, string | string[]>, incoming: IncomingMessage): Promise<Upstream> {
  if (typeof upstream === 'function') {
    const answer = upstream({ method: seen.method, url: seen.url, headers, origin: seen.origin });
    return { ...answer, headers: { ...answer.headers } };
  }
  return new Promise((resolve, reject) => {
    const target = new URL(seen.url, upstream);
    const outgoing = request(target, { method: seen.method, headers: { ...headers, host: target.host } }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => { resolve({ status: response.statusCode ?? 502, headers: { ...response.headers }, body: Buffer.concat(chunks) }); });
    });
    outgoing.on('error', reject);
    incoming.pipe(outgoing);
  });
}

/** Applies what a fault does to an answer's headers and bytes. */
function distort(answer: Upstream, fault: Fault, seen: ProxyRequest): Upstream {
  const headers = { ...answer.headers };
  let body = answer.body;
  let lengthOfBody = true;
  switch (fault.kind) {
    case 'etag': headers['etag'] = fault.tag; break;
    case 'truncate': body = body.subarray(0, Math.max(0, body.length - fault.byBytes)); break;
    case 'extend': body = Buffer.concat([body, Buffer.alloc(fault.byBytes, 0x5a)]); break;
    case 'corrupt': body = corrupted(body, fault.atByte); break;
    case 'chunked':
    case 'endless': lengthOfBody = false; break;
    case 'big-header': headers['x-filler'] = 'f'.repeat(fault.sizeBytes); break;
    case 'gzip':
      body = gzipSync(body);
      if (fault.labelled) headers['content-encoding'] = 'gzip';
      break;
    case 'wrong-total': headers['content-range'] = headerText(headers['content-range']).replace(/\/(\d+)$/, (_, total: string) => `/${String(Number(total) + fault.byBytes)}`); break;
    case 'shift-range':
      if (!fault.honest) headers['content-range'] = claimed(answer, seen);
      break;
    default:
  }
  if (seen.method !== 'HEAD') {
    if (lengthOfBody) headers['content-length'] = String(body.length);
    else delete headers['content-length'];
  }
  for (const name of Object.keys(headers)) if (headers[name] === undefined || headers[name] === '') Reflect.deleteProperty(headers, name);
  return { status: answer.status, headers, body };
}

function corrupted(body: Buffer, atByte: number): Buffer {
  if (body.length === 0) return body;
  const copy = Buffer.from(body);
  const at = atByte % body.length;
  copy[at] = (copy[at] ?? 0) ^ 0x40;
  return copy;
}

/** The Content-Range that the client expects, over a body that begins elsewhere. */
function claimed(answer: Upstream, seen: ProxyRequest): string | undefined {
  const total = /\/(\d+)$/.exec(headerText(answer.headers['content-range']));
  const from = /^bytes=(\d+)-$/.exec((seen.headers.range ?? ''));
  if (total === null || from === null) return undefined;
  return `bytes ${from[1] ?? ''}-${String(Number(total[1]) - 1)}/${total[1] ?? ''}`;
}

async function send(outgoing: ServerResponse, body: Buffer, fault: Fault, { seen, signal, cutAfterMs }: { readonly seen: ProxyRequest; readonly signal: AbortSignal; readonly cutAfterMs: number }): Promise<void> {
  const write = async (piece: Buffer): Promise<void> => {
    for (let offset = 0; offset < piece.length; offset += 16384) {
      if (outgoing.destroyed) throw new Error('client went away');
      const part = piece.subarray(offset, offset + 16384);
      seen.sentBytes += part.length;
      if (!outgoing.write(part)) await drained(outgoing);
    }
  };
  switch (fault.kind) {
    case 'cut':
      await write(body.subarray(0, fault.afterBytes));
      // What was written reaches the client first; the reset after it is the cut.
      await (fault.arrived?.() ?? sleep(cutAfterMs));
      outgoing.socket?.resetAndDestroy();
      return;
    case 'stall':
      await write(body.subarray(0, fault.afterBytes));
      await Promise.race([new Promise((resolve) => outgoing.once('close', resolve)), sleep(60_000, undefined, { signal }).catch(() => undefined)]);
      outgoing.destroy();
      return;
    case 'endless':
      await write(body);
      while (seen.sentBytes < endlessBytes) await write(filler);
      break;
    case 'drip':
      for (let piece = 0; piece < fault.pieces; piece++) {
        await write(body.subarray(piece * fault.pieceBytes, (piece + 1) * fault.pieceBytes));
        await sleep(fault.pauseMs);
      }
      await write(body.subarray(fault.pieces * fault.pieceBytes));
      break;
    default:
      await write(body);
  }
  outgoing.end();
}

function headerText(value: string | string[] | undefined): string {
  return Array.isArray(value) ? value.join(', ') : (value ?? '');
}

async function drained(outgoing: ServerResponse): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => { outgoing.off('drain', done); outgoing.off('close', done); resolve(); };
    outgoing.on('drain', done);
    outgoing.on('close', done);
  });
}
