import { Command, CommanderError, Option } from 'commander';
import { WhittleError } from '../core/errors.js';
import { keepYoungHeapSmall } from '../core/memory.js';
import type { ComputeFlags } from './delta-server-compute.js';
import type { ExplainFlags } from './delta-server-explain.js';
import { addRegistryCommands } from './delta-server-registry.js';
import type { ServeFlags } from './delta-server-serve.js';
import { createOutput, runProgram, type Output } from './output.js';
import { readVersion } from './version.js';

const sourceHelp = `
Sources are named as skopeo names them:
  oci:DIR[:TAG]                 an OCI layout in a directory
  oci-archive:FILE[:TAG]        an OCI layout in a tar
  docker-archive:FILE[:NAME]    what docker save writes
  docker://HOST/NAME[:TAG|@DIGEST]   a registry (plain http on loopback only)`;

const computeExamples = `${sourceHelp}

Examples:
  delta-server compute oci:app:1.0 oci:app:1.1 -o app.delta
  delta-server compute docker://registry.example/app:1.0 docker://registry.example/app:1.1 -o app.delta --platform linux/arm64
  delta-server compute oci:app:1.0 oci:app:1.1 --profile fast --json | jq .deltaBytes`;

const serveExamples = `${sourceHelp}

A source becomes the repository NAME, by default the last part of the directory's, file's or repository's name, under
its own tag. A delta is made when a device first asks for it, and kept in --root.

What is pushed into an oci:DIR while it is served is there a few seconds later: every tag of an oci:DIR that is named without
one, new images of a tag that is named. All other sources are read at the start alone; a restart is safe at any time.

Examples:
  delta-server serve --images oci:app:1.0 oci:app:1.1
  delta-server serve --images fleet/app=oci:app:1.0 fleet/app=oci:app:1.1 --listen 0.0.0.0:8080 --root /var/lib/whittle-server
  delta-server serve --images docker://registry.example/app:1.0 docker://registry.example/app:1.1 --profile small`;

const explainExamples = `${sourceHelp}

Examples:
  delta-server explain app.delta --basis oci:app:1.0
  delta-server explain app.delta --basis oci:app:1.0 --html app.html
  delta-server explain app.delta --basis oci:app:1.0 --json | jq '.totals'`;

/** Runs the program `delta-server` with the arguments after its name. Sets the process's exit code. */
export async function main(argv: readonly string[]): Promise<void> {
  // What is to be known before the flags are parsed, so that a wrong flag is reported as asked.
  const output = createOutput({ program: 'delta-server', json: argv.includes('--json'), debug: argv.includes('--debug'), quiet: argv.includes('--quiet') || argv.includes('-q') });
  await runProgram(output, async (signal) => {
    if (argv.length === 0) throw new WhittleError('USAGE', 'no command given', { hint: 'See: delta-server --help' });
    try {
      await makeProgram(output, signal).parseAsync([...argv], { from: 'user' });
    } catch (error) {
      if (!(error instanceof CommanderError)) throw error;
      if (error.exitCode !== 0) throw usageError(error);
    }
    return undefined;
  });
}

function usageError(error: CommanderError): WhittleError {
  const [message = '', ...rest] = error.message.replace(/^error: /, '').split('\n');
  const suggestion = rest.join(' ').trim();
  return new WhittleError('USAGE', message, suggestion === '' ? {} : { hint: suggestion });
}

// What a command takes is loaded when it runs: all of it takes longer to load than a small delta to make.

function makeProgram(output: Output, signal: AbortSignal): Command {
  const program = new Command('delta-server');
  program
    .description('Makes deltas between container images, and serves images with the deltas between them.')
    .version(readVersion(), '-V, --version', 'print the version')
    .helpCommand('help [command]', 'print help for a command')
    .exitOverride()
    .configureOutput({ writeErr: (text) => { if (!text.startsWith('error: ')) process.stderr.write(text); } });
  addCompute(program, output, signal);
  addServe(program, output, signal);
  addRegistryCommands(program, output, signal, { profile: profileOption, memory: memoryOption, threads: threadsOption, platform: platformOption, sourceHelp });
  addExplain(program, output, signal);
  program.hook('preAction', (_, command) => { refuseEmptyFlags(command.opts()); });
  return program;
}

/** `--root "$ROOT"` with nothing in it would mean the current directory. */
function refuseEmptyFlags(flags: Readonly<Record<string, unknown>>): void {
  const empty = Object.keys(flags).find((name) => [flags[name]].flat().includes(''));
  if (empty !== undefined) throw new WhittleError('USAGE', `--${empty.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)} is empty`);
}

const profileOption = (fallback: string): Option => new Option('--profile <profile>', 'small: as small as can be; fast: quicker to make').choices(['small', 'fast']).default(fallback);
const memoryOption = (): Option => new Option('--memory <size>', 'bound of the memory that a computation takes, at least 64MiB').default('1GiB');
const platformOption = (): Option => new Option('--platform <os/arch[/variant]>', 'which image of a multi-platform source (default: this machine\'s)');
const credsOption = (): Option => new Option('--creds <user:password>', 'for docker:// sources (default: ~/.docker/config.json)');
const threadsOption = (fallback = 'all, up to 16'): Option => new Option('--threads <n>', `processors to use for one computation (default: ${fallback})`);

function addCompute(program: Command, output: Output, signal: AbortSignal): void {
  program.command('compute')
    .summary('make the delta between two images')
    .description('Makes the delta that turns <basis> into <target>, applies it once to prove it, and says what it saves.')
    .argument('<basis>', 'the image that devices have')
    .argument('<target>', 'the image that they shall have')
    .option('-o, --output <file>', 'write the delta as an OCI archive, - to standard output; without it only the numbers are printed')
    .addOption(profileOption('small')).addOption(memoryOption()).addOption(threadsOption()).addOption(platformOption()).addOption(credsOption())
    .option('--json', 'print one JSON object').option('-q, --quiet', 'no progress').option('--debug', 'details with errors')
    .addHelpText('after', computeExamples)
    .action(async (basis: string, target: string, flags: ComputeFlags) => {
      keepYoungHeapSmall();
      const { runCompute } = await import('./delta-server-compute.js');
      await runCompute(basis, target, flags, output, signal);
    });
}

function addServe(program: Command, output: Output, signal: AbortSignal): void {
  program.command('serve')
    .summary('serve images, and deltas on demand')
    .description('Serves images as an OCI registry that is read-only, and makes the delta between two of them when a device first asks for it.')
    .addOption(new Option('--images <[NAME=]source...>', 'images to serve').makeOptionMandatory())
    .option('--root <dir>', 'where deltas are kept (default: $XDG_STATE_HOME/whittle-server, ~/.local/state/whittle-server)')
    .option('--listen <addr>', 'address and port', '127.0.0.1:8080')
    .addOption(profileOption('fast')).addOption(memoryOption()).addOption(threadsOption()).addOption(platformOption()).addOption(credsOption())
    .option('--jobs <n>', 'computations at a time', '1')
    .option('--verbose', 'a line for each request').option('--json', 'log in JSON').option('-q, --quiet', 'log nothing but warnings').option('--debug', 'details with errors')
    .addHelpText('after', serveExamples)
    .action(async (flags: ServeFlags) => (await import('./delta-server-serve.js')).runServe(flags, output, signal));
}

function addExplain(program: Command, output: Output, signal: AbortSignal): void {
  program.command('explain')
    .summary('say where the bytes of a delta go')
    .description('Says what the bytes of <file> are for, the costliest first: by kind, by layer and, given the basis, by file.')
    .argument('<file>', 'a .delta file')
    .option('--basis <source>', 'the image that the delta starts from: told apart file by file, the delta is applied once')
    .option('--top <n>', 'how many files the table lists', '20')
    .option('--html <page>', 'write a page with a map of the delta, to look at in a browser')
    .addOption(platformOption()).addOption(credsOption())
    .option('--json', 'print one JSON object, with every file').option('-q, --quiet', 'no remarks').option('--debug', 'details with errors')
    .addHelpText('after', explainExamples)
    .action(async (file: string, flags: ExplainFlags) => (await import('./delta-server-explain.js')).runExplain(file, flags, output, signal));
}
