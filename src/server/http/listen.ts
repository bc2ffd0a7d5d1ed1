import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { WhittleError } from '../../core/errors.js';
import { sendError } from './reply.js';
import { handleRequest, type ServiceParts } from './service.js';

/** Bounds on clients. */
export const httpLimits = {
  /** Request line and headers together. */
  headerBytes: 16 * 1024,
  /** Time to send the headers, and the whole request. */
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 30_000,
  /** A connection on which nothing moves, in either direction, is cut. */
  idleTimeoutMs: 60_000,
  /** Time that an unused connection is kept for the next request. */
  keepAliveTimeoutMs: 15_000,
  connections: 2048,
  /** How long answers under way may take to end after a stop. */
  drainMs: 5_000,
} as const;

/** One answered request, for the log. */
export interface RequestEvent {
  readonly event: 'request';
  readonly method: string;
  readonly url: string;
  /** 0 when the client left before an answer began. */
  readonly status: number;
  readonly sentBytes: number;
  readonly durationMs: number;
  readonly remote: string;
  /** True when the client left before the answer was out. */
  readonly aborted: boolean;
}

/** Where to listen, and who is told. */
export interface ListenOptions {
  readonly host: string;
  /** 0 picks a free port. */
  readonly port: number;
  readonly onRequest?: (event: RequestEvent) => void;
  readonly onError?: (error: unknown) => void;
  /** Overrides of `httpLimits`, for tests. */
  readonly limits?: Partial<Record<keyof typeof httpLimits, number>>;
}

/** A listening service. */
export interface HttpService {
  readonly host: string;
  readonly port: number;
  /** `http://host:port`. */
  readonly url: string;
  /** Takes no more requests, lets answers under way end for a few seconds, then cuts them. */
  close(): Promise<void>;
}

/** Starts to listen. Throws USAGE for an address that cannot be had. The caller closes the service. */
export async function listen(parts: ServiceParts, options: ListenOptions): Promise<HttpService> {
  const limits = { ...httpLimits, ...options.limits };
  const server = createServer(
    {
      maxHeaderSize: limits.headerBytes, headersTimeout: limits.headersTimeoutMs, requestTimeout: limits.requestTimeoutMs,
      keepAliveTimeout: limits.keepAliveTimeoutMs, connectionsCheckingInterval: 1000, insecureHTTPParser: false,
    },
    (request, response) => { serveOne(parts, options, request, response); },
  );
  server.timeout = limits.idleTimeoutMs;
  server.maxConnections = limits.connections;
  await bind(server, options);
  const address = server.address() as AddressInfo;
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return { host: address.address, port: address.port, url: `http://${host}:${String(address.port)}`, close: () => closeServer(server, limits.drainMs) };
}

async function bind(server: Server, { host, port }: ListenOptions): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port }, () => {
        server.off('error', reject);
        resolve();
      });
    });
  } catch (cause) {
    const reason = String((cause as { code?: unknown }).code ?? cause);
    throw new WhittleError('USAGE', `cannot listen on ${host}:${String(port)}: ${reason}`, { cause, hint: 'Choose another address with --listen.' });
  }
}

function serveOne(parts: ServiceParts, options: ListenOptions, request: IncomingMessage, response: ServerResponse): void {
  const startedMs = performance.now();
  const socket: Socket = request.socket;
  const sentBefore = socket.bytesWritten;
  const remote = `${socket.remoteAddress ?? '?'}:${String(socket.remotePort ?? 0)}`;
  response.once('close', () => {
    options.onRequest?.({
      event: 'request', method: request.method ?? '', url: request.url ?? '', status: response.headersSent ? response.statusCode : 0,
      sentBytes: socket.bytesWritten - sentBefore, durationMs: Math.round(performance.now() - startedMs), remote, aborted: !response.writableFinished,
    });
  });
  handleRequest(parts, request, response).catch((error: unknown) => {
    // A client that hangs up is no error of ours; anything else is, and its connection must not look well ended.
    if (!response.destroyed && !socket.destroyed) options.onError?.(error);
    if (response.headersSent) response.destroy();
    else sendError(request, response, 500, 'UNKNOWN', 'internal error', { Connection: 'close' });
  });
}

async function closeServer(server: Server, drainMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => { server.close(() => { resolve(); }); });
  server.closeIdleConnections();
  const timer = setTimeout(() => { server.closeAllConnections(); }, drainMs);
  try {
    await closed;
  } finally {
    clearTimeout(timer);
  }
}
