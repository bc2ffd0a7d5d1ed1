import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { renderErrors } from '../../../docs/render-errors.js';
import { errorCodes, exitCodes, type ErrorCode } from '../../../src/core/error-codes.js';

const root = fileURLToPath(new URL('../../..', import.meta.url));

test('docs/errors.md is what the table of error codes says (npm run docs:errors writes it)', async () => {
  const page = await readFile(join(root, 'docs/errors.md'), 'utf8');
  expect(page).toBe(renderErrors(errorCodes, exitCodes));
  for (const code of Object.keys(errorCodes)) expect(page).toContain(`\`${code}\``);
});

test('every code of the table is used, and says in one line what to do', async () => {
  const sources = (await readdir(join(root, 'src'), { recursive: true })).filter((name) => name.endsWith('.ts') && name !== 'core/error-codes.ts');
  const text = (await Promise.all(sources.map((name) => readFile(join(root, 'src', name), 'utf8')))).join('\n');
  const codes = Object.keys(errorCodes) as ErrorCode[];
  expect(codes.filter((code) => !new RegExp(`['"]${code}['"]`).test(text))).toEqual([]);
  for (const code of codes) {
    const { summary, hint, exitCode } = errorCodes[code];
    for (const sentence of [summary, hint]) expect(sentence).toMatch(/^[A-Z][^\n|]*[^\s]$/);
    expect(Object.values(exitCodes)).toContain(exitCode);
    expect(exitCode).not.toBe(exitCodes.ok);
  }
});
