import { expect, test } from '@jest/globals';
import { checkAnyOps, grownProgram, type Machine } from '../../support/elf-programs.js';
import { fileOfEachTest, roundTrip, type PatchCase } from '../../support/patch-codec.js';

const file = fileOfEachTest();

interface Code extends Machine {
  /** Instructions: what they begin with, and how many bytes of number follow, which are as by chance. */
  readonly forms: readonly (readonly [head: string, numberBytes: number])[];
}

/** What many programs are made of: moves, loads and stores with displacements, immediates of all sizes, calls, vectors. */
const common = [['8b45', 1], ['8b85', 4], ['83c0', 1], ['81c3', 4], ['e8', 4], ['0f84', 4], ['0fb6', 0], ['c745fc', 4], ['668b44240c', 0], ['f6c3', 1], ['f7db', 0], ['750a', 0], ['50', 0]] as const;
const codes: Record<'x86-64' | 'i386', Code> = {
  'x86-64': { machine: 62, is64: true, forms: [...common, ['488b05', 4], ['48b8', 8], ['4c8d4424', 1], ['c5f857c0', 0], ['c4e37d19c1', 1], ['62f17c4828842480', 3], ['66480f3a16c0', 1], ['488d8c24', 4]] },
  i386: { machine: 3, is64: false, forms: [...common, ['a1', 4], ['40', 0], ['4f', 0], ['8d8424', 4], ['66b8', 2], ['69c0', 4], ['c80000', 1], ['c70485', 8]] },
};

/** Instructions by chance, but after each some are likelier than others. */
function instructions({ forms }: Code, count: number, seed: number): Buffer {
  let state = seed;
  const next = (): number => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 16;
  const parts: Buffer[] = [];
  let kind = 0;
  for (let at = 0; at < count; at++) {
    kind = (next() & 7) === 0 ? next() % forms.length : (kind * 5 + 3 + (next() & 3)) % forms.length;
    const [head, numberBytes] = forms[kind] ?? ['90', 0];
    parts.push(Buffer.from(head, 'hex'), Buffer.from(Array.from({ length: numberBytes }, () => next() & 255)));
  }
  return Buffer.concat(parts);
}

/** New code between the halves of old code. */
function grown(code: Code, isExecutable: boolean): PatchCase {
  return grownProgram(code, { old: instructions(code, 4000, 1), added: instructions(code, 6000, 77) }, isExecutable);
}

for (const [name, code] of Object.entries(codes)) {
  test.each<'fast' | 'small'>(['fast', 'small'])(`${name}: new code costs less than the same bytes do in data, %s`, async (profile) => {
    const inCode = await roundTrip(file(), grown(code, true), profile);
    const inData = await roundTrip(file(), grown(code, false), profile);
    expect(inCode.length).toBeLessThan(inData.length * 0.94);
  });

  test(`${name}: copies and runs of any size, at any place, of code or of any bytes, come back the same`, async () => {
    await checkAnyOps(file(), grown(code, true), true);
  });
}
