import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { GnuDeflate } from '../../../src/delta/gnu-deflate.js';
import { noise } from '../../support/delta-images.js';
import { testWithTools } from '../../support/tools.js';

let dir = '';
beforeAll(() => { dir = mkdtempSync(join(tmpdir(), 'gnu-deflate-')); });
afterAll(() => { rmSync(dir, { recursive: true, force: true }); });

/** Stretches that differ in how they compress: text, noise, one byte, a short period, and what came a window before. */
function content(seed: number, stretches: readonly (readonly [kind: number, bytes: number])[]): Buffer {
  const parts: Buffer[] = [];
  for (const [index, [kind, bytes]] of stretches.entries()) {
    const own = noise(seed + index, bytes);
    const before = Buffer.concat(parts);
    if (kind === 0) parts.push(Buffer.from(own.toString('hex').replaceAll(/[a-f]/g, ' word ')).subarray(0, bytes));
    else if (kind === 1) parts.push(own);
    else if (kind === 2) parts.push(Buffer.alloc(bytes, seed & 255));
    else if (kind === 3) parts.push(Buffer.alloc(bytes, own.subarray(0, 1 + (seed % 300))));
    else parts.push(before.subarray(Math.max(0, before.length - 32_900 + (seed % 700))).subarray(0, bytes));
  }
  return Buffer.concat(parts);
}

/** What comes of pushing `plain` in pieces of `pieceBytes`. */
function deflated(plain: Buffer, level: number, pieceBytes: number): Buffer {
  const deflate = new GnuDeflate(level);
  const parts: Buffer[] = [];
  for (let at = 0; at < plain.length; at += pieceBytes) parts.push(deflate.push(plain.subarray(at, at + pieceBytes), at + pieceBytes >= plain.length));
  return Buffer.concat(parts);
}

const stretch = fc.tuple(fc.nat(4), fc.oneof(fc.integer({ min: 1, max: 70_000 }), fc.constantFrom(1, 2, 3, 258, 262, 4095, 32_506, 32_767, 32_768, 65_274, 65_536)));
const contents = fc.tuple(fc.nat(10_000), fc.array(stretch, { minLength: 1, maxLength: 4 })).map(([seed, stretches]) => content(seed, stretches)).filter((plain) => plain.length > 0);

testWithTools('gzip')('gives the bytes that gzip gives, at every level, however the input comes', () => {
  const file = join(dir, 'plain');
  fc.assert(fc.property(contents, fc.integer({ min: 1, max: 9 }), fc.integer({ min: 500, max: 200_000 }), (plain, level, pieceBytes) => {
    writeFileSync(file, plain);
    const gz = execFileSync('gzip', [`-${String(level)}`, '-n', '-c', file], { maxBuffer: 2 ** 24 });
    expect(deflated(plain, level, pieceBytes).equals(gz.subarray(10, gz.length - 8))).toBe(true);
  }), { numRuns: 200 });
});

test('what it gives inflates to what it took', () => {
  fc.assert(fc.property(contents, fc.integer({ min: 1, max: 9 }), (plain, level) => {
    expect(inflateRawSync(deflated(plain, level, 65_536)).equals(plain)).toBe(true);
  }), { numRuns: 60 });
});
