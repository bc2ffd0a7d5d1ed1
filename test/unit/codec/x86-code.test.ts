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

interface Code {
  readonly machine: number;
  readonly is64: boolean;
  /** Instructions: what they begin with, and how many bytes of number follow, which are as by chance. */
  readonly forms: readonly (readonly [head: string, numberBytes: number])[];
}

/** What many programs are made of: moves, loads and stores with displacements, immediates of all sizes, calls, vectors. */
const common = [['8b45', 1], ['8b85', 4], ['83c0', 1], ['81c3', 4], ['e8', 4], ['0f84', 4], ['0fb6', 0], ['c745fc', 4], ['668b44240c', 0], ['f6c3', 1], ['f7db', 0], ['750a', 0], ['50', 0]] as const;
const codes: Record<'x86-64' | 'i386', Code> = {
  'x86-64': { machine: 62, is64: true, forms: [...common, ['488b05', 4], ['48b8', 8], ['4c8d4424', 1], ['c5f857c0', 0], ['c4e37d19c1', 1], ['62f17c4828842480', 3], ['66480f3a16c0', 1], ['488d8c24', 4]] },
  i386: { machine: 3, is64: false, forms: [...common, ['a1', 4], ['40', 0], ['4f', 0], ['8d8424', 4], ['66b8', 2], ['69c0', 4], ['c80000', 1], ['c70485', 8]] },
};

const start = 0x1000;

/** Instructions by chance, but after each some are likelier than others. */
function instructions({ forms }: Code, count: number, seed: number): Buffer {
  let state = seed;
  const next = (): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 16;
  const parts: Buffer[] = [];
  let kind = 0;
  for (let at = 0; at < count; at++) {
    kind = (next() & 7) === 0 ? next() % forms.length : (kind * 5 + 3 + (next() & 3)) % forms.length;
    const [head, numberBytes] = forms[kind] ?? ['90', 0];
    parts.push(Buffer.from(head, 'hex'), Buffer.from(Array.from({ length: numberBytes }, () => next() & 255)));
  }
  return Buffer.concat(parts);
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
  const half = old.length >> 1;
  const added = instructions(code, 6000, 77);
  const target = program(code, Buffer.concat([old.subarray(0, half), added, old.subarray(half)]), isExecutable);
  return { sources: [program(code, old, isExecutable)], target, ops: [[0, 0, start + half], [start + half + added.length, start + half, old.length - half]] };
}

for (const [name, code] of Object.entries(codes)) {
  test.each<'fast' | 'small'>(['fast', 'small'])(`${name}: new code costs less than the same bytes do in data, %s`, async (profile) => {
    const inCode = await roundTrip(file, grown(code, true), profile);
    const inData = await roundTrip(file, grown(code, false), profile);
    expect(inCode.length).toBeLessThan(inData.length * 0.94);
  });

  test(`${name}: copies and runs of any size, at any place, of code or of any bytes, come back the same`, async () => {
    const one = grown(code, true);
    const old = one.sources[0] ?? one.target;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ gap: fc.integer({ min: 0, max: 4000 }), from: fc.integer({ min: 0, max: old.length - 1 }), length: fc.integer({ min: 1, max: 3000 }) }), { maxLength: 12 }),
        fc.integer({ min: 1, max: one.target.length }),
        fc.uint8Array({ maxLength: 4000 }),
        fc.constantFrom<'fast' | 'small'>('fast', 'small'),
        async (copies, size, chance, profile) => {
          const target = Buffer.from(one.target.subarray(0, size));
          // The header stays: it says of what kind the file is.
          if (size > start) target.set(chance.subarray(0, size - start), start);
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
