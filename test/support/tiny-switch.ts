import { writeElfHeader, writeElfSection } from './elf-parts.js';

const base = 0x400000;
const codeOffset = 0x1000;
const casesOfEach = 8;
const names = '\0.text\0.rodata\0';

/** Machines whose jump tables the codec finds. */
export type SwitchMachine = 'x86-64' | 'riscv64';

/** An ELF64 file of functions that each jump through a table of their own; `sizes` are their lengths in bytes (at least 48). `data` names the section of the tables, 7 characters. */
export function tinySwitches(machine: SwitchMachine, sizes: readonly number[], data = '.rodata'): Buffer {
  const starts = [codeOffset];
  for (const size of sizes) starts.push((starts.at(-1) ?? 0) + size);
  const tables = Math.ceil((starts.at(-1) ?? 0) / 16) * 16;
  const strings = tables + sizes.length * casesOfEach * 4;
  const sections = strings + 32;
  const file = Buffer.alloc(sections + 4 * 64);
  writeElfHeader(file, { machine, base, loadedBytes: file.length, segmentFlags: 5, sections, sectionCount: 4 });
  writeElfSection(file, sections + 64, { name: 1, type: 1, flags: 6, offset: codeOffset, size: tables - codeOffset, address: base + codeOffset });
  writeElfSection(file, sections + 128, { name: 7, type: 1, flags: 2, offset: tables, size: strings - tables, address: base + tables });
  writeElfSection(file, sections + 192, { name: 0, type: 3, flags: 0, offset: strings, size: names.length, address: base + strings });
  file.write(names.replace('.rodata', data), strings, 'latin1');
  for (const [index, size] of sizes.entries()) {
    const start = starts[index] ?? 0;
    const table = tables + index * casesOfEach * 4;
    if (machine === 'x86-64') x86Jump(file, start, table);
    else riscvJump(file, start, table);
    for (let at = start + 16; at < start + size; at++) file[at] = 0x40 + ((index * 7 + (at - start) * 11) % 64);
    for (let place = 0; place < casesOfEach; place++) file.writeInt32LE(start + 16 + ((place * 13 + index) % (size - 16)) - table, table + place * 4);
  }
  return file;
}

/** LEA of the table's address, then the jump. */
function x86Jump(file: Buffer, start: number, table: number): void {
  file.set([0x48, 0x8d, 0x0d], start);
  file.writeInt32LE(table - (start + 7), start + 3);
  file.set([0x48, 0x63, 0x04, 0x81, 0x48, 0x01, 0xc8, 0xff, 0xe0], start + 7);
}

/** AUIPC and ADDI of the table's address, and 8 bytes of no meaning. */
function riscvJump(file: Buffer, start: number, table: number): void {
  const distance = table - start;
  const upper = (distance + 0x800) & 0xfffff000;
  file.writeUInt32LE((0x00000517 | upper) >>> 0, start);
  file.writeUInt32LE((0x00050513 | (((distance - upper) & 0xfff) << 20)) >>> 0, start + 4);
  file.fill(1, start + 8, start + 16);
}
