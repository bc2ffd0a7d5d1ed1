import { afterAll, beforeAll, describe, expect, test as plainTest } from '@jest/globals';
import type { ChildProcess } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { program, projectRoot, run, runOk, type Outcome } from '../../bench/process.js';
import { startService, type Service } from '../../bench/services.js';
import { ask, json, referrersTarget, startTestServer, untilReady, type Answer } from '../support/delta-server.js';
import { startDockerRegistry } from '../support/docker-registry.js';
import { digestOf, makeImage, noise, type ImageFile, type MadeImage } from '../support/images.js';
import { testWithTools } from '../support/tools.js';
import { until } from '../support/until.js';

let folder: string;
/** Images whose delta takes a moment, and images whose delta takes several seconds (new noise is slow to code). */
let [old, target, slow]: MadeImage[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'whittle-e2e-server-'));
  const base = noise(2_000_000, 7);
  const changed = Buffer.from(base);
  for (let at = 100; at < changed.length; at += 50_000) changed[at]! ^= 0x55;
  const files = (content: Buffer): ImageFile[] => [{ path: 'bin/' }, { path: 'bin/app', content, mode: 0o755 }, { path: 'etc/conf', content: 'x'.repeat(5000) }];
  old = await makeImage(join(folder, 'app'), '1.0', [files(base)]);
  target = await makeImage(join(folder, 'app'), '1.1', [files(changed), [{ path: 'etc/new', content: 'new' }]], { compression: 'zstd' });
  slow = await makeImage(join(folder, 'app'), '2.0', [files(Buffer.concat([changed, noise(1_500_000, 9)]))], { compression: 'none' });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const source = (tag: string): string => `oci:${join(folder, 'app')}:${tag}`;
const compute = (...args: string[]): string[] => [...program('delta-server'), 'compute', ...args];

interface Report { readonly deltaBytes: number; readonly layerPullBytes: number; readonly computeMs: number; readonly applyMs: number; readonly peakRssBytes: number; readonly target: { readonly configDigest: string }; readonly delta: { readonly manifestDigest: string } }

/** Interrupts a computation so long after it has set itself up, which it has when its first temporary file is there. */
async function interrupt(child: ChildProcess, tmp: string, afterMs: number, signal: NodeJS.Signals): Promise<void> {
  let ended = false;
  child.once('close', () => { ended = true; });
  await until(async () => ended || (await readdir(tmp)).length > 0);
  await sleep(afterMs);
  child.kill(signal);
}

/** Exactly one line that says what was wrong and one that says what to do; no stack. */
function expectOneLineError(outcome: Outcome, exitCode: number, message: RegExp): void {
  expect(outcome.stderr).toMatch(/^delta-server: [^\n]+\n {2}[^\n]+\n$/);
  expect(outcome.stderr).toMatch(message);
  expect([outcome.exitCode, outcome.stdout]).toEqual([exitCode, '']);
}

describe('delta-server compute', () => {
  plainTest('says what a delta saves, writes the same bytes each time, and --json has the numbers', async () => {
    const files = [join(folder, 'a.delta'), join(folder, 'b.delta')];
    const reports = [];
    for (const [at, file] of files.entries()) {
      const { stdout } = await runOk(compute(source('1.0'), source('1.1'), '-o', file, '--json', '--threads', String(at + 1)));
      reports.push(JSON.parse(stdout) as Report);
    }
    expect((await readFile(files[0]!)).equals(await readFile(files[1]!))).toBe(true);
    const [report] = reports;
    expect(report!.layerPullBytes).toBe(target!.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0));
    expect(report!.deltaBytes).toBeGreaterThan(0);
    expect(report!.deltaBytes).toBeLessThan(report!.layerPullBytes / 100);
    expect(report!.target.configDigest).toBe(target!.configDigest);
    for (const value of [report!.computeMs, report!.applyMs, report!.peakRssBytes]) expect(value).toBeGreaterThanOrEqual(0);
    const table = await runOk(compute(source('1.0'), source('1.1'), '--profile', 'fast', '--quiet'));
    expect(table.stdout).toMatch(/layer pull +[\d,]+ bytes[^]*delta +[\d,]+ bytes.*x smaller[^]*peak memory/);
    expect(table.stderr).toBe('');
  });

  testWithTools('skopeo', 'docker-registry')('a .delta file goes through a registry and back unchanged', async () => {
    const file = join(folder, 'through.delta');
    const report = JSON.parse((await runOk(compute(source('1.0'), source('1.1'), '-o', file, '--json'))).stdout) as Report;
    const registry = await startDockerRegistry();
    try {
      await runOk(['skopeo', 'copy', '--dest-tls-verify=false', `oci-archive:${file}:delta`, `docker://${registry.host}/app:delta`]);
      await runOk(['skopeo', 'copy', '--src-tls-verify=false', `docker://${registry.host}/app:delta`, `oci-archive:${join(folder, 'back.delta')}:delta`]);
      const { stdout } = await runOk(['skopeo', 'inspect', '--raw', `oci-archive:${join(folder, 'back.delta')}:delta`]);
      expect(digestOf(stdout)).toBe(report.delta.manifestDigest);
    } finally {
      await registry.close();
    }
  });

  plainTest('Ctrl-C, an order to end or a lost terminal ends it with 130 and leaves nothing behind, wherever it comes', async () => {
    let stopped = 0;
    for (const [afterMs, signal] of [[0, 'SIGINT'], [300, 'SIGHUP'], [1200, 'SIGTERM']] as const) {
      const work = join(folder, `interrupted-${String(afterMs)}`);
      const tmp = join(work, 'tmp');
      await mkdir(tmp, { recursive: true });
      const outcome = await run(compute(source('1.0'), source('2.0'), '-o', join(work, 'x.delta')), {
        env: { TMPDIR: tmp },
        onStart: (child) => { interrupt(child, tmp, afterMs, signal).catch(() => child.kill('SIGKILL')); },
      });
      // A fast machine may be done before the last of the signals.
      if (outcome.exitCode !== 0) {
        stopped++;
        expect(outcome.exitCode).toBe(130);
        expect(outcome.stderr).toContain(`delta-server: stopped by ${signal}\n`);
      }
      expect([await readdir(work), await readdir(tmp)]).toEqual([outcome.exitCode === 0 ? ['tmp', 'x.delta'] : ['tmp'], []]);
    }
    expect(stopped).toBeGreaterThan(0);
  });

  plainTest.each([
    ['an unknown flag', ['compute', 'a', 'b', '--frob'], 2, /unknown option '--frob'/],
    ['a missing argument', ['compute', 'a'], 2, /missing required argument 'target'/],
    ['an unknown command', ['frob'], 2, /frob/],
    ['no command', [], 2, /no command/],
    ['too little memory', ['compute', 'oci:a', 'oci:b', '--memory', '1MiB'], 2, /--memory/],
    ['a size that is none', ['compute', 'oci:a', 'oci:b', '--memory', 'lots'], 2, /--memory: not a size/],
    ['a source of no kind', ['compute', 'floppy:a', 'oci:b'], 2, /not an image source/],
    ['a bad address', ['serve', '--images', 'oci:a', '--listen', 'nowhere'], 2, /--listen/],
    ['a layout that is not there', ['compute', 'oci:/nonexistent:1', 'oci:b:1'], 3, /nonexistent/],
    ['a page to standard output', ['explain', 'x.delta', '--html', '-'], 2, /--html -: standard output has the table/],
    ['an empty flag', ['serve', '--images', 'oci:a', '--root', ''], 2, /--root is empty/],
    ['an empty flag, of several', ['compute', 'oci:a', 'oci:b', '--output='], 2, /--output is empty/],
    ['a bad repository name', ['serve', '--images', 'Bad=oci:/nonexistent:1'], 2, /not a repository name/],
  ])('%s is one line and an exit code', async (_, args, exitCode, message) => {
    expectOneLineError(await run([...program('delta-server'), ...args], { env: { XDG_STATE_HOME: join(folder, 'state') } }), exitCode, message);
  });

  plainTest('too few open files to load the program are one line; with fewer still Node itself ends, and says what it likes', async () => {
    let seen = 0;
    for (let files = 18; files < 40; files++) {
      const outcome = await run(['sh', '-c', 'ulimit -n "$0"; exec "$@"', String(files), ...program('delta-server'), 'compute', 'oci:a', 'oci:b']);
      if (!outcome.stderr.startsWith('delta-server: too many open files')) continue;
      expectOneLineError(outcome, 1, /ulimit -n/);
      seen++;
    }
    expect(seen).toBeGreaterThan(0);
  });

  plainTest('unknown tags, wrong platforms and unwritable outputs are said too', async () => {
    expectOneLineError(await run(compute(source('9'), source('1.1'))), 3, /no tag 9; it has 1\.0, 1\.1, 2\.0/);
    expectOneLineError(await run(compute(source('1.0'), source('1.1'), '--platform', 'linux/arm64')), 3, /linux\/arm64/);
    // Said before anything is read, not after minutes of computing.
    expectOneLineError(await run(compute(source('none'), source('none'), '--quiet', '-o', join(folder, 'no/such/x.delta'))), 2, /folder does not exist/);
    expectOneLineError(await run(compute(source('none'), source('none'), '--quiet', '-o', folder)), 2, /is a directory/);
  });

  plainTest('help has examples, the version is printed, and neither is an error', async () => {
    for (const command of ['compute', 'serve']) {
      const { stdout, exitCode } = await run([...program('delta-server'), command, '--help']);
      expect([exitCode, stdout.includes('Examples:')]).toEqual([0, true]);
    }
    expect((await runOk([...program('delta-server'), '--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

/** `delta-server serve` of the three images, as a process of its own. */
async function startServe(root: string): Promise<{ service: Service; host: string; url: string }> {
  const service = await startService([source('1.0'), source('1.1'), source('2.0')], root, 'small');
  const host = `127.0.0.1:${String(service.port)}`;
  return { service, host, url: `http://${host}` };
}

/**
 * The longest time that this process's own work held up its event loop. A turn that comes late although the process used no
 * processor time was kept waiting by others on the machine, which says nothing about us.
 */
class LoopWatch {
  longestMs = 0;
  turns = 0;
  #lastMs = performance.now();
  #lastCpu = process.cpuUsage();
  readonly #timer = setInterval(() => { this.#turn(); }, 5);

  #turn(): void {
    const lateMs = performance.now() - this.#lastMs;
    const { user, system } = process.cpuUsage(this.#lastCpu);
    this.longestMs = Math.max(this.longestMs, Math.min(lateMs, (user + system) / 1000));
    this.turns++;
    this.#lastMs = performance.now();
    this.#lastCpu = process.cpuUsage();
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/** Fetches all of a delta and checks every digest. */
async function expectWholeDelta(url: string, listed: Answer): Promise<string> {
  expect([listed.status, listed.headers['whittle-delta'], listed.headers['whittle-problem']]).toEqual([200, 'ready', undefined]);
  const [entry] = (json(listed) as { manifests: { digest: string }[] }).manifests;
  const manifest = await ask(url, `/v2/app/manifests/${entry!.digest}`);
  expect(digestOf(manifest.body)).toBe(entry!.digest);
  for (const { digest } of (json(manifest) as { layers: { digest: string }[] }).layers) expect(digestOf((await ask(url, `/v2/app/blobs/${digest}`)).body)).toBe(digest);
  return entry!.digest;
}

/** The commands that `serve` says to try, when it listens there. */
async function suggested(listen: string): Promise<string[]> {
  const command = [...program('delta-server'), 'serve', '--images', source('1.0'), source('1.1'), '--root', join(folder, 'root-suggested'), '--listen', listen];
  const { stderr } = await run(command, {
    onStart: (child) => {
      let said = '';
      child.stderr?.on('data', (chunk: Buffer) => {
        said += chunk.toString();
        if (/pull --delta .*\n/.test(said)) child.kill();
      });
    },
  });
  return [...stderr.matchAll(/^ {2}(device pull .*)$/gm)].map(([, line]) => (line ?? '').replace(/\S+:\d+\//, 'HOST/'));
}

describe('delta-server compute -o -', () => {
  const words = (): string => compute(source('1.0'), source('1.1'), '-o', '-').map((word) => `'${word}'`).join(' ');
  const shell = (command: string): Promise<Outcome> => run(['sh', '-c', command], { cwd: folder });

  plainTest('gives the file that -o FILE gives, and the numbers on the other stream', async () => {
    await runOk(compute(source('1.0'), source('1.1'), '-o', join(folder, 'named.delta')));
    const { exitCode, stdout, stderr } = await shell(`${words()} > piped.delta`);
    expect([exitCode, stdout]).toEqual([0, '']);
    expect(stderr).toMatch(/^delta {8}[\d,]+ bytes/m);
    expect((await readFile(join(folder, 'piped.delta'))).equals(await readFile(join(folder, 'named.delta')))).toBe(true);
    expect(await readdir(folder)).not.toContain('-');
    expect((await shell(`${words()} --quiet | cat > quiet.delta`)).stderr).toBe('');
    expect((await readFile(join(folder, 'quiet.delta'))).equals(await readFile(join(folder, 'named.delta')))).toBe(true);
  });

  plainTest('a reader that leaves, a full disk and --json are told in one line', async () => {
    // The reader is gone before the delta is there.
    const left = await shell(`{ ${words()} --quiet; echo $? >&2; } | true`);
    expect(left.stderr).toMatch(/^delta-server: standard output: cannot be written \(EPIPE\)\n {2}[^\n]+\n7\n$/);
    expectOneLineError(await shell(`${words()} --quiet > /dev/full`), 7, /standard output: no space left/);
    expect((await shell(`${words()} --json`)).stdout).toMatch(/^\{"error":\{"code":"USAGE"/);
  });
});

describe('delta-server serve', () => {
  plainTest('what it says to try works on the device: where that is another machine, plain http has to be asked for', async () => {
    expect(await suggested('127.0.0.1:0')).toEqual(['device pull HOST/app:1.0', 'device pull --delta HOST/app:1.1']);
    expect(await suggested('0.0.0.0:0')).toEqual(['device pull HOST/app:1.0 --plain-http', 'device pull --delta HOST/app:1.1 --plain-http']);
  });

  testWithTools('skopeo')('skopeo inspects and copies from it unmodified, every compression', async () => {
    const { service, host } = await startServe(join(folder, 'root-skopeo'));
    try {
      for (const image of [old!, target!, slow!]) {
        const inspected = JSON.parse((await runOk(['skopeo', 'inspect', '--tls-verify=false', `docker://${host}/app:${image.tag}`])).stdout) as { Digest: string; RepoTags: string[] };
        expect([inspected.Digest, inspected.RepoTags]).toEqual([image.manifestDigest, ['1.0', '1.1', '2.0']]);
        await runOk(['skopeo', 'copy', '--src-tls-verify=false', `docker://${host}/app@${image.manifestDigest}`, `dir:${join(folder, `copied-${image.tag}`)}`]);
        for (const layer of image.layers) expect(digestOf(await readFile(join(folder, `copied-${image.tag}`, layer.digest.slice(7))))).toBe(layer.digest);
      }
    } finally {
      expect(await service.stop()).toBe(0);
    }
  });

  testWithTools('skopeo', 'docker-registry')('serves what a registry and archives hold, in Docker media types too, and keeps its copies', async () => {
    const registry = await startDockerRegistry();
    try {
      await makeImage(join(folder, 'conv'), 'v1', [[{ path: 'x', content: 'one' }]]);
      await runOk(['skopeo', 'copy', '--dest-tls-verify=false', '--format', 'v2s2', `oci:${join(folder, 'conv')}:v1`, `docker://${registry.host}/team/app:docker`]);
      await runOk(['skopeo', 'copy', `oci:${join(folder, 'conv')}:v1`, `docker-archive:${join(folder, 'saved.tar')}:team/saved:v1`]);
      await runOk(['skopeo', 'copy', `oci:${join(folder, 'conv')}:v1`, `oci-archive:${join(folder, 'arch.tar')}:v1`]);
      const images = [`docker://${registry.host}/team/app:docker`, `docker-archive:${join(folder, 'saved.tar')}:team/saved:v1`, `renamed/arch=oci-archive:${join(folder, 'arch.tar')}:v1`];
      for (let times = 0; times < 2; times++) {
        const { server, url } = await startTestServer({ images, root: join(folder, 'root-mixed'), run: () => Promise.reject(new Error('not asked')) });
        const host = url.slice('http://'.length);
        expect(json(await ask(url, '/v2/_catalog'))).toEqual({ repositories: ['renamed/arch', 'saved', 'team/app'] });
        expect((await ask(url, '/v2/team/app/manifests/docker')).headers['content-type']).toBe('application/vnd.docker.distribution.manifest.v2+json');
        for (const name of ['team/app:docker', 'saved:v1', 'renamed/arch:v1']) {
          await runOk(['skopeo', 'copy', '--src-tls-verify=false', `docker://${host}/${name}`, `oci:${join(folder, `mixed-${String(times)}`)}:${name.replace(/\W/g, '-')}`]);
        }
        await server.close();
      }
    } finally {
      await registry.close();
    }
  });

  plainTest('killed in the middle of a computation, it comes back with nothing partial and makes the delta again', async () => {
    const root = join(folder, 'root-killed');
    const asked = referrersTarget('app', slow!.manifestDigest, old!.configDigest);
    let { service, url } = await startServe(root);
    await expectWholeDelta(url, await untilReady(url, referrersTarget('app', target!.manifestDigest, old!.configDigest)));
    expect((await ask(url, asked)).status).toBe(202);
    await until(async () => (await readdir(join(root, 'tmp'))).length === 1);
    expect(await service.stop('SIGKILL')).toBeNull();
    expect((await readdir(join(root, 'tmp'))).length).toBe(1);
    ({ service, url } = await startServe(root));
    try {
      expect(await readdir(join(root, 'tmp'))).toEqual([]);
      await expectWholeDelta(url, await ask(url, referrersTarget('app', target!.manifestDigest, old!.configDigest)));
      const plain = await ask(url, `/v2/app/referrers/${slow!.manifestDigest}`);
      expect(json(plain)).toMatchObject({ manifests: [] });
      await expectWholeDelta(url, await untilReady(url, asked));
    } finally {
      await service.stop();
    }
  });

  plainTest('stops in order in the middle of a computation, and leaves no temporary file', async () => {
    const root = join(folder, 'root-stopped');
    const { service, url } = await startServe(root);
    expect((await ask(url, referrersTarget('app', slow!.manifestDigest, old!.configDigest))).status).toBe(202);
    await until(async () => (await readdir(join(root, 'tmp'))).length === 1);
    expect(await service.stop('SIGINT')).toBe(0);
    expect(await readdir(join(root, 'tmp'))).toEqual([]);
  });

  plainTest('the event loop is never held up while deltas are computed, and many askers share one computation', async () => {
    const { server, url, events } = await startTestServer({
      images: [source('1.0'), source('1.1'), source('2.0')], root: join(folder, 'root-loop'), profile: 'small', workerPath: join(projectRoot, 'dist/server/worker.js'),
    });
    const watch = new LoopWatch();
    try {
      const asked = referrersTarget('app', slow!.manifestDigest, old!.configDigest);
      await Promise.all(Array.from({ length: 50 }, () => ask(url, asked)));
      await expectWholeDelta(url, await untilReady(url, asked));
    } finally {
      watch.stop();
      await server.close();
    }
    expect(events.filter((event) => event.event === 'started')).toHaveLength(1);
    expect(watch.longestMs).toBeLessThan(50);
    expect(watch.turns).toBeGreaterThan(20);
  });
});
