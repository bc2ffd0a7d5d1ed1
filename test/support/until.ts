import { setTimeout as sleep } from 'node:timers/promises';

/** Waits until something is so, which has to happen within two minutes: a machine may be busy. `problem` says what is wrong when it does not. */
export async function until(condition: () => boolean | Promise<boolean>, problem = () => 'it did not come about'): Promise<void> {
  const deadlineMs = performance.now() + 120_000;
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error(problem());
    await sleep(10);
  }
}
