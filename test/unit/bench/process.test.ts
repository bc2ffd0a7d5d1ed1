import { existsSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { run } from '../../../bench/process.js';

test('the memory of a command is followed for who asks for it, and for nobody else', async () => {
  const words = [process.execPath, '-e', 'setTimeout(() => undefined, 500)'];
  const [watched, alone] = await Promise.all([run(words, { watchMemory: true }), run(words)]);
  // Node alone has more than 20 MiB.
  if (existsSync('/proc/self/status')) expect(watched.peakRssBytes).toBeGreaterThan(2 ** 20);
  expect(alone.peakRssBytes).toBe(0);
});
