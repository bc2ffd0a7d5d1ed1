import { setMaxListeners } from 'node:events';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { pipeline } from 'node:stream/promises';
import type { BlobPlace } from '../catalog.js';
import { decideRange, etagListHas, ifRangeAllows } from '../range.js';
import type { OciErrorCode } from './routes.js';

/** Headers of one answer. */
export type Headers = Readonly<Record<string, string | number>>;

/** Content named by its digest never changes, and nothing on the way may re-compress it: its digest and ranges count bytes. */
const immutable = 'public, max-age=31536000, immutable, no-transform';
/** A tag may move, and lists grow. */
export const mustAsk = 'no-cache, no-transform';

/** Sends a whole body; a HEAD gets its headers alone. */
function sendBytes(request: IncomingMessage, response: ServerResponse, status: number, headers: Headers, body: Buffer): void {
  response.writeHead(status, { ...headers, 'Content-Length': body.length });
  response.end(request.method === 'HEAD' ? undefined : body);
}

/** Sends a JSON document. */
export function sendJson(request: IncomingMessage, response: ServerResponse, status: number, value: unknown, headers: Headers = {}): void {
  sendBytes(request, response, status, { 'Content-Type': 'application/json', 'Cache-Control': mustAsk, ...headers }, Buffer.from(JSON.stringify(value)));
}

/** Sends an error as the distribution spec writes it. */
export function sendError(request: IncomingMessage, response: ServerResponse, status: number, code: OciErrorCode, message: string, headers: Headers = {}): void {
  sendJson(request, response, status, { errors: [{ code, message, detail: null }] }, headers);
}

/** Content that has a digest: what conditional requests and ranges are about. */
export interface Entity {
  readonly digest: string;
  readonly mediaType: string;
  /** True when the request named the digest, so that the answer may be kept for ever. */
  readonly byDigest: boolean;
}

/** Headers that a 200, 206 and 304 of an entity share. */
function entityHeaders(entity: Entity): Record<string, string> {
  return {
    'Docker-Content-Digest': entity.digest,
    ETag: `"${entity.digest}"`,
    'Cache-Control': entity.byDigest ? immutable : mustAsk,
  };
}

/** Answers 412 or 304 when the request's preconditions say so (RFC 9110, 13.2.2); true when it did. */
function answeredByPrecondition(request: IncomingMessage, response: ServerResponse, entity: Entity): boolean {
  const etag = `"${entity.digest}"`;
  const ifMatch = request.headers['if-match'];
  if (ifMatch !== undefined && !etagListHas(ifMatch, etag, false)) {
    sendError(request, response, 412, 'UNKNOWN', 'the content has another entity tag');
    return true;
  }
  const ifNoneMatch = request.headers['if-none-match'];
  if (ifNoneMatch === undefined || !etagListHas(ifNoneMatch, etag, true)) return false;
  response.writeHead(304, entityHeaders(entity));
  response.end();
  return true;
}

/** Sends a manifest or other small entity from memory. Manifests have no ranges. */
export function sendEntity(request: IncomingMessage, response: ServerResponse, entity: Entity, bytes: Buffer): void {
  if (answeredByPrecondition(request, response, entity)) return;
  sendBytes(request, response, 200, { ...entityHeaders(entity), 'Content-Type': entity.mediaType }, bytes);
}

/** A header that should come once; several of it are one that matches nothing. */
function headerText(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(', ') : value;
}

/**
 * Sends a blob from its file, whole or the one range asked for. A file that is missing or has another size than
 * it should is a 404 as for an unknown blob; one that shrinks while it is sent ends the connection, so that no
 * client takes the part for the whole. Settles when the answer is out or the client is gone.
 */
export async function sendBlob(request: IncomingMessage, response: ServerResponse, entity: Entity, place: BlobPlace): Promise<void> {
  if (answeredByPrecondition(request, response, entity)) return;
  const { sizeBytes } = place;
  const headers = { ...entityHeaders(entity), 'Content-Type': entity.mediaType, 'Accept-Ranges': 'bytes' };
  // Range is defined for GET alone (RFC 9110, 14.2).
  const asked = request.method === 'GET' && ifRangeAllows(headerText(request.headers['if-range']), `"${entity.digest}"`) ? request.headers.range : undefined;
  const range = decideRange(asked, sizeBytes);
  if (range.kind === 'unsatisfiable') {
    sendError(request, response, 416, 'UNKNOWN', `the blob has ${String(sizeBytes)} bytes`, { 'Content-Range': `bytes */${String(sizeBytes)}`, 'Accept-Ranges': 'bytes' });
    return;
  }
  const [first, last] = range.kind === 'part' ? [range.first, range.last] : [0, sizeBytes - 1];
  const file = await openWhole(place);
  if (file === null) {
    sendError(request, response, 404, 'BLOB_UNKNOWN', 'the blob is not in its store any more');
    return;
  }
  try {
    response.writeHead(range.kind === 'part' ? 206 : 200, {
      ...headers, 'Content-Length': last - first + 1,
      ...(range.kind === 'part' ? { 'Content-Range': `bytes ${String(first)}-${String(last)}/${String(sizeBytes)}` } : {}),
    });
    if (request.method === 'HEAD' || last < first) response.end();
    else await pipeline(createReadStream('', { fd: file, start: first, end: last, autoClose: false, highWaterMark: 1 << 17 }), response, { signal: whenGone(request) });
  } finally {
    await file.close();
  }
}

const connections = new WeakMap<Socket, AbortSignal>();

/** Aborts with the connection. An answer that waits behind another one of it (pipelining) has no socket yet that could tell it, and would keep its file open. */
function whenGone({ socket }: IncomingMessage): AbortSignal {
  const known = connections.get(socket);
  if (known !== undefined) return known;
  const gone = new AbortController();
  // Every answer under way listens to it; Node would take more than ten for a leak.
  setMaxListeners(0, gone.signal);
  connections.set(socket, gone.signal);
  if (socket.destroyed) gone.abort();
  else socket.once('close', () => { gone.abort(); });
  return gone.signal;
}

async function openWhole(place: BlobPlace): Promise<Awaited<ReturnType<typeof open>> | null> {
  let file;
  try {
    file = await open(place.path, 'r');
  } catch {
    return null;
  }
  const found = await file.stat();
  if (found.isFile() && found.size === place.sizeBytes) return file;
  await file.close();
  return null;
}
