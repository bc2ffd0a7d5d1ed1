import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { decideRange, etagListHas, ifRangeAllows } from '../../../src/server/range.js';

/** RFC 9110, 14.1.2, byte by byte: the offsets that a range selects, null when the header is not a valid single range. */
function selected(first: number | null, last: number | null, size: number): number[] | null {
  if (first === null && last === null) return null;
  if (first !== null && last !== null && last < first) return null;
  const offsets = Array.from({ length: size }, (_, at) => at);
  if (first === null) return last === 0 ? [] : offsets.slice(-(last ?? 0));
  return offsets.filter((at) => at >= first && at <= (last ?? Infinity));
}

describe('decideRange', () => {
  test('selects the bytes that the RFC selects, for every kind of single range', () => {
    const number = fc.option(fc.nat(40), { nil: null });
    fc.assert(fc.property(number, number, fc.nat(30), (first, last, size) => {
      const expected = selected(first, last, size);
      const decision = decideRange(`bytes=${first === null ? '' : String(first)}-${last === null ? '' : String(last)}`, size);
      if (expected === null) expect(decision).toEqual({ kind: 'full' });
      else if (expected.length === 0) expect(decision).toEqual({ kind: 'unsatisfiable' });
      else expect(decision).toEqual({ kind: 'part', first: expected[0], last: expected.at(-1) });
    }), { numRuns: 2000 });
  });

  test('whatever the header, a part lies within the body', () => {
    const header = fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom('b', 'y', 't', 'e', 's', '=', '-', ',', ' ', '0', '9', '+', '.', 'e') }).map((text) => `bytes=${text}`));
    fc.assert(fc.property(header, fc.nat(1000), (text, size) => {
      const decision = decideRange(text, size);
      if (decision.kind !== 'part') return;
      expect(decision.first).toBeGreaterThanOrEqual(0);
      expect(decision.last).toBeGreaterThanOrEqual(decision.first);
      expect(decision.last).toBeLessThan(size);
    }), { numRuns: 3000 });
  });

  test.each(['bytes=0-1,5-6', 'items=0-1', 'bytes 0-1', 'bytes=a-b', 'bytes=--1', 'bytes=5-2', 'bytes=1e1-', `bytes=${'9'.repeat(70)}-`])('%s gets the whole body', (header) => {
    expect(decideRange(header, 100)).toEqual({ kind: 'full' });
  });

  test('offsets above 2^32 are exact', () => {
    expect(decideRange('bytes=4294967296-4294967299', 2 ** 40)).toEqual({ kind: 'part', first: 2 ** 32, last: 2 ** 32 + 3 });
  });
});

describe('entity tags', () => {
  const etag = '"sha256:ab"';
  test('If-Range lets only the strong tag through', () => {
    expect(ifRangeAllows(undefined, etag)).toBe(true);
    expect(ifRangeAllows(etag, etag)).toBe(true);
    for (const other of [`W/${etag}`, '"sha256:cd"', 'Wed, 21 Oct 2015 07:28:00 GMT', '*', '']) expect(ifRangeAllows(other, etag)).toBe(false);
  });

  test('lists are searched, weak tags count for If-None-Match alone', () => {
    expect(etagListHas(`"x", ${etag}`, etag, false)).toBe(true);
    expect(etagListHas('*', etag, false)).toBe(true);
    expect(etagListHas(`W/${etag}`, etag, true)).toBe(true);
    expect(etagListHas(`W/${etag}`, etag, false)).toBe(false);
    expect(etagListHas('"x", "y"', etag, true)).toBe(false);
  });
});
