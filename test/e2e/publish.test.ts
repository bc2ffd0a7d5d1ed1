import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { program, projectRoot, run, runOk, type Outcome } from '../../bench/process.js';
import { startService } from '../../bench/services.js';
import { openStore } from '../../src/applier/store/open.js';
import { deltaFormatVersion } from '../../src/delta/index.js';
import { mediaTypes } from '../../src/oci/index.js';
import { pushBundle } from '../../src/server/publish/push-bundle.js';
import { startDockerRegistry } from '../support/docker-registry.js';
import { startOciRegistry, type OciRegistry } from '../support/oci-registry.js';
import { digestOf, makeImage } from '../support/images.js';
import { madeUpBundle, makeVersions, pushMade, realBundle, remoteAt, type Versions } from '../support/publish.js';
import { stateOf } from '../support/pull-world.js';
import { testWithTools } from '../support/tools.js';

let versions: Versions;
let scratch: string;
beforeAll(async () => {
  versions = await makeVersions(3, 40_000);
  scratch = await mkdtemp(join(tmpdir(), 'whittle-publish-'));
});
afterAll(async () => {
  await versions.close();
  await rm(scratch, { recursive: true, force: true, maxRetries: 5 });
});

const server = (...args: string[]): Promise<Outcome> => run([...program('delta-server'), ...args]);
const device = (root: string, ...args: string[]): Promise<Outcome> => run([...program('device'), ...args, '--root', root]);
const source = (tag: string): string => `oci:${versions.layout}:${tag}`;

interface Report {
  readonly deltas: readonly { readonly basis: string; readonly result: string; readonly deltaBytes: number | null; readonly layerPullBytes: number | null; readonly replaced: readonly string[]; readonly broken: readonly { readonly digest: string; readonly problem: string }[] }[];
}

function report(outcome: Outcome): Report['deltas'] {
  expect(outcome).toMatchObject({ exitCode: 0 });
  return (JSON.parse(outcome.stdout) as Report).deltas;
}

async function pushAll(host: string): Promise<void> {
  const to = remoteAt(host, 'app');
  for (const image of versions.images) await pushMade(to, image);
  await to.client.close();
}

describe('publish, deltas, prune', () => {
  let registry: OciRegistry;
  let image: string;
  beforeEach(async () => {
    registry = await startOciRegistry();
    image = `${registry.host}/app`;
    await pushAll(registry.host);
  });
  afterEach(async () => {
    await registry.close();
  });

  test('old versions are chosen by their tags; what is there already is left; a plan changes nothing', async () => {
    const setUp = registry.requests.length;
    const planned = report(await server('publish', `docker://${image}:v3`, '--basis-tags', 'v*', '--dry-run', '--json'));
    expect(planned.map(({ basis, result }) => [basis, result])).toEqual([[`docker://${image}:v2`, 'planned'], [`docker://${image}:v1`, 'planned']]);
    expect(registry.requests.slice(setUp).map((each) => each.method).filter((method) => method !== 'GET' && method !== 'HEAD')).toEqual([]);
    expect(report(await server('publish', `docker://${image}:v3`, '--last', '1', '--profile', 'fast', '--json'))).toMatchObject([{ basis: `docker://${image}:v2`, result: 'published' }]);
    const more = report(await server('publish', source('v1'), source('v2'), source('v3'), '--to', `docker://${image}`, '--profile', 'fast', '--jobs', '2', '--json'));
    expect(more.map(({ basis, result }) => [basis, result])).toEqual([[source('v2'), 'exists'], [source('v1'), 'published']]);
    const table = await server('deltas', `docker://${image}:v3`);
    expect(table.stdout).toMatch(/^BASIS +IMAGE +DELTA +LAYERS +SAVING/);
    expect(table.stdout.split('\n').slice(1, 3).map((line) => line.split(/ +/)[0]).sort()).toEqual(['v1', 'v2']);
    registry.repository('app').manifests.delete(versions.images[0]?.manifestDigest ?? '');
    expect((await server('prune', `docker://${image}`, '--dry-run')).stdout).toContain('1 of 2 deltas would be removed');
    expect((await server('prune', `docker://${image}`)).stdout).toContain('1 of 2 deltas removed');
  });

  test('a chain of what was published step by step lands on the device, planned to the byte', async () => {
    for (const [from, into] of [['v1', 'v2'], ['v2', 'v3']] as const) report(await server('publish', source(from), source(into), '--to', `docker://${image}`, '--profile', 'fast', '--json'));
    const root = join(scratch, 'chain');
    await device(root, 'pull', `${image}:v1`);
    const plan = await device(root, 'pull', '--delta', `${image}:v3`, '--dry-run');
    expect(plan.stderr).toMatch(/a chain of 2 deltas from image [0-9a-f]{12}: [\d.]+ kB to download; the layers would be/);
    expect(plan.stderr).toMatch(/^ {2}delta [0-9a-f]{12} -> [0-9a-f]{12} +[\d,]+ bytes$/m);
    const plannedBytes = Number(/^ {2}with lists and manifests +([\d,]+) bytes received$/m.exec(plan.stderr)?.[1]?.replaceAll(',', ''));
    const received = async (maxBytes: number): Promise<[number | null, number]> => {
      const asked = registry.requests.length;
      const { exitCode } = await device(root, 'pull', '--delta', `${image}:v3`, '--max-bytes', String(maxBytes));
      return [exitCode, registry.requests.slice(asked).reduce((sum, { sentBytes }) => sum + sentBytes, 0)];
    };
    const [refused, spentBytes] = await received(plannedBytes - 1);
    expect(refused).toBe(4);
    expect(spentBytes).toBeLessThan(plannedBytes / 2);
    expect(await received(plannedBytes)).toEqual([0, plannedBytes]);
    expect(await stateOf(root)).toMatchObject({ damaged: 0, images: { 'app:v3': versions.images[2]?.configDigest } });
    expect((await device(root, 'images', '--json')).stdout).not.toContain(versions.images[1]?.configDigest ?? '?');
  });

  test.each([['fetches what it needs', /^GET .*\/blobs\//], ['uploads', /^PUT .*\/blobs\/uploads\//]])('Ctrl-C while it %s ends it: no file and no upload is left, and the next run does the rest', async (_what, request) => {
    let interrupt: (() => void) | null = null;
    const slow = await startOciRegistry({
      intercept: ({ method, url }) => {
        if (interrupt === null || !request.test(`${method} ${url}`)) return false;
        interrupt();
        // It is never answered.
        return true;
      },
    });
    await pushAll(slow.host);
    const temporary = join(scratch, `temporary-${slow.host}`);
    await mkdir(temporary);
    const publish = [...program('delta-server'), 'publish', `docker://${slow.host}/app:v3`, '--last', '2', '--jobs', '2', '--profile', 'fast', '--json'];
    const stopped = await run(publish, { env: { TMPDIR: temporary }, onStart: (child) => { interrupt = () => child.kill('SIGINT'); } });
    expect(stopped).toMatchObject({ exitCode: 130 });
    expect(JSON.parse(stopped.stdout)).toMatchObject({ error: { code: 'INTERRUPTED' } });
    expect(await readdir(temporary)).toEqual([]);
    expect(slow.repository('app').uploads.size).toBe(0);
    interrupt = null;
    expect(report(await run(publish)).map(({ result }) => result)).toEqual(['published', 'published']);
    await slow.close();
  });

  test('killed again and again within a chain, each run goes on, and no image between is ever a name', async () => {
    for (const [from, into] of [['v1', 'v2'], ['v2', 'v3']] as const) report(await server('publish', source(from), source(into), '--to', `docker://${image}`, '--profile', 'fast', '--json'));
    const root = join(scratch, 'killed');
    await device(root, 'pull', `${image}:v1`);
    const [file = '', ...args] = program('device');
    let ended: number | null = null;
    let runs = 0;
    for (; runs < 12 && ended === null; runs++) {
      // Killed at the first bytes, then later and later into the download.
      const child = spawn(file, [...args, 'pull', `${image}:v3`, '--root', root, '--json', '--limit-rate', '60kB'], { stdio: ['ignore', 'pipe', 'ignore'] });
      let lines = 0;
      child.stdout.on('data', (chunk: Buffer) => {
        lines += chunk.toString().split('\n').filter((line) => line.includes('"progress"')).length;
        if (lines > runs) child.kill('SIGKILL');
      });
      ended = await new Promise<number | null>((resolve) => child.once('close', (code) => { resolve(code); }));
      const { images, damaged } = await stateOf(root);
      expect(damaged).toBe(0);
      expect(Object.keys(images)).toEqual(ended === null ? ['app:v1'] : ['app:v1', 'app:v3']);
    }
    expect(ended).toBe(0);
    expect(runs).toBeGreaterThan(2);
    const store = await openStore(root);
    expect((await store.images()).map((each) => each.configDigest).sort()).toEqual([versions.images[0]?.configDigest, versions.images[2]?.configDigest].sort());
    await store.close();
  });

  test('a delta of another format version is for other devices: it is told from one that fits, not used, and left in its place', async () => {
    const [old, target] = [versions.images[0], versions.images[1]];
    if (old === undefined || target === undefined) throw new Error('no versions');
    const to = remoteAt(registry.host, 'app');
    const subject = { mediaType: mediaTypes.ociManifest, digest: target.manifestDigest, size: target.manifest.length };
    const earlier = madeUpBundle({ basisConfig: old.configDigest, basisManifest: old.manifestDigest, targetConfig: target.configDigest, subject, dataBytes: 100, formatVersion: deltaFormatVersion - 1 });
    await pushBundle(to, earlier);
    const roots = [join(scratch, 'format-before'), join(scratch, 'format-after')] as const;
    for (const root of roots) await device(root, 'pull', `${image}:v1`);
    const before = await device(roots[0], 'pull', '--delta', `${image}:v2`);
    expect(before).toMatchObject({ exitCode: 0 });
    expect(before.stderr).toContain(`the delta has format version ${String(deltaFormatVersion - 1)}, this program reads version ${String(deltaFormatVersion)}`);
    expect((await server('deltas', `docker://${image}:v2`)).stdout).toContain(`(format ${String(deltaFormatVersion - 1)})`);

    expect(report(await server('publish', source('v1'), source('v2'), '--to', `docker://${image}`, '--profile', 'fast', '--json'))).toMatchObject([{ result: 'published', replaced: [] }]);
    const after = await device(roots[1], 'pull', '--delta', `${image}:v2`, '--json');
    expect(JSON.parse(after.stdout.trim().split('\n').at(-1) ?? '')).toMatchObject({ event: 'committed', way: 'delta' });
    const listed = await server('deltas', `docker://${image}:v2`, '--json');
    expect((JSON.parse(listed.stdout) as { deltas: { formatVersion: number }[] }).deltas.map((each) => each.formatVersion).sort((a, b) => a - b)).toEqual([deltaFormatVersion - 1, deltaFormatVersion]);
    await to.client.close();
  });

  test('what stands there is published only if it can be what it says; anything else is named and replaced', async () => {
    const [old, target, third] = versions.images;
    if (old === undefined || target === undefined || third === undefined) throw new Error('no versions');
    const to = remoteAt(registry.host, 'app');
    const again = (): Promise<Outcome> => server('publish', source('v1'), source('v2'), '--to', `docker://${image}`, '--profile', 'fast', '--json');
    const isWhole = async (): Promise<void> => { expect(report(await again())).toMatchObject([{ result: 'exists', broken: [] }]); };
    // Noise that says that it is the delta.
    const subject = { mediaType: mediaTypes.ociManifest, digest: target.manifestDigest, size: target.manifest.length };
    const forged = madeUpBundle({ basisConfig: old.configDigest, basisManifest: old.manifestDigest, targetConfig: target.configDigest, subject, dataBytes: 100 });
    await pushBundle(to, forged);
    const replaced = report(await again());
    expect(replaced).toMatchObject([{ result: 'published', replaced: [forged.descriptor.digest], broken: [{ digest: forged.descriptor.digest, problem: expect.stringContaining('delta index') }] }]);
    await isWhole();
    // A true delta, from another image than it says.
    const other = await realBundle(third, target);
    const manifest = Buffer.from(other.manifest.toString().replaceAll(third.configDigest, old.configDigest));
    const lying = { ...other, manifest, descriptor: { ...other.descriptor, digest: digestOf(manifest), size: manifest.length, annotations: { ...other.descriptor.annotations, 'dev.whittle.basis.config': old.configDigest } } };
    await pushBundle(to, lying);
    const beside = await server('publish', source('v1'), source('v2'), '--to', `docker://${image}`);
    expect(beside.stderr + beside.stdout).toContain('that is published is of no use: its index is of another basis than its manifest says');
    await other.close();
    // Blobs that are lost, and that are damaged.
    registry.repository('app').manifests.delete(lying.descriptor.digest);
    const { blobs } = registry.repository('app');
    const index = [...blobs].find(([, content]) => content.toString('latin1', 0, 4) === 'WHTL' && content.includes(Buffer.from(old.configDigest.slice(7), 'hex')));
    if (index === undefined) throw new Error('no index');
    blobs.delete(index[0]);
    expect(report(await again())).toMatchObject([{ result: 'published', replaced: [], broken: [{ problem: expect.stringContaining('404') }] }]);
    await isWhole();
    blobs.set(index[0], Buffer.alloc(index[1].length));
    const kept = await again();
    expect([kept.exitCode, kept.stderr]).toEqual([6, expect.stringMatching(/keeps its broken copy of the delta/)]);
    await to.client.close();
  });

  test('a .delta file is published as it is, and pulled from a stick as it is', async () => {
    const file = join(scratch, 'app.delta');
    await runOk([...program('delta-server'), 'compute', source('v1'), source('v2'), '--profile', 'fast', '-o', file]);
    expect(report(await server('publish', '--delta', file, '--to', `docker://${image}`, '--json'))).toMatchObject([{ result: 'published' }]);
    expect(report(await server('publish', '--delta', file, '--to', `docker://${image}`, '--json'))).toMatchObject([{ result: 'exists' }]);
    const root = join(scratch, 'stick');
    await device(root, 'pull', `${image}:v1`);
    const asked = registry.requests.length;
    expect(await device(root, 'pull', `${image}:v2`, '--from', `oci-archive:${file}`)).toMatchObject({ exitCode: 0 });
    expect(registry.requests.length).toBe(asked);
    expect(await stateOf(root)).toMatchObject({ damaged: 0, images: { 'app:v2': versions.images[1]?.configDigest } });
    // From a store without the basis the stick alone cannot do it, and nothing is committed.
    const empty = join(scratch, 'empty');
    const refused = await device(empty, 'pull', `${image}:v2`, '--from', `oci-archive:${file}`);
    expect(refused.exitCode).not.toBe(0);
    expect(refused.stderr).toMatch(/app\.delta does not hold the layer sha256:[0-9a-f]{64}, and nothing else leads to it: the store is empty[^\n]*\n {2}Take a \.delta file that starts from an image/);
    expect((await stateOf(empty)).images).toEqual({});
    // Nor with another image than that from which the delta starts.
    const other = join(scratch, 'other');
    await device(other, 'pull', `${image}:v3`);
    expect((await device(other, 'pull', `${image}:v2`, '--from', `oci-archive:${file}`)).stderr).toContain('nothing else leads to it: there is no delta from an image that is here');
    expect(Object.keys((await stateOf(other)).images)).toEqual(['app:v3']);
  });

  test('a .delta file that is larger than the layers is used all the same: the layers are not on the stick', async () => {
    const small = await makeVersions(2, 100);
    try {
      const file = join(scratch, 'small.delta');
      const tags = ['v1', 'v2'].map((tag) => `oci:${small.layout}:${tag}`);
      const computed = await runOk([...program('delta-server'), 'compute', ...tags, '--json', '-o', file]);
      const { deltaBytes, layerPullBytes } = JSON.parse(computed.stdout) as { deltaBytes: number; layerPullBytes: number };
      expect(deltaBytes).toBeGreaterThan(layerPullBytes);
      const root = join(scratch, 'small-stick');
      await runOk([...program('device'), 'pull', `${image}:v1`, '--from', `oci:${small.layout}`, '--root', root]);
      const pull = [`${image}:v2`, '--from', `oci-archive:${file}`];
      const refused = await device(root, 'pull', '--no-delta', '--dry-run', ...pull);
      expect([refused.exitCode, refused.stderr]).toEqual([3, expect.stringMatching(/small\.delta does not hold the layer .*: deltas are switched off\n/)]);
      expect(await device(root, 'pull', ...pull)).toMatchObject({ exitCode: 0, stderr: expect.stringContaining('a delta from image') });
      expect(await stateOf(root)).toMatchObject({ damaged: 0, images: { 'app:v2': small.images[1]?.configDigest } });
    } finally {
      await small.close();
    }
  });

  test('a layer that is no tar, or that nobody should extract, is named', async () => {
    const layout = await mkdtemp(join(scratch, 'bad-'));
    const good = [{ path: 'good', content: 'x' }];
    for (const [tag, layer, problem] of [['broken', Buffer.from('no tar, whatever its digest says'.repeat(40)), 'tar: '], ['unsafe', [{ path: 'd/../../x', content: 'x' }], 'tar entry 0 "d/../../x" ']] as const) {
      const bad = await makeImage(layout, tag, [good, layer], { platform: { os: 'linux', architecture: 'amd64' } });
      const outcome = await device(join(scratch, 'bad-store'), 'pull', `${image}:${tag}`, '--from', `oci:${layout}`);
      expect([outcome.exitCode, outcome.stderr]).toEqual([6, expect.stringContaining(`device: layer 1 (${bad.layers[1]?.digest ?? ''}): ${problem}`)]);
    }
  });

  test('what is wrong is said in one line, with an exit code that says of which kind it is', async () => {
    const cases: readonly (readonly [readonly string[], number, RegExp])[] = [
      [['publish', source('v1')], 2, /a target and no basis/],
      [['publish', source('v1'), source('v2'), '--to', `docker://${registry.host}/other`], 3, /does not have the target/],
      [['deltas', `docker://${image}:none`], 3, /404/],
      [['prune', 'oci:somewhere'], 2, /not a repository in a registry/],
    ];
    for (const [args, exitCode, message] of cases) {
      const outcome = await server(...args);
      expect(outcome.exitCode).toBe(exitCode);
      const said = outcome.stderr.split('\n').filter((line) => line.startsWith('delta-server: '));
      expect(said).toHaveLength(1);
      expect(said[0]).toMatch(message);
    }
  });
});

test('delta-server serve is read like a registry, and says that it takes no pushes', async () => {
  const service = await startService(['v1', 'v2'].map((tag) => `app=oci:${versions.layout}:${tag}`), join(scratch, 'server'), 'fast');
  try {
    const repository = `docker://127.0.0.1:${String(service.port)}/app`;
    expect((await server('deltas', `${repository}:v2`)).stdout).toContain('no deltas');
    const refused = await server('publish', source('v1'), source('v2'), '--to', repository, '--profile', 'fast');
    expect(refused.exitCode).not.toBe(0);
    expect(refused.stderr).toContain('405');
  } finally {
    await service.stop();
  }
});

describe('documents', () => {
  const blocks = async (file: string, heading: string): Promise<string[]> => {
    const text = await readFile(join(projectRoot, file), 'utf8');
    const section = text.split(/^## /m).find((part) => part.startsWith(`${heading}\n`)) ?? '';
    return [...section.matchAll(/^```sh\n([\s\S]*?)^```/gm)].map((match) => match[1] ?? '');
  };
  testWithTools('docker-registry', 'skopeo')('the README\'s commands for a bare registry work as they are written', async () => {
    const registry = await startDockerRegistry();
    const work = await mkdtemp(join(scratch, 'readme-'));
    // As after `npm link`; the port is the one thing that a test cannot take as written.
    await mkdir(join(work, 'bin'));
    for (const name of ['delta-server', 'device']) await symlink(join(projectRoot, 'bin', `${name}.js`), join(work, 'bin', name));
    await symlink(join(projectRoot, 'test'), join(work, 'test'));
    const env = { ...process.env, PATH: `${join(work, 'bin')}:${process.env['PATH'] ?? ''}` };
    const found = await blocks('README.md', 'Any registry');
    expect(found).toHaveLength(2);
    const outcomes: Outcome[] = [];
    for (const block of found) outcomes.push(await run(['bash', '-euc', block.replaceAll('127.0.0.1:5000', registry.host)], { cwd: work, env }));
    expect(outcomes.map((each) => [each.exitCode, each.exitCode === 0 ? '' : each.stderr])).toEqual([[0, ''], [0, '']]);
    expect(outcomes[1]?.stdout).toContain('smaller than the layers');
    await registry.close();
  });
});
