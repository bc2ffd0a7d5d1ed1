import { expect, test } from '@jest/globals';
import { WhittleError } from '../../../src/core/errors.js';
import { interruption, pause, throwIfAborted } from '../../../src/core/interruption.js';

const stopped = new WhittleError('INTERRUPTED', 'stopped by SIGTERM');

test('who stopped something is said, and a signal without such a reason is INTERRUPTED all the same', () => {
  expect(interruption(AbortSignal.abort(stopped))).toBe(stopped);
  expect(interruption(AbortSignal.abort())).toMatchObject({ code: 'INTERRUPTED', message: 'stopped' });
  expect(() => { throwIfAborted(AbortSignal.abort(stopped)); }).toThrow(stopped);
  expect(() => { throwIfAborted(new AbortController().signal); }).not.toThrow();
  expect(() => { throwIfAborted(undefined); }).not.toThrow();
});

test('a pause ends with its signal, before its time or before it began', async () => {
  const controller = new AbortController();
  const paused = pause(600_000, controller.signal);
  controller.abort(stopped);
  await expect(paused).rejects.toBe(stopped);
  await expect(pause(600_000, AbortSignal.abort())).rejects.toMatchObject({ code: 'INTERRUPTED' });
  await expect(pause(0, undefined)).resolves.toBeUndefined();
});
