import { setMaxListeners } from 'node:events';
import { setImmediate } from 'node:timers/promises';
import { inspect } from 'node:util';
import { exitCodes } from '../core/error-codes.js';
import { errorCodeOf, isShortage, isWhittleError, systemErrorCode, WhittleError } from '../core/errors.js';

/** How a program was told to speak. */
export interface OutputOptions {
  /** `delta-server` or `device`: stands before every error. */
  readonly program: string;
  /** Results and errors as JSON objects, one a line, on stdout. */
  readonly json?: boolean;
  /** Nothing but results and errors. */
  readonly quiet?: boolean;
  /** Stacks and causes with errors. */
  readonly debug?: boolean;
}

/** Where a program's words go: results to stdout, everything else to stderr. */
export interface Output {
  readonly options: OutputOptions;
  /** One result line (or several) for people on stdout; nothing with --json. */
  print(text: string): void;
  /** One JSON object on a line of stdout; nothing without --json. */
  json(value: unknown): void;
  /** A remark on stderr; nothing with --quiet or --json. */
  note(text: string): void;
  /** A warning on stderr, also with --quiet. */
  warn(text: string): void;
  /** Says an error as `program: message` and `  hint`, or as a JSON object; the stack only with --debug. Returns the exit code. */
  fail(error: unknown): number;
}

/** The usual output of a program, on this process's stdout and stderr. */
export function createOutput(options: OutputOptions): Output {
  const stderr = (text: string): void => void process.stderr.write(`${text}\n`);
  const stdout = (text: string): void => void process.stdout.write(`${text}\n`);
  return {
    options,
    print: (text) => { if (options.json !== true) stdout(text); },
    json: (value) => { if (options.json === true) stdout(JSON.stringify(value)); },
    note: (text) => { if (options.quiet !== true && options.json !== true) stderr(text); },
    warn: (text) => { stderr(`${options.program}: warning: ${oneLine(text)}`); },
    fail: (error) => reportError(options, error, stdout, stderr),
  };
}

function reportError(options: OutputOptions, error: unknown, stdout: (text: string) => void, stderr: (text: string) => void): number {
  const known = toWhittleError(error);
  if (options.json === true) {
    const { code, message, hint, retryable, data } = known;
    stdout(JSON.stringify({ error: { code, message: oneLine(message), hint, retryable, ...(Object.keys(data).length > 0 ? { data } : {}) } }));
  }
  // With --json too: a person who pipes stdout away still sees why.
  stderr(`${options.program}: ${oneLine(known.message)}\n  ${known.hint}`);
  if (options.debug === true) stderr(inspect(error, { depth: 6 }));
  return known.exitCode;
}

/** Makes one WhittleError of whatever was thrown: system errors get a code that fits, the rest is INTERNAL. */
export function toWhittleError(error: unknown): WhittleError {
  if (isWhittleError(error)) return error;
  if (isAbort(error)) return new WhittleError('INTERRUPTED', 'interrupted', { cause: error });
  const system = systemErrorCode(error);
  const message = messageOf(error);
  if (system !== undefined) return new WhittleError(errorCodeOf(error), message, { cause: error, data: { systemCode: system }, hint: systemHints[system] ?? defaultSystemHint });
  return new WhittleError('INTERNAL', message, { cause: error, ...(isShortage(error) ? { hint: memoryHint } : {}) });
}

const memoryHint = 'Not enough memory or address space; allow more (ulimit -v, or the memory limit of the service or container).';

const defaultSystemHint = 'The operating system refused this; run again with --debug for details.';
const systemHints: Readonly<Record<string, string>> = {
  ENOENT: 'Check the name: nothing is there.',
  EACCES: 'Check the permissions, or run as a user who may.',
  EPERM: 'Check the permissions, or run as a user who may.',
  ENOSPC: 'Free some space and run again.',
  EDQUOT: 'Free some of the quota and run again.',
  EROFS: 'The filesystem is read-only; choose another place or remount it.',
  EADDRINUSE: 'Something listens there already; choose another address with --listen.',
  EMFILE: 'Too many open files; raise the limit (ulimit -n).',
  ENFILE: 'Too many open files on this machine; close some, or raise fs.file-max.',
  ENOMEM: memoryHint,
};

function isAbort(error: unknown): boolean {
  return typeof error === 'object' && error !== null && (error as { name?: unknown }).name === 'AbortError';
}

function messageOf(error: unknown): string {
  const message = typeof error === 'object' && error !== null ? (error as { message?: unknown }).message : undefined;
  return typeof message === 'string' && message !== '' ? message : String(error);
}

/** Text on one line with no control characters, so that hostile names cannot drive a terminal. */
export function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ').replace(/\p{Cc}/gu, '\uFFFD');
}

/** What stands to the right in a table: `12`, `-3`, `1,234`, `34.5x smaller`, `98.1%`, or nothing known; digests and dates are names. */
const quantity = /^(?:|-|\?|[-+]?\d[\d,.]*(?:[ x%].*)?)$/;

/**
 * Standard output, where a result that is not text was asked to go there with `flag`; `what` it is and what to write `instead` are for
 * the messages. Throws USAGE where JSON goes there too, and where it is a terminal.
 */
export function outputAsPlace(flag: string, { what, instead }: { readonly what: string; readonly instead: string }, { options }: Output): NodeJS.WriteStream {
  if (options.json === true) throw new WhittleError('USAGE', `${flag} and --json both want standard output`, { hint: `Name a file for the ${what}: ${instead}.` });
  if (process.stdout.isTTY) throw new WhittleError('USAGE', `${flag}: ${/^[aeiou]/.test(what) ? 'an' : 'a'} ${what} is not written to a terminal`, { hint: `Lead standard output into a file or another program, or name a file: ${instead}.` });
  return process.stdout;
}

/** Rows as a table for people: the first column to the left, the others right-aligned when all of them are quantities. */
export function formatTable(rows: readonly (readonly string[])[], options: { indent?: string; header?: boolean } = {}): string {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, column) => { widths[column] = Math.max(widths[column] ?? 0, cell.length); });
  const body = options.header === true ? rows.slice(1) : rows;
  const numeric = widths.map((_, column) => column > 0 && body.some((row) => /\d/.test(row[column] ?? '')) && body.every((row) => quantity.test(row[column] ?? '')));
  const line = (row: readonly string[]): string =>
    (options.indent ?? '') + widths.map((width, column) => {
      const cell = row[column] ?? '';
      return numeric[column] === true ? cell.padStart(width) : cell.padEnd(width);
    }).join('  ').trimEnd();
  return rows.map(line).join('\n');
}

/** Ctrl-C, an order to end, and a terminal or a login that is gone. */
const stopSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Runs `main` as a whole program: SIGINT, SIGTERM and SIGHUP abort `signal` (a second one ends the process at once), a
 * thrown error is said in one line, a closed stdout is no error, one that cannot be written is said at the end. Sets `process.exitCode`; returns when all is done.
 */
export async function runProgram(output: Output, main: (signal: AbortSignal) => Promise<number | undefined>): Promise<void> {
  const controller = new AbortController();
  // Every request under way listens to it; Node would take more than ten for a leak, and say so to the user.
  setMaxListeners(0, controller.signal);
  const onSignal = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(exitCodes.interrupted);
    controller.abort(new WhittleError('INTERRUPTED', `stopped by ${name}`));
  };
  const lost = watchOutput();
  for (const name of stopSignals) process.on(name, onSignal);
  try {
    process.exitCode = (await main(controller.signal)) ?? exitCodes.ok;
  } catch (error) {
    // What was thrown because of the signal is the signal's doing, however it was put.
    process.exitCode = output.fail(controller.signal.aborted ? controller.signal.reason : error);
  } finally {
    const error = await lost();
    if (error !== null && process.exitCode === exitCodes.ok) process.exitCode = output.fail(error);
    for (const name of stopSignals) process.off(name, onSignal);
  }
}

/**
 * What cannot be said must not stop what is being done: errors of stdout and stderr end no program. Returns what, at the
 * end, gives the error for results that were lost; for a reader that closed its pipe there is none, it wanted no more.
 */
function watchOutput(): () => Promise<WhittleError | null> {
  let lost: WhittleError | null = null;
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') lost ??= lostOutput(error);
  });
  process.stderr.on('error', () => undefined);
  return async () => {
    // The error of a write that has just been made comes with the next tick.
    await setImmediate();
    return lost;
  };
}

function lostOutput(error: NodeJS.ErrnoException): WhittleError {
  const full = error.code === 'ENOSPC' || error.code === 'EDQUOT';
  return new WhittleError(full ? 'STORAGE_FULL' : 'STORAGE_IO', `standard output could not be written (${error.code ?? 'unknown error'})`, {
    cause: error, hint: 'What was asked for is done; see to where the output goes, and ask again for what was to be read there.',
  });
}
