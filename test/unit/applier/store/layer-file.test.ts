import { createHash } from 'node:crypto';
import { deflateSync } from 'node:zlib';
import { expect, test } from '@jest/globals';
import { openRecord, sealRecord } from '../../../../src/atomic/index.js';
import { decodeLayerFile, decodeLayerFileHead, encodeLayerFile } from '../../../../src/applier/store/layer-file.js';
import { LayerMetaBuilder, type LayerMeta } from '../../../../src/tar/index.js';
import { makeTar, noise } from '../../../support/images.js';

async function metaOf(entryCount: number, nameBytes: number): Promise<LayerMeta> {
  const builder = new LayerMetaBuilder();
  const name = (entry: number): string => noise(nameBytes, entry).toString('base64url');
  builder.write(await makeTar(Array.from({ length: entryCount }, (_, entry) => ({ path: name(entry), content: noise(entry % 3, entry) }))));
  return builder.finish();
}

test.each([[0, 1], [1, 4], [1, 60], [400, 4], [400, 60]])('the head of a layer of %i entries with names of %i bytes is what the whole file says', async (entryCount, nameBytes) => {
  const meta = await metaOf(entryCount, nameBytes);
  for (const skipped of [[], ['owner', 'xattr:user.a']]) {
    const bytes = await encodeLayerFile({ meta, privileged: true, skipped });
    expect(decodeLayerFileHead(bytes)).toEqual({ diffId: meta.diffId, sizeBytes: meta.sizeBytes });
    expect((await decodeLayerFile(bytes))?.meta).toMatchObject({ diffId: meta.diffId, sizeBytes: meta.sizeBytes });
  }
});

test('the head is found however incompressible the metadata is, and however it was compressed', async () => {
  const meta = await metaOf(400, 60);
  const bytes = await encodeLayerFile({ meta, privileged: false, skipped: [] });
  const head = { diffId: meta.diffId, sizeBytes: meta.sizeBytes };
  const raw = Buffer.concat([Buffer.from('WLMT\x01'), Buffer.from(meta.diffId.slice(7), 'hex'), Buffer.from([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x0f])]);
  const payload = openRecord(bytes)?.payload ?? Buffer.alloc(0);
  for (const level of [0, 1, 9]) {
    const packed = deflateSync(Buffer.concat([raw, noise(100_000, level)]), { level });
    const length = Buffer.from([packed.length & 0x7f | 0x80, packed.length >> 7 & 0x7f | 0x80, packed.length >> 14]);
    expect(decodeLayerFileHead(sealRecord(Buffer.concat([payload.subarray(0, 3), length, packed])))).toEqual({ ...head, sizeBytes: 15 * 2 ** 49 });
  }
});

test('a file that is not whole has no head, wherever it was struck', async () => {
  const bytes = await encodeLayerFile({ meta: await metaOf(400, 20), privileged: true, skipped: ['owner'] });
  for (let at = 0; at < bytes.length; at += 7) {
    const struck = Buffer.from(bytes);
    struck[at] = (struck[at] ?? 0) ^ 1;
    expect([at, decodeLayerFileHead(struck)]).toEqual([at, undefined]);
    expect([at, decodeLayerFileHead(bytes.subarray(0, at))]).toEqual([at, undefined]);
  }
  expect(decodeLayerFileHead(Buffer.concat([bytes, Buffer.alloc(1)]))).toBeUndefined();
  expect(decodeLayerFileHead(Buffer.alloc(0))).toBeUndefined();
});

test('what a newer Whittle wrote is said to be that, and metadata of another kind is none', async () => {
  const payload = Buffer.from(openRecord(await encodeLayerFile({ meta: await metaOf(3, 9), privileged: false, skipped: [] }))?.payload ?? []);
  payload[0] = 2;
  expect(() => decodeLayerFileHead(sealRecord(payload))).toThrow(expect.objectContaining({ code: 'STORE_VERSION' }));
  for (const inner of [Buffer.from('WLMT\x02'.padEnd(80, '0')), createHash('sha512').update('').digest(), Buffer.alloc(3)]) {
    const packed = deflateSync(inner);
    expect(decodeLayerFileHead(sealRecord(Buffer.concat([Buffer.from([1, 0, 0, packed.length]), packed])))).toBeUndefined();
  }
});
