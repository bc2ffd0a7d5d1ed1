/** What a tiny ELF64 file's header says. */
export interface TinyHeader {
  readonly machine: 'x86-64' | 'aarch64' | 'riscv64';
  /** The address of the file's first byte; all of it is one segment. */
  readonly base: number;
  /** Where the segment ends. */
  readonly loadedBytes: number;
  readonly segmentFlags: number;
  /** Where the sections' headers are, and how many; the last is that of their names. */
  readonly sections: number;
  readonly sectionCount: number;
}

/** Writes the header of an ELF64 file, and after it that of its one segment. */
export function writeElfHeader(file: Buffer, { machine, base, loadedBytes, segmentFlags, sections, sectionCount }: TinyHeader): void {
  file.write('\x7fELF\x02\x01\x01', 'latin1');
  file.writeUInt16LE({ 'x86-64': 62, aarch64: 183, riscv64: 243 }[machine], 18);
  file.writeBigUInt64LE(64n, 32);
  file.writeBigUInt64LE(BigInt(sections), 40);
  for (const [at, value] of [[54, 56], [56, 1], [58, 64], [60, sectionCount], [62, sectionCount - 1]] as const) file.writeUInt16LE(value, at);
  file.writeUInt32LE(1, 64);
  file.writeUInt32LE(segmentFlags, 68);
  file.writeBigUInt64LE(BigInt(base), 80);
  file.writeBigUInt64LE(BigInt(loadedBytes), 96);
  file.writeBigUInt64LE(BigInt(loadedBytes), 104);
}

/** What a tiny ELF32 file's header says. */
export interface TinyHeader32 {
  readonly machine: number;
  /** Where the one segment's header is, and the segment in the file, in memory, and how long it is. */
  readonly segment: { readonly header: number; readonly offset: number; readonly address: number; readonly size: number; readonly flags: number };
  /** Where the sections' headers are, and how many; the last is that of their names. None where the file has no sections. */
  readonly sections?: { readonly offset: number; readonly count: number };
}

/** Writes the header of an ELF32 file, and that of its one segment. */
export function writeElf32Header(file: Buffer, { machine, segment, sections }: TinyHeader32): void {
  file.write('\x7fELF\x01\x01\x01', 'latin1');
  for (const [at, value] of [[18, machine], [42, 32], [44, 1]] as const) file.writeUInt16LE(value, at);
  file.writeUInt32LE(segment.header, 28);
  const fields = [1, segment.offset, segment.address, 0, segment.size, segment.size, segment.flags];
  for (const [at, value] of fields.entries()) file.writeUInt32LE(value, segment.header + at * 4);
  if (sections === undefined) return;
  file.writeUInt32LE(sections.offset, 32);
  for (const [at, value] of [[46, 40], [48, sections.count], [50, sections.count - 1]] as const) file.writeUInt16LE(value, at);
}

/** A section's header; `name` is its place among the names. */
export interface TinySection {
  readonly name: number;
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly size: number;
  readonly address: number;
}

/** Writes a section's header. */
export function writeElfSection(file: Buffer, at: number, { name, type, flags, offset, size, address }: TinySection): void {
  file.writeUInt32LE(name, at);
  file.writeUInt32LE(type, at + 4);
  file.writeBigUInt64LE(BigInt(flags), at + 8);
  file.writeBigUInt64LE(BigInt(address), at + 16);
  file.writeBigUInt64LE(BigInt(offset), at + 24);
  file.writeBigUInt64LE(BigInt(size), at + 32);
}
