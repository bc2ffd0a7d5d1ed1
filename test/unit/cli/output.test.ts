import { describe, expect, test } from '@jest/globals';
import { PassThrough } from 'node:stream';
import { WhittleError } from '../../../src/core/errors.js';
import { formatTable, oneLine, toWhittleError } from '../../../src/cli/output.js';
import { createProgress } from '../../../src/cli/progress.js';

test('hostile text stays on one line and drives no terminal', () => {
  expect(oneLine('a\n  b\u001b[31mred\u0007\u009b2J')).toBe('a b\uFFFD[31mred\uFFFD\uFFFD2J');
});

describe('what was thrown becomes one coded error', () => {
  test('coded errors stay, aborts are interruptions, system errors get a hint', () => {
    const coded = new WhittleError('TAR_CORRUPT', 'x');
    expect(toWhittleError(coded)).toBe(coded);
    expect(toWhittleError(new DOMException('stop', 'AbortError')).code).toBe('INTERRUPTED');
    const system = toWhittleError(Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' }));
    expect([system.code, system.exitCode, system.hint]).toEqual(['STORAGE_FULL', 7, 'Free some space and run again.']);
    expect(toWhittleError(Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' })).code).toBe('INTERNAL');
    expect(toWhittleError('just text').message).toBe('just text');
    expect(toWhittleError(null).message).toBe('null');
  });
});

test('tables align, numbers to the right', () => {
  expect(formatTable([['name', 'size'], ['a', '1'], ['long name', '12345']], { header: true })).toBe('name        size\na              1\nlong name  12345');
});

describe('progress without a terminal', () => {
  function lines(steps: (progress: ReturnType<typeof createProgress>, tick: (ms: number) => void) => void, quiet = false): string[] {
    const stream = new PassThrough() as unknown as NodeJS.WriteStream & PassThrough;
    let nowMs = 0;
    const progress = createProgress({ stream, quiet, now: () => nowMs });
    steps(progress, (ms) => { nowMs += ms; });
    return String(stream.read() ?? '').split('\n').filter((line) => line !== '');
  }

  test('a line at most every few seconds, with rate and time left', () => {
    const said = lines((progress, tick) => {
      progress.start('fetching', 10_000_000);
      for (let second = 1; second <= 10; second++) {
        tick(1000);
        progress.update(second * 1_000_000);
      }
      progress.stop();
    });
    expect(said).toEqual(['fetching: 50% (5.00 MB of 10.0 MB, 1.00 MB/s, 5.00 s left)', 'fetching: 100% (10.0 MB of 10.0 MB, 1.00 MB/s)', 'fetching: done in 10.0 s']);
  });

  test('a short phase says nothing, log lines are always said, quiet says nothing at all', () => {
    const steps = (progress: ReturnType<typeof createProgress>): void => {
      progress.start('a', 5);
      progress.update(5);
      progress.log('remark\n\u001b[2J');
      progress.stop();
    };
    expect(lines(steps)).toEqual(['remark \uFFFD[2J']);
    expect(lines(steps, true)).toEqual([]);
  });

  test('a resumed phase counts only what it did itself', () => {
    const said = lines((progress, tick) => {
      progress.start('fetching', 2000, { done: 1000 });
      tick(5000);
      progress.update(1500);
    });
    expect(said).toEqual(['fetching: 75% (1.50 kB of 2.00 kB, 100 B/s, 5.00 s left)']);
  });
});
