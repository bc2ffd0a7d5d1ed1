import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { readTarSplit } from '../../../../src/applier/engines/tar-split.js';
import { isWhittleError } from '../../../../src/core/errors.js';
import { LayerMetaBuilder, type LayerMeta } from '../../../../src/tar/index.js';
import { inPieces, packTarSplit, tarSplitLines, tarSplitOf, type TarSplitLine } from '../../../support/tar-split.js';
import { endOfTar, goPax, member, scan, unscan } from '../../../support/tars.js';
import { testWithTools } from '../../../support/tools.js';

let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'whittle-tar-split-'));
  const at = (name: string): string => join(folder, 'in', name);
  mkdirSync(at(`${'deep/'.repeat(24)}end`), { recursive: true });
  writeFileSync(at(`${'deep/'.repeat(24)}end/${'n'.repeat(99)}`), 'deep');
  writeFileSync(at('file'), Buffer.alloc(100_000, 'x'));
  linkSync(at('file'), at('hard'));
  symlinkSync('t'.repeat(150), at('long-symlink'));
  writeFileSync(Buffer.concat([Buffer.from(at('')), Buffer.from([0x6c, 0xff, 0xe9])]), 'no utf-8');
  writeFileSync(at('holes'), 'start');
  truncateSync(at('holes'), 3_000_000);
  for (let index = 0; index < 50; index++) writeFileSync(at(`file${String(index)}`), String(index));
});

afterAll(() => { rmSync(folder, { recursive: true, force: true }); });

function metaOf(tar: Buffer): LayerMeta {
  const builder = new LayerMetaBuilder();
  builder.write(tar);
  return builder.finish();
}

/** The metadata as a tar-split tells it: no digests. */
function plain(meta: LayerMeta): unknown {
  return { ...meta, entries: [...meta.entries].map((entry) => ({ ...entry, digest: null })) };
}

async function expectExact(tar: Buffer): Promise<void> {
  const expected = metaOf(tar);
  expect(isDeepStrictEqual(plain(await readTarSplit(inPieces(tarSplitOf(tar)), expected.diffId)), plain(expected))).toBe(true);
}

function write(tool: string, args: readonly string[]): Buffer {
  execFileSync(tool, args, { cwd: folder, stdio: 'ignore' });
  return readFileSync(join(folder, 'out.tar'));
}

for (const format of ['gnu', 'posix', 'ustar']) {
  testWithTools('tar')(`a tar by GNU tar, ${format}`, async () => { await expectExact(write('tar', [`--format=${format}`, '-cf', 'out.tar', ...(format === 'ustar' ? ['--exclude=deep', '--exclude=long-symlink'] : ['--sparse']), 'in'])); });
}
testWithTools('bsdtar')('a tar by bsdtar', async () => { await expectExact(write('bsdtar', ['--format', 'gnutar', '-cf', 'out.tar', 'in'])); });
testWithTools('busybox')('a tar by busybox', async () => { await expectExact(write('busybox', ['tar', '-cf', 'out.tar', 'in'])); });

test.each(['alpine', 'torture'])('the layers of the image %s', async (image) => {
  const blobs = join(import.meta.dirname, '../../../fixtures/images', image, 'blobs/sha256');
  let layers = 0;
  for (const name of readdirSync(blobs)) {
    const blob = readFileSync(join(blobs, name));
    if (blob[0] !== 0x1f || blob[1] !== 0x8b) continue;
    await expectExact(gunzipSync(blob));
    layers++;
  }
  expect(layers).toBeGreaterThan(1);
});

const small = Buffer.concat([
  goPax('g', { comment: 'c' }, 'g'), goPax('d/a', { path: 'd/caf\u00e9', mtime: '1700000000.25' }), member({ name: 'd/a', data: Buffer.alloc(513, 1) }),
  member({ name: 'link', type: '2', link: 'to' }), member({ name: 'p', data: Buffer.from('x') }), member({ name: 'q', data: Buffer.alloc(512, 2) }), endOfTar, Buffer.alloc(9000),
]);

test('padding after the last entry may be in one line, and lines may stand for what is no entry of ours', async () => {
  const expected = metaOf(small);
  const lines = tarSplitLines(small, true);
  const more: TarSplitLine[] = [{ ...lines[0] as TarSplitLine }, { type: 1, name: 'pax_global_header', payload: null, position: 0 }, ...lines.slice(1), { type: 2, payload: '', position: 0 }];
  // The first segment holds the global header and those of the first entry.
  const head = Buffer.from(lines[0]?.payload ?? '', 'base64');
  (more[0] as TarSplitLine).payload = head.subarray(0, 1024).toString('base64');
  more.splice(2, 0, { type: 2, payload: head.subarray(1024).toString('base64'), position: 0 });
  const numbered = more.map((line, position) => ({ ...line, position }));
  expect(plain(await readTarSplit(inPieces(packTarSplit(numbered), 7), expected.diffId))).toEqual(plain(expected));
});

async function refusal(packed: Buffer): Promise<string> {
  try {
    await readTarSplit(inPieces(packed), `sha256:${'0'.repeat(64)}`);
  } catch (error) {
    if (isWhittleError(error) && error.code === 'BASIS_DAMAGED') return error.message;
    throw error;
  }
  return 'taken';
}

test('what does not fit together is refused', async () => {
  const lines = tarSplitLines(small);
  const changed = (at: number, change: Record<string, unknown>): Buffer => packTarSplit(lines.map((line, index) => (index === at ? { ...line, ...change } : line)));
  const file = lines.findIndex(({ size }) => size === 513);
  expect(await refusal(changed(file, { size: 512 }))).toContain('512 bytes where the tar\'s header says 513');
  expect(await refusal(changed(file, { size: 2 ** 60 }))).toContain('wrong kind');
  expect(await refusal(changed(file, { size: -1 }))).toContain('wrong kind');
  expect(await refusal(changed(file, { type: 3 }))).toContain('unknown type');
  expect(await refusal(changed(file, { position: 9 }))).toContain('number 9');
  expect(await refusal(changed(0, { payload: 'AAA*' }))).toContain('no base64');
  expect(await refusal(changed(0, { payload: 5 }))).toContain('wrong kind');
  expect(await refusal(changed(0, { payload: Buffer.alloc(512, 1).toString('base64') }))).toContain('damaged');
  const without = (at: number): Buffer => packTarSplit(lines.filter((_, index) => index !== at).map((line, position) => ({ ...line, position })));
  expect(await refusal(without(file))).toContain('content is due');
  expect(await refusal(without(0))).toContain('header says 0');
  expect(await refusal(packTarSplit(lines.slice(0, 1)))).toContain('damaged');
  expect(await refusal(packTarSplit([]))).toContain('empty');
  expect(await refusal(packTarSplit([null]))).toContain('not an object');
  expect(await refusal(tarSplitOf(small).subarray(0, 200))).toContain('damaged');
  expect(await refusal(Buffer.from('no gzip'))).toContain('damaged');
});

const entry = fc.record({
  name: fc.constantFrom('a', 'b/c', 'caf\u00e9', 'x'.repeat(100)), data: fc.uint8Array({ maxLength: 1500 }).map((bytes) => Buffer.from(bytes)),
  type: fc.constantFrom('0', '\0', '7', 'V'), pax: fc.option(fc.constant({ mtime: '5.5' }), { nil: undefined }),
}).map(({ pax, ...rest }) => Buffer.concat([pax === undefined ? Buffer.alloc(0) : goPax(rest.name, pax), member(rest)]));
const tars = fc.tuple(fc.array(entry, { maxLength: 6 }), fc.constantFrom(512, 1024, 9000)).map(([entries, end]) => Buffer.concat([...entries, Buffer.alloc(end)]));

test('any tar comes back exactly', async () => {
  await fc.assert(fc.asyncProperty(tars, async (tar) => { await expectExact(tar); }), { numRuns: 100 });
});

test('a tar-split with changed lines is refused, or is that of some tar', async () => {
  const change = fc.record({ at: fc.nat(20), field: fc.constantFrom('type', 'size', 'payload', 'position'), value: fc.oneof(fc.nat(3), fc.constantFrom(null, 'AAAA', -1, 1.5, 2 ** 53, 'x'), fc.nat(2000)) });
  await fc.assert(fc.asyncProperty(tars, fc.array(change, { minLength: 1, maxLength: 3 }), async (tar, changes) => {
    const lines: Record<string, unknown>[] = tarSplitLines(tar).map((line) => ({ ...line }));
    for (const { at, field, value } of changes) {
      const line = lines[at % lines.length];
      if (line !== undefined) line[field] = value;
    }
    let meta: LayerMeta;
    try {
      meta = await readTarSplit(inPieces(packTarSplit(lines)), `sha256:${'0'.repeat(64)}`);
    } catch (error) {
      if (isWhittleError(error) && error.code === 'BASIS_DAMAGED') return;
      throw error;
    }
    const contents = [...meta.entries].map(({ header }) => Buffer.alloc(header.sizeBytes));
    const rebuilt = unscan({ headers: [...meta.entries].map(({ header }) => header), contents, paddings: [...meta.entries].map(({ padding }) => padding), trailerZeroBytes: meta.trailerZeroBytes, trailer: meta.trailer });
    expect(rebuilt.length).toBe(meta.sizeBytes);
    expect(scan(rebuilt).headers.length).toBe(meta.entries.length);
  }), { numRuns: 500 });
});
