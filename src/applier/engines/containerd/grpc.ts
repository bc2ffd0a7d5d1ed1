import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { isWhittleError, systemErrorCode, WhittleError } from '../../../core/errors.js';
import { throwIfAborted } from '../../../core/interruption.js';
import { containerdLimits } from './limits.js';

/** Status codes of gRPC that are told apart. */
export const grpcStatus = { ok: 0, notFound: 5, alreadyExists: 6, failedPrecondition: 9, unavailable: 14 } as const;

const prefixBytes = 5;
/** HTTP/2's error code for a stream that is not needed any more. */
const cancelCode = 8;
const windowBytes = 4 * 1024 * 1024;

/** One call: the requests in order, and what goes with them. */
export interface GrpcCall {
  /** "/package.Service/Method". */
  readonly path: string;
  readonly requests: readonly Buffer[];
  /** Metadata of the call, lower-case names. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
}

/**
 * gRPC over a unix socket: as much of it as talking to a daemon on this machine takes. One HTTP/2 session, any number of
 * calls on it. It keeps the process running until `close`.
 */
export class GrpcConnection {
  #lost: unknown = null;

  private constructor(private readonly session: ClientHttp2Session, private readonly socketPath: string) {
    session.on('error', (error) => { this.#lost = error; });
    session.on('close', () => { this.#lost ??= new Error('the connection was closed'); });
  }

  /** Connects. Throws ENGINE_UNREACHABLE when nobody listens, ENGINE_DENIED when this user may not. The caller calls `close`. */
  static async open(socketPath: string): Promise<GrpcConnection> {
    // Not at the program's start: it takes 5 MB, and few devices have containerd.
    const { connect: connectHttp2 } = await import('node:http2');
    const socket = connectSocket({ path: socketPath });
    const session = connectHttp2('http://localhost', {
      createConnection: () => socket, settings: { initialWindowSize: windowBytes, enablePush: false },
    });
    try {
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => { reject(new Error('no answer')); }, containerdLimits.connectTimeoutMs);
        // The first SETTINGS frame, not the socket's connect, shows that a server of HTTP/2 is there.
        session.once('remoteSettings', () => { clearTimeout(timer); resolve(); });
        session.once('error', (error: Error) => { clearTimeout(timer); reject(error); });
        session.once('close', () => { clearTimeout(timer); reject(new Error('the connection was closed at once')); });
      });
    } catch (error) {
      session.destroy();
      socket.destroy();
      throw unreachable(socketPath, error);
    }
    session.setLocalWindowSize(windowBytes);
    return new GrpcConnection(session, socketPath);
  }

  /** A call with one answer. Throws ENGINE_FAILED with `grpcStatus` in its data, ENGINE_UNREACHABLE, INTERRUPTED. */
  async unary(call: GrpcCall): Promise<Buffer> {
    let answer: Buffer | undefined;
    for await (const message of this.stream(call)) {
      if (answer !== undefined) throw new WhittleError('ENGINE_FAILED', `containerd answered ${call.path} more than once`);
      answer = message;
    }
    if (answer === undefined) throw new WhittleError('ENGINE_FAILED', `containerd answered ${call.path} with nothing`);
    return answer;
  }

  /** A call with any number of answers, which are the caller's. Stopping early cancels it. Throws as `unary` does. */
  async *stream(call: GrpcCall): AsyncGenerator<Buffer, void, void> {
    throwIfAborted(call.signal);
    if (this.#lost !== null) throw unreachable(this.socketPath, this.#lost);
    const stream = this.session.request({
      ':method': 'POST', ':path': call.path, 'content-type': 'application/grpc', te: 'trailers', ...call.metadata,
    });
    const outcome = new Outcome(stream);
    let whole = false;
    const cancel = (): void => { stream.close(cancelCode); };
    call.signal?.addEventListener('abort', cancel, { once: true });
    stream.setTimeout(containerdLimits.callTimeoutMs, cancel);
    try {
      stream.end(Buffer.concat(call.requests.map(framed)));
      whole = yield* messages(stream, call.path);
    } catch (error) {
      throwIfAborted(call.signal);
      if (isWhittleError(error)) throw error;
      outcome.failed(error);
    } finally {
      call.signal?.removeEventListener('abort', cancel);
      if (!stream.closed) cancel();
    }
    throwIfAborted(call.signal);
    this.#check(call, outcome);
    if (!whole) throw new WhittleError('ENGINE_FAILED', `containerd's answer to ${call.path} ends within a message`);
  }

  #check({ path }: GrpcCall, outcome: Outcome): void {
    const { status, message } = outcome;
    if (status === grpcStatus.ok) return;
    if (status === undefined) throw unreachable(this.socketPath, this.#lost ?? outcome.error ?? new Error(`${path} ended without a status`));
    if (status === grpcStatus.unavailable) throw unreachable(this.socketPath, new Error(message));
    throw new WhittleError('ENGINE_FAILED', `containerd refused ${path.slice(path.lastIndexOf('.') + 1)}: ${message}`, { data: { grpcStatus: status } });
  }

  /** Ends the connection; calls under way fail. */
  async close(): Promise<void> {
    if (this.session.destroyed) return;
    await new Promise<void>((resolve) => {
      this.session.once('close', () => { resolve(); });
      this.session.destroy();
    });
  }
}

/** How a call ended, as its headers or trailers say. */
class Outcome {
  status: number | undefined;
  message = '';
  error: unknown;

  constructor(stream: ClientHttp2Stream) {
    const take = (headers: IncomingHttpHeaders): void => {
      const status = headers['grpc-status'];
      if (typeof status !== 'string' || !/^[0-9]{1,3}$/.test(status)) return;
      this.status = Number(status);
      const message = headers['grpc-message'];
      this.message = typeof message === 'string' ? plainWords(message) : `status ${status}`;
    };
    stream.on('response', take);
    stream.on('trailers', take);
    // Iteration reports it; without a listener an early one would end the process.
    stream.on('error', (error: unknown) => { this.failed(error); });
  }

  failed(error: unknown): void {
    this.error ??= error;
  }
}

/** A status message is percent-encoded; it goes to a terminal, so nothing but one printable line is kept of it. */
function plainWords(message: string): string {
  let words = message;
  try {
    words = decodeURIComponent(message);
  } catch {
    // A stray percent sign: the message is shown as it came.
  }
  return words.replace(/[^\x20-\x7e]+/g, ' ').slice(0, 1000);
}

function framed(message: Buffer): Buffer {
  const prefix = Buffer.alloc(prefixBytes);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

/** The messages in a call's answer: a byte for compression, the length in four (big-endian), the bytes. Returns whether the last one was whole. */
async function* messages(stream: ClientHttp2Stream, path: string): AsyncGenerator<Buffer, boolean, void> {
  let held: Buffer[] = [];
  let heldBytes = 0;
  let wantedBytes = prefixBytes;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    held.push(chunk);
    heldBytes += chunk.length;
    while (heldBytes >= wantedBytes) {
      const all = held.length === 1 ? held[0]! : Buffer.concat(held);
      if (wantedBytes === prefixBytes) wantedBytes += messageBytes(all, path);
      if (all.length >= wantedBytes) {
        yield all.subarray(prefixBytes, wantedBytes);
        held = [all.subarray(wantedBytes)];
        heldBytes = all.length - wantedBytes;
        wantedBytes = prefixBytes;
      } else {
        held = [all];
        break;
      }
    }
  }
  return heldBytes === 0;
}

function messageBytes(prefix: Buffer, path: string): number {
  const lengthBytes = prefix.readUInt32BE(1);
  if (prefix[0] !== 0) throw new WhittleError('ENGINE_FAILED', `containerd answered ${path} with a compressed message, which nobody asked for`);
  if (lengthBytes > containerdLimits.maxMessageBytes) {
    throw new WhittleError('LIMIT_EXCEEDED', `containerd answered ${path} with a message of ${lengthBytes} bytes; at most ${containerdLimits.maxMessageBytes} are read (maxMessageBytes)`);
  }
  return lengthBytes;
}

/** Whether an error is containerd's answer with this status. */
export function isStatus(error: unknown, status: number): boolean {
  return isWhittleError(error) && error.code === 'ENGINE_FAILED' && error.data['grpcStatus'] === status;
}

function unreachable(socketPath: string, cause: unknown): WhittleError {
  const code = systemErrorCode(cause);
  if (code === 'EACCES' || code === 'EPERM') return new WhittleError('ENGINE_DENIED', `containerd's socket ${socketPath} may not be used by this user (${code})`, { cause });
  const why = code ?? (cause instanceof Error ? cause.message : String(cause));
  return new WhittleError('ENGINE_UNREACHABLE', `containerd does not answer at ${socketPath}: ${why}`, { cause });
}

