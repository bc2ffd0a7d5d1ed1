import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { program, run, runOk, type Outcome } from '../../bench/process.js';
import { checkStore, pullNext } from '../powercut/disk/check-state.js';
import { imageName, makeWorld, type World } from '../powercut/disk/fixtures.js';
import { Injector, wantingForInjection, type Injection } from '../powercut/syscalls/faults.js';
import { sample } from '../powercut/syscalls/index.js';
import { parseLog } from '../powercut/syscalls/trace.js';
import { testUnlessWanting } from '../support/tools.js';

/** `npm run test:powercut -- --harness syscalls` runs any number of them, and all with a large --states. */
const seed = 1;
const samples = process.env['CI'] === 'true' ? { error: 30, lie: 3, kill: 12 } : { error: 8, lie: 1, kill: 3 };

const asRoot = testUnlessWanting(wantingForInjection());
let world: World;
let scratch: string;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'whittle-inject-test-'));
  world = await makeWorld();
});

afterAll(async () => {
  await world.close();
  await rm(scratch, { recursive: true, force: true });
});

function device(root: string, ...words: readonly string[]): Promise<Outcome> {
  return run([...program('device'), ...words, '--root', root, '--json'], { timeoutMs: 120_000 });
}

function pull(root: string, version: number): Promise<Outcome> {
  return device(root, 'pull', imageName, '--from', world.versions[version]?.from ?? '');
}

function codeOf(outcome: Outcome): string | undefined {
  return /\{"error":\{"code":"([A-Z_]+)"/.exec(outcome.stdout)?.[1];
}

async function expectFirstWhole(root: string): Promise<void> {
  expect(await checkStore(root, world, { names: [{ current: 0, previous: null }], damaged: null })).toEqual([]);
}

asRoot('a system call that fails, lies or is the last one leaves the old image or the new one, a clear error, and a next pull that succeeds', async () => {
  const injector = await Injector.open(world);
  try {
    const of = (kind: Injection['fault']['kind']): Injection[] => injector.injections.filter(({ fault }) => fault.kind === kind);
    // Every sync of a pull, and a sample of the rest.
    const syncs = of('error').filter(({ call, fault }) => /sync/.test(call.name) && fault.kind === 'error' && fault.errno === 'EIO');
    const drawn = [...sample(syncs, samples.error / 4, seed), ...sample(of('error'), samples.error, seed), ...sample(of('lie'), samples.lie, seed), ...sample(of('kill'), samples.kill, seed)];
    expect(drawn.length).toBeGreaterThan(10);
    let hits = 0;
    const problems: string[] = [];
    for (const injection of drawn) {
      const checked = await injector.check(injection);
      problems.push(...checked.problems);
      if (!checked.missed) hits++;
    }
    expect(problems).toEqual([]);
    expect(hits).toBeGreaterThan(drawn.length * 0.7);
  } finally {
    await injector.close();
  }
});

/** A small filesystem of its own, gone when `body` ends. */
async function onTmpfs(options: string, body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(scratch, 'tmpfs-'));
  await runOk(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', folder]);
  try {
    await body(folder);
  } finally {
    await runOk(['umount', folder]);
  }
}

asRoot('a filesystem without room for the pull: it says how much was needed, and the old image stays whole', async () => {
  await onTmpfs('size=4m', async (folder) => {
    const root = join(folder, 'store');
    expect((await pull(root, 0)).exitCode).toBe(0);
    await fill(join(folder, 'ballast'), 40_000, root);
    const refused = await pull(root, 1);
    expect([refused.exitCode, codeOf(refused)]).toEqual([7, 'STORAGE_FULL']);
    expect(refused.stderr).toMatch(/^device: the pull needs \d+ bytes on the filesystem of \S+, \d+ are free\n {2}\S.*\n$/);
    await expectFirstWhole(root);
    await rm(join(folder, 'ballast'));
    expect(await pullNext(root, world, 1, null)).toEqual([]);
  });
});

/** Writes a file that leaves about `freeBytes`. */
async function fill(path: string, freeBytes: number, root: string): Promise<void> {
  const status = JSON.parse((await device(root, 'status')).stdout) as { freeBytes: number };
  await writeFile(path, Buffer.alloc(status.freeBytes - freeBytes, 1));
}

asRoot('a filesystem that is full of files in the middle of the pull: a clear error, the stage is reclaimed, the old image stays whole', async () => {
  await onTmpfs('size=8m,nr_inodes=90', async (folder) => {
    const root = join(folder, 'store');
    expect((await pull(root, 0)).exitCode).toBe(0);
    const ballast = join(folder, 'ballast');
    await mkdir(ballast);
    for (let free = await freeInodes(folder); free > 12; free--) await writeFile(join(ballast, String(free)), '');
    const refused = await pull(root, 1);
    expect([refused.exitCode, codeOf(refused)]).toEqual([7, 'STORAGE_FULL']);
    expect(refused.stderr.trimEnd().split('\n')).toHaveLength(2);
    await expectFirstWhole(root);
    await rm(ballast, { recursive: true });
    expect(await pullNext(root, world, 1, null)).toEqual([]);
  });
});

async function freeInodes(folder: string): Promise<number> {
  return Number((await runOk(['stat', '-f', '-c', '%d', folder])).stdout);
}

asRoot('a read-only filesystem: nothing is changed and it is said so, but what is there is shown and verified', async () => {
  await onTmpfs('size=8m', async (folder) => {
    const root = join(folder, 'store');
    expect((await pull(root, 0)).exitCode).toBe(0);
    await runOk(['mount', '-o', 'remount,ro', folder]);
    for (const words of [['gc'], ['rollback', imageName], ['verify', '--repair'], ['pull', imageName, '--from', world.versions[1].from]]) {
      const refused = await device(root, ...words);
      expect([words[0], refused.exitCode, codeOf(refused)]).toEqual([words[0], 7, 'STORAGE_READ_ONLY']);
    }
    for (const words of [['images'], ['status'], ['verify']]) expect([words[0], (await device(root, ...words)).exitCode]).toEqual([words[0], 0]);
    await runOk(['mount', '-o', 'remount,rw', folder]);
    await expectFirstWhole(root);
    expect(await pullNext(root, world, 1, null)).toEqual([]);
  });
});

test('a call that another thread interrupts in the log keeps its arguments and its fate', () => {
  const calls = parseLog([
    '11 fsync(23</s/refs/.tmp-1> <unfinished ...>', '12 openat(AT_FDCWD</>, "x", O_RDONLY) = 3</x>', '11 <... fsync resumed>) = -1 EIO (Input/output error) (INJECTED)', '12 +++ killed by SIGKILL +++',
  ].join('\n'));
  expect(calls.map(({ name, injected }) => [name, injected])).toEqual([['fsync', true], ['openat', false]]);
  expect(calls[0]?.text).toContain('/s/refs/.tmp-1');
});
