import { expect, test } from '@jest/globals';
import { program, runOk } from '../../../bench/process.js';
import { peakRssBytes } from '../../../src/core/memory.js';

test('the peak is at least what is resident now, and grows with it', () => {
  expect(peakRssBytes()).toBeGreaterThanOrEqual(process.memoryUsage.rss() - 2 ** 20);
  const before = process.memoryUsage.rss();
  const ballast = Buffer.alloc(96 * 2 ** 20, 1);
  expect(peakRssBytes()).toBeGreaterThan(before + ballast.length / 2);
});

test('a program does not count the memory of the process that started it', async () => {
  const ballast = Buffer.alloc(400 * 2 ** 20, 1);
  const memory = new URL('../../../dist/core/memory.js', import.meta.url).href;
  const [node = 'node'] = program('device');
  const { stdout } = await runOk([node, '--input-type=module', '-e', `const { peakRssBytes } = await import(${JSON.stringify(memory)}); process.stdout.write(String(peakRssBytes()));`]);
  expect(Number(stdout)).toBeGreaterThan(20 * 2 ** 20);
  expect(Number(stdout)).toBeLessThan(ballast.length / 2);
});
