import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';

/** A request as the server saw it. */
export interface SeenRequest {
  readonly method: string;
  /** Path with query. */
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

export type Handler = (request: SeenRequest, response: ServerResponse) => void | Promise<void>;

/** A server on loopback that answers as the test's handler says, and remembers every request. */
export interface ScriptedServer {
  /** `127.0.0.1:port`. */
  readonly host: string;
  readonly origin: string;
  readonly requests: SeenRequest[];
  handler: Handler;
  close(): Promise<void>;
}

async function readAll(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Starts one; with `tls` (PEM key and certificate) it speaks https. A handler that throws breaks the connection. The caller closes it. */
export async function startScriptedServer(handler: Handler, tls?: { readonly key: string; readonly cert: string }): Promise<ScriptedServer> {
  const requests: SeenRequest[] = [];
  const state = { handler };
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    const run = async (): Promise<void> => {
      const seen: SeenRequest = { method: request.method ?? '', url: request.url ?? '', headers: request.headers, body: await readAll(request) };
      requests.push(seen);
      await state.handler(seen, response);
    };
    run().catch(() => response.destroy());
  };
  const server: Server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${String((server.address() as AddressInfo).port)}`;
  return {
    host, origin: `${tls === undefined ? 'http' : 'https'}://${host}`, requests,
    get handler() { return state.handler; },
    set handler(next: Handler) { state.handler = next; },
    close: () => new Promise<void>((resolve) => {
      server.close(() => { resolve(); });
      server.closeAllConnections();
    }),
  };
}

/** Answers with JSON. */
export function sendJson(response: ServerResponse, status: number, value: unknown, headers: Readonly<Record<string, string>> = {}): void {
  const body = Buffer.from(JSON.stringify(value));
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': String(body.length), ...headers });
  response.end(body);
}
