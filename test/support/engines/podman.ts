import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hasProgram, run } from '../../../bench/process.js';
import { openPodman } from '../../../src/applier/engines/podman/engine.js';
import type { Engine, EngineSettings } from '../../../src/applier/engines/types.js';
import type { Store } from '../../../src/applier/store/types.js';

/** What a test with podman wants besides it. */
export const podmanWanting = [...['podman', 'runc', 'cc'].filter((name) => !hasProgram(name)), ...(process.geteuid?.() === 0 ? [] : ['root'])];

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

/** Makes one. Its images are in its folder, or in `graphRoot` (with `runRoot` for what it keeps of a running machine), which stay when it is closed; `environment` is added to what podman is run with. */
export async function makePodman(options: { readonly graphRoot?: string; readonly runRoot?: string; readonly environment?: Readonly<Record<string, string>> } = {}): Promise<TestPodman> {
  const folder = await mkdtemp(join(tmpdir(), 'pod-'));
  const podman = new Podman(folder, options.graphRoot ?? join(folder, 'root'), options.runRoot ?? join(folder, 'run'), options.environment ?? {});
  await mkdir(podman.graphRoot, { recursive: true });
  return podman;
}

class Podman implements TestPodman {
  constructor(private readonly folder: string, readonly graphRoot: string, private readonly runRoot: string, private readonly environment: Readonly<Record<string, string>>) {}

  get settings(): EngineSettings {
    return { root: this.graphRoot, runRoot: this.runRoot };
  }

  async podman(...words: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.#run([], await runc(), words);
    if (exitCode !== 0) throw new Error(`podman ${words.join(' ')}: ${stderr}`);
    return stdout;
  }

  #run(before: readonly string[], runtime: string, words: readonly string[]): ReturnType<typeof run> {
    return run([...before, 'podman', '--root', this.graphRoot, '--runroot', this.runRoot, '--cgroup-manager', 'cgroupfs', '--runtime', runtime, ...words], { env: this.environment });
  }

  async runContainer(image: string, ...command: string[]): Promise<string> {
    const words = ['run', '--rm', '--network', 'none', '--ulimit', 'nofile=1024:1024', '--ulimit', 'nproc=1024:1024', '--pull', 'never', image, ...command];
    if (crun !== 'refused') {
      const { exitCode, stdout, stderr } = await this.#run(oneCgroupVersion, 'crun', words);
      if (exitCode === 0) {
        if (crun === 'untried') console.log('podman runs containers with crun');
        crun = 'works';
        return stdout;
      }
      if (crun === 'works') throw new Error(`podman ${words.join(' ')}: ${stderr}`);
      crun = 'refused';
      console.log(`podman runs containers with runc, for with crun: ${stderr.trim()}`);
    }
    return this.podman(...words);
  }

  engine(store: Store): Promise<Engine> {
    return openPodman({ settings: this.settings, fs: store.fs, onNote: () => undefined, signal: new AbortController().signal });
  }

  async close(): Promise<void> {
    for (const point of (await mountPoints()).filter((each) => each.startsWith(`${this.folder}/`)).reverse()) await run(['umount', '-l', point]);
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Whether crun, podman's own choice, runs containers on this machine: told by the first that it is asked to run. */
let crun: 'untried' | 'works' | 'refused' = hasProgram('crun') && hasProgram('unshare') ? 'untried' : 'refused';

/** crun refuses a machine with both versions of cgroups. In a mount namespace where the second is not to be seen, it takes the first. */
const oneCgroupVersion = ['unshare', '--mount', 'sh', '-c', 'if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; exec "$@"', 'sh'];

async function runc(): Promise<string> {
  for (const folder of ['/usr/sbin', '/usr/bin', '/usr/local/sbin', '/usr/local/bin']) {
    if ((await readdir(folder).catch((): string[] => [])).includes('runc')) return join(folder, 'runc');
  }
  return 'runc';
}

async function mountPoints(): Promise<string[]> {
  return (await readFile('/proc/self/mountinfo', 'latin1')).split('\n').map((line) => line.split(' ')[4] ?? '');
}
