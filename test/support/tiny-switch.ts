const base = 0x400000;
const codeOffset = 0x1000;
const casesOfEach = 8;
const names = '\0.text\0.rodata\0';

/** An ELF64 x86-64 file of functions that each jump through a table of their own; `sizes` are their lengths in bytes (at least 48). `data` names the section of the tables, 7 characters. */
export function tinySwitches(sizes: readonly number[], data = '.rodata'): Buffer {
  const starts = [codeOffset];
  for (const size of sizes) starts.push((starts.at(-1) ?? 0) + size);
  const tables = Math.ceil((starts.at(-1) ?? 0) / 16) * 16;
  const strings = tables + sizes.length * casesOfEach * 4;
  const sections = strings + 32;
  const file = Buffer.alloc(sections + 4 * 64);
  file.write('\x7fELF\x02\x01\x01', 'latin1');
  file.writeUInt16LE(62, 18);
  file.writeBigUInt64LE(64n, 32);
  file.writeBigUInt64LE(BigInt(sections), 40);
  for (const [at, value] of [[54, 56], [56, 1], [58, 64], [60, 4], [62, 3]] as const) file.writeUInt16LE(value, at);
  file.writeUInt32LE(1, 64);
  file.writeUInt32LE(5, 68);
  file.writeBigUInt64LE(BigInt(base), 80);
  file.writeBigUInt64LE(BigInt(file.length), 96);
  file.writeBigUInt64LE(BigInt(file.length), 104);
  section(file, sections + 64, [1, 1, 6, codeOffset, tables - codeOffset]);
  section(file, sections + 128, [7, 1, 2, tables, strings - tables]);
  section(file, sections + 192, [0, 3, 0, strings, names.length]);
  file.write(names.replace('.rodata', data), strings, 'latin1');
  for (const [index, size] of sizes.entries()) {
    const start = starts[index] ?? 0;
    const table = tables + index * casesOfEach * 4;
    file.set([0x48, 0x8d, 0x0d], start);
    file.writeInt32LE(table - (start + 7), start + 3);
    file.set([0x48, 0x63, 0x04, 0x81, 0x48, 0x01, 0xc8, 0xff, 0xe0], start + 7);
    for (let at = start + 16; at < start + size; at++) file[at] = 0x40 + ((index * 7 + (at - start) * 11) % 64);
    for (let place = 0; place < casesOfEach; place++) file.writeInt32LE(start + 16 + ((place * 13 + index) % (size - 16)) - table, table + place * 4);
  }
  return file;
}

function section(file: Buffer, at: number, [name, type, flags, offset, size]: readonly [number, number, number, number, number]): void {
  file.writeUInt32LE(name, at);
  file.writeUInt32LE(type, at + 4);
  file.writeBigUInt64LE(BigInt(flags), at + 8);
  file.writeBigUInt64LE(BigInt(base + offset), at + 16);
  file.writeBigUInt64LE(BigInt(offset), at + 24);
  file.writeBigUInt64LE(BigInt(size), at + 32);
}
