import { afterEach, beforeEach, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { ContentFile, roundTrip, type OpTriple, type PatchCase } from '../../support/patch-codec.js';

let file: ContentFile;
beforeEach(async () => {
  file = await ContentFile.create();
});
afterEach(async () => {
  await file.close();
});

/** A kind of code made of words. */
interface Code {
  readonly machine: number;
  readonly is64: boolean;
  readonly wordBytes: 2 | 4;
  /** The highest bits of an instruction, and which bits below them are registers or numbers. */
  readonly opcodes: readonly number[];
  readonly fields: number;
}

const codes: Record<'AArch64' | 'ARM' | 'Thumb-2', Code> = {
  AArch64: { machine: 183, is64: true, wordBytes: 4, opcodes: [0x91000000, 0xaa000000, 0xb9400000, 0xf9400000, 0xf9000000, 0x8b000000, 0x7100001f, 0xd2800000], fields: 0x000f3c63 },
  ARM: { machine: 40, is64: false, wordBytes: 4, opcodes: [0xe2800000, 0xe1a00000, 0xe5900000, 0xe5800000, 0xe0800000, 0xe3500000, 0xe3a00000, 0x12800000], fields: 0x000770f3 },
  'Thumb-2': { machine: 40, is64: false, wordBytes: 2, opcodes: [0x1c00, 0x4600, 0x6800, 0x6000, 0x1800, 0x2800, 0x2000, 0xb100], fields: 0x01f7 },
};

/** Which of those bits each kind of instruction makes use of. */
const masks = [0x0f0f0f0f, 0x00ff00ff, 0x33333333, 0x0000ffff, 0x55555555, 0x000f000f, 0x3c3c3c3c, 0xffff0000];

const start = 0x1000;

/** Instructions that follow each other as in no table, but some more often than others; their fields are as by chance. */
function instructions({ wordBytes, opcodes, fields }: Code, count: number, seed: number): Buffer {
  const bytes = Buffer.alloc(count * wordBytes);
  let state = seed;
  let kind = 0;
  for (let at = 0; at < bytes.length; at += wordBytes) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    const chance = (state >>> 16) ^ (state << 9);
    kind = state >>> 29 === 0 ? (state >>> 24) & 7 : (kind * 3 + 1 + ((state >>> 27) & 1)) & 7;
    bytes.writeUIntLE(((opcodes[kind] ?? 0) | (chance & fields & (masks[kind] ?? 0))) >>> 0, at, wordBytes);
  }
  return bytes;
}

/** A program of one segment, which is code or, so its header says, is not. */
function program({ machine, is64 }: Code, code: Buffer, isExecutable: boolean): Buffer {
  const header = Buffer.alloc(start);
  header.write(is64 ? '\x7fELF\x02\x01\x01' : '\x7fELF\x01\x01\x01', 'latin1');
  header.writeUInt16LE(machine, 18);
  header.writeUInt32LE(64, is64 ? 32 : 28);
  header.writeUInt16LE(is64 ? 56 : 32, is64 ? 54 : 42);
  header.writeUInt16LE(1, is64 ? 56 : 44);
  const flags = isExecutable ? 5 : 4;
  const places = is64 ? [[0, 1], [4, flags], [8, start], [16, 0x400000 + start], [32, code.length], [40, code.length]] : [[0, 1], [4, start], [8, 0x10000 + start], [16, code.length], [20, code.length], [24, flags]];
  for (const [at, value] of places) header.writeUInt32LE(value ?? 0, 64 + (at ?? 0));
  return Buffer.concat([header, code]);
}

/** New code between the halves of old code. */
function grown(code: Code, isExecutable: boolean): PatchCase {
  const old = instructions(code, 4000, 1);
  const half = old.length / 2;
  const added = instructions(code, 6000, 77);
  const target = program(code, Buffer.concat([old.subarray(0, half), added, old.subarray(half)]), isExecutable);
  return { sources: [program(code, old, isExecutable)], target, ops: [[0, 0, start + half], [start + half + added.length, start + half, half]] };
}

for (const [name, code] of Object.entries(codes)) {
  test(`${name}: new code costs less than the same bytes do in data`, async () => {
    const inCode = await roundTrip(file, grown(code, true));
    const inData = await roundTrip(file, grown(code, false));
    expect(inCode.length).toBeLessThan(inData.length * 0.97);
  });

  test(`${name}: copies and runs of any size, at any place, come back the same`, async () => {
    const one = grown(code, true);
    const old = one.sources[0] ?? one.target;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ gap: fc.integer({ min: 0, max: 4000 }), from: fc.integer({ min: 0, max: old.length - 1 }), length: fc.integer({ min: 1, max: 3000 }) }), { maxLength: 12 }),
        fc.integer({ min: 1, max: one.target.length }),
        fc.constantFrom<'fast' | 'small'>('fast', 'small'),
        async (copies, size, profile) => {
          const target = one.target.subarray(0, size);
          const ops: OpTriple[] = [];
          let position = 0;
          for (const { gap, from, length } of copies) {
            const at = position + gap;
            const fitting = Math.min(length, size - at, old.length - from);
            if (fitting < 1) continue;
            ops.push([at, from, fitting]);
            position = at + fitting;
          }
          await roundTrip(file, { sources: one.sources, target, ops }, profile);
        },
      ),
      { numRuns: 20 },
    );
  });
}

test('a byte that follows from two others, which what is between hides, costs next to nothing in what is no text', async () => {
  const records = 6000;
  const target = Buffer.alloc(records * 5);
  let state = 7;
  const next = (): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 20;
  for (let at = 0; at < target.length; at += 5) {
    const [first, second] = [next() & 15, next() & 15];
    target.set([first, second, next(), next(), Math.imul(first * 16 + second + 1, 0x9e3779b1) >>> 24], at);
  }
  const streams = await roundTrip(file, { sources: [], target, ops: [] });
  // Three bytes of each record are chance; of the last, which 256 pairs tell, the most part is known.
  expect(streams.length).toBeLessThan(records * 3.75);
});
