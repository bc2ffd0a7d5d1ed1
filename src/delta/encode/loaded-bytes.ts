/** Where fields of the ELF header, of a program header and of a section header are, by class: 1 of 32 bits, 2 of 64. */
const layouts = {
  1: { programs: { table: 28, entrySize: 42, count: 44, offset: 4, size: 16, bytes: 32 }, sections: { table: 32, entrySize: 46, count: 48, offset: 16, size: 20, bytes: 40 } },
  2: { programs: { table: 32, entrySize: 54, count: 56, offset: 8, size: 32, bytes: 56 }, sections: { table: 40, entrySize: 58, count: 60, offset: 24, size: 32, bytes: 64 } },
} as const;
type Table = (typeof layouts)[1 | 2]['programs' | 'sections'];

const headerBytes = 64;
const elfMagic = 0x7f454c46;
/** "ARM" and 64h at byte 56: a kernel that starts as it is. */
const kernel = { at: 56, magic: 0x41524d64 } as const;
const segmentLoaded = 1;
const section = { type: 4, flags: 8, noBits: 8, allocated: 2 } as const;

/** How much of a program, from its start, is there when it runs: what the codec maps addresses of. 0 for any other file. */
export function loadedBytes(file: Buffer): number {
  if (file.length < headerBytes) return 0;
  if (file.readUInt32BE(kernel.at) === kernel.magic) return file.length;
  const layout = layouts[file[4] as 1 | 2] as (typeof layouts)[1 | 2] | undefined;
  if (file.readUInt32BE(0) !== elfMagic || layout === undefined) return 0;
  const read = new Fields(file, layout === layouts[2], file[5] === 2);
  const segments = read.lastEnd(layout.programs, (at) => read.word(at) === segmentLoaded);
  // Objects have sections only.
  const sections = read.lastEnd(layout.sections, (at) => read.word(at + section.type) !== section.noBits && (read.address(at + section.flags) & section.allocated) !== 0);
  return Math.min(Math.max(segments, sections), file.length);
}

class Fields {
  constructor(private readonly file: Buffer, private readonly is64: boolean, private readonly isBig: boolean) {}

  word(at: number): number {
    return this.isBig ? this.file.readUInt32BE(at) : this.file.readUInt32LE(at);
  }

  address(at: number): number {
    if (!this.is64) return this.word(at);
    return this.isBig ? this.word(at) * 2 ** 32 + this.word(at + 4) : this.word(at + 4) * 2 ** 32 + this.word(at);
  }

  /** Where the last of the table's entries that count ends in the file. */
  lastEnd(table: Table, counts: (at: number) => boolean): number {
    const half = (at: number): number => (this.isBig ? this.file.readUInt16BE(at) : this.file.readUInt16LE(at));
    let end = 0;
    for (let index = 0; index < half(table.count); index++) {
      const at = this.address(table.table) + index * half(table.entrySize);
      if (at + table.bytes > this.file.length) break;
      if (counts(at)) end = Math.max(end, this.address(at + table.offset) + this.address(at + table.size));
    }
    return end;
  }
}
