import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { execFile } from 'node:child_process';
import { cp, lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import * as zstd from 'zstd-napi';
import { mediaTypes, parsePlatform, sha256Digest, type Descriptor } from '../../../src/oci/index.js';
import { bufferBlob, fileBlob, layerTar, LayoutReader, openSource, parseSourceSpec, writeArchive, type BlobInput } from '../../../src/registry/index.js';
import { addToIndex, makeImage, makeTar, noise, putBlob, type ImageFile, type MadeImage } from '../../support/images.js';
import { testWithTools } from '../../support/tools.js';
import { chunked, collect, expectCode } from './support.js';

const run = promisify(execFile);
const files: readonly ImageFile[][] = [[{ path: 'a/' }, { path: 'a/b', content: noise(700_000) }], [{ path: 'c', content: 'c' }], []];

let dir: string;
let image: MadeImage;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'source-test-'));
  image = await makeImage(join(dir, 'layout'), 'v1', files);
});
afterAll(async () => { await rm(dir, { recursive: true, force: true }); });

async function expectImage(spec: string, made: MadeImage, manifestToo = true): Promise<void> {
  const source = await openSource(spec);
  expect(source.config.descriptor.digest).toBe(made.configDigest);
  expect(source.layers.map((layer) => layer.diffId)).toEqual(made.layers.map((layer) => layer.diffId));
  if (manifestToo) expect(source.manifest.descriptor.digest).toBe(made.manifestDigest);
  expect(sha256Digest(source.manifest.bytes)).toBe(source.manifest.descriptor.digest);
  for (const [at, layer] of made.layers.entries()) expect((await collect(source.openLayerTar(at))).equals(layer.tar)).toBe(true);
  for (const { descriptor } of source.layers) expect(sha256Digest(await collect(source.openBlob(descriptor)))).toBe(descriptor.digest);
  await source.close();
}

/** A copy of the image's layout that a test may damage. */
async function damaged(name: string): Promise<string> {
  const copy = join(dir, name);
  await cp(image.dir, copy, { recursive: true });
  return copy;
}
const blobPath = (layout: string, digest: string): string => join(layout, 'blobs', 'sha256', digest.slice(7));

describe('layouts', () => {
  test.each(['gzip', 'zstd', 'none'] as const)('%s layers', async (compression) => {
    await expectImage(`oci:${join(dir, compression)}`, await makeImage(join(dir, compression), 'x', files, { compression }));
  });

  test('Docker media types', async () => {
    await expectImage(`oci:${join(dir, 'v2s2')}:x`, await makeImage(join(dir, 'v2s2'), 'x', files, { mediaTypes: 'docker' }));
  });

  test('a directory, a pipe or a device is said to be one: opening a pipe would wait for good', async () => {
    const pipe = join(dir, 'pipe');
    await run('mkfifo', [pipe]);
    for (const [path, kind] of [[pipe, 'a pipe'], [dir, 'a directory'], ['/dev/zero', 'a character device']] as const) {
      expect((await expectCode(openSource(`oci-archive:${path}`), 'IMAGE_UNREADABLE')).message).toBe(`${path} is ${kind}, and not a file`);
    }
  });

  test('a tag is needed where there are several, and must exist', async () => {
    const two = join(dir, 'two');
    const first = await makeImage(two, 'v1', files);
    const second = await makeImage(two, 'v2', [[{ path: 'z' }]]);
    await expectImage(`oci:${two}:v1`, first);
    await expectImage(`oci:${two}:v2`, second);
    expect((await expectCode(openSource(`oci:${two}`), 'IMAGE_NOT_FOUND')).message).toContain('it has v1, v2');
    await expectCode(openSource(`oci:${two}:v3`), 'IMAGE_NOT_FOUND');
    await expectCode(openSource(`oci:${join(dir, 'nowhere')}`), 'IMAGE_NOT_FOUND');
  });

  test('an index within gives the platform that is wanted', async () => {
    const layout = join(dir, 'multi');
    const made = [];
    for (const platform of ['linux/amd64', 'linux/arm/v7', 'linux/arm64']) made.push(await makeImage(layout, platform, [[{ path: platform }]], { platform: parsePlatform(platform) }));
    const { manifests } = JSON.parse(await readFile(join(layout, 'index.json'), 'utf8')) as { manifests: Descriptor[] };
    const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests }));
    await addToIndex(layout, { mediaType: mediaTypes.ociIndex, digest: await putBlob(layout, index), size: index.length, annotations: { 'org.opencontainers.image.ref.name': 'all' } });
    for (const [at, platform] of ['linux/amd64', 'armhf', 'linux/aarch64'].entries()) {
      const source = await openSource(`oci:${layout}:all`, { platform: parsePlatform(platform) });
      expect(source.config.descriptor.digest).toBe(made[at]!.configDigest);
      await source.close();
    }
    await expectCode(openSource(`oci:${layout}:all`, { platform: parsePlatform('linux/s390x') }), 'IMAGE_PLATFORM');
    await expectCode(openSource(`oci:${layout}:linux/amd64`, { platform: parsePlatform('linux/arm64') }), 'IMAGE_PLATFORM');
  });

  test('damage is found: missing, changed, cut and lengthened blobs', async () => {
    const layout = await damaged('damaged');
    const layer = blobPath(layout, image.layers[0]!.digest);
    const bytes = await readFile(layer);
    const read = async (): Promise<Buffer> => {
      const source = await openSource(`oci:${layout}`);
      return collect(source.openLayerTar(0));
    };
    await writeFile(layer, Buffer.concat([bytes.subarray(0, 100), Buffer.from([bytes[100]! ^ 1]), bytes.subarray(101)]));
    expect(['DIGEST_MISMATCH', 'IMAGE_INVALID']).toContain((await read().catch((error: unknown) => error as { code: string }) as { code: string }).code);
    await writeFile(layer, bytes.subarray(0, 5000));
    await expectCode(read(), 'DIGEST_MISMATCH');
    await writeFile(layer, Buffer.concat([bytes, Buffer.alloc(10)]));
    await expectCode(read(), 'DIGEST_MISMATCH');
    await rm(layer);
    await expectCode(read(), 'BLOB_MISSING');
    await mkdir(layer);
    await expectCode(read(), 'BLOB_MISSING');
    await rm(blobPath(layout, image.configDigest));
    await expectCode(openSource(`oci:${layout}`), 'BLOB_MISSING');
    await writeFile(blobPath(layout, image.manifestDigest), 'x'.repeat(image.manifest.length));
    await expectCode(openSource(`oci:${layout}`), 'DIGEST_MISMATCH');
    await writeFile(join(layout, 'index.json'), '{');
    await expectCode(openSource(`oci:${layout}`), 'IMAGE_INVALID');
    await rm(join(layout, 'oci-layout'));
    await expectCode(openSource(`oci:${layout}`), 'IMAGE_INVALID');
  });

  test('a layer that is not what its diffID says', async () => {
    const tar = await makeTar(files[0]!);
    const blob = gzipSync(tar);
    const descriptor = { mediaType: mediaTypes.ociLayerGzip, digest: sha256Digest(blob), size: blob.length };
    await expectCode(collect(layerTar(chunked(blob, 1000), { descriptor, diffId: sha256Digest(Buffer.from('other')) })), 'LAYER_MISMATCH');
    await expectCode(collect(layerTar(chunked(blob, 1000), { descriptor, diffId: sha256Digest(tar) }, { maxTarBytes: tar.length - 1 })), 'LIMIT_EXCEEDED');
  });
});

describe('packing', () => {
  const tar = noise(900_000);
  const unpack = async (blob: Buffer, step = 7777): Promise<Buffer> =>
    collect(layerTar(chunked(blob, step), { descriptor: { mediaType: mediaTypes.ociLayerGzip, digest: sha256Digest(blob), size: blob.length }, diffId: sha256Digest(tar) }));

  test('gzip of many members, with anything after it', async () => {
    const members = Buffer.concat([gzipSync(tar.subarray(0, 10)), gzipSync(Buffer.alloc(0)), gzipSync(tar.subarray(10))]);
    expect((await unpack(members)).equals(tar)).toBe(true);
    expect((await unpack(members, 333)).equals(tar)).toBe(true);
    expect((await unpack(Buffer.concat([members, Buffer.alloc(1_000_000)]))).equals(tar)).toBe(true);
    await expectCode(unpack(Buffer.concat([members, Buffer.from('junk'), Buffer.alloc(2_000_000, 7)]), 65_536), 'IMAGE_INVALID');
  });

  test('zstd of many frames, skippable ones among them', async () => {
    const skippable = Buffer.concat([Buffer.from([0x5a, 0x2a, 0x4d, 0x18, 4, 0, 0, 0]), Buffer.from('skip')]);
    const frames = Buffer.concat([skippable, zstd.compress(tar.subarray(0, 500_000)), skippable, zstd.compress(tar.subarray(500_000))]);
    expect((await unpack(frames)).equals(tar)).toBe(true);
    expect((await unpack(frames, 13)).equals(tar)).toBe(true);
  });

  test.each<[string, (tar: Buffer) => Buffer]>([['gzip', gzipSync], ['zstd', zstd.compress]])('%s that is cut, or has a wrong byte, is damage and never an end', async (_packing, pack) => {
    const whole = pack(tar);
    for (const at of [20, 5000, whole.length - 1]) await expectCode(unpack(whole.subarray(0, at)), 'IMAGE_INVALID');
    for (const at of [3, 5000, whole.length - 6]) {
      const changed = Buffer.from(whole);
      changed[at] = changed[at]! ^ 0x40;
      const error = await unpack(changed).then(() => undefined, (each: unknown) => each as { code: string });
      expect(['IMAGE_INVALID', 'LAYER_MISMATCH', undefined]).toContain(error?.code);
    }
  });

  test('a bomb is stopped at its limit, in bounded memory', async () => {
    for (const pack of [gzipSync, zstd.compress]) {
      const blob = pack(Buffer.alloc(300_000_000));
      const descriptor = { mediaType: mediaTypes.ociLayerGzip, digest: sha256Digest(blob), size: blob.length };
      let largest = 0;
      let total = 0;
      const reading = (async () => {
        for await (const piece of layerTar(chunked(blob, 1_000_000), { descriptor, diffId: sha256Digest(tar) }, { maxTarBytes: 5_000_000 })) {
          largest = Math.max(largest, piece.length);
          total += piece.length;
        }
      })();
      await expectCode(reading, 'LIMIT_EXCEEDED');
      expect(total).toBeLessThanOrEqual(5_000_000);
      expect(largest).toBeLessThanOrEqual(256 * 1024);
    }
  });

  test('a reader that stops early stops the source', async () => {
    let ended = false;
    const blob = gzipSync(tar);
    async function* watched(): AsyncGenerator<Buffer, void, void> {
      try {
        yield* chunked(blob, 1000);
      } finally {
        ended = true;
      }
    }
    for await (const piece of layerTar(watched(), { descriptor: { mediaType: mediaTypes.ociLayerGzip, digest: sha256Digest(blob), size: blob.length }, diffId: sha256Digest(tar) })) {
      expect(piece.length).toBeGreaterThan(0);
      break;
    }
    expect(ended).toBe(true);
  });

  test('xz and bzip2 are named', async () => {
    expect((await expectCode(unpack(Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 1, 2])), 'IMAGE_MEDIA_TYPE')).message).toContain('xz');
    expect((await expectCode(unpack(Buffer.from('BZh9xxxx')), 'IMAGE_MEDIA_TYPE')).message).toContain('bzip2');
  });
});

describe('what skopeo writes', () => {
  const skopeo = testWithTools('skopeo');
  skopeo('oci-archive', async () => {
    const path = join(dir, 'skopeo.tar');
    await run('skopeo', ['copy', '-q', `oci:${image.dir}:v1`, `oci-archive:${path}:named`]);
    await expectImage(`oci-archive:${path}`, image);
    await expectImage(`oci-archive:${path}:named`, image);
  });

  skopeo('docker-archive', async () => {
    const path = join(dir, 'docker.tar');
    await run('skopeo', ['copy', '-q', `oci:${image.dir}:v1`, `docker-archive:${path}:some/name:v1`]);
    for (const suffix of ['', ':some/name:v1', ':v1', ':docker.io/some/name:v1']) await expectImage(`docker-archive:${path}${suffix}`, image, false);
    const [one, two] = [await openSource(`docker-archive:${path}`), await openSource(`docker-archive:${path}`)];
    expect(one.manifest.bytes.equals(two.manifest.bytes)).toBe(true);
    await one.close();
    await two.close();
    await expectCode(openSource(`docker-archive:${path}:other`), 'IMAGE_NOT_FOUND');
    await expectCode(openSource(`oci-archive:${path}`), 'IMAGE_INVALID');
    await run('gzip', ['-k', path]);
    expect((await expectCode(openSource(`docker-archive:${path}.gz`), 'IMAGE_INVALID')).message).toContain('gzip');
  });
});

describe('docker save, old and new', () => {
  async function save(name: string, entries: readonly ImageFile[]): Promise<string> {
    const path = join(dir, name);
    await writeFile(path, await makeTar(entries));
    return path;
  }
  const manifestJson = (value: unknown): ImageFile => ({ path: 'manifest.json', content: JSON.stringify(value) });

  test('the old form, with a link for a layer that came twice', async () => {
    const one = image.layers[1]!;
    const config = Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [one.diffId, one.diffId] } }));
    const path = await save('old.tar', [
      { path: 'aa/' }, { path: 'aa/layer.tar', content: one.tar }, { path: 'bb/layer.tar', type: 'symlink', linkPath: '../aa/layer.tar' }, { path: 'cc.json', content: config },
      manifestJson([{ Config: 'cc.json', RepoTags: ['x:1'], Layers: ['aa/layer.tar', 'bb/layer.tar'] }]),
    ]);
    const source = await openSource(`docker-archive:${path}:x:1`);
    expect((await collect(source.openLayerTar(1))).equals(one.tar)).toBe(true);
    expect(source.config.descriptor.digest).toBe(sha256Digest(config));
    await source.close();
  });

  test('the new form, a layout with packed layers', async () => {
    const blobs = await Promise.all([image.configDigest, ...image.layers.map((layer) => layer.digest)].map(async (digest) => ({ path: `blobs/sha256/${digest.slice(7)}`, content: await readFile(blobPath(image.dir, digest)) })));
    const path = await save('new.tar', [...blobs, manifestJson([{ Config: blobs[0]!.path, RepoTags: null, Layers: blobs.slice(1).map((each) => each.path) }])]);
    await expectImage(`docker-archive:${path}`, image, false);
    const source = await openSource(`docker-archive:${path}`);
    expect(source.layers.map((layer) => layer.descriptor.digest)).toEqual(image.layers.map((layer) => layer.digest));
    await source.close();
  });

  test.each<[string, readonly ImageFile[], string]>([
    ['no manifest', [{ path: 'x', content: 'y' }], 'IMAGE_INVALID'],
    ['no list', [manifestJson({})], 'IMAGE_INVALID'],
    ['no images', [manifestJson([])], 'IMAGE_NOT_FOUND'],
    ['a config that is not there', [manifestJson([{ Config: 'c', RepoTags: [], Layers: [] }])], 'BLOB_MISSING'],
    ['a config outside', [manifestJson([{ Config: '../../etc/passwd', RepoTags: [], Layers: [] }])], 'BLOB_MISSING'],
    ['a link that leads outside', [manifestJson([{ Config: 'c', RepoTags: [], Layers: [] }]), { path: 'c', type: 'symlink', linkPath: '/etc/passwd' }], 'BLOB_MISSING'],
    ['links in a circle', [manifestJson([{ Config: 'c', RepoTags: [], Layers: [] }]), { path: 'c', type: 'symlink', linkPath: 'd' }, { path: 'd', type: 'symlink', linkPath: 'c' }], 'BLOB_MISSING'],
    ['names that lead outside', [manifestJson([]), { path: '../x', content: 'y' }], 'IMAGE_INVALID'],
    ['absolute names', [manifestJson([]), { path: '/x', content: 'y' }], 'IMAGE_INVALID'],
  ])('%s', async (name, entries, code) => {
    await expectCode(openSource(`docker-archive:${await save(`bad-${name.replaceAll(' ', '-')}.tar`, entries)}`), code);
  });

  test('what is no tar, or cut', async () => {
    const path = await save('whole.tar', [manifestJson([]), { path: 'x', content: noise(5000) }]);
    const bytes = await readFile(path);
    for (const content of [Buffer.alloc(0), Buffer.from('hello'), noise(4096), bytes.subarray(0, 513), bytes.subarray(0, 3000)]) {
      await writeFile(join(dir, 'no.tar'), content);
      await expectCode(openSource(`docker-archive:${join(dir, 'no.tar')}`), 'IMAGE_INVALID');
    }
    await expectCode(openSource(`docker-archive:${dir}`), 'IMAGE_UNREADABLE');
  });
});

describe('writing', () => {
  const contents = async (): Promise<{ blobs: BlobInput[]; manifests: Descriptor[] }> => {
    const manifest = { mediaType: mediaTypes.ociManifest, digest: image.manifestDigest, size: image.manifest.length };
    const layers = await Promise.all(image.layers.map(async (layer) => {
      const path = blobPath(image.dir, layer.digest);
      return fileBlob({ mediaType: mediaTypes.ociLayerGzip, digest: layer.digest, size: (await stat(path)).size }, path);
    }));
    return { manifests: [{ ...manifest, annotations: { 'org.opencontainers.image.ref.name': 'v1' } }], blobs: [bufferBlob(manifest.mediaType, image.manifest), bufferBlob(mediaTypes.ociConfig, image.config), ...layers, ...layers] };
  };

  test('an archive reads back the same, and is the same each time', async () => {
    await writeArchive(join(dir, 'w.tar'), await contents());
    await writeArchive(join(dir, 'w2.tar'), await contents());
    await expectImage(`oci-archive:${join(dir, 'w.tar')}:v1`, image);
    expect((await readFile(join(dir, 'w.tar'))).equals(await readFile(join(dir, 'w2.tar')))).toBe(true);
  });

  testWithTools('skopeo', 'tar')('skopeo and tar read what was written', async () => {
    await writeArchive(join(dir, 's.tar'), await contents());
    await run('skopeo', ['copy', '-q', `oci-archive:${join(dir, 's.tar')}:v1`, `oci:${join(dir, 's')}:again`]);
    await expectImage(`oci:${join(dir, 's')}:again`, image);
    expect((await run('tar', ['-tf', join(dir, 's.tar')])).stdout.split('\n').slice(0, 4)).toEqual(['oci-layout', 'index.json', 'blobs/', 'blobs/sha256/']);
  });

  test('sha512 names, which are long', async () => {
    const bytes = noise(3000);
    const digest = `sha512:${(await import('node:crypto')).createHash('sha512').update(bytes).digest('hex')}`;
    const descriptor = { mediaType: 'application/octet-stream', digest, size: bytes.length };
    await writeArchive(join(dir, 'l.tar'), { manifests: [descriptor], blobs: [{ descriptor, open: () => chunked(bytes, 100) }] });
    const reader = await LayoutReader.openArchive(join(dir, 'l.tar'));
    expect((await collect(reader.openBlob(descriptor))).equals(bytes)).toBe(true);
    await reader.close();
  });

  test('on an error nothing remains, and what stood there still stands', async () => {
    const into = join(dir, 'into');
    await mkdir(into);
    await writeFile(join(into, 'a.tar'), 'before');
    const good = await contents();
    const bad = { ...good, blobs: [...good.blobs, { descriptor: { mediaType: 'a/b', digest: sha256Digest(noise(10)), size: 10 }, open: () => chunked(noise(10, 2), 3) }] };
    await expectCode(writeArchive(join(into, 'a.tar'), bad), 'DIGEST_MISMATCH');
    expect(await readdir(into)).toEqual(['a.tar']);
    expect(await readFile(join(into, 'a.tar'), 'utf8')).toBe('before');
    await expectCode(writeArchive(join(into, 'no', 'a.tar'), good), 'USAGE');
    expect(await readdir(into)).toEqual(['a.tar']);
  });

  test('a pipe or a device is written into and never replaced; a link is written through', async () => {
    const into = await mkdtemp(join(dir, 'special-'));
    await writeArchive(join(into, 'whole.tar'), await contents());
    const whole = await readFile(join(into, 'whole.tar'));
    await run('mkfifo', [join(into, 'pipe')]);
    const [read] = await Promise.all([readFile(join(into, 'pipe')), writeArchive(join(into, 'pipe'), await contents())]);
    expect(read.equals(whole)).toBe(true);
    expect((await lstat(join(into, 'pipe'))).isFIFO()).toBe(true);
    await symlink('old.tar', join(into, 'link'));
    await writeFile(join(into, 'old.tar'), 'before');
    await writeArchive(join(into, 'link'), await contents());
    expect((await lstat(join(into, 'link'))).isSymbolicLink()).toBe(true);
    expect((await readFile(join(into, 'old.tar'))).equals(whole)).toBe(true);
    expect((await readdir(into)).sort()).toEqual(['link', 'old.tar', 'pipe', 'whole.tar']);
  });

  test('a file that grew or shrank since is noticed', async () => {
    const path = join(dir, 'grown');
    await writeFile(path, noise(100));
    const blob = fileBlob({ mediaType: 'a/b', digest: sha256Digest(noise(100)), size: 100 }, path);
    await writeFile(path, noise(101));
    await expectCode(writeArchive(join(dir, 'g.tar'), { manifests: [], blobs: [blob] }), 'DIGEST_MISMATCH');
    await writeFile(path, noise(99));
    await expectCode(writeArchive(join(dir, 'g.tar'), { manifests: [], blobs: [blob] }), 'DIGEST_MISMATCH');
  });
});

describe('names of sources', () => {
  test('as skopeo writes them', () => {
    expect(parseSourceSpec('oci:/a/b:v1')).toEqual({ transport: 'oci', path: '/a/b', tag: 'v1' });
    expect(parseSourceSpec('oci-archive:f.tar')).toEqual({ transport: 'oci-archive', path: 'f.tar' });
    expect(parseSourceSpec('docker-archive:f.tar:h:5000/r/x:v1')).toEqual({ transport: 'docker-archive', path: 'f.tar', tag: 'h:5000/r/x:v1' });
    expect(parseSourceSpec('docker://alpine')).toEqual({ transport: 'docker', reference: { registry: 'docker.io', repository: 'library/alpine' } });
  });
  test.each(['', 'oci', 'oci:', 'dir:/x', '/x', 'alpine', 'docker:alpine', 'docker://', 'containers-storage:x', 'oci::v1'])('%j is refused', (text) => {
    expect(() => parseSourceSpec(text)).toThrow(/^not an image/);
  });
});
