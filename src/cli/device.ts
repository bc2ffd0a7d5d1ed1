import { exitCodes } from '../core/error-codes.js';
import { WhittleError } from '../core/errors.js';
import { commandHelp, parseCommand, programHelp, type Command } from './device-command.js';
import { pullCommand } from './device-pull.js';
import { exportCommand, gcCommand, imagesCommand, mountCommand, removeCommand, rollbackCommand, statusCommand, umountCommand } from './device-store.js';
import { verifyCommand } from './device-verify.js';
import { createOutput, runProgram } from './output.js';
import { readVersion } from './version.js';

const commands: readonly Command[] = [
  pullCommand, imagesCommand, statusCommand, verifyCommand, rollbackCommand, removeCommand, gcCommand, exportCommand, mountCommand, umountCommand,
];

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
    return say(programHelp(commands));
  }
  const name = first === 'help' ? rest[0] : first;
  if (name === undefined) return say(programHelp(commands));
  const command = commands.find((each) => each.name === name);
  if (command === undefined) throw new WhittleError('USAGE', `no such command: ${JSON.stringify(name.slice(0, 60))}`, { hint: `The commands are: ${commands.map((each) => each.name).join(', ')}` });
  if (first === 'help') return say(commandHelp(command));
  const parsed = parseCommand(command, rest);
  return parsed.has('help') ? say(commandHelp(command)) : command.run({ ...parsed, output, signal });
}

/** Help and version go to stdout whatever the flags: they are the result that was asked for. */
function say(text: string): number {
  process.stdout.write(`${text}\n`);
  return exitCodes.ok;
}
