import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { checkPlace, writeError } from '../../../src/registry/new-file.js';

test.each([['ENOSPC', 'STORAGE_FULL'], ['EDQUOT', 'STORAGE_FULL'], ['EACCES', 'STORAGE_PERMISSION'], ['EROFS', 'STORAGE_READ_ONLY'], ['ENOENT', 'USAGE'], ['ENOTDIR', 'USAGE']])('%s at an output is %s, with what to do about the output and not about a store', (system, code) => {
  const error = writeError(Object.assign(new Error(system), { code: system }), '/out/app.tar');
  expect(error).toMatchObject({ code, message: expect.stringContaining('/out/app.tar'), data: { systemCode: system } });
  expect(error.hint).toMatch(/place/);
  expect(error.hint).not.toMatch(/store|--root|gc/);
});

test('a place whose folder is not there is refused before the work', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'whittle-place-'));
  await checkPlace(join(folder, 'new'));
  await expect(checkPlace(join(folder, 'none/new'))).rejects.toMatchObject({ code: 'USAGE', hint: expect.stringContaining('Make the folder') });
  await expect(checkPlace(folder)).rejects.toMatchObject({ code: 'USAGE' });
  rmSync(folder, { recursive: true });
});
