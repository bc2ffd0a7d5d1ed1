/** Machines of tiny object files. Those of 32 bits have relocations without addends. */
export type ObjectMachine = 'x86-64' | 'aarch64' | 'i386' | 'arm';

const machines = { 'x86-64': 62, aarch64: 183, i386: 3, arm: 40 } as const;
const sectionCount = 6;
const text = { number: 1, offset: 0x100 } as const;

/** A tiny object file, and where its parts begin in it. */
export interface TinyObject {
  readonly file: Buffer;
  /** Offsets of code, relocations, and the symbols of functions. */
  readonly parts: { readonly text: number; readonly relocations: number; readonly functions: number };
  /** Where each function begins, from the first one's start on. */
  readonly starts: readonly number[];
}

/** What a function's bytes are: never the same as another's. */
function codeOf(index: number, sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (let at = 0; at < sizeBytes; at += 4) bytes.writeUInt32LE((Math.imul(index * 4096 + (at % 64) + 1, 0x9e3779b1) & 0x00ffff00) >>> 0, at);
  return bytes;
}

/**
 * An object file (ET_REL) of functions of these sizes, in bytes, for each a symbol and two relocations: one to the place half way through the
 * function a third of all further on, counted from its section, and one to that function's symbol. `locals` symbols of the section come before
 * those.
 */
export function tinyObject(machine: ObjectMachine, sizes: readonly number[], locals = 1): TinyObject {
  const wide = machine === 'x86-64' || machine === 'aarch64';
  const [relocationBytes, symbolBytes] = wide ? [24, 24] : [8, 16];
  const starts: number[] = [];
  let textBytes = 0;
  for (const size of sizes) {
    starts.push(textBytes);
    textBytes += size;
  }
  const relocations = text.offset + textBytes;
  const symbols = relocations + sizes.length * 2 * relocationBytes;
  const strings = symbols + (sizes.length + locals + 1) * symbolBytes;
  const names = sizes.map((_, index) => `f${index}`);
  const sections = Math.ceil((strings + 1 + names.join('\0').length + 1) / 16) * 16;
  const file = Buffer.alloc(sections + sectionCount * (wide ? 64 : 40));
  const word = (value: number, at: number): void => { if (wide) file.writeBigInt64LE(BigInt(value), at); else file.writeInt32LE(value, at); };

  file.write(wide ? '\x7fELF\x02\x01\x01' : '\x7fELF\x01\x01\x01', 'latin1');
  file.writeUInt16LE(1, 16);
  file.writeUInt16LE(machines[machine], 18);
  word(sections, wide ? 40 : 32);
  for (const [at, value] of [[wide ? 58 : 46, wide ? 64 : 40], [wide ? 60 : 48, sectionCount], [wide ? 62 : 50, sectionCount - 1]] as const) file.writeUInt16LE(value, at);

  const section = (number: number, type: number, flags: number, offset: number, size: number, link = 0, info = 0): void => {
    const at = sections + number * (wide ? 64 : 40);
    file.writeUInt32LE(type, at + 4);
    for (const [field, value] of [flags, 0, offset, size].entries()) word(value, at + 8 + field * (wide ? 8 : 4));
    file.writeUInt32LE(link, at + (wide ? 40 : 24));
    file.writeUInt32LE(info, at + (wide ? 44 : 28));
  };
  section(text.number, 1, 6, text.offset, textBytes);
  section(2, wide ? 4 : 9, 0, relocations, symbols - relocations, 3, text.number);
  section(3, 2, 0, symbols, strings - symbols, 4, locals + 1);
  section(4, 3, 0, strings, sections - strings);

  const symbol = (number: number, name: number, info: number, value: number, size: number): void => {
    const at = symbols + number * symbolBytes;
    file.writeUInt32LE(name, at);
    word(value, at + (wide ? 8 : 4));
    word(size, at + (wide ? 16 : 8));
    file.writeUInt8(info, at + (wide ? 4 : 12));
    file.writeUInt16LE(text.number, at + (wide ? 6 : 14));
  };
  const relocation = (number: number, place: number, symbolNumber: number, addend: number): void => {
    const at = relocations + number * relocationBytes;
    word(place, at);
    file.writeUInt32LE(wide ? 2 : symbolNumber << 8 | 2, at + (wide ? 8 : 4));
    if (!wide) return;
    file.writeUInt32LE(symbolNumber, at + 12);
    word(addend, at + 16);
  };
  for (let number = 1; number <= locals; number++) symbol(number, 0, 3, 0, 0);
  let name = 1;
  for (const [index, size] of sizes.entries()) {
    const other = (index + Math.floor(sizes.length / 3)) % sizes.length;
    const start = starts[index] ?? 0;
    codeOf(index, size).copy(file, text.offset + start);
    symbol(index + locals + 1, name, 0x12, start, size);
    file.write(names[index] ?? '', strings + name, 'latin1');
    name += (names[index] ?? '').length + 1;
    relocation(index * 2, start + 8, 1, (starts[other] ?? 0) + 32 - 4);
    relocation(index * 2 + 1, start + 24, other + locals + 1, -4);
  }
  return { file, parts: { text: text.offset, relocations, functions: symbols + (locals + 1) * symbolBytes }, starts };
}
