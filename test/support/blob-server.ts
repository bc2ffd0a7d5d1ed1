import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A well-behaved server of one blob at `/blobs/x`: ranges, ETag, If-Range. */
export interface BlobServer {
  readonly url: string;
  close(): Promise<void>;
}

/** Starts a server of `blob` on loopback; the caller closes it. */
export async function startBlobServer(blob: Buffer, tag = '"v1"'): Promise<BlobServer> {
  const server = createServer((request, response) => { answer(blob, tag, request, response); });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`,
    close: () => new Promise<void>((resolve) => {
      server.close(() => { resolve(); });
      server.closeAllConnections();
    }),
  };
}

function answer(blob: Buffer, tag: string, request: IncomingMessage, response: ServerResponse): void {
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const condition = request.headers['if-range'];
  response.setHeader('etag', tag);
  response.setHeader('accept-ranges', 'bytes');
  if (range === null || (condition !== undefined && condition !== tag)) {
    response.writeHead(200, { 'content-length': blob.length }).end(blob);
    return;
  }
  const first = Number(range[1]);
  const last = range[2] === '' ? blob.length - 1 : Math.min(Number(range[2]), blob.length - 1);
  if (first >= blob.length || last < first) {
    response.writeHead(416, { 'content-range': `bytes */${String(blob.length)}` }).end();
    return;
  }
  response.writeHead(206, { 'content-length': last - first + 1, 'content-range': `bytes ${String(first)}-${String(last)}/${String(blob.length)}` });
  response.end(blob.subarray(first, last + 1));
}
