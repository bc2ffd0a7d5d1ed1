import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { decodeLayerMeta, encodeLayerMeta, isSparse, LayerMetaBuilder, rebuildTar, sparseMap } from '../../../src/tar/index.js';
import { hasTool, testWithTools } from '../../support/tools.js';
import { scan, unscan, type Scanned } from '../../support/tars.js';

let folder = '';
const long = 'n'.repeat(100);

/** A tree that makes each writer use what it has: long names and links, bytes that are no UTF-8, holes, links, odd times. */
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'whittle-tar-'));
  const at = (name: string): string => join(folder, 'in', name);
  mkdirSync(at('dir/sub'), { recursive: true });
  mkdirSync(at(`${'deep/'.repeat(24)}end`), { recursive: true });
  writeFileSync(at('dir/file'), 'hello');
  writeFileSync(at('empty'), '');
  writeFileSync(at(`dir/${long}`), 'long name');
  writeFileSync(at(`${'deep/'.repeat(24)}end/file`), 'deep');
  writeFileSync(at('dir/caf\u00e9'), 'utf-8');
  writeFileSync(Buffer.concat([Buffer.from(`${at('dir')}/`), Buffer.from([0x6c, 0xff, 0xe9])]), 'latin');
  for (const bytes of [511, 512, 513, 100_000]) writeFileSync(at(`dir/size${String(bytes)}`), Buffer.alloc(bytes, 'x'));
  symlinkSync('dir/file', at('symlink'));
  symlinkSync('t'.repeat(150), at('long-symlink'));
  linkSync(at('dir/file'), at('hardlink'));
  writeFileSync(at('old'), 'before 1970');
  utimesSync(at('old'), -1000, -1000.25);
  writeFileSync(at('holes'), 'start');
  truncateSync(at('holes'), 3_000_000);
  writeFileSync(at('holes'), 'middle', { flag: 'r+', flush: true });
  truncateSync(at('holes'), 4_000_001);
  for (let index = 0; index < 200; index++) writeFileSync(at(`dir/sub/file${String(index)}`), String(index));
});

afterAll(() => { rmSync(folder, { recursive: true, force: true }); });

/** Runs a writer; those that cannot write a name say so and leave it out, which is no failure here. */
function write(tool: string, args: readonly string[]): Buffer {
  const file = join(folder, 'out.tar');
  try {
    execFileSync(tool, args, { cwd: folder, stdio: 'ignore' });
  } catch (error) {
    if ((error as { status?: unknown }).status === null) throw error;
  }
  return readFileSync(file);
}

async function exact(tar: Buffer): Promise<Scanned> {
  const seen = scan(tar, [4096, 1, 700]);
  expect(unscan(seen).equals(tar)).toBe(true);
  const builder = new LayerMetaBuilder();
  builder.write(tar);
  const meta = decodeLayerMeta(encodeLayerMeta(builder.finish()));
  const hash = createHash('sha256');
  for await (const piece of rebuildTar(meta, async function* (entry) { yield await Promise.resolve(seen.contents[entry] ?? Buffer.alloc(0)); })) hash.update(piece);
  expect(`sha256:${hash.digest('hex')}`).toBe(meta.diffId);
  expect(seen.headers.length).toBeGreaterThan(200);
  return seen;
}

/** Residues that a writer may cost, and styles that its tar may have. */
async function cheap(tar: Buffer, residues = 0): Promise<Scanned> {
  const seen = await exact(tar);
  expect(seen.headers.filter(({ residue }) => residue.length > 0).map(({ path }) => path.toString('latin1')).length).toBeLessThanOrEqual(residues);
  expect(new Set(seen.headers.map(({ style }) => style.toString('hex'))).size).toBeLessThanOrEqual(4);
  return seen;
}

const gnu = ['--sort=name', '-cf', 'out.tar', 'in'];
for (const format of ['gnu', 'posix', 'ustar', 'v7', 'oldgnu']) {
  testWithTools('tar')(`GNU tar, ${format}`, async () => { await cheap(write('tar', [`--format=${format}`, ...gnu])); });
}

testWithTools('tar')('GNU tar with owners that do not fit and extended attributes', async () => {
  await cheap(write('tar', ['--format=gnu', '--owner=someone:3000000', '--group=group:-2', ...gnu]));
  await cheap(write('tar', ['--format=posix', '--owner=someone:3000000', '--xattrs', ...gnu]));
});

for (const version of ['old', '0.0', '0.1', '1.0']) {
  testWithTools('tar')(`GNU tar, sparse files, ${version}`, async () => {
    const format = version === 'old' ? ['--format=gnu'] : ['--format=posix', `--sparse-version=${version}`];
    const seen = await cheap(write('tar', [...format, '--sparse', ...gnu]), version === 'old' ? 1 : 0);
    const index = seen.headers.findIndex((header) => isSparse(header));
    const header = seen.headers[index];
    if (header === undefined) throw new Error('this filesystem keeps no holes');
    const content = seen.contents[index] ?? Buffer.alloc(0);
    const map = await sparseMap(header, (count) => Promise.resolve(content.subarray(0, count)));
    const expanded = Buffer.alloc(map?.realSizeBytes ?? 0);
    let from = map?.dataPrefixBytes ?? 0;
    for (const { offset, lengthBytes } of map?.extents ?? []) {
      content.copy(expanded, offset, from, from + lengthBytes);
      from += lengthBytes;
    }
    expect(map?.realPath.toString()).toBe('in/holes');
    expect(expanded.equals(readFileSync(join(folder, 'in/holes')))).toBe(true);
  });
}

for (const format of ['pax', 'ustar', 'gnutar']) {
  testWithTools('bsdtar')(`bsdtar, ${format}`, async () => { await cheap(write('bsdtar', ['--format', format, '-cf', 'out.tar', 'in']), 1); });
}

for (const format of ['GNU', 'PAX', 'USTAR']) {
  testWithTools('python3')(`Python, ${format}`, async () => {
    const code = `import os, tarfile
t = tarfile.open('out.tar', 'w', format=tarfile.${format}_FORMAT)
for folder, _, files in os.walk('in'):
    for name in [folder] + sorted(os.path.join(folder, file) for file in files):
        try: t.add(name, recursive=False)
        except ValueError: pass
t.close()`;
    await cheap(write('python3', ['-c', code]));
  });
}

testWithTools('busybox')('busybox tar', async () => { await cheap(write('busybox', ['tar', '-cf', 'out.tar', 'in'])); });

test('the tools are looked for where they are', () => { expect(hasTool('sh')).toBe(true); });
