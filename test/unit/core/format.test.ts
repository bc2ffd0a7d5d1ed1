import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { formatBytes, formatCount, formatDuration, formatExact, formatList, formatMemory, formatRatio, parseBytes, shortDigest } from '../../../src/core/format.js';

describe('sizes', () => {
  test.each([[0, '0 B'], [999, '999 B'], [1000, '1.00 kB'], [9_994, '9.99 kB'], [9_996, '10.0 kB'], [999_499, '999 kB'], [999_500, '1.00 MB'], [28_296_789, '28.3 MB'], [5e12, '5.00 TB']])('%d is %s', (size, text) => {
    expect(formatBytes(size)).toBe(text);
  });

  test('what is printed is within one percent, and never five digits long', () => {
    fc.assert(fc.property(fc.nat({ max: Number.MAX_SAFE_INTEGER }), (size) => {
      const [number = '', unit = ''] = formatBytes(size).split(' ');
      const factor = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, PB: 1e15 }[unit] ?? NaN;
      expect(Math.abs(Number(number) * factor - size)).toBeLessThanOrEqual(size / 100);
      expect(number.length).toBeLessThanOrEqual(4);
    }));
  });

  test('exact counts and memory', () => {
    expect([formatExact(1_234_567), formatMemory(2 ** 30), formatMemory(5 * 2 ** 20), formatMemory(512 * 2 ** 20)]).toEqual(['1,234,567', '1.00 GiB', '5.0 MiB', '512 MiB']);
  });
});

test.each([[35, '35 ms'], [1250, '1.25 s'], [12_340, '12.3 s'], [48_000, '48 s'], [125_000, '2 min 05 s'], [11_220_000, '3 h 07 min'], [59_600, '1 min 00 s'], [3_599_900, '1 h 00 min'], [NaN, '?']])('%d ms is %s', (duration, text) => {
  expect(formatDuration(duration)).toBe(text);
});

test.each([[1000, 100, '10.0x smaller'], [100, 1000, '10.0x larger'], [5, 5, 'same size'], [28_296_789, 249_997, '113x smaller'], [0, 5, 'larger']])('%d against %d is %s', (full, delta, text) => {
  expect(formatRatio(full, delta)).toBe(text);
});

test.each([['1048576', 1048576], ['512MiB', 512 * 2 ** 20], ['1.5GB', 1.5e9], ['2g', 2 * 2 ** 30], [' 64 KiB ', 65536], ['10b', 10]])('%s is %d bytes', (text, size) => {
  expect(parseBytes(text, '--x')).toBe(size);
});

test.each(['', '-1', '1e9', '1.2.3', 'MiB', '5 XB', '9999999999999999', '999999999TiB'])('%j is no size', (text) => {
  expect(() => parseBytes(text, '--memory')).toThrow(expect.objectContaining({ code: 'USAGE' }));
});

test('digests are cut to what people compare; other text stays', () => {
  expect(shortDigest(`sha256:${'ab'.repeat(32)}`)).toBe('abababababab');
  expect(shortDigest('latest')).toBe('latest');
});

test('one thing is not called many', () => {
  expect([0, 1, 2, 1234].map((count) => formatCount(count, 'layer'))).toEqual(['0 layers', '1 layer', '2 layers', '1,234 layers']);
});

test('a list that is too long for a line says what it leaves out', () => {
  const tags = Array.from({ length: 23 }, (_, at) => `v${String(at)}`);
  expect(formatList([], 'no tags')).toBe('no tags');
  expect(formatList(tags.slice(0, 2), 'no tags')).toBe('v0, v1');
  expect(formatList(tags, 'no tags')).toMatch(/^v0, .*, v19 and 3 more$/);
});
