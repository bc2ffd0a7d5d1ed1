import fc from 'fast-check';
import { writeElf32Header } from './elf-parts.js';
import { roundTrip, type ContentFile, type OpTriple, type PatchCase } from './patch-codec.js';

/** What an ELF file is for. */
export interface Machine {
  readonly machine: number;
  readonly is64: boolean;
}

/** Where a program's code starts, in the file. */
const start = 0x1000;

function write64(header: Buffer, machine: number, { flags, size }: { readonly flags: number; readonly size: number }): void {
  header.write('\x7fELF\x02\x01\x01', 'latin1');
  for (const [at, value] of [[18, machine], [54, 56], [56, 1]] as const) header.writeUInt16LE(value, at);
  header.writeUInt32LE(64, 32);
  for (const [at, value] of [[0, 1], [4, flags], [8, start], [16, 0x400000 + start], [32, size], [40, size]] as const) header.writeUInt32LE(value, 64 + at);
}

/** A program of one segment, which is code or, so its header says, is not. */
function program({ machine, is64 }: Machine, code: Buffer, isExecutable: boolean): Buffer {
  const header = Buffer.alloc(start);
  const flags = isExecutable ? 5 : 4;
  if (is64) write64(header, machine, { flags, size: code.length });
  else writeElf32Header(header, { machine, segment: { header: 64, offset: start, address: 0x10000 + start, size: code.length, flags } });
  return Buffer.concat([header, code]);
}

/** A program whose new version has `added` between the halves of `old`, all of it code or, so the headers say, not. */
export function grownProgram(machine: Machine, { old, added }: { readonly old: Buffer; readonly added: Buffer }, isExecutable: boolean): PatchCase {
  const half = old.length >> 1;
  const target = program(machine, Buffer.concat([old.subarray(0, half), added, old.subarray(half)]), isExecutable);
  return { sources: [program(machine, old, isExecutable)], target, ops: [[0, 0, start + half], [start + half + added.length, start + half, old.length - half]] };
}

/** A program of which all is copied, and whose new version has other code of the same length, or what its headers say is none. */
export function changedProgram(machine: Machine, { old, changed }: { readonly old: Buffer; readonly changed: Buffer }, isExecutable: boolean): PatchCase {
  return { sources: [program(machine, old, isExecutable)], target: program(machine, changed, isExecutable), ops: [[0, 0, start + old.length]] };
}

/**
 * Runs copies and runs of any size, at any place, there and back: of the target of `one`, or, with `withChance`, of one whose
 * code begins with bytes of any kind.
 */
export async function checkAnyOps(file: ContentFile, one: PatchCase, withChance: boolean): Promise<void> {
  const old = one.sources[0] ?? one.target;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ gap: fc.integer({ min: 0, max: 4000 }), from: fc.integer({ min: 0, max: old.length - 1 }), length: fc.integer({ min: 1, max: 3000 }) }), { maxLength: 12 }),
      fc.integer({ min: 1, max: one.target.length }),
      withChance ? fc.uint8Array({ maxLength: 4000 }) : fc.constant(new Uint8Array()),
      fc.constantFrom<'fast' | 'small'>('fast', 'small'),
      async (copies, size, chance, profile) => {
        const target = Buffer.from(one.target.subarray(0, size));
        // The header stays: it says of what kind the file is.
        if (size > start) target.set(chance.subarray(0, size - start), start);
        const ops: OpTriple[] = [];
        let position = 0;
        for (const { gap, from, length } of copies) {
          const at = position + gap;
          const fitting = Math.min(length, size - at, old.length - from);
          if (fitting < 1) continue;
          ops.push([at, from, fitting]);
          position = at + fitting;
        }
        await roundTrip(file, { sources: one.sources, target, ops }, profile);
      },
    ),
    { numRuns: 20 },
  );
}
