import { writeElfHeader, writeElfSection } from './elf-parts.js';

const functionBytes = 32;
const headerBytes = 0x200;
const frameBytes = 24;
const names = '\0.rela.dyn\0.eh_frame_hdr\0.eh_frame\0.data.rel.ro\0';

/** What a file of tables is like. `functions`: the place of each frame's and each pointer's function among all. */
export interface TinyTables {
  readonly functions: readonly number[];
  /** The address of the file's first byte. */
  readonly base: number;
  /** Whether the table of frames comes before the frames. */
  readonly tableFirst: boolean;
  /** Whether what comes second (words; frames, or their table) says of each function what it should say of the first. */
  readonly blurred: boolean;
  /** Whether relocations and the table of frames are of the kinds that linkers write. */
  readonly usual: boolean;
  /** Bytes of data before the words. */
  readonly beforeWords?: number;
  /** By default x86-64. */
  readonly machine?: 'x86-64' | 'riscv64';
}

/** An ELF64 file of relocations, a table of frames, frames, and the words that the relocations are for; its code is empty. */
export function tinyTables({ functions, base, tableFirst, blurred, usual, beforeWords = 0, machine = 'x86-64' }: TinyTables): Buffer {
  const count = functions.length;
  const relocations = headerBytes;
  const tableBytes = 12 + count * 8;
  const framesBytes = frameBytes * (count + 1);
  const afterRelocations = relocations + count * 24;
  const table = tableFirst ? afterRelocations : afterRelocations + framesBytes;
  const frames = tableFirst ? afterRelocations + tableBytes : afterRelocations;
  const code = Math.ceil((afterRelocations + tableBytes + framesBytes) / 16) * 16;
  const data = code + count * functionBytes + beforeWords;
  const strings = data + count * 8;
  const sections = strings + 64;
  const file = Buffer.alloc(sections + 6 * 64);
  writeElfHeader(file, { machine, base, loadedBytes: file.length, segmentFlags: 7, sections, sectionCount: 6 });
  writeElfSection(file, sections + 64, { name: 1, type: 4, flags: 2, offset: relocations, size: count * 24, address: base + relocations });
  writeElfSection(file, sections + 128, { name: 11, type: 1, flags: 2, offset: table, size: tableBytes, address: base + table });
  writeElfSection(file, sections + 192, { name: 25, type: 1, flags: 2, offset: frames, size: framesBytes, address: base + frames });
  writeElfSection(file, sections + 256, { name: 35, type: 1, flags: 3, offset: data, size: count * 8, address: base + data });
  writeElfSection(file, sections + 320, { name: 0, type: 3, flags: 0, offset: strings, size: names.length, address: base + strings });
  file.write(names, strings, 'latin1');
  file.set(usual ? [1, 0x1b, 3, 0x3b] : [2, 0x1b, 3, 0x3b], table);
  file.writeInt32LE(frames - (table + 4), table + 4);
  file.writeUInt32LE(count, table + 8);
  file.writeUInt32LE(frameBytes - 4, frames);
  for (const [index, place] of functions.entries()) {
    const start = code + place * functionBytes;
    const frame = frames + frameBytes * (index + 1);
    file.writeBigUInt64LE(BigInt(base + data + index * 8), relocations + index * 24);
    file.writeBigUInt64LE(!usual ? 6n : machine === 'x86-64' ? 8n : 3n, relocations + index * 24 + 8);
    file.writeBigUInt64LE(BigInt(base + start), relocations + index * 24 + 16);
    file.writeBigUInt64LE(BigInt(base + (blurred ? code : start)), data + index * 8);
    file.writeUInt32LE(frameBytes - 4, frame);
    file.writeUInt32LE(frame + 4 - frames, frame + 4);
    file.writeInt32LE((blurred && tableFirst ? code : start) - (frame + 8), frame + 8);
    file.writeUInt32LE(functionBytes, frame + 12);
    file.writeInt32LE((blurred && !tableFirst ? code : start) - table, table + 12 + place * 8);
    file.writeInt32LE((blurred && !tableFirst ? frames : frame) - table, table + 16 + place * 8);
  }
  return file;
}
