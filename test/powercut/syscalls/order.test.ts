import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { hasProgram, program, projectRoot, runOk } from '../../../bench/process.js';
import { digestOf, makeImage, noise } from '../../support/images.js';
import { testUnlessWanting } from '../../support/tools.js';
import { orderCalls, orderProblems, syncedPath } from './order.js';
import { parseLog, type LoggedCall } from './trace.js';

const traced = testUnlessWanting(hasProgram('strace') ? [] : ['strace']);
let folder: string;

beforeAll(async () => { folder = await mkdtemp(join(tmpdir(), 'whittle-order-')); });

afterAll(async () => { await rm(folder, { recursive: true, force: true }); });

async function callsOf(command: readonly string[]): Promise<LoggedCall[]> {
  const log = join(folder, 'log');
  await runOk(['strace', '-f', '-qq', '-y', '-s', '0', '--seccomp-bpf', '-o', log, '-e', `trace=${orderCalls}`, ...command], { timeoutMs: 120_000 });
  return parseLog(await readFile(log, 'latin1'));
}

/** The order is right, and without the syncs of any one path it is not. */
function expectOrdered(calls: readonly LoggedCall[], root: string, scratch: string | null, renames: number): void {
  expect(orderProblems(calls, root, scratch)).toEqual([]);
  expect(calls.filter(({ name, text }) => name.startsWith('rename') && text.includes(root))).toHaveLength(renames);
  const synced = [...new Set(calls.flatMap((call) => syncedPath(call) ?? []))].filter((path) => path.startsWith(folder));
  expect(synced.length).toBeGreaterThan(1);
  for (const path of synced) expect({ without: path, found: orderProblems(calls.filter((call) => syncedPath(call) !== path), root, scratch).length > 0 }).toEqual({ without: path, found: true });
}

traced('a file that a person asks for has its name when its content is on the disk, and the program says so when its name is', async () => {
  const layout = join(folder, 'layout');
  for (const [tag, seed] of [['a', 1], ['b', 2]] as const) await makeImage(layout, tag, [[{ path: 'same', content: noise(30_000, 9) }, { path: 'changes', content: noise(400, seed) }]]);
  const out = join(folder, 'out');
  await mkdir(out);
  const calls = await callsOf([...program('delta-server'), 'compute', `oci:${layout}:a`, `oci:${layout}:b`, '-o', join(out, 'app.delta'), '--profile', 'fast', '--quiet']);
  expectOrdered(calls, out, null, 1);
});

/** A server's store takes a delta in, in a program of its own: its job's files, then the record. */
const takeIn = (root: string): string => `
  import { writeFile } from 'node:fs/promises';
  import { DeltaStore } from ${JSON.stringify(pathToFileURL(join(projectRoot, 'dist/server/delta-store.js')).href)};
  const { store } = await DeltaStore.open(${JSON.stringify(root)});
  const job = await store.makeJobDirectory();
  const files = new Map();
  const facts = [];
  for (const [digest, text] of ${JSON.stringify(['manifest', 'config', 'index', 'data'].map((text) => [digestOf(Buffer.from(text)), text]))}) {
    await writeFile(job + '/' + text, text);
    files.set(digest, job + '/' + text);
    facts.push({ digest, sizeBytes: text.length });
  }
  const [manifest, ...blobs] = facts;
  const [targetManifest, basisConfig] = ${JSON.stringify([digestOf(Buffer.from('target')), digestOf(Buffer.from('basis'))])};
  await store.add({ files, record: { result: 'delta', targetManifest, basisConfig, layerPullBytes: 9, deltaBytes: 8, computeMs: 1, annotations: {}, blobs, manifest: { ...manifest, mediaType: 'a/b' } } });
  if (store.size !== 1) throw new Error('the delta is not there');
`;

traced('a delta that a server has made is on its disk, blob by blob, before the record that makes it visible', async () => {
  const root = join(folder, 'server/state');
  const script = join(folder, 'take-in.mjs');
  await writeFile(script, takeIn(root));
  const calls = await callsOf([process.execPath, script]);
  // Four blobs and the record.
  expectOrdered(calls, join(folder, 'server'), join(root, 'tmp'), 5);
});

test('a rename before the content, a name that nobody synced, and a directory that is not there are each found', () => {
  const call = (name: string, text: string): LoggedCall => ({ thread: '1', name, text, injected: false });
  const whole = [
    call('mkdir', '"/r/new", 0777) = 0'), call('fsync', '9</r>) = 0'), call('pwrite64', '5</r/new/.x.tmp>, ""..., 10, 0) = 10'), call('fsync', '5</r/new/.x.tmp>) = 0'),
    call('rename', '"/r/new/.x.tmp", "/r/new/x") = 0'), call('fsync', '6</r/new>) = 0'),
  ];
  expect(orderProblems(whole, '/r')).toEqual([]);
  const without = (at: number): string[] => orderProblems(whole.filter((_, each) => each !== at), '/r');
  expect(without(1)).toEqual(['/r/new/x was renamed before the name /r/new was on the disk', 'the program ended before the name /r/new was on the disk']);
  expect(without(3)).toEqual(['/r/new/x was renamed before its content was on the disk']);
  expect(without(5)).toEqual(['the program ended before the name /r/new/x was on the disk']);
});
