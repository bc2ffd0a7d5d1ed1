import { parseContentLength, parseContentRange, parseRetryAfter } from '../../registry/index.js';
import type { BlobReply } from './source.js';

/** What was asked, to judge an answer by. */
export interface RangeAsked {
  readonly from: number;
  readonly totalBytes: number;
  readonly ifRange: string | null;
}

/** Why an answer is not used. `rewind`: what is held of the frame in progress may be of another content. */
export interface ReplyFault {
  readonly kind: 'fault';
  readonly reason: string;
  readonly retryAfterMs: number | null;
  readonly rewind: boolean;
  /** Ask again without `If-Range`. */
  readonly forgetTag: boolean;
}

/** An answer whose body may be used: the first `skipBytes` of it are already held, `bodyBytes` is all of it. */
export interface ReplyUse {
  readonly kind: 'use';
  readonly skipBytes: number;
  readonly bodyBytes: number;
  /** A strong entity tag for `If-Range`, if the server sent one. */
  readonly tag: string | null;
}

/**
 * Decides what a server really sent: bytes from where we asked, the whole again, or something that must never be
 * added to what is held. Never throws.
 */
export function judgeReply(reply: BlobReply, asked: RangeAsked): ReplyUse | ReplyFault {
  if (reply.status !== 200 && reply.status !== 206) return judgeStatus(reply);
  const encoding = reply.header('content-encoding')?.trim().toLowerCase() ?? '';
  if (encoding !== '' && encoding !== 'identity') return fault(`the body was re-encoded on the way (Content-Encoding: ${clip(encoding)})`);
  return reply.status === 206 ? judgePartial(reply, asked) : judgeWhole(reply, asked);
}

function judgeStatus(reply: BlobReply): ReplyFault {
  const rewind = reply.status === 416 || reply.status === 412;
  return { ...fault(`the server answered ${String(reply.status)}`), retryAfterMs: parseRetryAfter(reply.header('retry-after')) ?? null, rewind, forgetTag: rewind };
}

function judgeWhole(reply: BlobReply, asked: RangeAsked): ReplyUse | ReplyFault {
  // Asked for a range on a condition that may have failed: without the condition the range may well come.
  if (asked.from > 0 && asked.ifRange !== null) return { ...fault('the server says that the content changed'), rewind: true, forgetTag: true };
  const length = contentLength(reply);
  if (length !== null && length !== asked.totalBytes) return fault(`the whole has ${describe(length)} bytes instead of ${String(asked.totalBytes)}`);
  return { kind: 'use', skipBytes: asked.from, bodyBytes: asked.totalBytes, tag: strongTag(reply) };
}

function judgePartial(reply: BlobReply, asked: RangeAsked): ReplyUse | ReplyFault {
  const range = parseContentRange(reply.header('content-range'));
  if (range === undefined || range.first === null || range.last === null) return fault('a partial answer without a usable Content-Range');
  const { first, last } = range;
  const total = range.totalBytes ?? asked.totalBytes;
  if (total !== asked.totalBytes) return fault(`the whole has ${String(total)} bytes instead of ${String(asked.totalBytes)}`);
  if (first !== asked.from) return fault(`a range from byte ${String(first)} instead of ${String(asked.from)}`);
  if (last >= total) return fault(`a range up to byte ${String(last)} of ${String(total)}`);
  const length = contentLength(reply);
  if (length !== null && length !== last - first + 1) return fault('a range and a length that contradict each other');
  const tag = strongTag(reply);
  if (asked.ifRange !== null && tag !== asked.ifRange) return { ...fault('the content changed (another ETag)'), rewind: true, forgetTag: true };
  return { kind: 'use', skipBytes: 0, bodyBytes: last - first + 1, tag };
}

function fault(reason: string): ReplyFault {
  return { kind: 'fault', reason, retryAfterMs: null, rewind: false, forgetTag: false };
}

/** Content-Length, null without one, NaN when it is not a length. */
function contentLength(reply: BlobReply): number | null {
  const text = reply.header('content-length');
  return text === undefined ? null : parseContentLength(text) ?? NaN;
}

function describe(length: number): string {
  return Number.isNaN(length) ? 'an unreadable number of' : String(length);
}

function strongTag(reply: BlobReply): string | null {
  const tag = reply.header('etag')?.trim() ?? '';
  return /^"[\x21\x23-\x7e]{1,256}"$/.test(tag) ? tag : null;
}

function clip(text: string): string {
  return text.slice(0, 32).replace(/[^\x20-\x7e]/g, '?');
}
