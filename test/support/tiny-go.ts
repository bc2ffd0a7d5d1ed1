import { writeElfHeader, writeElfSection } from './elf-parts.js';

const word = 4;
const bias = 0x400000;
const textOffset = 0x1000;
const fixedWords = 11;
const valuesPerFunction = 3;
const dataPerFunction = 2;

/** A function of `tinyGo`. */
export interface TinyFunction {
  /** Bytes of code, a multiple of 16. */
  readonly codeBytes: number;
  /** Bytes of its name and, for each of its tables of values, of that. */
  readonly nameBytes: number;
  readonly valueBytes: number;
}

/** Where the parts of a `tinyGo` are in its file: ends follow from the next one's start. */
export interface TinyGoLayout {
  readonly text: number;
  readonly types: number;
  readonly table: number;
  readonly names: number;
  readonly values: number;
  readonly functions: number;
  readonly records: readonly number[];
  readonly tableEnd: number;
  readonly module: number;
  readonly end: number;
}

const recordBytes = (fixedWords + valuesPerFunction + dataPerFunction) * word;
const typeBytes = 64;

function layoutOf(functions: readonly TinyFunction[]): TinyGoLayout {
  const sum = (size: (one: TinyFunction) => number): number => functions.reduce((total, one) => total + size(one), 0);
  const align = (offset: number, to: number): number => Math.ceil(offset / to) * to;
  const types = align(textOffset + sum((one) => one.codeBytes), 0x1000);
  const table = types + functions.length * typeBytes;
  const names = table + 72;
  const values = align(names + sum((one) => one.nameBytes), 8);
  const functionTable = align(values + 1 + sum((one) => one.valueBytes * valuesPerFunction), 8);
  const firstRecord = functionTable + functions.length * 8 + word;
  const records = functions.map((_, index) => firstRecord + index * recordBytes);
  const tableEnd = firstRecord + functions.length * (recordBytes + 16);
  const module = align(tableEnd, 0x1000);
  return { text: textOffset, types, table, names, values, functions: functionTable, records, tableEnd, module, end: module + 41 * 8 };
}

/** An ELF64 executable for AArch64 with the tables of a Go program: functions that do nothing, a descriptor of a type for each, and what the runtime knows of both. */
export function tinyGo(functions: readonly TinyFunction[]): { readonly file: Buffer; readonly layout: TinyGoLayout } {
  const layout = layoutOf(functions);
  const names = ['', '.text', '.rodata', '.gopclntab', '.go.module', '.shstrtab'];
  const stringTable = Buffer.from(`${names.join('\0')}\0`, 'latin1');
  const sectionsOffset = Math.ceil((layout.end + stringTable.length) / 8) * 8;
  const file = Buffer.alloc(sectionsOffset + names.length * 64);
  writeElfHeader(file, { machine: 'aarch64', base: bias, loadedBytes: layout.end, segmentFlags: 5, sections: sectionsOffset, sectionCount: names.length });
  stringTable.copy(file, layout.end);
  const extents: readonly (readonly [start: number, end: number, flags: number])[] = [
    [0, 0, 0], [layout.text, layout.types, 6], [layout.types, layout.table, 2], [layout.table, layout.module, 2], [layout.module, layout.end, 3], [layout.end, sectionsOffset, 0],
  ];
  for (const [index, [start, end, flags]] of extents.entries()) {
    writeElfSection(file, sectionsOffset + index * 64, {
      name: stringTable.indexOf(`${names[index] ?? ''}\0`, 0, 'latin1'), type: index === 0 ? 0 : index === 5 ? 3 : 1, flags,
      offset: start, size: end - start, address: flags === 0 ? 0 : bias + start,
    });
  }
  writeFunctions(file, layout, functions);
  writeModule(file, layout, functions.length);
  return { file, layout };
}

function writeFunctions(file: Buffer, layout: TinyGoLayout, functions: readonly TinyFunction[]): void {
  let code = layout.text;
  let name = layout.names;
  let value = layout.values + 1;
  const dataBase = (layout.records.at(-1) ?? 0) + recordBytes;
  for (const [index, one] of functions.entries()) {
    for (let at = code; at < code + one.codeBytes; at += word) file.writeUInt32LE((0x8b000000 + index * 7919 + (at - code)) >>> 0, at);
    file.write(`f${String(index)}.${'n'.repeat(one.nameBytes)}`.slice(0, one.nameBytes - 1), name, 'latin1');
    const record = layout.records[index] ?? 0;
    file.writeUInt32LE(code - layout.text, layout.functions + index * 8);
    file.writeUInt32LE(record - layout.functions, layout.functions + index * 8 + word);
    const words = [code - layout.text, name - layout.names, 8 + index % 3, 0, ...[0, 1, 2].map((table) => value + table * one.valueBytes - layout.values), valuesPerFunction, 0, 10 + index];
    for (const [at, entry] of words.entries()) file.writeUInt32LE(entry, record + at * word);
    file.writeUInt32LE((dataPerFunction << 24) >>> 0, record + (fixedWords - 1) * word);
    for (let at = 0; at < valuesPerFunction; at++) file.writeUInt32LE(at === 1 ? 0 : value + at * one.valueBytes - layout.values, record + (fixedWords + at) * word);
    for (let at = 0; at < dataPerFunction; at++) file.writeUInt32LE(at === 0 ? index * 16 : 0xffffffff, record + (fixedWords + valuesPerFunction + at) * word);
    for (let at = 0; at < one.valueBytes * valuesPerFunction; at++) file[value + at] = (index * 31 + at * 17) % 251;
    file.writeUInt32LE(index * 2654435761 % 2 ** 32, dataBase + index * 16);
    writeType(file, layout, index, code, functions.length);
    code += one.codeBytes;
    name += one.nameBytes;
    value += one.valueBytes * valuesPerFunction;
  }
  file.writeUInt32LE(code - layout.text, layout.functions + functions.length * 8);
}

/** Size, hash and kind, two pointers, the offset of a name, and two offsets of functions. */
function writeType(file: Buffer, layout: TinyGoLayout, index: number, code: number, count: number): void {
  const at = layout.types + index * typeBytes;
  file.writeBigUInt64LE(8n, at);
  file.writeUInt32LE((index * 40503 + 77) >>> 0, at + 16);
  file.writeUInt32LE((22 << 24 | 8 << 16 | 8 << 8) >>> 0, at + 20);
  file.writeBigUInt64LE(BigInt(bias + code), at + 24);
  file.writeBigUInt64LE(BigInt(bias + layout.types + ((index * 5) % count) * typeBytes), at + 32);
  file.writeUInt32LE(((index * 3) % count) * typeBytes + 1, at + 40);
  file.writeUInt32LE(((index * 11) % count) * typeBytes, at + 44);
  file.writeUInt32LE(code - layout.text, at + 48);
  file.writeUInt32LE(code - layout.text, at + 52);
}

function writeModule(file: Buffer, layout: TinyGoLayout, count: number): void {
  const { table } = layout;
  for (const [index, value] of [0xfffffff1, 0x08040000].entries()) file.writeUInt32LE(value, table + index * word);
  const offsets = [count, 1, 0, layout.names - table, layout.names - table, layout.names - table, layout.values - table, layout.functions - table];
  for (const [index, value] of offsets.entries()) file.writeBigUInt64LE(BigInt(value), table + 8 + index * 8);
  const words = new Map([[0, table], [1, layout.names], [22, layout.text], [37, layout.types], [38, table], [40, (layout.records.at(-1) ?? 0) + recordBytes]]);
  for (const [index, offset] of words) file.writeBigUInt64LE(BigInt(bias + offset), layout.module + index * 8);
}
