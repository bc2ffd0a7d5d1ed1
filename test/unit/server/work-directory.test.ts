import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { withWorkDirectory } from '../../../src/server/work-directory.js';

const before = process.env['TMPDIR'];
const scratch = mkdtempSync(join(tmpdir(), 'whittle-work-'));
afterEach(() => {
  if (before === undefined) delete process.env['TMPDIR'];
  else process.env['TMPDIR'] = before;
  rmSync(scratch, { recursive: true, force: true });
});

test('temporary files go where TMPDIR says and leave nothing; a TMPDIR that is no directory is no defect', async () => {
  process.env['TMPDIR'] = scratch;
  let made = '';
  await withWorkDirectory((directory) => {
    made = directory;
    expect([dirname(directory), existsSync(directory)]).toEqual([scratch, true]);
    return Promise.resolve();
  });
  expect(existsSync(made)).toBe(false);
  writeFileSync(join(scratch, 'file'), '');
  for (const name of ['none', 'file']) {
    process.env['TMPDIR'] = join(scratch, name);
    await expect(withWorkDirectory(() => Promise.resolve())).rejects.toMatchObject({ code: 'USAGE', message: expect.stringContaining(name), hint: expect.stringContaining('TMPDIR') });
  }
});
