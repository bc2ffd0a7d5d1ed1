import { Option, type Command } from 'commander';
import type { DeltasFlags } from './delta-server-deltas.js';
import type { PruneFlags } from './delta-server-prune.js';
import type { PublishFlags } from './delta-server-publish.js';
import type { Output } from './output.js';

/** Options that these commands share with `compute` and `serve`. */
export interface SharedOptions {
  readonly profile: (fallback: string) => Option;
  readonly memory: () => Option;
  readonly threads: (fallback?: string) => Option;
  readonly platform: () => Option;
  readonly sourceHelp: string;
}

const publishExamples = `
The last image is the target, which the repository has to have already (or --push-image); those before it are what
devices have. A delta that is there already, or that is not smaller than the layers, is left.

Examples:
  delta-server publish oci:app:1.0 oci:app:1.1 --to docker://registry.example/app
  delta-server publish docker://registry.example/app:1.4 --last 3
  delta-server publish docker://registry.example/app:1.4 --basis-tags '1.*' --jobs 2 --dry-run
  delta-server publish --delta app.delta --to docker://registry.example/app`;

const deltasExamples = `
Examples:
  delta-server deltas docker://registry.example/app:1.4
  delta-server deltas docker://registry.example/app:1.4 --json | jq .deltas`;

const pruneExamples = `
A delta goes when its target or its basis is no longer in the repository. Where old images were never pushed there, so that
every basis is "gone", use --targets-only.

Examples:
  delta-server prune docker://registry.example/app --dry-run
  delta-server prune docker://registry.example/app`;

const credsOption = (): Option => new Option('--creds <user:password>', 'for the registry (default: ~/.docker/config.json)');

/** Adds the commands that put deltas into a registry, list them there and remove them. */
export function addRegistryCommands(program: Command, output: Output, signal: AbortSignal, shared: SharedOptions): void {
  program.command('publish')
    .summary('put deltas beside their image in a registry')
    .description('Makes the deltas from each <basis> to <target>, proves them, and pushes them beside the target into a repository.')
    .argument('[images...]', '<basis>… <target>')
    .option('--to <repository>', 'where to: docker://HOST/REPOSITORY (default: where the target is)')
    .option('--basis-tags <glob>', 'from the images under those tags of the repository that fit, such as \'1.*\'')
    .option('--last <n>', 'from the n newest versions before the target, by their tags')
    .option('--delta <file>', 'publish a .delta file that was computed before')
    .option('--push-image', 'push the target too, when the repository does not have it')
    .option('--force', 'publish what is there already, too, in its place')
    .option('--dry-run', 'say what would be computed and published, and do nothing')
    .addOption(shared.profile('small')).addOption(shared.memory()).addOption(shared.threads('all, up to 16, shared by the jobs'))
    .option('--jobs <n>', 'computations at a time', '2')
    .addOption(shared.platform()).addOption(credsOption())
    .option('--json', 'print one JSON object').option('-q, --quiet', 'no progress').option('--debug', 'details with errors')
    .addHelpText('after', shared.sourceHelp + '\n' + publishExamples)
    .action(async (images: string[], flags: PublishFlags) => (await import('./delta-server-publish.js')).runPublish(images, flags, output, signal));
  program.command('deltas')
    .summary('list the deltas that a registry has to an image')
    .description('Lists the deltas to an image that are in its repository, and what each saves.')
    .argument('<image>', 'docker://HOST/REPOSITORY[:TAG|@DIGEST]')
    .addOption(shared.platform()).addOption(credsOption())
    .option('--json', 'print one JSON object').option('-q, --quiet', 'the table alone').option('--debug', 'details with errors')
    .addHelpText('after', deltasExamples)
    .action(async (image: string, flags: DeltasFlags) => (await import('./delta-server-deltas.js')).runDeltas(image, flags, output, signal));
  program.command('prune')
    .summary('remove deltas from or to images that are gone')
    .description('Removes the deltas of a repository whose target or basis it no longer has.')
    .argument('<repository>', 'docker://HOST/REPOSITORY')
    .option('--dry-run', 'say what would be removed, and remove nothing')
    .option('--targets-only', 'keep a delta as long as its target is there')
    .addOption(credsOption())
    .option('--json', 'print one JSON object').option('-q, --quiet', 'the result alone').option('--debug', 'details with errors')
    .addHelpText('after', pruneExamples)
    .action(async (repository: string, flags: PruneFlags) => (await import('./delta-server-prune.js')).runPrune(repository, flags, output, signal));
}
