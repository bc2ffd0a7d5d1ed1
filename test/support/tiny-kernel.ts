import { tinyElf } from './tiny-elf.js';

/** Where the code of a tiny kernel begins. */
export const kernelCode = 0x1000;
const entryBytes = 24;
const relocationCount = 1100;

/** A kernel image for 64-bit ARM: functions of these sizes, which call each other, and relocations to them. `isSaid`: its header says that it is one. */
export function tinyKernel(sizes: readonly number[], isSaid = true): Buffer {
  const program = tinyElf('aarch64', sizes);
  const base = 0xffff800008000000n;
  const relocations = Buffer.alloc(relocationCount * entryBytes);
  const starts = [kernelCode];
  for (const size of sizes) starts.push((starts.at(-1) ?? 0) + size);
  for (let index = 0; index < relocationCount; index++) {
    const at = index * entryBytes;
    relocations.writeBigUInt64LE(base + BigInt(program.length + 0x10000 + index * 8), at);
    relocations.writeBigUInt64LE(1027n, at + 8);
    relocations.writeBigUInt64LE(base + BigInt(starts[(index * 13) % sizes.length] ?? 0), at + 16);
  }
  program.fill(0, 0, kernelCode);
  if (isSaid) program.write('ARM\x64', 56, 'latin1');
  return Buffer.concat([program, relocations, Buffer.alloc(64)]);
}

/** Bytes of a tiny kernel of so many functions behind its code. */
export function behindCode(functionCount: number): number {
  return functionCount * 8 + relocationCount * entryBytes + 64;
}
