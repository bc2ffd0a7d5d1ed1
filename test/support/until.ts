import { setTimeout as sleep } from 'node:timers/promises';

/** Waits until something is so, which has to happen within two minutes: a machine may be busy. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + 120_000;
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error('it did not come about');
    await sleep(10);
  }
}
