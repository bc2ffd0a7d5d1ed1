import type { ErrorCode } from '../core/error-codes.js';
import { diskCodes, isWhittleError, systemErrorCode, WhittleError, type ErrorData } from '../core/errors.js';

const codes: Readonly<Record<string, ErrorCode>> = {
  ...diskCodes, EFBIG: 'STORAGE_FULL',
  EUCLEAN: 'STORAGE_IO', ENXIO: 'STORAGE_IO', ENODEV: 'STORAGE_IO', ENOMEDIUM: 'STORAGE_IO', EREMOTEIO: 'STORAGE_IO',
  EOPNOTSUPP: 'STORAGE_UNSUPPORTED', ENOTSUP: 'STORAGE_UNSUPPORTED', ENOSYS: 'STORAGE_UNSUPPORTED',
  ENOENT: 'STORE_DAMAGED', ELOOP: 'STORE_DAMAGED', EISDIR: 'STORE_DAMAGED', ENOTDIR: 'STORE_DAMAGED',
};

const meanings: Readonly<Partial<Record<ErrorCode, string>>> = {
  STORAGE_FULL: 'no space left on the filesystem of the store',
  STORAGE_READ_ONLY: 'the filesystem of the store is read-only',
  STORAGE_PERMISSION: 'the store may not be changed or read by this user',
  STORAGE_IO: 'the disk reported an error',
  STORAGE_UNSUPPORTED: 'the filesystem of the store cannot do what images need',
  STORE_DAMAGED: 'something in the store is gone, or of another kind than it should be',
};

/**
 * The WhittleError for a system error of the store's filesystem (STORAGE_FULL, STORAGE_IO, STORAGE_PERMISSION,
 * STORAGE_READ_ONLY, STORAGE_UNSUPPORTED, and STORE_DAMAGED for what is not there any more, or became a link or a directory, or the other way round); anything else is returned as it is. `what` says what was being done.
 */
export function storageError(error: unknown, what: string, data: ErrorData = {}): unknown {
  const system = isWhittleError(error) ? undefined : systemErrorCode(error);
  // The call's own word for a filesystem without symbolic links, whoever asks.
  const noLinks = system === 'EPERM' && (error as { syscall?: unknown }).syscall === 'symlink';
  const code = system === undefined ? undefined : noLinks ? 'STORAGE_UNSUPPORTED' : codes[system];
  if (code === undefined || system === undefined) return error;
  const path = (error as { path?: unknown }).path;
  const where = typeof path === 'string' && path !== '' ? ` (${system} at ${path})` : ` (${system})`;
  return new WhittleError(code, `${what}: ${meanings[code] ?? ''}${where}`, { cause: error, data: { ...data, systemCode: system } });
}

/** Runs `body`; system errors of the store's filesystem come out as `storageError` makes them. */
export async function withStorageErrors<T>(what: string, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    throw storageError(error, what);
  }
}

/** True for a system error with one of these codes. */
export function isSystemError(error: unknown, ...names: readonly string[]): boolean {
  const code = isWhittleError(error) ? undefined : systemErrorCode(error);
  return code !== undefined && names.includes(code);
}
