import { createReadStream } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { openLink, type Link } from '../../bench/link.js';
import { program, run, runOk, type Outcome } from '../../bench/process.js';
import { orderDelta } from '../../bench/services.js';
import { makePullWorld, stateOf, type PullWorld } from '../support/pull-world.js';

const frameBytes = 256 * 1024;
let world: PullWorld;
let link: Link;
let seed: string;

beforeAll(async () => {
  world = await makePullWorld();
  link = await openLink(world.service.port);
  seed = join(await world.folder('seed'), 'store');
  await device(seed, 'pull', image('v1'));
  await orderDelta(world.service.port, 'app', world.v1.configDigest, world.v2.manifestDigest);
});

afterAll(async () => {
  await link.close();
  await world.close();
});

afterEach(() => {
  link.mend();
  link.reset(null);
});

function image(tag: string): string {
  return `127.0.0.1:${String(link.port)}/app:${tag}`;
}

function device(root: string, ...words: string[]): Promise<Outcome> {
  return runOk([...program('device'), ...words, '--root', root]);
}

async function storeWithV1(): Promise<string> {
  const root = join(await world.folder('device'), 'store');
  await runOk(['cp', '-a', seed, root]);
  return root;
}

interface Event { event: string; way?: string; error?: { code: string }; downloadedBytes?: { total: number; data: number }; deltaBytes?: number; layerPullBytes?: number; peakRssBytes?: number }

function events(outcome: Outcome): Event[] {
  return outcome.stdout.trim().split('\n').filter((line) => line !== '').map((line) => JSON.parse(line) as Event);
}

const both = { 'app:v1': '', 'app:v2': '' };

async function expectBoth(root: string): Promise<void> {
  expect(await stateOf(root)).toEqual({ images: { ...both, 'app:v1': world.v1.configDigest, 'app:v2': world.v2.configDigest }, damaged: 0 });
}

test('a delta pull says each step as JSON, and what it received is what it said', async () => {
  const root = await storeWithV1();
  link.reset(null);
  const told = events(await device(root, 'pull', image('v2'), '--json'));
  expect(told.map((each) => each.event).filter((name, at, all) => name !== 'progress' && all.indexOf(name) === at)).toEqual(['resolved', 'plan', 'applied', 'committed']);
  const last = told.at(-1);
  expect(last).toMatchObject({ event: 'committed', way: 'delta' });
  expect(last?.downloadedBytes?.total).toBeLessThan(last?.layerPullBytes ?? 0);
  // The link counts HTTP headers too.
  expect(link.receivedBytes).toBeGreaterThanOrEqual(last?.downloadedBytes?.total ?? Infinity);
  expect(link.receivedBytes).toBeLessThan((last?.downloadedBytes?.total ?? 0) + 16_384);
  expect(last?.peakRssBytes).toBeLessThan(128 * 2 ** 20);
  await expectBoth(root);
});

describe.each([['delta', '--delta'], ['layer', '--no-delta']])('kill -9 in the middle of a %s pull', (_, flag) => {
  test.each([0.15, 0.4, 0.6, 0.85])('at %f of the bytes costs at most one frame', async (part) => {
    const whole = events(await device(await storeWithV1(), 'pull', flag, image('v2'), '--json')).at(-1);
    const wholeBytes = whole?.downloadedBytes?.total ?? 0;
    const root = await storeWithV1();
    link.reset(500_000);
    const cut = link.cutAfter(Math.floor(wholeBytes * part));
    let kill = (): void => undefined;
    const pulling = run([...program('device'), 'pull', flag, image('v2'), '--root', root], { onStart: (child) => { kill = () => { child.kill('SIGKILL'); }; } });
    await cut;
    kill();
    expect((await pulling).exitCode).toBeNull();
    const before = link.receivedBytes;
    expect(await stateOf(root)).toEqual({ images: { 'app:v1': world.v1.configDigest }, damaged: 0 });
    link.mend();
    link.reset(null);
    await device(root, 'pull', flag, image('v2'));
    // The question for the image and its deltas is asked twice; of content at most one frame is, and what the kernel held.
    expect(before + link.receivedBytes).toBeLessThan(wholeBytes + frameBytes + 64 * 1024);
    await expectBoth(root);
  });
});

test('Ctrl-C ends with 130 and a word, and the next pull continues', async () => {
  const root = await storeWithV1();
  link.reset(300_000);
  let interrupt = (): void => undefined;
  const pulling = run([...program('device'), 'pull', image('v2'), '--root', root], { onStart: (child) => { interrupt = () => { child.kill('SIGINT'); }; } });
  await link.passed(64 * 1024);
  interrupt();
  const outcome = await pulling;
  expect(outcome.exitCode).toBe(130);
  expect(outcome.stderr).toContain('it continues where it was');
  expect((await stateOf(root)).damaged).toBe(0);
  link.reset(null);
  await device(root, 'pull', image('v2'));
  await expectBoth(root);
});

test('two pulls at once: both end well, and the bytes come once', async () => {
  const root = await storeWithV1();
  link.reset(1_000_000);
  const outcomes = await Promise.all([1, 2].map(() => device(root, 'pull', image('v2'), '--json')));
  const last = outcomes.map((outcome) => events(outcome).at(-1)?.event).sort();
  expect(last).toEqual(['committed', 'current']);
  await expectBoth(root);
});

test('a second pull that may not wait says that the store is busy', async () => {
  const root = await storeWithV1();
  link.reset(100_000);
  let kill = (): void => undefined;
  const first = run([...program('device'), 'pull', image('v2'), '--root', root], { onStart: (child) => { kill = () => { child.kill('SIGKILL'); }; } });
  // By then the first has the store's lock: it is fetching the delta's data.
  await link.passed(64 * 1024);
  const second = await run([...program('device'), 'pull', image('v2'), '--wait-lock', '0', '--root', root, '--json']);
  kill();
  await first;
  expect(second.exitCode).toBe(8);
  expect(events(second).at(-1)?.error?.code).toBe('STORE_BUSY');
});

test('a server that is not there ends with 5 and one line, and the store is as it was', async () => {
  const root = await storeWithV1();
  const outcome = await run([...program('device'), 'pull', '127.0.0.1:1/app:v2', '--root', root]);
  expect(outcome.exitCode).toBe(5);
  expect(outcome.stderr.trim().split('\n').filter((line) => line.startsWith('device: '))).toHaveLength(1);
  expect((await stateOf(root)).images).toEqual({ 'app:v1': world.v1.configDigest });
});

test('a delta on a stick updates without any network', async () => {
  const root = await storeWithV1();
  const file = join(await world.folder('stick'), 'app.delta');
  await runOk([...program('delta-server'), 'compute', `oci:${world.v1.dir}:v1`, `oci:${world.v2.dir}:v2`, '--profile', 'fast', '-o', file]);
  link.reset(null);
  const told = events(await device(root, 'pull', image('v2'), '--from', `oci-archive:${file}`, '--json'));
  expect(told.at(-1)).toMatchObject({ event: 'committed', way: 'delta' });
  expect(link.receivedBytes).toBe(0);
  await expectBoth(root);
});

test('rollback, verify, repair, export and gc do what they say', async () => {
  const root = await storeWithV1();
  const moving = `127.0.0.1:${String(link.port)}/app:v2`;
  await device(root, 'pull', moving);
  const target = join(await world.folder('export'), 'app.tar');
  const exported = JSON.parse((await device(root, 'export', moving, `oci-archive:${target}`, '--json')).stdout) as { sizeBytes: number };
  expect(exported.sizeBytes).toBeGreaterThan(1_000_000);
  expect((await stat(target)).size).toBe(exported.sizeBytes);
  const none = await run([...program('device'), 'rollback', moving, '--root', root]);
  expect(none.exitCode).toBe(3);
  await runOk(['sh', '-c', `f=$(find '${root}/layers' -name data -type f | head -1); printf X | dd of="$f" bs=1 seek=1000 conv=notrunc status=none`]);
  const damaged = await run([...program('device'), 'verify', '--root', root]);
  expect(damaged.exitCode).toBe(7);
  // Where the repair finds no layers, what is damaged is said all the same.
  const helpless = await run([...program('device'), 'verify', '--repair', '--from', `oci-archive:${target}.none`, '--root', root]);
  expect([helpless.exitCode, helpless.stdout]).toEqual([3, expect.stringMatching(/^layer [0-9a-f]{12}: \d+ damaged\n {2}.*data: /)]);
  await device(root, 'verify', '--repair');
  await device(root, 'verify');
  await device(root, 'remove', image('v1'));
  await device(root, 'gc');
  expect(await stateOf(root)).toEqual({ images: { 'app:v2': world.v2.configDigest }, damaged: 0 });
});

test('an export to - is the archive on standard output, and nothing else there; a terminal and --json are refused', async () => {
  const root = await storeWithV1();
  const folder = await world.folder('stdout');
  const words = (target: string, ...more: string[]): string => [...program('device'), 'export', image('v1'), target, '--root', root, ...more].map((word) => `'${word}'`).join(' ');
  await runOk(['sh', '-c', `cd '${folder}' && ${words('oci-archive:file.tar')} && ${words('oci-archive:-')} >piped.tar 2>said`]);
  expect((await readdir(folder)).sort()).toEqual(['file.tar', 'piped.tar', 'said']);
  expect((await readFile(join(folder, 'piped.tar'))).equals(await readFile(join(folder, 'file.tar')))).toBe(true);
  expect(await readFile(join(folder, 'said'), 'utf8')).toMatch(/^image [0-9a-f]{12}, [\d,]+ bytes\n$/);
  const json = await run(['sh', '-c', words('oci-archive:-', '--json')]);
  expect([json.exitCode, json.stderr]).toEqual([2, expect.stringMatching(/^device: oci-archive:- and --json both want standard output\n {2}.+\n$/)]);
  const typed = await run(['script', '-qec', words('oci-archive:-'), '/dev/null']);
  expect([typed.exitCode, typed.stdout.replaceAll('\r', '')]).toEqual([2, expect.stringMatching(/^device: oci-archive:-: an archive is not written to a terminal\n {2}.+\n$/)]);
});

test('Ctrl-C ends an export in the middle, with 130', async () => {
  const root = await storeWithV1();
  const pipe = join(await world.folder('pipe'), 'image.tar');
  await runOk(['mkfifo', pipe]);
  // The program stands still until somebody reads.
  const { exitCode, stdout, stderr } = await run([...program('device'), 'export', image('v1'), `oci-archive:${pipe}`, '--root', root], { onStart: (child) => {
    const reader = createReadStream(pipe);
    reader.once('data', () => {
      child.kill('SIGINT');
      reader.pause();
      setTimeout(() => { reader.resume(); }, 300);
    });
  } });
  expect([exitCode, stdout, stderr]).toEqual([130, '', expect.stringMatching(/^device: stopped by SIGINT\n/)]);
});

test('an image that is there already is refused for another platform than the one that was named, as a new one is', async () => {
  const root = await storeWithV1();
  for (const at of [root, join(await world.folder('empty'), 'store')]) {
    const { exitCode, stdout, stderr } = await run([...program('device'), 'pull', image('v1'), '--platform', 'linux/s390x', '--root', at]);
    expect([exitCode, stdout, stderr]).toEqual([3, '', expect.stringMatching(/^device: .* is for linux\/\w+, not for linux\/s390x\n/)]);
  }
});

describe('the command line', () => {
  test.each(['', 'pull', 'images', 'status', 'verify', 'rollback', 'remove', 'gc', 'export', 'mount', 'umount'])('%s has help with examples', async (command) => {
    const { stdout } = await runOk([...program('device'), ...(command === '' ? [] : [command]), '--help']);
    expect(stdout).toContain('Usage: device');
    expect(stdout).toContain('Examples:');
  });

  test.each([
    [[]], [['nonsense']], [['pull']], [['pull', 'a', 'b']], [['pull', '--frobnicate', 'a']], [['pull', '127.0.0.1:1/UPPER']], [['pull', 'a', '--delta', '--no-delta']],
    [['pull', 'a', '--limit-rate', 'fast']], [['pull', 'a', '--limit-rate', '0']], [['pull', 'a', '--wait', 'long']], [['pull', 'a', '--from', 'ftp://x']],
    [['pull', 'a', '--from', 'http://example.com']], [['pull', 'a', '--platform', 'a/b/c/d']], [['export', 'a', 'tar:x']],
  ])('%j is refused with 2 and a hint', async (words) => {
    const outcome = await run([...program('device'), ...words, '--root', seed]);
    expect(outcome.exitCode).toBe(2);
    expect(outcome.stderr).toMatch(/^device: .+\n {2}\S.+\n$/);
  });

  test('flags before the command are told to stand behind it', async () => {
    const { exitCode, stderr } = await run([...program('device'), '--root', seed, 'images']);
    expect([exitCode, stderr]).toEqual([2, 'device: flags stand behind the command: "--root"\n  Write it as: device COMMAND --root. See: device --help\n']);
  });

  test('an image is found by what "images" shows of it; what needs a name says the names', async () => {
    const root = await storeWithV1();
    const { images } = JSON.parse((await run([...program('device'), 'images', '--json', '--root', root])).stdout) as { images: { configDigest: string; manifestDigest: string; name: string }[] };
    const [{ configDigest, manifestDigest, name } = { configDigest: '', manifestDigest: '', name: '' }] = images;
    for (const digest of [configDigest, manifestDigest]) {
      for (const text of [digest.slice(7, 19), digest.slice(7)]) {
        expect((await run([...program('device'), 'verify', text, '--root', root])).exitCode).toBe(0);
        for (const command of ['remove', 'rollback']) {
          const outcome = await run([...program('device'), command, text, '--root', root]);
          expect([outcome.exitCode, outcome.stderr]).toEqual([2, expect.stringContaining(`${text} is no name but an image, called ${name}`)]);
        }
      }
    }
    const none = await run([...program('device'), 'export', '0'.repeat(64), 'oci-archive:/nowhere/x', '--root', root]);
    expect([none.exitCode, none.stderr]).toEqual([3, expect.stringContaining('is not in the store')]);
  });

  test('an unknown tag is not found, and an unknown image is not in the store', async () => {
    const root = await storeWithV1();
    expect((await run([...program('device'), 'pull', image('v9'), '--root', root])).exitCode).toBe(3);
    expect((await run([...program('device'), 'export', image('v9'), 'oci-archive:/nowhere/x', '--root', root])).exitCode).toBe(3);
    expect((await run([...program('device'), 'images', '--root', join(root, 'absent')])).exitCode).toBe(3);
  });
});
