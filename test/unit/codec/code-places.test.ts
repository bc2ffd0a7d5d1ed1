import { expect, test } from '@jest/globals';
import { changedProgram, checkAnyOps, type Machine } from '../../support/elf-programs.js';
import { fileOfEachTest, roundTrip, type PatchCase } from '../../support/patch-codec.js';

const file = fileOfEachTest();

interface Code extends Machine {
  /** Instructions: what they begin with, how many bytes of number follow, which are as by chance, and what ends them. Only those of the first change. */
  readonly forms: readonly (readonly [head: string, numberBytes: number, tail?: string])[];
}

const x86Forms = [['8d45', 1], ['83c0', 1], ['b8', 4], ['81c3', 4], ['8b85', 4], ['0fb6', 0], ['c745fc', 4], ['f6c3', 1], ['750a', 0], ['50', 0]] as const;
const codes: Record<'x86-64' | 'i386' | 'Thumb-2' | 'RISC-V', Code> = {
  'x86-64': { machine: 62, is64: true, forms: [...x86Forms, ['48c7c0', 4], ['4c8d4424', 1]] },
  i386: { machine: 3, is64: false, forms: x86Forms },
  // Halves are written lowest byte first.
  'Thumb-2': { machine: 40, is64: false, forms: [['', 1, '48'], ['', 1, '68'], ['', 1, '20'], ['', 1, '1c'], ['40f8', 2], ['4ff0', 2], ['', 1, '46'], ['2de9', 2]] },
  // A number's byte in the middle has the lowest bits of an instruction of two bytes, so that where one begins is to be known.
  'RISC-V': { machine: 243, is64: true, forms: [['1305', 2], ['8335', 2], ['0145', 0], ['9305', 2], ['2ee0', 0], ['b307', 2], ['8297', 0], ['aa85', 0]] },
};

/** A program, and one in which the number of every second instruction of the first form is larger. */
function changedNumbers({ forms, ...machine }: Code, isExecutable: boolean): PatchCase {
  let state = 5;
  const next = (): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 16;
  const old: Uint8Array[] = [];
  const changed: Uint8Array[] = [];
  for (let at = 0; at < 20_000; at++) {
    const kind = next() % forms.length;
    const [head, numberBytes, tail = ''] = forms[kind] ?? ['', 0];
    const before = Buffer.from(Array.from({ length: numberBytes }, () => next() & 255));
    // By as much everywhere: which they are is what is to be told.
    const after = before.map((byte, place) => (place === 0 ? byte + 4 : byte));
    old.push(Buffer.from(head, 'hex'), before, Buffer.from(tail, 'hex'));
    changed.push(Buffer.from(head, 'hex'), kind === 0 && (next() & 1) === 0 ? after : before, Buffer.from(tail, 'hex'));
  }
  return changedProgram(machine, { old: Buffer.concat(old), changed: Buffer.concat(changed) }, isExecutable);
}

for (const [name, code] of Object.entries(codes)) {
  test.each<'fast' | 'small'>(['fast', 'small'])(`${name}: which numbers change is told by their instructions, %s`, async (profile) => {
    const inCode = await roundTrip(file(), changedNumbers(code, true), profile);
    const inData = await roundTrip(file(), changedNumbers(code, false), profile);
    expect(inCode.length).toBeLessThan(inData.length * 0.96);
  });

  test(`${name}: changed code comes back the same, wherever it is copied from`, async () => {
    await checkAnyOps(file(), changedNumbers(code, true), true);
  });
}
