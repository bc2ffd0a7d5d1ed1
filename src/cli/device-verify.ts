import { WhittleError } from '../core/errors.js';
import { throwIfAborted } from '../core/interruption.js';
import { formatBytes, formatCount, parseBytes, shortDigest } from '../core/format.js';
import type { PullEvent } from '../applier/pull/events.js';
import { pullDefaults } from '../applier/pull/options.js';
import { repairImage } from '../applier/pull/repair.js';
import type { Store, StoredImage, VerifyReport } from '../applier/store/types.js';
import { parseReference } from '../oci/index.js';
import type { Command, CommandContext } from './device-command.js';
import { findImage, withStore } from './device-open.js';
import { openImageSource, sourceFlags } from './device-source.js';
import { toWhittleError } from './output.js';
import { createProgress, type Progress } from './progress.js';

/** `device verify`. */
export const verifyCommand: Command = {
  name: 'verify', parameters: ['[IMAGE]'], summary: 'hash everything again; with --repair fetch what is damaged',
  description: [
    'Reads every file of every image (or of one) from the disk and compares it with what was published. With --repair, damaged',
    'layers are fetched again from where the image came from (or --from) and exchanged. Exit code 7 when damage',
    'remains; where it could not be fetched, that of the reason, such as 5 for the network.',
  ].join('\n'),
  flags: [{ name: 'repair', help: 'fetch damaged layers again' }, ...sourceFlags, { name: 'limit-rate', value: 'SIZE', help: 'bytes a second at most, such as 200kB' }],
  examples: ['device verify', 'device verify registry.example/app:2.0', 'device verify --repair'],
  run: (context) => withStore(context, { orReadOnly: !context.has('repair') }, (store) => runVerify(context, store)),
};

async function runVerify(context: CommandContext, store: Store): Promise<undefined> {
  const text = context.positionals[0];
  const image = text === undefined ? undefined : (await findImage(store, text)).image;
  const found = await verify(context, store, image);
  const report = context.has('repair') && found.damagedLayers.length > 0 ? await repaired(context, store, image, found) : found;
  const damaged = report.damagedLayers.length + report.damagedRecords.length;
  tell(context, report);
  if (damaged === 0) {
    context.output.print(`${formatCount(report.imageCount, 'image')}, ${formatCount(report.layerCount, 'layer')}, ${formatBytes(report.checkedBytes)}: all as published`);
    return undefined;
  }
  throw new WhittleError('STORE_DAMAGED', `${formatCount(report.damagedLayers.length, 'damaged layer')}, ${formatCount(report.damagedRecords.length, 'damaged record')}`, {
    // A repair fetches layers; where they come from is in the records.
    hint: context.has('repair') || report.damagedLayers.length === 0 ? 'What is left could not be repaired; pull the image again, or replace the disk.' : 'Run: device verify --repair',
  });
}

async function verify(context: CommandContext, store: Store, image: StoredImage | undefined): Promise<VerifyReport> {
  const progress = newProgress(context);
  let started = false;
  try {
    return await store.verify({
      signal: context.signal, ...(image === undefined ? {} : { image }),
      onProgress: (done, total) => {
        if (!started) progress.start('verifying', total);
        started = true;
        progress.update(done, total);
      },
    });
  } finally {
    progress.stop();
  }
}

function newProgress(context: CommandContext): Progress {
  const { quiet, json } = context.output.options;
  return createProgress({ quiet: quiet === true || json === true });
}

/** Says what was found, to machines and to people. */
function tell(context: CommandContext, report: VerifyReport): void {
  context.output.json({ event: 'verified', ...report });
  for (const layer of report.damagedLayers) {
    context.output.print(`layer ${shortDigest(layer.diffId)}: ${String(layer.damageCount)} damaged`);
    for (const damage of layer.damages) context.output.print(`  ${damage.kind} ${damage.path}: ${damage.detail}`);
  }
  for (const record of report.damagedRecords) context.output.print(`record ${record}: unreadable or gone`);
}

/** Repairs image by image, as each names where its layers come from, and verifies again. When nothing can be fetched, what was found is said all the same. */
async function repaired(context: CommandContext, store: Store, only: StoredImage | undefined, report: VerifyReport): Promise<VerifyReport> {
  const left = new Set(report.damagedLayers.map((layer) => layer.diffId));
  let failure: WhittleError | null = null;
  for (const image of only === undefined ? await store.images() : [only]) {
    const damaged = image.diffIds.filter((diffId) => left.has(diffId));
    if (damaged.length === 0) continue;
    try {
      await repairOne(context, store, image, damaged);
      for (const diffId of damaged) left.delete(diffId);
    } catch (error) {
      throwIfAborted(context.signal);
      // Another image with the same layer may come from a place that still has it.
      failure = toWhittleError(error);
    }
  }
  if (left.size > 0 && failure !== null) {
    const rest = { ...report, damagedLayers: report.damagedLayers.filter(({ diffId }) => left.has(diffId)) };
    tell(context, rest);
    throw failure;
  }
  return verify(context, store, only);
}

async function repairOne(context: CommandContext, store: Store, image: StoredImage, damaged: readonly string[]): Promise<void> {
  const progress = newProgress(context);
  const source = await openImageSource(context, parseReference(image.source));
  const rate = context.get('limit-rate');
  let started = false;
  const onEvent = (event: PullEvent): void => {
    context.output.json(event);
    if (event.event === 'retry') progress.log(event.reason);
    if (event.event !== 'progress') return;
    if (!started) progress.start('repairing', event.totalBytes);
    started = true;
    progress.update(event.doneBytes, event.totalBytes);
  };
  try {
    const receivedBytes = await repairImage(store, source, image, damaged, {
      patience: pullDefaults.patience, lockWaitMs: pullDefaults.lockWaitMs, signal: context.signal, onEvent,
      limitRate: rate === undefined ? null : parseBytes(rate, '--limit-rate'),
    });
    progress.stop();
    context.output.json({ event: 'repaired', manifestDigest: image.manifestDigest, layers: damaged, receivedBytes });
    context.output.note(`${formatCount(damaged.length, 'layer')} of ${image.names[0] ?? shortDigest(image.manifestDigest)} repaired, ${formatBytes(receivedBytes)} received`);
  } finally {
    progress.stop();
    await source.close();
  }
}
