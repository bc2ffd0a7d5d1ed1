import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readSync, renameSync, rmSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { LayerMetaCache } from '../../../../src/applier/engines/layer-meta-cache.js';
import { openExtractedLayer, type ExtractedLayer } from '../../../../src/applier/engines/extracted-layer.js';
import type { HeldImage } from '../../../../src/applier/engines/types.js';
import { ContentsBasis } from '../../../../src/applier/store/basis.js';
import { LinuxFs } from '../../../../src/atomic/index.js';
import { LayerMetaBuilder, type LayerMeta } from '../../../../src/tar/index.js';
import { inPieces, tarSplitOf } from '../../../support/tar-split.js';
import { endOfTar, goPax, member, scan } from '../../../support/tars.js';

let folder = '';
let directory = '';
let fs: LinuxFs;
const image: HeldImage = { manifestDigest: null, configDigest: `sha256:${'1'.repeat(64)}`, config: Buffer.alloc(0), diffIds: [], names: [], sequence: 0 };

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'whittle-extracted-'));
  directory = join(folder, 'layer');
  mkdirSync(join(folder, 'root'));
  fs = await LinuxFs.open(join(folder, 'root'));
});

afterEach(async () => {
  await fs.close();
  rmSync(folder, { recursive: true, force: true });
});

const odd = Buffer.from([0x6f, 0xff, 0x64]);
const tar = Buffer.concat([
  member({ name: 'd/', type: '5', mode: 0o755 }), member({ name: 'd/a', data: Buffer.alloc(513, 1) }), member({ name: 'hard', type: '1', link: 'd/a' }),
  member({ name: 'way', type: '2', link: 'd' }), member({ name: 'way/b', data: Buffer.from('behind a link') }), member({ name: odd, data: Buffer.from('odd name') }),
  goPax('p', { mtime: '1.25' }), member({ name: 'p', data: Buffer.alloc(300_000, 7), mtime: 1 }), member({ name: '.wh.gone' }), member({ name: 'empty' }), endOfTar,
]);

function metaOf(bytes: Buffer): LayerMeta {
  const builder = new LayerMetaBuilder();
  builder.write(bytes);
  return builder.finish();
}

/** Extracts a tar as engines do, but for whiteouts. */
function extract(bytes: Buffer): void {
  mkdirSync(directory, { recursive: true });
  execFileSync('tar', ['-x', '--keep-directory-symlink', '--exclude=.wh.*', '-C', directory, '-f', '-'], { input: bytes, stdio: ['pipe', 'ignore', 'ignore'] });
}

let reads = 0;

function open(bytes: Buffer, diffId = metaOf(bytes).diffId): Promise<ExtractedLayer> {
  reads = 0;
  const tarSplit = (): AsyncIterable<Buffer> => {
    reads++;
    return inPieces(tarSplitOf(bytes));
  };
  return openExtractedLayer({ directory, diffId, tarSplit, known: new LayerMetaCache(fs) });
}

async function contentsOf(layer: ExtractedLayer): Promise<(Buffer | null)[]> {
  const basis = new ContentsBasis(image, [layer], () => Promise.resolve());
  const found: (Buffer | null)[] = [];
  for (const [entry, { header }] of layer.meta.entries.entries()) {
    if (header.sizeBytes === 0) {
      found.push(null);
      continue;
    }
    const content = await basis.openContent(0, entry);
    const bytes = content.extents.map(({ offset, lengthBytes }) => {
      const piece = Buffer.alloc(lengthBytes);
      expect(readSync(content.fd, piece, 0, lengthBytes, offset)).toBe(lengthBytes);
      return piece;
    });
    found.push(Buffer.concat(bytes));
    await content.close();
  }
  return found;
}

async function expectWhole(bytes: Buffer): Promise<void> {
  const layer = await open(bytes);
  try {
    const meta = metaOf(bytes);
    expect(isDeepStrictEqual({ ...layer.meta, entries: [...layer.meta.entries] }, { ...meta, entries: [...meta.entries] })).toBe(true);
    const contents = await contentsOf(layer);
    const differing = scan(bytes).contents.map((content, entry) => content.equals(contents[entry] ?? Buffer.alloc(0))).lastIndexOf(false);
    expect(differing).toBe(-1);
  } finally {
    await layer.close();
    await layer.close();
  }
}

test('a layer gives the metadata and the contents of its tar, and is read through only once', async () => {
  extract(tar);
  await expectWhole(tar);
  expect(reads).toBe(1);
  await expectWhole(tar);
  expect(reads).toBe(0);
});

test('the layers of an image of odd entries', async () => {
  const blobs = join(import.meta.dirname, '../../../fixtures/images/torture/blobs/sha256');
  let proven = 0;
  const refused: string[] = [];
  for (const name of readdirSync(blobs)) {
    const blob = readFileSync(join(blobs, name));
    if (blob[0] !== 0x1f || blob[1] !== 0x8b) continue;
    rmSync(directory, { recursive: true, force: true });
    const bytes = gunzipSync(blob);
    extract(bytes);
    try {
      await expectWhole(bytes);
      proven++;
    } catch (error) {
      refused.push((error as Error).message);
    }
  }
  expect(refused.filter((message) => !message.includes('replaced within the layer'))).toEqual([]);
  expect(proven).toBeGreaterThan(0);
});

test('what is known is not believed when it is damaged', async () => {
  extract(tar);
  await (await open(tar)).close();
  const path = join(folder, 'root/engines/layers', metaOf(tar).diffId.slice(7));
  for (const damage of [(): void => { truncateSync(path, 100); }, (): void => { appendFileSync(path, 'x'); }, (): void => { rmSync(path); mkdirSync(path); }]) {
    damage();
    await expectWhole(tar);
    expect(reads).toBe(1);
  }
});

test.each<[string, () => void]>([
  ['changed', () => { writeFileSync(join(directory, 'd/a'), Buffer.alloc(513, 2)); }],
  ['shortened', () => { truncateSync(join(directory, 'd/a'), 500); }],
  ['removed', () => { rmSync(join(directory, 'd/a')); rmSync(join(directory, 'hard')); }],
  ['replaced by a link out of the layer', () => {
    writeFileSync(join(folder, 'outside'), Buffer.alloc(513, 1));
    rmSync(join(directory, 'd/a'));
    symlinkSync('../../outside', join(directory, 'd/a'));
  }],
  ['in a directory replaced by a link out of the layer', () => {
    renameSync(join(directory, 'd'), join(folder, 'elsewhere'));
    symlinkSync('../elsewhere', join(directory, 'd'));
  }],
  ['replaced by a pipe', () => { rmSync(join(directory, 'd/a')); execFileSync('mkfifo', [join(directory, 'd/a')]); }],
])('content that was %s is refused, before and after the layer was proven', async (_, change) => {
  extract(tar);
  const layer = await open(tar);
  const basis = new ContentsBasis(image, [layer], () => Promise.resolve());
  const before = await basis.openContent(0, 1);
  await before.close();
  change();
  await expect(basis.openContent(0, 1)).rejects.toMatchObject({ code: 'BASIS_DAMAGED' });
  await layer.close();
  rmSync(join(folder, 'root/engines'), { recursive: true });
  await expect(open(tar)).rejects.toMatchObject({ code: 'BASIS_DAMAGED', data: { layers: metaOf(tar).diffId } });
});

test('a file that was only touched is read again and taken', async () => {
  extract(tar);
  const layer = await open(tar);
  utimesSync(join(directory, 'd/a'), 5, 5);
  expect((await contentsOf(layer))[1]).toEqual(Buffer.alloc(513, 1));
  await layer.close();
});

test('a layer that is gone, or is another, is refused', async () => {
  await expect(open(tar)).rejects.toMatchObject({ code: 'BASIS_DAMAGED', message: expect.stringContaining('no longer has its files') as unknown });
  extract(tar);
  const other = `sha256:${createHash('sha256').update('other').digest('hex')}`;
  await expect(open(tar, other)).rejects.toMatchObject({ code: 'BASIS_DAMAGED', message: expect.stringContaining('some were changed') as unknown });
  expect(readdirSync(join(folder, 'root'))).toEqual([]);
  const missing = (): AsyncIterable<Buffer> => { throw Object.assign(new Error('ENOENT'), { code: 'ENOENT' }); };
  await expect(openExtractedLayer({ directory, diffId: other, tarSplit: missing, known: new LayerMetaCache(fs) })).rejects.toMatchObject({ code: 'BASIS_DAMAGED' });
});

test('content that a later entry replaced is in no file', async () => {
  const twice = Buffer.concat([member({ name: 'a', data: Buffer.from('first') }), member({ name: 'a', data: Buffer.from('other') }), endOfTar]);
  extract(twice);
  await expect(open(twice)).rejects.toMatchObject({ code: 'BASIS_DAMAGED', message: expect.stringContaining('in no file') as unknown });
});

test('a sparse file is read where its data is', async () => {
  mkdirSync(join(folder, 'in'));
  writeFileSync(join(folder, 'in/holes'), 'start');
  truncateSync(join(folder, 'in/holes'), 3_000_000);
  appendFileSync(join(folder, 'in/holes'), 'end');
  for (const format of [['--format=gnu'], ['--format=posix', '--sparse-version=0.1']]) {
    const bytes = execFileSync('tar', ['-c', '--sparse', ...format, '-C', folder, 'in']);
    expect(bytes.length).toBeLessThan(100_000);
    extract(bytes);
    await expectWhole(bytes);
  }
});
