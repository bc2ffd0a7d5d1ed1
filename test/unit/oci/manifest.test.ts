import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { isWhittleError, type WhittleError } from '../../../src/core/errors.js';
import { maxLayers, maxManifestBytes } from '../../../src/core/limits.js';
import { checkImageManifest, mediaTypes, parseConfig, parseIndex, parseManifest, parseManifestOrIndex, sha256Digest } from '../../../src/oci/index.js';

const digest = sha256Digest(Buffer.from('x'));
const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const layer = { mediaType: mediaTypes.ociLayerGzip, digest, size: 5 };
const manifest = { schemaVersion: 2, mediaType: mediaTypes.ociManifest, config: { mediaType: mediaTypes.ociConfig, digest, size: 2 }, layers: [layer] };
const index = { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests: [{ mediaType: mediaTypes.ociManifest, digest, size: 9, platform: { os: 'linux', architecture: 'arm64' } }] };
const config = { os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [digest] } };

function thrown(run: () => unknown): WhittleError {
  try {
    run();
  } catch (error) {
    if (isWhittleError(error)) return error;
    throw error;
  }
  throw new Error('expected an error');
}

describe('manifests', () => {
  test('one of each kind is read', () => {
    const parsed = parseManifest(json({ ...manifest, subject: layer, annotations: { a: 'b' } }));
    expect(parsed).toMatchObject({ kind: 'manifest', layers: [layer], subject: layer });
    expect({ ...parsed.annotations }).toEqual({ a: 'b' });
    expect(parseIndex(json(index)).manifests[0]?.platform).toEqual({ os: 'linux', architecture: 'arm64' });
    expect(parseConfig(json(config), 1).diffIds).toEqual([digest]);
    expect(parseManifestOrIndex(json({ ...index, mediaType: undefined }), 'm').kind).toBe('index');
    expect(parseManifestOrIndex(json({ ...manifest, mediaType: undefined }), 'm', mediaTypes.dockerManifest).mediaType).toBe(mediaTypes.dockerManifest);
  });

  test.each<[string, unknown, string]>([
    ['an array', [], 'IMAGE_INVALID'],
    ['null', null, 'IMAGE_INVALID'],
    ['schema 1', { ...manifest, schemaVersion: 1 }, 'IMAGE_MEDIA_TYPE'],
    ['an unknown type', { ...manifest, mediaType: 'application/x' }, 'IMAGE_MEDIA_TYPE'],
    ['no config', { ...manifest, config: undefined }, 'IMAGE_INVALID'],
    ['layers that are no list', { ...manifest, layers: {} }, 'IMAGE_INVALID'],
    ['a negative size', { ...manifest, layers: [{ ...layer, size: -1 }] }, 'IMAGE_INVALID'],
    ['a size beyond 2^53', { ...manifest, layers: [{ ...layer, size: 2 ** 60 }] }, 'IMAGE_INVALID'],
    ['a size as text', { ...manifest, layers: [{ ...layer, size: '5' }] }, 'IMAGE_INVALID'],
    ['a digest that leads elsewhere', { ...manifest, layers: [{ ...layer, digest: 'sha256:../../etc/passwd' }] }, 'IMAGE_INVALID'],
    ['an upper-case digest', { ...manifest, layers: [{ ...layer, digest: digest.toUpperCase().replace('SHA', 'sha') }] }, 'IMAGE_INVALID'],
    ['manifests in a manifest', { ...manifest, manifests: [] }, 'IMAGE_INVALID'],
    ['layers in an index', { ...index, layers: [] }, 'IMAGE_INVALID'],
    ['too many layers', { ...manifest, layers: Array.from({ length: maxLayers + 1 }, () => layer) }, 'IMAGE_INVALID'],
    ['annotations that are no text', { ...manifest, annotations: { a: 1 } }, 'IMAGE_INVALID'],
  ])('%s is refused', (_name, value, code) => {
    expect(thrown(() => parseManifestOrIndex(json(value), 'm')).code).toBe(code);
  });

  test('a document that says it is something else than it was served as is refused', () => {
    expect(thrown(() => parseManifestOrIndex(json(index), 'm', mediaTypes.ociManifest)).code).toBe('IMAGE_INVALID');
  });

  test('size, depth and encoding are bounded before parsing', () => {
    expect(thrown(() => parseManifest(Buffer.alloc(maxManifestBytes + 1, 0x20))).code).toBe('LIMIT_EXCEEDED');
    expect(thrown(() => parseManifest(Buffer.from('['.repeat(100_000)))).message).toContain('deeper');
    expect(thrown(() => parseManifest(Buffer.from([0x7b, 0xff, 0x7d]))).message).toContain('UTF-8');
    expect(parseManifest(json({ ...manifest, annotations: { a: '[[[['.repeat(100) } })).annotations['a']).toHaveLength(400);
  });

  test('prototype names are plain data', () => {
    const parsed = parseManifest(Buffer.from(JSON.stringify(manifest).replace('{', '{"annotations":{"__proto__":"x","constructor":"y"},')));
    expect(parsed.annotations['constructor']).toBe('y');
    expect(({} as Record<string, unknown>)['x']).toBeUndefined();
    expect(thrown(() => parseManifest(Buffer.from('{"__proto__":{"schemaVersion":2}}'))).code).toBe('IMAGE_INVALID');
  });

  test('only images with layers that can be read pass as images', () => {
    checkImageManifest(parseManifest(json(manifest)));
    const withLayer = (mediaType: string): string => thrown(() => checkImageManifest(parseManifest(json({ ...manifest, layers: [{ ...layer, mediaType }] })))).code;
    expect(withLayer('application/vnd.docker.image.rootfs.foreign.diff.tar.gzip')).toBe('IMAGE_FOREIGN_LAYER');
    expect(withLayer('application/vnd.oci.image.layer.nondistributable.v1.tar+gzip')).toBe('IMAGE_FOREIGN_LAYER');
    expect(withLayer('application/vnd.oci.image.layer.v1.tar+xz')).toBe('IMAGE_MEDIA_TYPE');
    expect(thrown(() => checkImageManifest(parseManifest(json({ ...manifest, config: { ...layer, mediaType: mediaTypes.ociEmpty } })))).code).toBe('IMAGE_MEDIA_TYPE');
  });

  test('diffIDs must be as many as layers', () => {
    expect(thrown(() => parseConfig(json(config), 2)).code).toBe('IMAGE_INVALID');
    expect(thrown(() => parseConfig(json({ ...config, rootfs: { type: 'other', diff_ids: [] } }))).code).toBe('IMAGE_INVALID');
    expect(thrown(() => parseConfig(json({ ...config, rootfs: { type: 'layers', diff_ids: ['x'] } }))).code).toBe('IMAGE_INVALID');
    expect(thrown(() => parseConfig(json({ rootfs: config.rootfs }))).code).toBe('IMAGE_INVALID');
  });

  test('whatever the bytes, the outcome is a checked document or a coded error', () => {
    const known = fc.constantFrom<unknown>(2, 'sha256', digest, mediaTypes.ociManifest, mediaTypes.ociIndex, [layer], layer, manifest.config, index.manifests, null);
    const shape = fc.dictionary(fc.constantFrom('schemaVersion', 'mediaType', 'config', 'layers', 'manifests', 'subject', 'annotations', 'rootfs', 'os', 'architecture'), fc.oneof(known, fc.jsonValue()));
    fc.assert(fc.property(fc.oneof(shape.map(json), fc.uint8Array({ maxLength: 200 }), fc.jsonValue().map(json)), (bytes) => {
      for (const parse of [parseManifest, parseIndex, parseConfig] as const) {
        try {
          parse(bytes);
        } catch (error) {
          if (!isWhittleError(error)) throw error;
          expect(error.message).not.toContain('\n');
        }
      }
    }), { numRuns: 500 });
  });

  test('a cut or flipped byte never gets past the checks as something unchecked', () => {
    const bytes = json(manifest);
    fc.assert(fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
      const changed = Buffer.from(bytes);
      changed[at] = changed[at]! ^ flip;
      try {
        const parsed = parseManifest(changed);
        expect(parsed.layers.every((each) => /^sha(256|512):[0-9a-f]+$/.test(each.digest) && Number.isSafeInteger(each.size))).toBe(true);
      } catch (error) {
        if (!isWhittleError(error)) throw error;
      }
    }), { numRuns: 500 });
  });
});
