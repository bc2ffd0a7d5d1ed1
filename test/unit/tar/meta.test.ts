import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, test } from '@jest/globals';
import { decodeLayerMeta, encodeLayerMeta, LayerMetaBuilder, rebuildTar, trailerBytes, type LayerMeta } from '../../../src/tar/index.js';
import { endOfTar, goPax, member } from '../../support/tars.js';

const sha256 = (bytes: Buffer): Buffer => createHash('sha256').update(bytes).digest();

function build(tar: Buffer, pieceBytes = 1000): { meta: LayerMeta; contents: Map<number, Buffer> } {
  const parts = new Map<number, Buffer[]>();
  const builder = new LayerMetaBuilder({
    onContent: (chunk, index) => { parts.set(index, [...(parts.get(index) ?? []), Buffer.from(chunk)]); },
  });
  for (let at = 0; at < tar.length; at += pieceBytes) builder.write(tar.subarray(at, at + pieceBytes));
  return { meta: builder.finish(), contents: new Map([...parts].map(([index, list]) => [index, Buffer.concat(list)])) };
}

async function rebuilt(meta: LayerMeta, content: (index: number) => Buffer | undefined): Promise<Buffer> {
  const pieces: Buffer[] = [];
  const source = async function* (index: number): AsyncGenerator<Buffer> {
    const bytes = content(index) ?? Buffer.alloc(0);
    yield await Promise.resolve(bytes.subarray(0, 1));
    yield bytes.subarray(1);
  };
  for await (const piece of rebuildTar(meta, source)) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

const many = Array.from({ length: 10_000 }, (_, index) => member({
  name: `usr/lib/python3.11/site-packages/package${String(index >> 5)}/module${String(index)}.py`, mtime: 1_700_000_000 + (index % 7),
  data: Buffer.from(`content of ${String(index)}`),
}));
const odd = Buffer.concat([
  goPax('g', { comment: 'c' }, 'g'), goPax('d/a', { path: 'd/caf\u00e9', mtime: '1700000000.25', 'SCHILY.xattr.user.x': '\0\u0001' }), member({ name: 'd/a', data: Buffer.alloc(513, 1) }),
  member({ name: 'link', type: '2', link: 'to', uid: 5 }), member({ name: 'dev', type: '3', edit: (block) => { block.write('0000005\x000000001\0', 329, 'latin1'); } }),
  member({ name: 'odd', edit: (block) => { block[509] = 9; } }), member({ name: 'p', data: Buffer.from('x') }), endOfTar, Buffer.alloc(9000),
]);

test('the builder gives digests, sizes and the tar back', async () => {
  const { meta, contents } = build(odd);
  expect(meta.diffId).toBe(`sha256:${sha256(odd).toString('hex')}`);
  expect(meta).toMatchObject({ sizeBytes: odd.length, trailerZeroBytes: 10_024, trailer: null });
  expect([...meta.entries].map(({ digest }) => digest)).toEqual([sha256(Buffer.alloc(513, 1)), null, null, null, sha256(Buffer.from('x'))]);
  expect(await rebuilt(meta, (index) => contents.get(index))).toEqual(odd);
});

test('the observer sees every entry, its content and its digest in order', () => {
  const calls: string[] = [];
  const builder = new LayerMetaBuilder({
    onEntry: (header, index) => { calls.push(`${String(index)} ${header.path.toString()}`); },
    onContent: (chunk, index) => { calls.push(`${String(index)} +${String(chunk.length)}`); },
    onContentEnd: (digest, index) => { calls.push(`${String(index)} ${digest?.toString('hex').slice(0, 8) ?? 'none'}`); },
  });
  builder.write(Buffer.concat([member({ name: 'a', data: Buffer.from('abc') }), member({ name: 'd/', type: '5' }), endOfTar]));
  builder.finish();
  expect(calls).toEqual(['0 a', '0 +3', '0 ba7816bf', '1 d/', '1 none']);
});

test('entries of one writer end up with one style, whatever its first entries showed', () => {
  const { meta } = build(Buffer.concat([member({ name: 'a' }), goPax('b', { mtime: '5.5' }), member({ name: 'b', mtime: 5 }), member({ name: 'c' }), endOfTar]));
  expect(new Set([...meta.entries].map(({ header }) => header.style)).size).toBe(1);
});

describe('encoded metadata', () => {
  test('decodes to the same', () => {
    for (const tar of [odd, Buffer.alloc(0), Buffer.concat([odd, Buffer.from('rubbish')])]) {
      const { meta } = build(tar);
      expect(decodeLayerMeta(encodeLayerMeta(meta))).toEqual(meta);
    }
  });

  test('keeps entries whose digest is not known yet', () => {
    const { meta } = build(odd);
    const unknown = { ...meta, entries: [...meta.entries].map((entry) => ({ ...entry, digest: null })) };
    const back = decodeLayerMeta(encodeLayerMeta(unknown));
    expect({ ...back, entries: [...back.entries] }).toEqual(unknown);
  });

  test('of 10,000 entries takes less than half a megabyte', () => {
    const { meta } = build(Buffer.concat([...many, endOfTar]), 65_536);
    const bytes = encodeLayerMeta(meta);
    expect(bytes.length).toBeLessThan(500_000);
    expect(isDeepStrictEqual(decodeLayerMeta(bytes), meta)).toBe(true);
  });

  test('is refused when cut, lengthened or of another version', () => {
    const bytes = encodeLayerMeta(build(odd).meta);
    const corrupt = expect.objectContaining({ code: 'TAR_CORRUPT' });
    for (let length = 0; length < bytes.length; length++) expect(() => decodeLayerMeta(bytes.subarray(0, length))).toThrow(corrupt);
    expect(() => decodeLayerMeta(Buffer.concat([bytes, Buffer.of(0)]))).toThrow(corrupt);
    const newer = Buffer.from(bytes);
    newer[4] = 2;
    expect(() => decodeLayerMeta(newer)).toThrow(corrupt);
  });

  test('cannot claim paths that would fill the memory', () => {
    const long = 'p'.repeat(90);
    const bytes = encodeLayerMeta(build(Buffer.concat([...Array.from({ length: 50 }, () => member({ name: long })), endOfTar])).meta);
    expect(() => decodeLayerMeta(bytes, { maxPathsBytes: 4000 })).toThrow(expect.objectContaining({ code: 'LIMIT_EXCEEDED' }));
    expect(() => decodeLayerMeta(bytes, { maxPathBytes: 80 })).toThrow(expect.objectContaining({ code: 'TAR_CORRUPT' }));
    expect(() => decodeLayerMeta(bytes, { maxEntries: 40 })).toThrow(expect.objectContaining({ code: 'TAR_CORRUPT' }));
  });
});

describe('rebuilding', () => {
  const { meta, contents } = build(odd);
  test.each([['fewer', -1], ['more', 1]])('refuses a content of %s bytes than its header says', async (word, change) => {
    const wrong = (index: number): Buffer => Buffer.alloc((contents.get(index)?.length ?? 0) + change);
    await expect(rebuilt(meta, wrong)).rejects.toMatchObject({ code: 'TAR_CORRUPT', message: expect.stringContaining(word) });
  });

  test('gives a large zero trailer in small pieces', () => {
    let total = 0;
    for (const piece of trailerBytes({ trailerZeroBytes: 1_000_003, trailer: null })) {
      expect(piece.length).toBeLessThanOrEqual(65_536);
      total += piece.length;
    }
    expect(total).toBe(1_000_003);
  });
});
