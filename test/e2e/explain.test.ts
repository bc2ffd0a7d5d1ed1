import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { program, run, runOk } from '../../bench/process.js';
import type { DeltaAccount, FileAccount, Parts } from '../../src/server/explain/account.js';
import { makeImage, noise, type ImageFile } from '../support/images.js';

let folder: string;
const source = (tag: string): string => `oci:${join(folder, 'app')}:${tag}`;
const explain = (...args: string[]): string[] => [...program('delta-server'), 'explain', ...args];

const hostile = ['x</script><script>window.hacked = true</script>', 'x"><img src=x onerror=alert(1)>', 'x\u001b]0;title\u0007\u001b[31mred', 'x\nsecond line', 'x\u202etxt.exe', 'x\u009b5n', 'x\u2028y'];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'whittle-e2e-explain-'));
  const base = noise(300_000, 3);
  const changed = Buffer.from(base);
  for (let at = 100; at < changed.length; at += 9000) changed[at]! ^= 0x55;
  const text = Array.from({ length: 4000 }, (_, line) => `line ${String(line * 7919)} of a log\n`).join('');
  const common: ImageFile[] = [{ path: 'etc/' }, { path: 'etc/same', content: noise(4000, 1) }, { path: 'usr/lib/libz.so.1.2.13', content: base }];
  const old = [...common, { path: 'opt/data', content: noise(9000, 5) }, { path: 'log.gz', content: gzipSync(text) }, { path: 'bin/tool', content: base.subarray(5000, 90_000) }];
  const now: ImageFile[] = [
    { path: 'etc/' }, { path: 'etc/same', content: noise(4000, 1), mtimeSec: 1_800_000_000 }, { path: 'usr/lib/libz.so.1.3', content: changed },
    { path: 'srv/moved', content: noise(9000, 5) }, { path: 'bin/tool', content: changed.subarray(5000, 91_000) }, { path: 'new/noise', content: noise(20_000, 99) },
    { path: 'link', type: 'symlink', linkPath: 'etc/same' }, ...hostile.map((path, at): ImageFile => ({ path, content: noise(50 + at, 200 + at) })),
  ];
  const kept: ImageFile[] = [{ path: 'kept', content: noise(1000, 8) }];
  await makeImage(join(folder, 'app'), '1', [kept, old]);
  await makeImage(join(folder, 'app'), '2', [kept, now, [{ path: 'second/layer', content: noise(3000, 44) }]]);
  await makeImage(join(folder, 'app'), '3', [kept, now.slice(0, 6)]);
  await runOk([...program('delta-server'), 'compute', source('1'), source('2'), '-o', join(folder, 'a.delta'), '--quiet']);
  await runOk([...program('delta-server'), 'compute', source('1'), source('3'), '-o', join(folder, 'one.delta'), '--quiet', '--profile', 'fast']);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function account(file: string, ...more: string[]): Promise<DeltaAccount> {
  return JSON.parse((await runOk(explain(join(folder, file), '--json', ...more))).stdout) as DeltaAccount;
}

const sum = (parts: Parts): number => Object.values(parts).reduce((total, bytes) => total + bytes, 0);
const total = (numbers: readonly number[]): number => numbers.reduce((all, number) => all + number, 0);

function expectExactSums(told: DeltaAccount): void {
  expect(told.deltaBytes).toBe(told.manifestBytes + told.indexBytes + told.dataBytes);
  expect(sum(told.own) + total(told.layers.map((layer) => layer.deltaBytes)) + told.unknownBytes).toBe(told.deltaBytes);
  expect(sum(told.totals) + told.unknownBytes).toBe(told.deltaBytes);
  for (const layer of told.layers) {
    expect(sum(layer.own) + total((layer.files ?? []).map((file) => file.deltaBytes))).toBe(layer.deltaBytes);
    for (const file of layer.files ?? []) expect(sum(file.parts)).toBe(file.deltaBytes);
  }
}

const widest = (text: string): number => Math.max(...text.split('\n').map((line) => line.length));

describe('delta-server explain', () => {
  test('one long path does not push the numbers of all lines off the screen; --json has it whole', async () => {
    const path = `opt/${'node_modules/a-package/'.repeat(12)}index.js`;
    for (const tag of ['long1', 'long2']) await makeImage(join(folder, 'app'), tag, [[{ path, content: `a text of ${tag}, `.repeat(400) }]]);
    const delta = join(folder, 'long.delta');
    await runOk([...program('delta-server'), 'compute', source('long1'), source('long2'), '-o', delta, '--quiet']);
    const { stdout } = await runOk(explain(delta, '--basis', source('long1')));
    expect(stdout).toMatch(/^opt\/\S+….*\/index\.js +0 /m);
    expect(widest(stdout)).toBeLessThanOrEqual(100);
    expect((await account('long.delta', '--basis', source('long1'))).layers[0]?.files?.map((file) => file.path)).toEqual([path]);
  });

  test('the table fits the terminal: columns that say least go first, then paths lose their middle; each number is that of the whole table', async () => {
    const words = explain(join(folder, 'a.delta'), '--basis', source('1')).map((word) => `'${word}'`).join(' ');
    const drawn = async (columns: number): Promise<string> => (await runOk(['script', '-qec', `stty cols ${String(columns)}; ${words}`, '/dev/null'])).stdout.replaceAll('\r', '');
    const wide = await drawn(300);
    expect(wide).toMatch(/^file +layer +bytes +share +new +diffs +copies +meta +size +from\n/m);
    expect(wide).toMatch(/ {2}the same path but for numbers: usr\/lib\/libz\.so\.1\.2\.13$/m);
    expect(wide).not.toContain('No room');
    const cost = (text: string): string | undefined => /^new\/noise +(?:1 +)?([\d,.]+)/m.exec(text)?.[1];
    for (const columns of [100, 80, 60]) {
      const narrow = await drawn(columns);
      expect(widest(narrow.slice(narrow.indexOf('\nfile '), narrow.indexOf('\nNo room')))).toBeLessThanOrEqual(columns);
      expect(narrow).toMatch(/^file +(layer +)?bytes +(share +)?new +diffs .*from\n/m);
      expect(narrow).toMatch(/^No room for meta.*: --json and --html have everything$/m);
      expect(cost(narrow)).toBe(cost(wide));
    }
  });

  test('with the basis: every entry is named, says where it comes from and why, and all sums are exact', async () => {
    const told = await account('a.delta', '--basis', source('1'));
    expectExactSums(told);
    expect([told.complete, told.unknownBytes, told.layers.map((layer) => layer.how)]).toEqual([true, 0, ['basis', 'delta', 'delta']]);
    expect(sum(told.layers[0]!.own)).toBe(0);
    const files = new Map(told.layers[1]!.files!.map((file) => [file.path, file]));
    expect(files.size).toBe(7 + hostile.length);
    const file = (path: string): FileAccount => files.get(path)!;
    expect(file('etc/same')).toMatchObject({ how: 'copy', why: 'unchanged', sources: [{ image: 'basis', layer: 1, path: 'etc/same' }] });
    expect(file('srv/moved')).toMatchObject({ how: 'copy', why: 'the same content under another path', sources: [{ path: 'opt/data' }] });
    expect(file('usr/lib/libz.so.1.3')).toMatchObject({ how: 'patch', why: 'the same path but for numbers', sources: [{ path: 'usr/lib/libz.so.1.2.13' }] });
    expect(file('bin/tool').why).toMatch(/^the same path/);
    expect(file('new/noise')).toMatchObject({ how: 'patch', why: 'nothing like it in the basis: written out in full', sources: [] });
    expect(file('link')).toMatchObject({ type: 'symlink', how: 'none' });
    // Noise costs what it has of bytes; what is unchanged costs next to nothing; the layer's largest file is found.
    expect(file('new/noise').parts.literals).toBeGreaterThan(19_500);
    expect(file('new/noise').parts.literals).toBeLessThan(20_500);
    expect(file('etc/same').deltaBytes).toBeLessThan(20);
    expect(file('usr/lib/libz.so.1.3').parts.residue).toBeGreaterThan(30);
    expect(told.layers[2]!.files).toMatchObject([{ path: 'second/layer' }]);
  });

  test('without the basis: what the file itself tells, and how to see more', async () => {
    const several = await account('a.delta');
    expectExactSums(several);
    expect([several.complete, several.layers[1]!.files]).toEqual([false, null]);
    const one = await account('one.delta');
    expectExactSums(one);
    const whole = await account('one.delta', '--basis', source('1'));
    expectExactSums(whole);
    // The same streams, found by two ways of reading.
    for (const kind of ['literals', 'residue', 'ops'] as const) expect(one.totals[kind]).toBe(whole.totals[kind]);
    const { stdout, stderr } = await runOk(explain(join(folder, 'one.delta')));
    expect(stdout).toMatch(/new bytes +[\d,]+/);
    expect(stderr).toMatch(/name the image that the delta starts from: --basis SOURCE/);
  });

  test('the table is safe to print and lists the costliest first', async () => {
    const { stdout } = await runOk(explain(join(folder, 'a.delta'), '--basis', source('1'), '--top', '30'));
    expect(stdout.replace(/\n/g, '')).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}]/u);
    for (const shown of ['\\x1b]0;title\\x07', 'x\\u{202e}txt.exe', 'x\\x0asecond line', 'x\\x9b5n']) expect(stdout).toContain(shown);
    const sizes = [...stdout.slice(stdout.indexOf('\nfile ')).matchAll(/^\S.* {2,}\d+ {2,}([\d,.]+) {2,}[\d.]+%/gm)].map((match) => Number(match[1]!.replaceAll(',', '')));
    expect(sizes.length).toBeGreaterThan(10);
    expect(sizes).toEqual([...sizes].sort((a, b) => b - a));
    const short = await runOk(explain(join(folder, 'a.delta'), '--basis', source('1'), '--top', '2'));
    expect(short.stdout).toMatch(/13 more/);
  });

  test('the page holds its data where no name can become markup, and lets nothing load', async () => {
    const page = join(folder, 'page.html');
    await runOk(explain(join(folder, 'a.delta'), '--basis', source('1'), '--html', page));
    const html = await readFile(page, 'utf8');
    expect(html.match(/<script/g)).toHaveLength(2);
    expect(html.match(/<\/script>/g)).toHaveLength(2);
    expect(html).not.toMatch(/<img|onerror=[^\\]*>|\u202e|https?:\/\//);
    expect(html).not.toContain('\u001b');
    expect(html).toMatch(/default-src 'none'; script-src 'sha256-[^']+'; style-src 'sha256-[^']+'/);
    const data = JSON.parse(/<script type="application\/json" id="account">([^<]*)<\/script>/.exec(html)![1]!) as { account: DeltaAccount };
    expectExactSums(data.account);
    expect(data.account.layers[1]!.files!.some((file) => file.path === hostile[0])).toBe(true);
  });

  test('refuses what is no delta, another basis and a damaged file in one line', async () => {
    const damaged = join(folder, 'damaged.delta');
    const bytes = await readFile(join(folder, 'a.delta'));
    bytes[bytes.length - 8000]! ^= 1;
    await writeFile(damaged, bytes);
    const cases: [string[], RegExp, number][] = [
      [[join(folder, 'absent.delta')], /absent\.delta/, 3],
      [[join(folder, 'a.delta'), '--basis', source('2')], /needs basis layer sha256:/, 6],
      [[damaged, '--basis', source('1')], /sha256:|malformed|delta/, 6],
      [[join(folder, 'a.delta'), '--top', '0'], /--top/, 2],
    ];
    for (const [args, message, exitCode] of cases) {
      const outcome = await run(explain(...args));
      expect([outcome.exitCode, outcome.stdout]).toEqual([exitCode, '']);
      expect(outcome.stderr).toMatch(/^delta-server: [^\n]+\n {2}[^\n]+\n$/);
      expect(outcome.stderr).toMatch(message);
    }
  });
});
