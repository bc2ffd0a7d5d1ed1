import { once } from 'node:events';
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { createServer as createSocketServer, type Server } from 'node:net';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { GrpcConnection, isStatus } from '../../../../../src/applier/engines/containerd/grpc.js';

type Behaviour = (stream: ServerHttp2Stream, request: Buffer) => void;

let folder: string;
let socket: string;
let server: Http2Server;
let connection: GrpcConnection;
let behaviour: Behaviour;
const sessions = new Set<ServerHttp2Session>();

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'grpc-'));
  socket = join(folder, 's');
  server = createServer();
  server.on('session', (session) => { sessions.add(session); });
  server.on('stream', (stream) => {
    const chunks: Buffer[] = [];
    stream.on('error', () => undefined);
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => { behaviour(stream, Buffer.concat(chunks)); });
  });
  server.listen(socket);
  await once(server, 'listening');
  connection = await GrpcConnection.open(socket);
});

afterEach(async () => {
  await connection.close();
  for (const session of sessions) session.destroy();
  sessions.clear();
  server.close();
  await rm(folder, { recursive: true, force: true });
});

function message(text: string | Buffer): Buffer {
  const content = Buffer.from(text);
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(content.length, 1);
  return Buffer.concat([prefix, content]);
}

/** Answers with these pieces, then these trailers. */
function answer(pieces: readonly Buffer[], trailers: Record<string, string>): Behaviour {
  return (stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => { stream.sendTrailers(trailers); });
    for (const piece of pieces) stream.write(piece);
    stream.end();
  };
}

const ok = { 'grpc-status': '0' };
const call = (requests: readonly Buffer[] = [Buffer.from('ask')], signal?: AbortSignal): Parameters<GrpcConnection['unary']>[0] => ({ path: '/a.B/C', requests, metadata: { 'x-note': 'n' }, signal });

async function all(): Promise<string[]> {
  const got: string[] = [];
  for await (const each of connection.stream(call())) got.push(each.toString());
  return got;
}

test('a request is framed, and its answer read, however it is cut into pieces', async () => {
  let seen: Buffer = Buffer.alloc(0);
  behaviour = (stream, request) => {
    seen = request;
    const whole = Buffer.concat([message('one'), message(''), message('two'.repeat(100_000)), message('three')]);
    answer([whole.subarray(0, 2), whole.subarray(2, 7), whole.subarray(7, 300), whole.subarray(300)], ok)(stream, request);
  };
  const got: string[] = [];
  for await (const each of connection.stream(call([Buffer.from('a'), Buffer.from('bc')]))) got.push(each.toString());
  expect(seen).toEqual(Buffer.concat([message('a'), message('bc')]));
  expect(got).toEqual(['one', '', 'two'.repeat(100_000), 'three']);
});

test('one answer is one answer', async () => {
  behaviour = answer([message('yes')], ok);
  expect((await connection.unary(call())).toString()).toBe('yes');
  behaviour = answer([message('yes'), message('no')], ok);
  await expect(connection.unary(call())).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
  behaviour = answer([], ok);
  await expect(connection.unary(call())).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
});

test('a status is told in the daemon\'s words, as one printable line', async () => {
  behaviour = (stream) => { stream.respond({ ':status': 200, 'grpc-status': '5', 'grpc-message': 'no%20such%0Athing %1B[31m' }, { endStream: true }); };
  const error: unknown = await connection.unary(call()).catch((caught: unknown) => caught);
  expect(error).toMatchObject({ code: 'ENGINE_FAILED', message: 'containerd refused B/C: no such thing  [31m' });
  expect([isStatus(error, 5), isStatus(error, 6)]).toEqual([true, false]);
  behaviour = answer([message('part')], { 'grpc-status': '14', 'grpc-message': 'closing' });
  await expect(all()).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
});

test('what is too large, compressed, cut short or without a status is refused', async () => {
  const huge = Buffer.alloc(5);
  huge.writeUInt32BE(0xfffffff0, 1);
  behaviour = answer([huge, Buffer.alloc(100)], ok);
  await expect(all()).rejects.toMatchObject({ code: 'LIMIT_EXCEEDED' });
  behaviour = answer([Buffer.concat([Buffer.of(1), message('x').subarray(1)])], ok);
  await expect(all()).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
  behaviour = answer([message('whole'), message('half').subarray(0, 7)], ok);
  await expect(all()).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
  behaviour = answer([message('x')], {});
  await expect(all()).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
  // The connection outlives it.
  behaviour = answer([message('fine')], ok);
  expect(await all()).toEqual(['fine']);
});

test('a daemon that goes away is unreachable, at once and from then on', async () => {
  behaviour = (stream) => { stream.respond({ ':status': 200 }); for (const session of sessions) session.destroy(); };
  await expect(all()).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
  await expect(all()).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
});

test('a call can be interrupted, before and while it waits', async () => {
  const controller = new AbortController();
  behaviour = (stream) => {
    stream.respond({ ':status': 200 });
    controller.abort();
  };
  await expect(connection.unary(call([], controller.signal))).rejects.toMatchObject({ code: 'INTERRUPTED' });
  await expect(connection.unary(call([], controller.signal))).rejects.toMatchObject({ code: 'INTERRUPTED' });
});

test('a socket that nobody or somebody else listens on is unreachable', async () => {
  await expect(GrpcConnection.open(join(folder, 'nobody'))).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
  const other: Server = createSocketServer((client) => { client.end('hello\n'); client.resume(); client.on('error', () => undefined); });
  other.listen(join(folder, 'other'));
  await once(other, 'listening');
  await expect(GrpcConnection.open(join(folder, 'other'))).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
  await new Promise((resolve) => other.close(resolve));
});
