import { expect, test } from '@jest/globals';
import { checkAnyOps, grownProgram, type Machine } from '../../support/elf-programs.js';
import { fileOfEachTest, roundTrip, type PatchCase } from '../../support/patch-codec.js';
import { jal } from '../../support/tiny-riscv.js';

const file = fileOfEachTest();

/** A kind of code made of words. */
interface Code extends Machine {
  readonly wordBytes: 2 | 4;
  /** The highest bits of an instruction, and which bits below them are registers or numbers. */
  readonly opcodes: readonly number[];
  readonly fields: number;
}

const codes: Record<'AArch64' | 'ARM' | 'Thumb-2' | 'RISC-V', Code> = {
  AArch64: { machine: 183, is64: true, wordBytes: 4, opcodes: [0x91000000, 0xaa000000, 0xb9400000, 0xf9400000, 0xf9000000, 0x8b000000, 0x7100001f, 0xd2800000], fields: 0x000f3c63 },
  ARM: { machine: 40, is64: false, wordBytes: 4, opcodes: [0xe2800000, 0xe1a00000, 0xe5900000, 0xe5800000, 0xe0800000, 0xe3500000, 0xe3a00000, 0x12800000], fields: 0x000770f3 },
  'Thumb-2': { machine: 40, is64: false, wordBytes: 2, opcodes: [0x1c00, 0x4600, 0x6800, 0x6000, 0x1800, 0x2800, 0x2000, 0xb100], fields: 0x01f7 },
  'RISC-V': { machine: 243, is64: true, wordBytes: 4, opcodes: [0x13, 0x33, 0x3003, 0x3023, 0x1b, 0x3b, 0x63, 0x37], fields: 0x031f0f80 },
};

/** Which of those bits each kind of instruction makes use of. */
const masks = [0x0f0f0f0f, 0x00ff00ff, 0x33333333, 0x0000ffff, 0x55555555, 0x000f000f, 0x3c3c3c3c, 0xffff0000];

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

/** New code between the halves of old code. */
function grown(code: Code, isExecutable: boolean): PatchCase {
  return grownProgram(code, { old: instructions(code, 4000, 1), added: instructions(code, 6000, 77) }, isExecutable);
}

for (const [name, code] of Object.entries(codes)) {
  test(`${name}: new code costs less than the same bytes do in data`, async () => {
    const inCode = await roundTrip(file(), grown(code, true));
    const inData = await roundTrip(file(), grown(code, false));
    expect(inCode.length).toBeLessThan(inData.length * 0.97);
  });

  test(`${name}: copies and runs of any size, at any place, come back the same`, async () => {
    await checkAnyOps(file(), grown(code, true), false);
  });
}

/** Calls of a few functions, from everywhere. */
function calls(opcode: number, fieldBits: number): Buffer {
  const places = 0x1000;
  const bytes = Buffer.alloc(6000 * 4);
  let state = 11;
  for (let at = 0; at < bytes.length; at += 4) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    const target = 0x800 + (state >>> 29) * 0x2340;
    bytes.writeUInt32LE((opcode | (((target - places - at) >> 2) & ((1 << fieldBits) - 1))) >>> 0, at);
  }
  return bytes;
}

test.each([
  ['AArch64', codes.AArch64, 0x94000000, 26],
  ['ARM', codes.ARM, 0xeb000000, 24],
] as const)('%s: new calls of the same functions cost little wherever they are', async (_, code, opcode, fieldBits) => {
  const streams = await roundTrip(file(), grownProgram(code, { old: instructions(code, 4000, 1), added: calls(opcode, fieldBits) }, true));
  // Which of eight functions it is are three bits.
  expect(streams.length).toBeLessThan(6000 * 0.6);
});

/** Calls by JAL, or by AUIPC and JALR, of a few functions, from everywhere. */
function riscvCalls(isLong: boolean): Buffer {
  const bytes = Buffer.alloc(6000 * 4);
  let state = 11;
  for (let at = 0; at < bytes.length; at += isLong ? 8 : 4) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    const distance = 0x800 + (state >>> 29) * 0x2340 - at;
    const upper = (distance + 0x800) & 0xfffff000;
    const words = isLong ? [0x97 | upper, 0x80e7 | (((distance - upper) & 0xfff) << 20)] : [jal(distance)];
    for (const [place, word] of words.entries()) bytes.writeUInt32LE(word >>> 0, at + place * 4);
  }
  return bytes;
}

test.each([[false, 6000], [true, 3000]] as const)('RISC-V: new calls of the same functions cost little wherever they are, of eight bytes %s', async (isLong, count) => {
  const streams = await roundTrip(file(), grownProgram(codes['RISC-V'], { old: instructions(codes['RISC-V'], 4000, 1), added: riscvCalls(isLong) }, true));
  expect(streams.length).toBeLessThan(count * 0.6);
});

test('a byte that follows from two others, which what is between hides, costs next to nothing in what is no text', async () => {
  const records = 6000;
  const target = Buffer.alloc(records * 5);
  let state = 7;
  const next = (): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 20;
  for (let at = 0; at < target.length; at += 5) {
    const [first, second] = [next() & 15, next() & 15];
    target.set([first, second, next(), next(), Math.imul(first * 16 + second + 1, 0x9e3779b1) >>> 24], at);
  }
  const streams = await roundTrip(file(), { sources: [], target, ops: [] });
  // Three bytes of each record are chance; of the last, which 256 pairs tell, the most part is known.
  expect(streams.length).toBeLessThan(records * 3.75);
});
