import { writeElf32Header, writeElfHeader } from './elf-parts.js';
import type { TinyProgram } from './patch-codec.js';

const base = 0x10000;
const codeOffset = 0x1000;

/** How a function of a tiny program for RISC-V refers to something: to another function, to data, or to its own last bytes. */
export type RiscvReference = 'jal' | 'call' | 'address' | 'load' | 'store' | 'branch' | 'short jump';

/** What a tiny program for RISC-V is like. */
export interface TinyRiscv {
  /** Lengths of its functions in bytes, multiples of 16, at least 48. */
  readonly sizes: readonly number[];
  readonly references: readonly RiscvReference[];
  readonly is64: boolean;
  /** The machine that its header names; by default RISC-V. */
  readonly machine?: number;
}

/** AUIPC into a1, or into ra with `register` 1, then `user` with the lower half of the distance where it has it. */
function pair(distance: number, register: number, user: (low: number) => number): number[] {
  const high = (distance + 0x800) & 0xfffff000;
  return [0x17 | (register << 7) | high, user((distance - high) & 0xfff)];
}

/** JAL into ra. */
export const jal = (distance: number): number => 0xef | (distance & 0xff000) | (((distance >> 11) & 1) << 20) | (((distance >> 1) & 0x3ff) << 21) | (((distance >> 20) & 1) << 31);

/** Words of `bne a0, a1`, and a half of `c.j` with one of `c.nop`. */
const branch = (distance: number): number => 0x00b51063 | (((distance >> 11) & 1) << 7) | (((distance >> 1) & 15) << 8) | (((distance >> 5) & 0x3f) << 25) | (((distance >> 12) & 1) << 31);
function shortJump(distance: number): number {
  const bit = (from: number, to: number): number => ((distance >> from) & 1) << to;
  return 0x0001a001 | bit(11, 12) | bit(4, 11) | bit(9, 10) | bit(8, 9) | bit(10, 8) | bit(6, 7) | bit(7, 6) | bit(3, 5) | bit(2, 4) | bit(1, 3) | bit(5, 2);
}

/** The words of a reference. */
function words(reference: RiscvReference, callee: number, data: number, end: number): number[] {
  switch (reference) {
    case 'jal': return [jal(callee)];
    case 'call': return pair(callee, 1, (low) => 0x000080e7 | (low << 20));
    case 'address': return pair(data, 11, (low) => 0x00058593 | (low << 20));
    case 'load': return pair(data, 11, (low) => 0x0005b603 | (low << 20));
    case 'store': return pair(data, 11, (low) => 0x00c5a023 | ((low & 31) << 7) | ((low >> 5) << 25));
    case 'branch': return [branch(end)];
    case 'short jump': return [shortJump(end)];
  }
}

/** Functions that each begin with the references, then have instructions of two bytes and of four; and 32 bytes of data for each of them. */
export function tinyRiscv({ sizes, references, is64, machine = 243 }: TinyRiscv): TinyProgram {
  const starts = [codeOffset];
  for (const size of sizes) starts.push((starts.at(-1) ?? 0) + size);
  const data = starts.at(-1) ?? 0;
  // At the end the header of one section, which is none.
  const sections = data + sizes.length * 32;
  const file = Buffer.alloc(sections + 64);
  if (is64) writeElfHeader(file, { machine: 'x86-64', base, loadedBytes: file.length, segmentFlags: 5, sections, sectionCount: 1 });
  else writeElf32Header(file, { machine, segment: { header: 52, offset: 0, address: base, size: file.length, flags: 5 } });
  file.writeUInt16LE(machine, 18);
  for (const [number, size] of sizes.entries()) {
    const start = starts[number] ?? 0;
    // C.LI and ADDI in turns, with numbers that tell functions apart.
    for (let at = start; at < start + size; at += 8) {
      file.writeUInt32LE(0x00150513 | (((number * 7 + at - start) & 0x7ff) << 20), at);
      file.writeUInt32LE(0x46014501 | ((number & 31) << 2), at + 4);
    }
    let at = start;
    for (const reference of references) {
      const callee = starts[(number * 7 + references.indexOf(reference)) % sizes.length] ?? 0;
      for (const word of words(reference, callee - at, data + ((number * 5) % sizes.length) * 32 + 8 - at, start + size - 16 - at)) {
        file.writeUInt32LE(word >>> 0, at);
        at += 4;
      }
    }
  }
  return { file, starts };
}
