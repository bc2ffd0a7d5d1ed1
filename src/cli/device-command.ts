import { parseArgs, type ParseArgsConfig } from 'node:util';
import { WhittleError } from '../core/errors.js';
import type { Output } from './output.js';

/** One flag of a command. */
export interface Flag {
  readonly name: string;
  /** How `--help` names its value; without one it is a switch. */
  readonly value?: string;
  readonly short?: string;
  readonly help: string;
}

/** What a command gets to work with. */
export interface CommandContext {
  readonly positionals: readonly string[];
  /** Whether a switch was given. */
  has(name: string): boolean;
  /** The value of a flag; undefined when it was not given. */
  get(name: string): string | undefined;
  readonly output: Output;
  readonly signal: AbortSignal;
}

/** One command of the program. */
export interface Command {
  readonly name: string;
  /** Its arguments, as `--help` writes them; optional ones in brackets. */
  readonly parameters: readonly string[];
  readonly summary: string;
  readonly description?: string;
  readonly flags: readonly Flag[];
  readonly examples: readonly string[];
  /** Does the work. Returns the exit code when it is not 0. */
  readonly run: (context: CommandContext) => Promise<number | undefined>;
}

/** Where the store is when nobody says otherwise. */
export const defaultRoot = '/var/lib/whittle';

/** Flags of every command. */
const commonFlags: readonly Flag[] = [
  { name: 'root', value: 'DIR', help: `where the store is (default: ${defaultRoot})` },
  { name: 'json', help: 'print JSON, one object a line' },
  { name: 'quiet', short: 'q', help: 'print results and errors only' },
  { name: 'debug', help: 'print stacks and causes with errors' },
  { name: 'help', short: 'h', help: 'print this help' },
];

function sentence(summary: string): string {
  return `${summary.slice(0, 1).toUpperCase()}${summary.slice(1)}.`;
}

/** The text of `device COMMAND --help`. */
export function commandHelp(command: Command): string {
  const lines = [`Usage: device ${[command.name, ...command.parameters].join(' ')} [flags]`, '', command.description ?? sentence(command.summary), '', 'Flags:'];
  const flags = [...command.flags, ...commonFlags];
  const heads = flags.map((flag) => `${flag.short === undefined ? '    ' : `-${flag.short}, `}--${flag.name}${flag.value === undefined ? '' : ` ${flag.value}`}`);
  const width = Math.max(...heads.map((head) => head.length));
  flags.forEach((flag, at) => lines.push(`  ${(heads[at] ?? '').padEnd(width)}  ${flag.help}`));
  lines.push('', 'Examples:', ...command.examples.map((example) => `  ${example}`));
  return lines.join('\n');
}

/** The text of `device --help`. */
export function programHelp(commands: readonly Command[]): string {
  const heads = commands.map((command) => [command.name, ...command.parameters].join(' '));
  const width = Math.max(...heads.map((head) => head.length));
  return [
    'Usage: device COMMAND [arguments] [flags]', '',
    'Keeps container images on a device and updates them by deltas, so that a lost link or power cut costs nothing.', '',
    'Commands:',
    ...commands.map((command, at) => `  ${(heads[at] ?? '').padEnd(width)}  ${command.summary}`), '',
    'Every command takes --root DIR, --json, --quiet, --debug and --help; device --version prints the version.', '',
    'Examples:', '  device pull registry.example/app:2.0', '  device images', '  device rollback registry.example/app:2.0',
  ].join('\n');
}

/** Reads a command's arguments. Throws USAGE. */
export function parseCommand(command: Command, argv: readonly string[]): Pick<CommandContext, 'positionals' | 'has' | 'get'> {
  const options: NonNullable<ParseArgsConfig['options']> = {};
  for (const flag of [...command.flags, ...commonFlags]) {
    options[flag.name] = { type: flag.value === undefined ? 'boolean' : 'string', ...(flag.short === undefined ? {} : { short: flag.short }) };
  }
  const { values, positionals } = parsed(command, argv, options);
  // `--root "$ROOT"` with nothing in it would mean the current directory.
  const empty = Object.keys(values).find((name) => values[name] === '');
  if (empty !== undefined) throw usage(command, `--${empty} is empty`);
  const needed = command.parameters.filter((parameter) => !parameter.startsWith('[')).length;
  if (positionals.length < needed && values['help'] !== true) throw usage(command, `${command.parameters[positionals.length] ?? 'an argument'} is missing`);
  if (positionals.length > command.parameters.length) throw usage(command, `one argument too many: ${JSON.stringify(positionals[command.parameters.length])}`);
  return {
    positionals,
    has: (name) => values[name] === true,
    get: (name) => { const value = values[name]; return typeof value === 'string' ? value : undefined; },
  };
}

function parsed(command: Command, argv: readonly string[], options: NonNullable<ParseArgsConfig['options']>): { values: Record<string, unknown>; positionals: string[] } {
  try {
    const { values, positionals } = parseArgs({ args: [...argv], options, allowPositionals: true, strict: true });
    return { values, positionals };
  } catch (error) {
    // Node's own words, but for the advice that follows the first sentence.
    const [message = ''] = (error instanceof Error ? error.message : String(error)).split(/\. |\n/);
    throw usage(command, message, error);
  }
}

/** A USAGE error of a command, whose hint is its help. */
export function usage(command: Pick<Command, 'name'>, message: string, cause?: unknown): WhittleError {
  return new WhittleError('USAGE', `${command.name}: ${message}`, { hint: `See: device ${command.name} --help`, cause });
}

/** Reads a time that a person typed: `90`, `90s`, `10m`, `1h`. In ms. Throws USAGE naming the flag. */
export function parseTime(text: string, what: string): number {
  const match = /^(\d{1,7})(ms|s|m|min|h)?$/.exec(text.trim());
  const factor = { ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000 }[match?.[2] ?? 's'];
  if (match === null || factor === undefined) throw new WhittleError('USAGE', `${what}: not a time: ${JSON.stringify(text.slice(0, 40))}`, { hint: 'Write a number with a unit, such as 90s, 10m or 1h.' });
  return Number(match[1]) * factor;
}
