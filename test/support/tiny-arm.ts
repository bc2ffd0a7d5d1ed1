import { writeElf32Header } from './elf-parts.js';
import type { TinyProgram } from './patch-codec.js';

const base = 0x10000;
const codeOffset = 0x1000;
const names = '\0.text\0.ARM.exidx\0.rodata\0.symtab\0';

/** What a tiny program for 32-bit ARM is like. */
export interface TinyArm {
  /** Lengths of its functions in bytes, multiples of 16, at least 48. */
  readonly sizes: readonly number[];
  /** Whether its words are Thumb code. */
  readonly isThumb: boolean;
  /** Whether what its functions load is added to the program counter, as what is a distance would be. */
  readonly addsDistances: boolean;
  /** Whether the index of functions says that it is one. */
  readonly hasIndex: boolean;
  /** Whether the table of functions' names, places and sizes says that it is one; null where there is none. */
  readonly hasSymbols: boolean | null;
}

/** The four bytes of `ldr r0, [pc, #..]`, `add r0, pc` and a branch; the word that the first loads is that at `pool`. */
function code(file: Buffer, start: number, pool: number, callee: number, { isThumb, addsDistances }: TinyArm): number {
  if (isThumb) {
    file.writeUInt16LE(0x4800 | ((pool - (start + 4)) / 4), start);
    file.writeUInt16LE(addsDistances ? 0x4478 : 0x4479, start + 2);
    return start + 2 + 4;
  }
  file.writeUInt32LE((0xe59f0000 | (pool - (start + 8))) >>> 0, start);
  file.writeUInt32LE(addsDistances ? 0xe08f0000 : 0xe08f1001, start + 4);
  // Under a condition, and to Thumb code.
  file.writeUInt32LE((0x1b000000 | (((callee - (start + 16)) >> 2) & 0xffffff)) >>> 0, start + 8);
  file.writeUInt32LE((0xfa000000 | (((callee - (start + 20)) >> 2) & 0xffffff)) >>> 0, start + 12);
  return start + 4 + 8;
}

/** An ELF32 file of functions that each load how far a datum is from them, and an index of the functions. */
export function tinyArm(program: TinyArm): TinyProgram {
  const { sizes, hasIndex, hasSymbols } = program;
  const starts = [codeOffset];
  for (const size of sizes) starts.push((starts.at(-1) ?? 0) + size);
  const index = starts.at(-1) ?? 0;
  const data = index + sizes.length * 8;
  const strings = data + sizes.length * 16;
  const symbols = strings + 32;
  const sections = symbols + (hasSymbols === null ? 0 : sizes.length * 16);
  const file = Buffer.alloc(sections + 6 * 40);
  writeElf32Header(file, { machine: 40, segment: { header: 52, offset: 0, address: base, size: file.length, flags: 5 }, sections: { offset: sections, count: 6 } });
  const section = (number: number, fields: readonly number[]): void => {
    for (const [place, value] of fields.entries()) file.writeUInt32LE(value, sections + number * 40 + place * 4);
  };
  section(1, [1, 1, 6, base + codeOffset, codeOffset, index - codeOffset]);
  section(2, [7, hasIndex ? 0x70000001 : 1, 2, base + index, index, data - index]);
  section(3, [18, 1, 2, base + data, data, strings - data]);
  section(4, [26, hasSymbols === true ? 2 : 1, 0, 0, symbols, sections - symbols, 3]);
  section(5, [0, 3, 0, base + strings, strings, names.length]);
  file.write(names, strings, 'latin1');
  for (const [number, size] of sizes.entries()) {
    const start = starts[number] ?? 0;
    const pool = start + size - 4;
    for (let at = start; at < start + size; at++) file[at] = 0x40 + ((number * 7 + (at - start) * 11) % 64);
    const from = code(file, start, pool, starts[(number * 7) % sizes.length] ?? 0, program);
    file.writeInt32LE(data + ((number * 5) % sizes.length) * 16 - from, pool);
    file.writeUInt32LE((start - (index + number * 8)) & 0x7fffffff, index + number * 8);
    if (hasSymbols !== null) {
      // Names' places are such as addresses of code are, and are none.
      for (const [place, value] of [base + codeOffset + number * 16, base + start, size, 0x000b0012].entries()) file.writeUInt32LE(value, symbols + number * 16 + place * 4);
    }
    file.writeUInt32LE(number % 3 === 0 ? 1 : (0x80000000 | (number * 977)) >>> 0, index + number * 8 + 4);
  }
  return { file, starts };
}
