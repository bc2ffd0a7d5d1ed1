import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { run } from '../../../bench/process.js';
import { openContainerd } from '../../../src/applier/engines/containerd/engine.js';
import type { Engine } from '../../../src/applier/engines/types.js';
import type { Store } from '../../../src/applier/store/types.js';
import { endDaemon, removeFolder } from './daemon.js';

/** A containerd of the test's own: nothing of it is outside of its folder. */
export interface TestContainerd {
  readonly socket: string;
  /** Where it keeps content and snapshots. */
  readonly root: string;
  readonly pid: number;
  /** Runs `ctr` against it; rejects unless it succeeds. Gives what it printed. */
  ctr(...words: string[]): Promise<string>;
  /** Runs a container of an image, and gives what it printed. */
  runContainer(namespace: string, image: string, id: string, ...command: string[]): Promise<string>;
  /** Makes it collect its garbage, and waits for that: nothing else happens in this process meanwhile. */
  collect(namespace: string): void;
  /** Opens it as an engine of the device whose store is given; the caller closes it. `address`: of a socket before it. */
  engine(store: Store, namespace?: string, address?: string): Promise<Engine>;
  /** kill -9; containers' shims are not touched. */
  kill(): Promise<void>;
  /** Starts it again over the same folders. */
  start(): Promise<void>;
  /** Stops it and removes its folder. */
  close(): Promise<void>;
}

/** Starts one. `cri`: with the plugin that Kubernetes talks to. */
export async function startContainerd({ cri = false } = {}): Promise<TestContainerd> {
  // The path of a socket may have 107 bytes.
  const folder = await mkdtemp(join(tmpdir(), 'ctd-'));
  const daemon = new Daemon(folder, cri);
  await daemon.start();
  return daemon;
}

class Daemon implements TestContainerd {
  #child: ChildProcess | null = null;

  constructor(private readonly folder: string, private readonly cri: boolean) {}

  get socket(): string {
    return join(this.folder, 'd.sock');
  }

  get root(): string {
    return join(this.folder, 'root');
  }

  get pid(): number {
    return this.#child?.pid ?? -1;
  }

  async start(): Promise<void> {
    const config = join(this.folder, 'config.toml');
    await mkdir(join(this.folder, 'opt'), { recursive: true });
    await writeFile(config, [
      'version = 2', `root = ${JSON.stringify(this.root)}`, `state = ${JSON.stringify(join(this.folder, 'state'))}`, 'oom_score = 0',
      `disabled_plugins = [${this.cri ? '' : '"io.containerd.grpc.v1.cri", '}"io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]`,
      '[grpc]', `address = ${JSON.stringify(this.socket)}`,
      '[plugins."io.containerd.internal.v1.opt"]', `path = ${JSON.stringify(join(this.folder, 'opt'))}`, '',
    ].join('\n'));
    await rm(this.socket, { force: true });
    const child = spawn('containerd', ['-c', config], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => { said = (said + chunk.toString()).slice(-4000); });
    for (const endMs = Date.now() + 30_000; ;) {
      if (child.exitCode !== null || Date.now() > endMs) throw new Error(`containerd did not start: ${said}`);
      if (existsSync(this.socket) && (await run(['ctr', '-a', this.socket, 'version'])).exitCode === 0) return;
      await pause(50);
    }
  }

  async ctr(...words: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await run(['ctr', '-a', this.socket, ...words]);
    if (exitCode !== 0) throw new Error(`ctr ${words.join(' ')}: ${stderr}`);
    return stdout;
  }

  async runContainer(namespace: string, image: string, id: string, ...command: string[]): Promise<string> {
    // Not through ctr's own pipes: of a container that ends at once it may close them before it has read them.
    const log = join(this.folder, `${id}.log`);
    try {
      await this.ctr('-n', namespace, 'run', '--rm', '--log-uri', `file://${log}`, '--runc-root', join(this.folder, 'runc'), image, id, ...command);
      return await readFile(log, 'utf8');
    } finally {
      await rm(log, { force: true });
    }
  }

  collect(namespace: string): void {
    for (const words of [['create', '--id', 'now'], ['delete', '--sync', 'now']]) execFileSync('ctr', ['-a', this.socket, '-n', namespace, 'leases', ...words], { stdio: 'ignore' });
  }

  engine(store: Store, namespace?: string, address = this.socket): Promise<Engine> {
    return openContainerd({ settings: { address, namespace }, fs: store.fs, onNote: () => undefined, signal: new AbortController().signal });
  }

  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  async #end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#child;
    this.#child = null;
    await endDaemon(child, signal);
  }

  async close(): Promise<void> {
    await this.#end('SIGTERM');
    await removeFolder(this.folder);
  }
}
