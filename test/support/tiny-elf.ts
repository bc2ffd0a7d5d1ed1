import { jal } from './tiny-riscv.js';

/** A machine whose references the codec knows. */
export type TinyMachine = 'x86-64' | 'aarch64' | 'riscv64';

const codeOffset = 0x1000;

/** An ELF64 executable whose functions call each other and hold addresses of data; `sizes` are their lengths in bytes (multiples of 16, at least 32). */
export function tinyElf(machine: TinyMachine, sizes: readonly number[]): Buffer {
  const starts = [codeOffset];
  for (const size of sizes) starts.push((starts.at(-1) ?? 0) + size);
  const dataOffset = Math.ceil((starts.at(-1) ?? 0) / 0x1000) * 0x1000;
  const file = Buffer.alloc(dataOffset + sizes.length * 8);
  file.write('\x7fELF\x02\x01\x01', 'latin1');
  file.writeUInt16LE({ 'x86-64': 62, aarch64: 183, riscv64: 243 }[machine], 18);
  file.writeBigUInt64LE(64n, 32);
  file.writeUInt16LE(56, 54);
  file.writeUInt16LE(2, 56);
  segment(file, 64, 5, codeOffset, dataOffset - codeOffset);
  segment(file, 120, 6, dataOffset, sizes.length * 8);
  for (const [index, size] of sizes.entries()) {
    const start = starts[index] ?? 0;
    for (let at = start; at < start + size; at += 16) {
      const callee = starts[(index * 7 + (at - start) * 13) % sizes.length] ?? 0;
      const data = dataOffset + ((index * 5 + (at - start) / 16) % sizes.length) * 8;
      if (machine === 'x86-64') x86Code(file, at, callee, data);
      else if (machine === 'aarch64') arm64Code(file, at, callee, data);
      else riscvCode(file, at, callee, data);
    }
    file.writeBigUInt64LE(BigInt(address(start)), dataOffset + index * 8);
  }
  return file;
}

function address(offset: number): number {
  return 0x400000 + offset;
}

function segment(file: Buffer, at: number, flags: number, offset: number, size: number): void {
  file.writeUInt32LE(1, at);
  file.writeUInt32LE(flags, at + 4);
  file.writeBigUInt64LE(BigInt(offset), at + 8);
  file.writeBigUInt64LE(BigInt(address(offset)), at + 16);
  file.writeBigUInt64LE(BigInt(size), at + 32);
  file.writeBigUInt64LE(BigInt(size), at + 40);
}

function x86Code(file: Buffer, at: number, callee: number, data: number): void {
  file.writeUInt8(0xe8, at);
  file.writeInt32LE(callee - (at + 5), at + 1);
  file.set([0x48, 0x8d, 0x3d], at + 5);
  file.writeInt32LE(data - (at + 12), at + 8);
  file.set([0x90, 0x66, 0x90, 0xc3], at + 12);
}

function arm64Code(file: Buffer, at: number, callee: number, data: number): void {
  const pages = (address(data) >>> 12) - (address(at) >>> 12);
  file.writeUInt32LE((0x94000000 | (((callee - at) >> 2) & 0x3ffffff)) >>> 0, at);
  file.writeUInt32LE((0x90000000 | ((pages & 3) << 29) | (((pages >> 2) & 0x7ffff) << 5)) >>> 0, at + 4);
  file.writeUInt32LE((0x91000000 | ((address(data) & 0xfff) << 10)) >>> 0, at + 8);
  file.writeUInt32LE(0xd65f03c0, at + 12);
}

/** JAL, AUIPC and ADDI, C.JR and C.NOP. */
function riscvCode(file: Buffer, at: number, callee: number, data: number): void {
  const distance = data - (at + 4);
  const upper = (distance + 0x800) & 0xfffff000;
  for (const [place, word] of [jal(callee - at), 0x00000517 | upper, 0x00050513 | (((distance - upper) & 0xfff) << 20), 0x00018082].entries()) file.writeUInt32LE(word >>> 0, at + place * 4);
}
