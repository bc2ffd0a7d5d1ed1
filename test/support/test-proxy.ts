import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { sendJson } from './scripted-server.js';

/** A key and a certificate for a name (`DNS:registry.test`), as PEM; null where there is no openssl to make them. */
export async function selfSigned(name: string): Promise<{ key: string; cert: string } | null> {
  const dir = await mkdtemp(join(tmpdir(), 'whittle-tls-'));
  try {
    await promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=test', '-addext', `subjectAltName=${name}`, '-keyout', join(dir, 'key'), '-out', join(dir, 'cert')]);
    return { key: await readFile(join(dir, 'key'), 'utf8'), cert: await readFile(join(dir, 'cert'), 'utf8') };
  } catch {
    return null;
  } finally {
    await rm(dir, { recursive: true });
  }
}

/** A proxy that leads every name to one server on loopback (`to`: `127.0.0.1:port`), and answers itself what is asked of it in plain http. */
export class TestProxy {
  /** What was asked of it: method and place. */
  readonly asked: string[] = [];
  /** What it answers instead of doing anything. */
  refuse: number | null = null;
  /** `user:password` that it wants. */
  login: string | undefined;
  readonly #server: Server;

  constructor(private readonly to: () => string) {
    this.#server = createServer((request, response) => {
      this.#note(request);
      if (this.#refusal(request) !== null) response.writeHead(this.#refusal(request) ?? 0).end();
      else sendJson(response, 200, { tags: [`by proxy for ${request.headers.host ?? ''}`] });
    });
    this.#server.on('connect', (request: IncomingMessage, socket) => {
      this.#note(request);
      const status = this.#refusal(request);
      if (status !== null) {
        socket.end(`HTTP/1.1 ${String(status)} No\r\n\r\n`);
        return;
      }
      const [host, port] = this.to().split(':');
      const onward = connect(Number(port), host, () => {
        socket.write('HTTP/1.1 200 Connected\r\n\r\n');
        socket.pipe(onward).pipe(socket);
      });
      for (const each of [onward, socket]) each.on('error', () => { onward.destroy(); socket.destroy(); });
    });
  }

  #note(request: IncomingMessage): void {
    this.asked.push(`${request.method ?? ''} ${request.url ?? ''}`);
  }

  #refusal(request: IncomingMessage): number | null {
    return this.refuse ?? (this.login !== undefined && request.headers['proxy-authorization'] !== `Basic ${Buffer.from(this.login).toString('base64')}` ? 407 : null);
  }

  /** Starts it; returns where it listens, `127.0.0.1:port`. */
  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `127.0.0.1:${String((this.#server.address() as AddressInfo).port)}`;
  }

  /** Stops it, tunnels too. */
  async close(): Promise<void> {
    await new Promise((resolve) => {
      this.#server.close(resolve);
      this.#server.closeAllConnections();
    });
  }
}
