import { brotliCompressSync, constants, deflateRawSync } from 'node:zlib';
import { expect, test } from '@jest/globals';
import { deviceAddon } from '../../../src/core/native.js';
import { collapseBytes, type Expansion } from '../../../src/delta/expansion.js';
import { deltaLimits } from '../../../src/delta/limits.js';
import { decisionsOf, rebuilt, script } from '../../support/decided-streams.js';
import { noise } from '../../support/delta-images.js';
import { coded, collapsed } from '../../support/expansions.js';

/** How a text is compressed, and what a device's models take. */
const formats = [
  { format: 'brotli', compress: (text: Buffer) => brotliCompressSync(text, { params: { [constants.BROTLI_PARAM_LGWIN]: 16 } }), modelBytes: () => deviceAddon().rebuildBrotliBytes(deltaLimits.decidedBytes) },
  { format: 'deflate', compress: (text: Buffer) => deflateRawSync(text, { windowBits: 12 }), modelBytes: () => deviceAddon().rebuildDeflateBytes(deltaLimits.decidedBytes) },
] as const;

for (const { format, compress, modelBytes } of formats) {
  test(`${format}: what is no stream of the text is not taken apart`, async () => {
    const text = script(7, 3000);
    const stream = compress(text);
    const none = async (bytes: Buffer, plain: Buffer): Promise<void> => { expect(await decisionsOf(format, bytes, plain)).toHaveLength(0); };
    await none(stream, script(8, 3000));
    await none(stream, text.subarray(1));
    await none(stream.subarray(0, stream.length - 1), text);
    await none(Buffer.concat([stream, Buffer.from('x')]), text);
    await none(noise(3, 2000), text);
    await none(Buffer.alloc(0), text);
  });

  test(`${format}: decisions are the same each time`, async () => {
    const text = script(9, 4000);
    const stream = compress(text);
    const both = await Promise.all([1, 2].map(() => decisionsOf(format, stream, text)));
    expect(both[0]!.length).toBeGreaterThan(0);
    expect(both[0]!.equals(both[1]!)).toBe(true);
  });

  test(`${format}: text and decisions are taken in pieces of any size, with other bytes around`, async () => {
    const text = script(13, 2000);
    const stream = compress(text);
    const decisions = await decisionsOf(format, stream, text);
    const range = { offset: 3, lengthBytes: stream.length, sizeBytes: text.length, packing: { kind: 'decisions', format, decisionBytes: decisions.length }, picture: null } as const;
    const expanded = Buffer.concat([Buffer.from('abc'), text, decisions, Buffer.from('xyz')]);
    for (const chunkBytes of [1, 1000, expanded.length]) {
      expect((await collapsed([range], expanded, chunkBytes)).equals(Buffer.concat([Buffer.from('abc'), stream, Buffer.from('xyz')]))).toBe(true);
    }
    await expect(collapsed([{ ...range, lengthBytes: range.lengthBytes + 1 }], expanded, 1000)).rejects.toMatchObject({ code: 'DELTA_CORRUPT' });
  });

  test(`${format}: decisions of another size, or none, or of another text are refused`, async () => {
    const text = script(11, 5000);
    const stream = compress(text);
    const decisions = await decisionsOf(format, stream, text);
    for (const [plain, told, size] of [[text, decisions, stream.length - 1], [text, decisions, stream.length + 1], [text, Buffer.alloc(0), stream.length], [Buffer.alloc(0), decisions, stream.length]] as const) {
      await expect(rebuilt(format, plain, told, size)).rejects.toMatchObject({ code: 'DELTA_CORRUPT' });
    }
  });

  test(`${format}: a delta tells the size of the decisions, no more than the limits allow, and what memory they take`, () => {
    const one = (sizeBytes: number, decisionBytes: number): Expansion => ({ inflated: [], deflated: [{ offset: 0, lengthBytes: 1000, sizeBytes, packing: { kind: 'decisions', format, decisionBytes }, picture: null }] });
    expect(coded(one(5000, 100), 1000)).toEqual(one(5000, 100));
    expect(coded(one(deltaLimits.decidedBytes, 1000), 1000)).toEqual(one(deltaLimits.decidedBytes, 1000));
    for (const wrong of [one(deltaLimits.decidedBytes + 1, 100), one(5000, 0), one(5000, 1001)]) {
      expect(() => coded(wrong, 1000)).toThrow(expect.objectContaining({ code: 'DELTA_CORRUPT' }));
    }
    expect(collapseBytes(one(deltaLimits.decidedBytes, 1000))).toBe(deltaLimits.decidedBytes + 2000 + modelBytes());
  });
}
