/** What a tiny ELF64 file's header says. */
export interface TinyHeader {
  readonly machine: 'x86-64' | 'aarch64';
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
  file.writeUInt16LE(machine === 'aarch64' ? 183 : 62, 18);
  file.writeBigUInt64LE(64n, 32);
  file.writeBigUInt64LE(BigInt(sections), 40);
  for (const [at, value] of [[54, 56], [56, 1], [58, 64], [60, sectionCount], [62, sectionCount - 1]] as const) file.writeUInt16LE(value, at);
  file.writeUInt32LE(1, 64);
  file.writeUInt32LE(segmentFlags, 68);
  file.writeBigUInt64LE(BigInt(base), 80);
  file.writeBigUInt64LE(BigInt(loadedBytes), 96);
  file.writeBigUInt64LE(BigInt(loadedBytes), 104);
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
