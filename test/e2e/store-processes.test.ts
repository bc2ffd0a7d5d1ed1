import { fork, type ChildProcess } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chownSync, lstatSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { openStore } from '../../src/applier/store/open.js';
import { goPax, member, endOfTar } from '../support/tars.js';
import { testUnlessWanting } from '../support/tools.js';

const childPath = fileURLToPath(new URL('../support/store-child.js', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'whittle-store-processes-'));
const tars = { first: join(scratch, 'first.tar'), second: join(scratch, 'second.tar'), odd: join(scratch, 'odd.tar') };
const isRoot = process.geteuid?.() === 0;

function write(path: string, members: readonly Buffer[]): void {
  writeFileSync(path, Buffer.concat([...members, endOfTar]), { mode: 0o644 });
}

beforeAll(() => {
  const files = (folder: string, count: number, bytes: number): Buffer[] => Array.from({ length: count }, (_, at) => member({ name: `${folder}/f${String(at)}`, data: randomBytes(bytes) }));
  write(tars.first, [...files('lib', 1200, 9000), ...files('large', 4, 4_000_000)]);
  write(tars.second, [...files('app', 600, 12_000), member({ name: 'app/hard', type: '1', link: 'app/f1' }), ...files('more', 3, 3_000_000)]);
  write(tars.odd, [
    member({ name: 'd/', type: '5', mode: 0 }), member({ name: 'd/f', mode: 0, uid: 4242, data: Buffer.from('secret') }), member({ name: 'd/.wh.gone' }), member({ name: 'd/.wh..wh..opq' }),
    member({ name: 'null', type: '3' }), goPax('cap', { 'SCHILY.xattr.security.capability': 'abc', 'SCHILY.xattr.trusted.x': 'y' }), member({ name: 'cap', mode: 0o4755, data: Buffer.from('elf') }),
    member({ name: 'hard-null', type: '1', link: 'null' }), member({ name: 'null', data: Buffer.from('a file now') }),
  ]);
});

afterAll(() => { rmSync(scratch, { recursive: true, force: true }); });

interface Run {
  readonly child: ChildProcess;
  /** What it printed, parsed; undefined when it was killed before. */
  readonly result: Promise<Record<string, unknown> | undefined>;
}

function start(root: string, name: string, layers: readonly string[], ids: { uid?: number; gid?: number } = {}): Run {
  const child = fork(childPath, [root, name, ...layers], { silent: true, ...ids });
  let out = '';
  let errors = '';
  child.stdout?.on('data', (chunk: Buffer) => { out += chunk.toString(); });
  child.stderr?.on('data', (chunk: Buffer) => { errors += chunk.toString(); });
  const result = once(child, 'close').then(() => {
    if (errors !== '') throw new Error(errors);
    return out === '' ? undefined : JSON.parse(out) as Record<string, unknown>;
  });
  return { child, result };
}

async function expectWhole(root: string, name: string, readOnly = false): Promise<void> {
  const store = await openStore(root, { readOnly });
  expect((await store.verify()).damagedLayers).toEqual([]);
  const image = await store.resolve(name);
  for (const diffId of image?.diffIds ?? []) {
    const hash = createHash('sha256');
    for await (const chunk of store.layerTar(diffId)) hash.update(chunk);
    expect(`sha256:${hash.digest('hex')}`).toBe(diffId);
  }
  if (!readOnly) await store.gc({ stageMaxAgeMs: 0 });
  expect([readdirSync(join(root, 'stages')), readdirSync(join(root, 'trash'))]).toEqual([[], []]);
  await store.close();
}

test('killed again and again, each run goes on from what is there, and the store is whole at every moment', async () => {
  const root = join(scratch, 'killed');
  const old = await start(root, 'n', [tars.first]).result;
  let kills = 0;
  let kept = 0;
  for (let delayMs = 0; ; delayMs = Math.ceil((delayMs + 0.5) * 1.3)) {
    const run = start(root, 'n', [tars.first, tars.second]);
    const started = once(run.child, 'message');
    await Promise.race([started, run.result]);
    await Promise.race([sleep(delayMs), run.result]);
    run.child.kill('SIGKILL');
    const done = await run.result;
    const store = await openStore(root);
    const current = (await store.resolve('n'))?.manifestDigest;
    expect((await store.verify()).damagedLayers).toEqual([]);
    await store.close();
    if (done !== undefined) {
      expect(current).toBe(done['manifestDigest']);
      kept = (done['counters'] as { keptBytes: number }).keptBytes;
      break;
    }
    kills++;
    if (current !== old?.['manifestDigest']) break;
  }
  expect(kills).toBeGreaterThan(3);
  expect(kept).toBeGreaterThanOrEqual(0);
  expect((await start(root, 'n', [tars.first, tars.second]).result)?.['manifestDigest']).toBeDefined();
  await expectWhole(root, 'n');
});

test('two pulls of one image at once, and two of images that share a layer: all succeed, nothing is torn', async () => {
  const root = join(scratch, 'two');
  const runs = [start(root, 'same', [tars.first, tars.second]), start(root, 'same', [tars.first, tars.second]), start(root, 'other', [tars.second])];
  const results = await Promise.all(runs.map((run) => run.result));
  expect(results.map((result) => result?.['code'])).toEqual([undefined, undefined, undefined]);
  expect(results[0]?.['manifestDigest']).toBe(results[1]?.['manifestDigest']);
  await expectWhole(root, 'same');
  await expectWhole(root, 'other');
});

testUnlessWanting(isRoot ? [] : ['root'])('without root: owners, devices and xattrs stay in the metadata, and everything comes back bit for bit', async () => {
  const home = mkdtempSync(join(tmpdir(), 'whittle-rootless-'));
  const nobody = { uid: 65534, gid: 65534 };
  chownSync(home, nobody.uid, nobody.gid);
  chownSync(scratch, nobody.uid, nobody.gid);
  const root = join(home, 'store');
  const result = await start(root, 'n', [tars.odd, tars.second], nobody).result;
  expect(result).toMatchObject({ privileged: false });
  const [layer] = readdirSync(join(root, 'layers')).filter((name) => readdirSync(join(root, 'layers', name, 'fs')).includes('cap'));
  const fs = join(root, 'layers', layer ?? '', 'fs');
  expect(lstatSync(join(fs, 'd/f'))).toMatchObject({ uid: 65534 });
  expect(readdirSync(join(fs, 'd'))).toEqual(['f']);
  expect((await start(root, 'n', [tars.odd], nobody).result)?.['code']).toBeUndefined();
  // Root may look at what is theirs, and makes no changes in it.
  await expectWhole(root, 'n', true);
  expect(await start(root, 'x', [tars.odd]).result.catch((error: unknown) => String(error))).toMatch(/STORAGE_PERMISSION/);
  // A store of another user is not touched.
  expect(await start(join(scratch, 'two'), 'x', [tars.odd], nobody).result.catch((error: unknown) => String(error))).toMatch(/STORAGE_PERMISSION/);
  rmSync(home, { recursive: true });
});
