import { writeElfHeader, writeElfSection } from './elf-parts.js';

const base = 0x400000;
const codeOffset = 0x1000;
const sharedBytes = 16;
const frameBytes = 28;
const callBytes = 16;
const names = '\0.text\0.eh_frame\0.gcc_except_table\0';

/** A function: its length in bytes, and how many bytes come between the first half of its calls and the second. */
export interface TinyThrower {
  readonly calls: number;
  readonly gapBytes: number;
}

/** Where a function's code is. */
export interface TinyPlace {
  readonly start: number;
  readonly halfBytes: number;
  readonly bytes: number;
}

/** A program, and where each of its functions is. */
export interface TinyExceptions {
  readonly file: Buffer;
  readonly places: readonly TinyPlace[];
}

/** A number in bytes of seven bits, low ones first. */
function leb(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...leb(value >>> 7)];
}

/** What is to be done when a call of a function throws. */
function exceptionTable({ calls, gapBytes }: TinyThrower, pads: number): number[] {
  const half = calls >> 1;
  const sites = Array.from({ length: calls }, (_, call) => {
    const start = call * callBytes + (call < half ? 0 : gapBytes);
    return [...leb(start + 1), ...leb(5), ...(call % 3 === 0 ? [0] : leb(pads + (call % 5))), call % 2];
  }).flat();
  return [0xff, 0xff, 1, ...leb(sites.length), ...sites];
}

/** An ELF64 x86-64 file of functions, their frames, and the tables of their calls; `section` names the section of the tables, 17 characters. */
export function tinyExceptions(functions: readonly TinyThrower[], section = '.gcc_except_table'): TinyExceptions {
  let end = codeOffset;
  const places = functions.map(({ calls, gapBytes }) => {
    const place = { start: end, halfBytes: (calls >> 1) * callBytes, bytes: calls * callBytes + gapBytes + 16 };
    end += place.bytes;
    return place;
  });
  const tables = functions.map((one, index) => exceptionTable(one, (places[index]?.bytes ?? 0) - 16));
  const frames = end;
  const exceptions = frames + sharedBytes + functions.length * frameBytes;
  const strings = exceptions + tables.flat().length;
  const sections = strings + 64;
  const file = Buffer.alloc(sections + 5 * 64);
  writeElfHeader(file, { machine: 'x86-64', base, loadedBytes: file.length, segmentFlags: 5, sections, sectionCount: 5 });
  writeElfSection(file, sections + 64, { name: 1, type: 1, flags: 6, offset: codeOffset, size: frames - codeOffset, address: base + codeOffset });
  writeElfSection(file, sections + 128, { name: 7, type: 1, flags: 2, offset: frames, size: exceptions - frames, address: base + frames });
  writeElfSection(file, sections + 192, { name: 17, type: 1, flags: 2, offset: exceptions, size: strings - exceptions, address: base + exceptions });
  writeElfSection(file, sections + 256, { name: 0, type: 3, flags: 0, offset: strings, size: names.length, address: base + strings });
  file.write(names.replace('.gcc_except_table', section), strings, 'latin1');
  file.writeUInt32LE(sharedBytes - 4, frames);
  let table = exceptions;
  for (const [index, { start, bytes }] of places.entries()) {
    for (let at = start; at < start + bytes; at++) file[at] = 0x40 + ((index * 7 + at * 11) % 64);
    const frame = frames + sharedBytes + index * frameBytes;
    file.writeUInt32LE(frameBytes - 4, frame);
    file.writeUInt32LE(frame + 4 - frames, frame + 4);
    file.writeInt32LE(start - (frame + 8), frame + 8);
    file.writeUInt32LE(bytes, frame + 12);
    file[frame + 16] = 4;
    file.writeInt32LE(table - (frame + 17), frame + 17);
    file.set(tables[index] ?? [], table);
    table += tables[index]?.length ?? 0;
  }
  return { file, places };
}
