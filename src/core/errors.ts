import { getSystemErrorName } from 'node:util';
import { errorCodes, type ErrorCode } from './error-codes.js';

/** Typed facts about a failure: what it was about, never secrets. Shown by `--json`, tested by callers. */
export type ErrorData = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** What an error carries besides code and message. */
export interface WhittleErrorOptions {
  /** What caused this error; kept for `--debug`. */
  readonly cause?: unknown;
  readonly data?: ErrorData;
  /** Overrides the table's default for this code. */
  readonly retryable?: boolean;
  /** One sentence that says what the user can do; overrides the table's default for this code. */
  readonly hint?: string;
}

/**
 * The one error class of the project. `code` is stable and documented in `docs/errors.md`; `message` says
 * what was wrong and with what, in one line; `hint` says what to do.
 */
export class WhittleError extends Error {
  override readonly name = 'WhittleError';
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly data: ErrorData;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, options: WhittleErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    const known = errorCodes[code];
    this.code = code;
    this.retryable = options.retryable ?? known.retryable;
    this.data = options.data ?? {};
    this.hint = options.hint ?? known.hint;
  }

  /** The process exit code that the table gives this error. */
  get exitCode(): number {
    return errorCodes[this.code].exitCode;
  }
}

/** True for a WhittleError, also one that another realm or copy of this module made. */
export function isWhittleError(error: unknown): error is WhittleError {
  return (
    typeof error === 'object' && error !== null &&
    (error as { name?: unknown }).name === 'WhittleError' &&
    typeof (error as { code?: unknown }).code === 'string'
  );
}

/** The same error with what it is about before its words (`layer sha256:…: …`). What is no WhittleError stays as it is. */
export function aboutError(what: string, error: unknown): unknown {
  if (!isWhittleError(error)) return error;
  const { code, message, data, hint, retryable } = error;
  return new WhittleError(code, `${what}: ${message}`, { cause: error, data, hint, retryable });
}

/** Errors of disks that Node has no name for: it calls them "Unknown system error -122". By errno, of Linux. */
const unnamed: Readonly<Record<number, string>> = { 117: 'EUCLEAN', 122: 'EDQUOT', 123: 'ENOMEDIUM' };

/** The name of a positive errno: `ENOENT`, …; also of those that Node does not name. */
export function errnoName(errno: number): string {
  return unnamed[errno] ?? getSystemErrorName(-errno);
}

/** The `code` of an operating-system or Node error (`ENOENT`, …), or undefined. Works across realms. */
export function systemErrorCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null) return undefined;
  const { code, errno } = error as { code?: unknown; errno?: unknown };
  if (typeof code !== 'string') return undefined;
  return (typeof errno === 'number' ? unnamed[-errno] : undefined) ?? code;
}

/** True when the system gave this process no more memory or open files: a limit (`ulimit`), not the fault of what was being done. */
export function isShortage(error: unknown): boolean {
  if (['EMFILE', 'ENFILE', 'ENOMEM'].includes(systemErrorCode(error) ?? '')) return true;
  const { name, message } = (typeof error === 'object' ? error ?? {} : {}) as { name?: unknown; message?: unknown };
  return name === 'RangeError' && typeof message === 'string' && /out of memory|allocation failed/i.test(message);
}

/** What a disk says of itself, whatever was asked of it: the codes of such system errors. */
export const diskCodes: Readonly<Record<string, ErrorCode>> = { ENOSPC: 'STORAGE_FULL', EDQUOT: 'STORAGE_FULL', EROFS: 'STORAGE_READ_ONLY', EIO: 'STORAGE_IO', EACCES: 'STORAGE_PERMISSION', EPERM: 'STORAGE_PERMISSION' };

/** The code of whatever was thrown: a WhittleError's own; what a disk says of itself, wherever that was; INTERNAL for the rest. */
export function errorCodeOf(error: unknown): ErrorCode {
  if (isWhittleError(error)) return error.code;
  return diskCodes[systemErrorCode(error) ?? ''] ?? 'INTERNAL';
}
