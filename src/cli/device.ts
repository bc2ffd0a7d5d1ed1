import { exitCodes } from '../core/error-codes.js';
import { WhittleError } from '../core/errors.js';
import { commandHelp, parseCommand, programHelp, type Command } from './device-command.js';
import { createOutput, runProgram } from './output.js';
import { readVersion } from './version.js';

/** A device is small: only the code of the command that runs is loaded. In the order of the help. */
const loaders: Readonly<Record<string, () => Promise<Command>>> = {
  pull: async () => (await import('./device-pull.js')).pullCommand,
  images: async () => (await import('./device-store.js')).imagesCommand,
  status: async () => (await import('./device-store.js')).statusCommand,
  verify: async () => (await import('./device-verify.js')).verifyCommand,
  rollback: async () => (await import('./device-store.js')).rollbackCommand,
  remove: async () => (await import('./device-store.js')).removeCommand,
  gc: async () => (await import('./device-store.js')).gcCommand,
  export: async () => (await import('./device-store.js')).exportCommand,
  mount: async () => (await import('./device-store.js')).mountCommand,
  umount: async () => (await import('./device-store.js')).umountCommand,
};

/** Runs the program `device` with the arguments after its name. Sets the process's exit code. */
export async function main(argv: readonly string[]): Promise<void> {
  // Looked for before the arguments are understood, so that a wrong flag is reported as asked.
  const output = createOutput({ program: 'device', json: argv.includes('--json'), quiet: argv.includes('--quiet') || argv.includes('-q'), debug: argv.includes('--debug') });
  await runProgram(output, (signal) => runCommand(argv, output, signal));
}

async function runCommand(argv: readonly string[], output: ReturnType<typeof createOutput>, signal: AbortSignal): Promise<number | undefined> {
  const [first, ...rest] = argv;
  if (first === '--version' || first === '-V') return say(readVersion());
  if (first === undefined || first === '--help' || first === '-h') {
    if (first === undefined) throw new WhittleError('USAGE', 'no command given', { hint: 'See: device --help' });
    return say(await helpForAll());
  }
  const name = first === 'help' ? rest[0] : first;
  if (name === undefined) return say(await helpForAll());
  const load = Object.hasOwn(loaders, name) ? loaders[name] : undefined;
  if (load === undefined && name.startsWith('-')) throw new WhittleError('USAGE', `flags stand behind the command: ${JSON.stringify(name.slice(0, 60))}`, { hint: `Write it as: device COMMAND ${name.slice(0, 60)}. See: device --help` });
  if (load === undefined) throw new WhittleError('USAGE', `no such command: ${JSON.stringify(name.slice(0, 60))}`, { hint: `The commands are: ${Object.keys(loaders).join(', ')}` });
  const command = await load();
  if (first === 'help') return say(commandHelp(command));
  const parsed = parseCommand(command, rest);
  return parsed.has('help') ? say(commandHelp(command)) : command.run({ ...parsed, output, signal });
}

async function helpForAll(): Promise<string> {
  return programHelp(await Promise.all(Object.values(loaders).map((load) => load())));
}

/** Help and version go to stdout whatever the flags: they are the result that was asked for. */
function say(text: string): number {
  process.stdout.write(`${text}\n`);
  return exitCodes.ok;
}
