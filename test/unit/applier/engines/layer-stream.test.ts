import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { LayerStream, Pieces } from '../../../../src/applier/engines/layer-stream.js';
import { LayerMetaBuilder } from '../../../../src/tar/index.js';
import { endOfTar, goPax, member, scan } from '../../../support/tars.js';

const folder = mkdtempSync(join(tmpdir(), 'whittle-stream-'));
afterAll(() => { rmSync(folder, { recursive: true, force: true }); });

const entry = fc.record({ data: fc.uint8Array({ maxLength: 1500 }).map((bytes) => Buffer.from(bytes)), type: fc.constantFrom('0', '5', '2'), pax: fc.boolean() })
  .map(({ data, type, pax }) => Buffer.concat([pax ? goPax('a', { mtime: '5.5' }) : Buffer.alloc(0), member({ name: 'a', type, data: type === '0' ? data : Buffer.alloc(0) })]));

/** Makes a stream of a tar's metadata, gives it the contents, by writing and by copying in turn, and returns what it sent. */
async function streamed(tar: Buffer, pieceBytes: number): Promise<Buffer> {
  const builder = new LayerMetaBuilder();
  builder.write(tar);
  const sent: Buffer[] = [];
  const pieces = new Pieces(async (piece) => {
    sent.push(Buffer.from(piece));
    await Promise.resolve();
  });
  const stream = new LayerStream(builder.finish(), pieces);
  const path = join(folder, 'content');
  for (const [at, content] of scan(tar).contents.entries()) {
    if (content.length === 0) continue;
    if (at % 2 === 0) {
      for (let done = 0; done < content.length; done += pieceBytes) await stream.write(at, content.subarray(done, done + pieceBytes));
      await stream.endEntry(at);
      continue;
    }
    writeFileSync(path, Buffer.concat([Buffer.from('before'), content, Buffer.from('after')]));
    const fd = openSync(path, 'r');
    const cut = Math.floor(content.length / 2);
    const extents = [{ offset: 6, lengthBytes: cut }, { offset: 6 + cut, lengthBytes: content.length - cut }];
    await stream.copy(at, { fd, extents, sizeBytes: content.length, close: () => Promise.resolve() });
    closeSync(fd);
  }
  await stream.end();
  await pieces.flush();
  expect(pieces.putBytes).toBe(tar.length);
  expect(Math.max(0, ...sent.map(({ length }) => length))).toBeLessThanOrEqual(256 * 1024);
  return Buffer.concat(sent);
}

test('what is sent is the tar, byte for byte', async () => {
  await fc.assert(fc.asyncProperty(fc.array(entry, { maxLength: 8 }), fc.constantFrom(512, 1024, 9000), fc.integer({ min: 1, max: 2000 }), async (entries, end, pieceBytes) => {
    const tar = Buffer.concat([...entries, Buffer.alloc(end)]);
    expect((await streamed(tar, pieceBytes)).equals(tar)).toBe(true);
  }), { numRuns: 100 });
  const large = Buffer.concat([member({ name: 'a', data: Buffer.alloc(700_001, 'x') }), member({ name: 'b', data: Buffer.alloc(600_000, 'y') }), endOfTar]);
  expect((await streamed(large, 300_000)).equals(large)).toBe(true);
});

test('contents out of order, of an entry that is not there, or too short are refused', async () => {
  const builder = new LayerMetaBuilder();
  builder.write(Buffer.concat([member({ name: 'a', data: Buffer.from('aa') }), member({ name: 'b', data: Buffer.from('bb') }), endOfTar]));
  const meta = builder.finish();
  const make = (): LayerStream => new LayerStream(meta, new Pieces(() => Promise.resolve()));
  const open = make();
  await open.write(0, Buffer.from('a'));
  await expect(open.write(1, Buffer.from('b'))).rejects.toMatchObject({ code: 'INTERNAL' });
  const back = make();
  await back.endEntry(1);
  await expect(back.write(0, Buffer.from('a'))).rejects.toMatchObject({ code: 'INTERNAL' });
  await expect(make().write(5, Buffer.from('a'))).rejects.toMatchObject({ code: 'INTERNAL' });
  writeFileSync(join(folder, 'short'), 'a');
  const fd = openSync(join(folder, 'short'), 'r');
  await expect(make().copy(0, { fd, extents: [{ offset: 0, lengthBytes: 2 }], sizeBytes: 2, close: () => Promise.resolve() })).rejects.toMatchObject({ code: 'BASIS_DAMAGED' });
  closeSync(fd);
});
