import { expect, test } from '@jest/globals';
import { returnFreeMemory } from '../../../src/delta/encode/free-memory.js';

test('buffers that nothing refers to any more go back to the system', () => {
  const residentWithBallast = ((): number => {
    Array.from({ length: 1000 }, () => Buffer.alloc(256 * 1024, 1));
    return process.memoryUsage.rss();
  })();
  returnFreeMemory();
  expect(process.memoryUsage.rss()).toBeLessThan(residentWithBallast - 150 * 2 ** 20);
});
