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

test('what this process has not enough of is said with the limit to raise', () => {
  const memory = toWhittleError(new RangeError('WebAssembly.Instance(): Out of memory: Cannot allocate Wasm memory for new instance'));
  expect([memory.code, memory.hint]).toEqual(['INTERNAL', expect.stringContaining('ulimit -v')]);
  expect(toWhittleError(new RangeError('Invalid array length')).hint).not.toContain('ulimit');
  expect(toWhittleError(Object.assign(new Error('EMFILE: open'), { code: 'EMFILE' })).hint).toContain('ulimit -n');
});

test('tables align alike whatever digits a digest has', () => {
  const table = (digest: string): string[] => formatTable([['NAME', 'IMAGE ID', 'WHEN', 'SIZE', 'SAVING'], ['a', digest, '2026-11-22T05:41:21.497Z', '1,234', '34.5x smaller'], ['b', digest, '2026-11-22T05:41:21.497Z', '-', '-']], { header: true }).split('\n');
  const [digits, letters] = [table('235f3e1c784f'), table('a35f3e1c784f')];
  expect(digits[0]).toBe(letters[0]);
  expect(digits[0]).toBe('NAME  IMAGE ID      WHEN                       SIZE         SAVING');
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

describe('progress on a terminal', () => {
  /** Every line that a terminal of so many columns gets to show. */
  function drawn(columns: number): string[] {
    const stream = Object.assign(new PassThrough(), { isTTY: true, columns }) as unknown as NodeJS.WriteStream & PassThrough;
    let nowMs = 0;
    const progress = createProgress({ stream, now: () => nowMs });
    for (let megabyte = 0; megabyte < 10; megabyte++) {
      nowMs = megabyte * 59_000;
      if (megabyte === 0) progress.start('downloading', 999_000_000);
      else progress.update(megabyte * 100_100_000);
      // The bar draws by its own clock; a remark draws it anew at once.
      progress.log(`${String(megabyte)} of ten`);
      progress.update(megabyte * 100_100_000 + 1);
    }
    progress.stop();
    // eslint-disable-next-line no-control-regex -- what is looked at are the words between the control sequences
    return String(stream.read()).split(/\u001b(?:\[[?0-9;]*[A-Za-z]|[78])|\n/).filter((line) => line.includes('downloading'));
  }

  test.each([0, 80, 60, 40, 20])('of %i columns: the line fits, the bar gives way to what is said beside it', (columns) => {
    const lines = drawn(columns);
    expect(lines.length).toBeGreaterThan(5);
    expect(Math.max(...lines.map((line) => line.trimEnd().length))).toBeLessThanOrEqual(columns === 0 ? 80 : columns);
    expect(lines.some((line) => /\d{2}%/.test(line))).toBe(true);
    expect(lines.some((line) => / of 999 MB, .*MB\/s, .* left$/.test(line.trimEnd()))).toBe(columns === 0 || columns === 80);
  });
});
