import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { serverAddon } from '../../../src/core/native.js';
import { seededBytes } from '../../support/native-content.js';

const suffixArray = (bytes: Uint8Array): Int32Array => serverAddon().suffixArray(bytes);

function naive(bytes: Uint8Array): number[] {
  const text = Buffer.from(bytes);
  return Array.from({ length: text.length }, (_, index) => index).sort((a, b) => Buffer.compare(text.subarray(a), text.subarray(b)));
}

test('equals sorting the suffixes', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 256 }), fc.uint8Array({ maxLength: 300 }), fc.integer({ min: 1, max: 4 }), (alphabet, seed, copies) => {
    const once = Buffer.from(seed.map((byte) => byte % alphabet));
    const bytes = Buffer.concat(Array.from({ length: copies }, () => once));
    expect([...suffixArray(bytes)]).toEqual(naive(bytes));
  }), { numRuns: 500 });
});

/** A permutation whose neighbours are in order: each suffix against the next by first byte, then by the rank of what follows. */
function expectSuffixArray(suffixes: Int32Array, bytes: Uint8Array): void {
  const rank = new Int32Array(bytes.length + 1).fill(-1);
  suffixes.forEach((position, index) => {
    rank[position] = index;
  });
  expect(rank.indexOf(-1)).toBe(bytes.length);
  for (let index = 1; index < suffixes.length; index++) {
    const [a = 0, b = 0] = suffixes.subarray(index - 1, index + 1);
    const [first = 0, second = 0] = [bytes[a], bytes[b]];
    const inOrder = first < second || (first === second && (rank[a + 1] ?? 0) < (rank[b + 1] ?? 0));
    if (!inOrder) throw new Error(`suffixes ${String(a)} and ${String(b)} are out of order`);
  }
}

test.each([
  ['zeros', Buffer.alloc(3_000_000)],
  ['abab', Buffer.alloc(3_000_000, 'ab')],
  ['random bytes', seededBytes(3_000_000, 1)],
  ['two symbols', seededBytes(3_000_000, 2, 2)],
  ['a repeated block', Buffer.alloc(3_000_000, seededBytes(100_000, 3))],
])('sorts %s in linear time', (_name, bytes) => {
  const startedMs = performance.now();
  const suffixes = suffixArray(bytes);
  expect(performance.now() - startedMs).toBeLessThan(10_000);
  expectSuffixArray(suffixes, bytes);
});

test('refuses what is no byte array', () => {
  for (const wrong of [undefined, null, 'abc', [1, 2], new Uint16Array(4), new ArrayBuffer(4), {}]) {
    expect(() => suffixArray(wrong as Uint8Array)).toThrow(/Uint8Array/);
  }
  expect(suffixArray(new Uint8Array(0))).toHaveLength(0);
});
