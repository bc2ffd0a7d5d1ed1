import { constants } from 'node:os';
import { expect, test } from '@jest/globals';
import { storageError } from '../../../src/atomic/storage-error.js';
import { errorCodes, exitCodes } from '../../../src/core/error-codes.js';
import { errnoName, systemErrorCode } from '../../../src/core/errors.js';

test('every errno has the name that Linux gives it, those that Node does not know too', () => {
  for (const [name, errno] of Object.entries(constants.errno)) {
    // Two names for one number: either is right.
    if (['EWOULDBLOCK', 'EOPNOTSUPP'].includes(name)) continue;
    const found = errnoName(errno);
    if (!found.startsWith('Unknown')) expect(found).toBe(name);
  }
  expect(errnoName(122)).toBe('EDQUOT');
  expect(errnoName(117)).toBe('EUCLEAN');
});

test('a quota error as Node makes it is a full filesystem', () => {
  const error = Object.assign(new Error('Unknown system error -122: write'), { code: 'Unknown system error -122', errno: -122, syscall: 'write' });
  expect(systemErrorCode(error)).toBe('EDQUOT');
  expect(storageError(error, 'writing')).toMatchObject({ code: 'STORAGE_FULL', message: 'writing: no space left on the filesystem of the store (EDQUOT)' });
});

test('a filesystem that makes no symbolic links is told as such, not as one of somebody else', () => {
  const system = (code: string, syscall: string): Error => Object.assign(new Error(`${code}: ${syscall} 'fs/bin/sh'`), { code, syscall, path: 'fs/bin/sh' });
  for (const code of ['EPERM', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS']) expect(storageError(system(code, 'symlink'), 'extracting a layer')).toMatchObject({ code: 'STORAGE_UNSUPPORTED', exitCode: 7 });
  expect(storageError(system('EPERM', 'open'), 'extracting a layer')).toMatchObject({ code: 'STORAGE_PERMISSION' });
});

test('the same call is not said to succeed later where somebody has to free, mount, allow or mend something first', () => {
  const again = Object.entries(errorCodes).filter(([, facts]) => facts.retryable).map(([, facts]) => facts.exitCode);
  expect([exitCodes.usage, exitCodes.notFound, exitCodes.denied, exitCodes.badInput, exitCodes.storage].filter((code) => again.includes(code))).toEqual([]);
});
