import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../../bench/process.js';
import { openPodman } from '../../../src/applier/engines/podman/engine.js';
import type { Engine, EngineSettings } from '../../../src/applier/engines/types.js';
import type { Store } from '../../../src/applier/store/types.js';
import { hasTool } from '../tools.js';

/** What a test with podman wants besides it. */
export const podmanWanting = [...['podman', 'runc', 'cc'].filter((name) => !hasTool(name)), ...(process.geteuid?.() === 0 ? [] : ['root'])];

/** A store of podman's that is the test's own: nothing of it is outside of its folder. */
export interface TestPodman {
  readonly settings: EngineSettings;
  /** Where its images and layers are. */
  readonly graphRoot: string;
  /** Runs `podman` upon it; rejects unless it succeeds. Gives what it printed. */
  podman(...words: string[]): Promise<string>;
  /** Runs a container of an image, and gives what it printed. */
  runContainer(image: string, ...command: string[]): Promise<string>;
  /** Opens it as an engine of the device whose store is given; the caller closes it. */
  engine(store: Store): Promise<Engine>;
  close(): Promise<void>;
}

/** Makes one. */
export async function makePodman(): Promise<TestPodman> {
  const folder = await mkdtemp(join(tmpdir(), 'pod-'));
  const podman = new Podman(folder);
  await mkdir(podman.graphRoot);
  return podman;
}

class Podman implements TestPodman {
  constructor(private readonly folder: string) {}

  get graphRoot(): string {
    return join(this.folder, 'root');
  }

  get settings(): EngineSettings {
    return { root: this.graphRoot, runRoot: join(this.folder, 'run') };
  }

  async podman(...words: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await run(['podman', '--root', this.graphRoot, '--runroot', join(this.folder, 'run'), '--cgroup-manager', 'cgroupfs', '--runtime', await runtime(), ...words]);
    if (exitCode !== 0) throw new Error(`podman ${words.join(' ')}: ${stderr}`);
    return stdout;
  }

  runContainer(image: string, ...command: string[]): Promise<string> {
    return this.podman('run', '--rm', '--network', 'none', '--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1024:1024', '--pull', 'never', image, ...command);
  }

  engine(store: Store): Promise<Engine> {
    return openPodman({ settings: this.settings, fs: store.fs, onNote: () => undefined, signal: new AbortController().signal });
  }

  async close(): Promise<void> {
    for (const point of (await mountPoints()).filter((each) => each.startsWith(`${this.folder}/`)).reverse()) await run(['umount', '-l', point]);
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** crun, podman's own choice, cannot set up its cgroups on every kernel that the tests run on. */
async function runtime(): Promise<string> {
  for (const folder of ['/usr/sbin', '/usr/bin', '/usr/local/sbin', '/usr/local/bin']) {
    if ((await readdir(folder).catch((): string[] => [])).includes('runc')) return join(folder, 'runc');
  }
  return 'runc';
}

async function mountPoints(): Promise<string[]> {
  return (await readFile('/proc/self/mountinfo', 'latin1')).split('\n').map((line) => line.split(' ')[4] ?? '');
}
