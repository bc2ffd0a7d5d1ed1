import { expect, test } from '@jest/globals';
import { setImmediate as turn } from 'node:timers/promises';
import { HeldWrites } from '../../../src/delta/encode/held-writes.js';

const noted = (log: number[], number: number) => async (): Promise<void> => {
  await turn();
  log.push(number);
};

test('writes wait for their release and run in order, those that come meanwhile too', async () => {
  const held = new HeldWrites();
  const log: number[] = [];
  await held.put(10, noted(log, 1));
  await held.put(10, noted(log, 2));
  await turn();
  expect(log).toEqual([]);
  const released = held.release();
  await held.put(10, noted(log, 3));
  await released;
  await held.put(10, noted(log, 4));
  expect(log).toEqual([1, 2, 3, 4]);
});

test('too much that waits makes the writer wait, until the release or a failure', async () => {
  for (const end of ['release', 'fail'] as const) {
    const held = new HeldWrites();
    const log: number[] = [];
    await held.put(2 ** 25, noted(log, 1));
    let waiting = true;
    const put = held.put(1, noted(log, 2)).finally(() => { waiting = false; });
    await turn();
    expect(waiting).toBe(true);
    if (end === 'fail') {
      held.fail(new Error('no plan'));
      await expect(put).rejects.toThrow('no plan');
      expect(log).toEqual([]);
    } else {
      await held.release();
      await put;
      expect(log).toEqual([1, 2]);
    }
  }
});
