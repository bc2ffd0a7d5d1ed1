import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { SharedContent } from '../../../src/delta/encode/shared-content.js';
import { noise } from '../../support/delta-images.js';

test('the part that is shared is told about right, however much was expected', () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 8 }), fc.constantFrom(1, 1000, 100_000, 1_000_000), fc.nat(1000), (eighths, expected, seed) => {
    const there = noise(seed, 40_000);
    const shared = new SharedContent(expected);
    shared.add(there);
    const content = Buffer.concat([there.subarray(0, eighths * 2000), noise(seed + 5000, (8 - eighths) * 2000)]);
    // A filter that is full tells nothing; one that is made for a part still does.
    const slack = expected === 1 ? 0.35 : 0.1;
    expect(Math.abs(shared.sharedPart(content) - eighths / 8)).toBeLessThan(slack);
  }), { numRuns: 60 });
});

test('what is there by chance, is repeated or is too little counts as none', () => {
  const shared = new SharedContent(50_000);
  shared.add(noise(1, 50_000));
  shared.add(Buffer.alloc(5000));
  expect(shared.sharedPart(Buffer.alloc(0))).toBe(0);
  expect(shared.sharedPart(noise(1, 20))).toBe(0);
  expect(shared.sharedPart(Buffer.concat([Buffer.alloc(100_000), noise(2, 3000)]))).toBe(0);
  expect(new SharedContent(0).sharedPart(noise(1, 50_000))).toBe(0);
});
