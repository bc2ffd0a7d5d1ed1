import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { run } from '../../../bench/process.js';
import { openDocker } from '../../../src/applier/engines/docker/engine.js';
import type { Engine } from '../../../src/applier/engines/types.js';
import type { Store } from '../../../src/applier/store/types.js';
import { chainIds } from '../../../src/oci/index.js';
import { endDaemon, removeFolder } from './daemon.js';

/** A dockerd of the test's own: nothing of it is outside of its folder. */
export interface TestDocker {
  readonly socket: string;
  readonly root: string;
  readonly pid: number;
  /** Asks its API; rejects for an answer that is no success. Gives what it answered. */
  api(method: string, path: string): Promise<unknown>;
  /** Runs a container of an image, and gives what it printed. */
  runContainer(image: string, ...command: string[]): Promise<string>;
  /** Folder of the files of layer `layer` of an image with these layers. */
  layerFolder(diffIds: readonly string[], layer: number): Promise<string>;
  /** Opens it as an engine of the device whose store is given; the caller closes it. */
  engine(store: Store, socket?: string): Promise<Engine>;
  /** kill -9. */
  kill(): Promise<void>;
  /** Starts it again over the same folders. */
  start(): Promise<void>;
  /** Stops it and removes its folder. */
  close(): Promise<void>;
}

/** Starts one. Its images are in its folder, or in `dataRoot`, which stays when it is closed. */
export async function startDocker(options: { readonly dataRoot?: string } = {}): Promise<TestDocker> {
  // The path of a socket may have 107 bytes.
  const folder = await mkdtemp(join(tmpdir(), 'dkr-'));
  const daemon = new Daemon(folder, options.dataRoot ?? join(folder, 'root'));
  try {
    await daemon.start();
  } catch (error) {
    await daemon.close();
    throw error;
  }
  return daemon;
}

class Daemon implements TestDocker {
  #child: ChildProcess | null = null;

  constructor(private readonly folder: string, readonly root: string) {}

  get socket(): string {
    return join(this.folder, 'd.sock');
  }

  get pid(): number {
    return this.#child?.pid ?? -1;
  }

  async start(): Promise<void> {
    // A daemon that was killed leaves them, and its containerd, which goes with the next start.
    for (const left of ['pid', 'd.sock', 'exec/containerd/containerd.pid']) await rm(join(this.folder, left), { force: true });
    // Whatever this machine's docker is told is not for this one.
    await writeFile(join(this.folder, 'config.json'), '{}');
    const child = spawn('dockerd', [
      '--data-root', this.root, '--exec-root', join(this.folder, 'exec'), '-H', `unix://${this.socket}`, '-p', join(this.folder, 'pid'), '--config-file', join(this.folder, 'config.json'),
      '--bridge', 'none', '--iptables=false', '--ip6tables=false', '--exec-opt', 'native.cgroupdriver=cgroupfs', '--shutdown-timeout', '5',
    ], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => { said = (said + chunk.toString()).slice(-4000); });
    for (const endMs = Date.now() + 60_000; ;) {
      if (child.exitCode !== null || child.signalCode !== null || Date.now() > endMs) throw new Error(`dockerd did not start: ${said}`);
      if (await this.api('GET', '/_ping').then(() => true, () => false)) return;
      await pause(50);
    }
  }

  api(method: string, path: string): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const sent = request({ socketPath: this.socket, method, path, headers: { host: 'docker' } }, (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.on('error', reject);
        answer.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          if ((answer.statusCode ?? 500) >= 300) reject(new Error(`${method} ${path}: ${String(answer.statusCode)} ${text}`));
          else resolve(answer.headers['content-type']?.includes('json') === true ? JSON.parse(text) : text);
        });
      });
      sent.on('error', reject);
      sent.end();
    });
  }

  async runContainer(image: string, ...command: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await run(['docker', '-H', `unix://${this.socket}`, 'run', '--rm', '--network', 'none', image, ...command]);
    if (exitCode !== 0) throw new Error(`docker run ${image}: ${stderr}`);
    return stdout;
  }

  async layerFolder(diffIds: readonly string[], layer: number): Promise<string> {
    const chainId = chainIds(diffIds)[layer] ?? '';
    const id = await readFile(join(this.root, 'image/overlay2/layerdb/sha256', chainId.slice('sha256:'.length), 'cache-id'), 'utf8');
    return join(this.root, 'overlay2', id, 'diff');
  }

  engine(store: Store, socket = this.socket): Promise<Engine> {
    return openDocker({ settings: { address: socket }, fs: store.fs, onNote: () => undefined, signal: new AbortController().signal });
  }

  async kill(): Promise<void> {
    await this.#end('SIGKILL');
    await this.#endContainerd();
  }

  /** A daemon that was killed leaves its containerd; the next one would take it over, or not, as it happens to be. */
  async #endContainerd(): Promise<void> {
    const pid = Number(await readFile(join(this.folder, 'exec/containerd/containerd.pid'), 'utf8').catch(() => ''));
    const ours = pid > 1 && (await readFile(`/proc/${String(pid)}/cmdline`, 'latin1').catch(() => '')).includes(this.folder);
    if (!ours) return;
    process.kill(pid, 'SIGKILL');
    while (!(await readFile(`/proc/${String(pid)}/stat`, 'latin1').catch(() => ') Z')).includes(') Z')) {
      await pause(20);
    }
  }

  async #end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#child;
    this.#child = null;
    await endDaemon(child, signal);
  }

  async close(): Promise<void> {
    await this.#end('SIGTERM');
    await this.#endContainerd();
    await removeFolder(this.folder);
  }
}

/** A unix socket in front of another: what is sent through it is counted, and something can be done at a byte. */
export interface WatchedSocket {
  readonly path: string;
  /** Calls `act` once, when so many bytes were sent to the daemon from now on; what is sent after them waits until it has ended. */
  at(bytes: number, act: () => Promise<void>): void;
  /** Bytes sent to the daemon since the last call of `at`. */
  readonly sentBytes: number;
  close(): Promise<void>;
}

/** Makes one in `folder`. */
export async function watchSocket(folder: string, target: string): Promise<WatchedSocket> {
  const watched = new Watched(join(folder, 'watched.sock'), target);
  await watched.listen();
  return watched;
}

class Watched implements WatchedSocket {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #due: { readonly bytes: number; readonly act: () => Promise<void> } | null = null;
  #sent = 0;

  constructor(readonly path: string, private readonly target: string) {
    this.#server = createServer((client) => { this.#join(client); });
  }

  async listen(): Promise<void> {
    this.#server.listen(this.path);
    await once(this.#server, 'listening');
  }

  get sentBytes(): number {
    return this.#sent;
  }

  at(bytes: number, act: () => Promise<void>): void {
    this.#sent = 0;
    this.#due = { bytes, act };
  }

  #join(client: Socket): void {
    const daemon = connect(this.target);
    for (const [from, to] of [[client, daemon], [daemon, client]] as const) {
      this.#sockets.add(from);
      from.on('error', () => to.destroy());
      from.on('close', () => { this.#sockets.delete(from); to.destroy(); });
    }
    daemon.pipe(client);
    client.on('data', (chunk: Buffer) => {
      this.#sent += chunk.length;
      const due = this.#due;
      if (due === null || this.#sent < due.bytes) {
        if (!daemon.write(chunk)) { client.pause(); daemon.once('drain', () => client.resume()); }
        return;
      }
      this.#due = null;
      client.pause();
      due.act().then(() => { daemon.write(chunk); client.resume(); }, () => client.destroy());
    });
    client.on('end', () => daemon.end());
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
