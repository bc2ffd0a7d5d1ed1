import { resolve } from 'node:path';
import { WhittleError } from '../core/errors.js';
import { formatBytes, formatCount, formatExact, shortDigest } from '../core/format.js';
import type { Engine } from '../applier/engines/types.js';
import type { StoredImage, StoreReference, StoreStatus } from '../applier/store/types.js';
import { parseTime, usage, type Command, type CommandContext } from './device-command.js';
import { engineFlags, withNamedEngine } from './device-engine.js';
import { findImage, requireName, withStore } from './device-open.js';
import { formatTable, outputAsPlace } from './output.js';

/** `device images`. */
export const imagesCommand: Command = {
  name: 'images', parameters: [], summary: 'list the images in the store, or those of an engine that a delta can start from',
  flags: [{ name: 'in', value: 'ENGINE', help: 'those of docker, containerd or podman (default: the store\'s)' }, ...engineFlags],
  examples: ['device images', 'device images --json | jq ".images[].name"', 'device images --in docker'],
  run: (context) => withStore(context, { orReadOnly: true }, async (store) => {
    const engineName = context.get('in');
    if (engineName !== undefined) {
      await withNamedEngine(context, store, engineName, (engine) => showHeld(context, engine));
      return undefined;
    }
    const images = await store.images();
    const rows = imageRows(images, await store.references());
    context.output.json({ images: rows });
    const table = rows.map((row) => [row.name ?? '<none>', row.state, shortDigest(row.configDigest), shortDigest(row.manifestDigest), String(row.layers), row.committedAt]);
    context.output.print(formatTable([['NAME', 'STATE', 'IMAGE ID', 'MANIFEST', 'LAYERS', 'COMMITTED'], ...table], { header: true }));
    return undefined;
  }),
};

/** Prints the images that an engine holds whole. */
async function showHeld(context: CommandContext, engine: Engine): Promise<void> {
  const rows = (await engine.images()).flatMap(({ names, configDigest, manifestDigest, diffIds }) =>
    (names.length === 0 ? [null] : names).map((name) => ({ name, configDigest, manifestDigest, layers: diffIds.length })));
  context.output.json({ engine: engine.name, images: rows });
  const table = rows.map((row) => [row.name ?? '<none>', shortDigest(row.configDigest), row.manifestDigest === null ? '-' : shortDigest(row.manifestDigest), String(row.layers)]);
  context.output.print(formatTable([['NAME', 'IMAGE ID', 'MANIFEST', 'LAYERS'], ...table], { header: true }));
}

interface ImageRow {
  readonly name: string | null;
  readonly state: 'current' | 'previous' | 'unused';
  readonly configDigest: string;
  readonly manifestDigest: string;
  readonly layers: number;
  readonly committedAt: string;
}

function imageRows(images: readonly StoredImage[], references: readonly StoreReference[]): ImageRow[] {
  const row = (image: StoredImage, name: string | null, state: ImageRow['state']): ImageRow =>
    ({ name, state, configDigest: image.configDigest, manifestDigest: image.manifestDigest, layers: image.diffIds.length, committedAt: image.committedAt });
  const find = (digest: string | null): StoredImage | undefined => images.find((image) => image.manifestDigest === digest);
  const named = references.flatMap((reference) => {
    const current = find(reference.current);
    const previous = find(reference.previous);
    return [...(current === undefined ? [] : [row(current, reference.name, 'current')]), ...(previous === undefined ? [] : [row(previous, reference.name, 'previous')])];
  });
  const used = new Set(named.map((each) => each.manifestDigest));
  return [...named, ...images.filter((image) => !used.has(image.manifestDigest)).map((image) => row(image, null, 'unused'))];
}

/** `device status`. */
export const statusCommand: Command = {
  name: 'status', parameters: [], summary: 'say what is in the store, and what is unfinished', flags: [],
  examples: ['device status', 'device status --json'],
  run: (context) => withStore(context, { orReadOnly: true }, async (store) => {
    const status = await store.status();
    context.output.json(status);
    context.output.print(formatTable(statusRows(status)));
    return undefined;
  }),
};

function statusRows(status: StoreStatus): string[][] {
  const rows = [
    ['store', status.root],
    ['images', String(status.imageCount)],
    ['layers', `${String(status.layerCount)}, ${formatBytes(status.layerBytes)} on disk`],
    ['free', formatBytes(status.freeBytes)],
    ['extraction', status.privileged ? 'with owners, device nodes and privileged attributes' : 'without privileges: owners and devices are kept as metadata'],
  ];
  for (const stage of status.stages) rows.push([stage.active ? 'running pull' : 'unfinished pull', `${shortDigest(stage.manifestDigest)}, ${formatBytes(stage.sizeBytes)} so far`]);
  for (const mount of status.mounts) rows.push(['mount', `${mount.mountPoint} (${shortDigest(mount.manifestDigest)}${mount.writable ? ', writable' : ''})`]);
  for (const record of status.damagedRecords) rows.push(['damaged record', record]);
  return rows;
}

/** `device rollback`. */
export const rollbackCommand: Command = {
  name: 'rollback', parameters: ['IMAGE'], summary: 'go back to the previous image of a name',
  description: 'Makes the previous image of a name the current one, after verifying it. A second rollback goes forward again.',
  flags: [], examples: ['device rollback registry.example/app:2.0'],
  run: (context) => withStore(context, {}, async (store) => {
    const name = await requireName(store, context.positionals[0] ?? '');
    const reference = await store.rollback(name, { signal: context.signal });
    const image = await store.findImage(reference.current);
    context.output.json({ event: 'rolled-back', ...reference, configDigest: image?.configDigest ?? null });
    context.output.print(`${name}: image ${shortDigest(image?.configDigest ?? reference.current)} is current again`);
    return undefined;
  }),
};

/** `device remove`. */
export const removeCommand: Command = {
  name: 'remove', parameters: ['IMAGE'], summary: 'forget a name; gc then frees what nothing else uses',
  flags: [], examples: ['device remove registry.example/app:1.0 && device gc'],
  run: (context) => withStore(context, {}, async (store) => {
    const name = await requireName(store, context.positionals[0] ?? '');
    await store.removeReference(name);
    context.output.json({ event: 'removed', name });
    context.output.print(`${name}: removed`);
    return undefined;
  }),
};

/** `device gc`. */
export const gcCommand: Command = {
  name: 'gc', parameters: [], summary: 'delete what no name and no mount uses',
  description: 'Deletes images that no name (current or previous) and no mount uses, their layers, and old unfinished pulls.',
  flags: [{ name: 'unfinished', value: 'TIME', help: 'delete unfinished pulls older than this; 0 for all (default: 14 days)' }],
  examples: ['device gc', 'device gc --unfinished 0'],
  run: (context) => withStore(context, {}, async (store) => {
    const age = context.get('unfinished');
    const { sweepMemory } = await import('../applier/engines/podman/temporary-directory.js');
    await sweepMemory(store.fs);
    const report = await store.gc({ signal: context.signal, ...(age === undefined ? {} : { stageMaxAgeMs: parseTime(age, '--unfinished') }) });
    context.output.json({ event: 'collected', ...report });
    context.output.print(`${formatCount(report.removedImages.length, 'image')}, ${formatCount(report.removedLayers.length, 'layer')} and ${formatCount(report.removedStages, 'unfinished pull')} removed; ${formatBytes(report.freedBytes)} freed`);
    if (report.damagedRecords.length > 0) context.output.print(`${formatCount(report.damagedRecords.length, 'record')} damaged or gone: what they may need was kept; device verify names them, and a pull mends them`);
    return undefined;
  }),
};

/** `device export`. */
export const exportCommand: Command = {
  name: 'export', parameters: ['IMAGE', 'oci-archive:FILE'], summary: 'write an image as an OCI archive',
  description: 'Writes an image as an OCI archive that skopeo, Podman and Docker read, to standard output where FILE is -. Image ID and diffIDs are the published ones.',
  flags: [], examples: ['device export registry.example/app:2.0 oci-archive:app.tar', 'device export registry.example/app:2.0 oci-archive:- | podman load'],
  run: (context) => withStore(context, { orReadOnly: true }, async (store) => {
    const { output } = context;
    const [text = '', target = ''] = context.positionals;
    const file = /^oci-archive:(.+)$/s.exec(target)?.[1];
    if (file === undefined) throw usage(exportCommand, `the target is written oci-archive:FILE, not ${JSON.stringify(target.slice(0, 200))}`);
    const place = file === '-' ? outputAsPlace(target, { what: 'archive', instead: 'oci-archive:FILE' }, output) : resolve(file);
    const { image, name } = await findImage(store, text);
    // Only this command writes archives; the others start faster without it.
    const { exportImage } = await import('../applier/export.js');
    const written = await exportImage(store, image, place, name ?? image.names[0] ?? null, context.signal);
    output.json({ event: 'exported', file: resolve(file), configDigest: image.configDigest, ...written });
    const said = `image ${shortDigest(image.configDigest)}, ${formatExact(written.sizeBytes)} bytes`;
    if (file === '-') output.note(said);
    else output.print(`${file}: ${said}`);
    return undefined;
  }),
};

/** `device mount`. */
export const mountCommand: Command = {
  name: 'mount', parameters: ['IMAGE', 'DIR'], summary: 'mount an image\'s filesystem (needs root)',
  flags: [{ name: 'writable', help: 'allow changes, which are dropped at umount' }],
  examples: ['device mount registry.example/app:2.0 /mnt', 'device mount registry.example/app:2.0 /mnt --writable'],
  run: (context) => withStore(context, {}, async (store) => {
    const [text = '', target = ''] = context.positionals;
    const { image } = await findImage(store, text);
    await store.mount(image, resolve(target), { writable: context.has('writable') });
    context.output.json({ event: 'mounted', mountPoint: resolve(target), manifestDigest: image.manifestDigest });
    context.output.print(`${target}: image ${shortDigest(image.configDigest)}`);
    return undefined;
  }),
};

/** `device umount`. */
export const umountCommand: Command = {
  name: 'umount', parameters: ['DIR'], summary: 'undo a mount', flags: [], examples: ['device umount /mnt'],
  run: (context) => withStore(context, {}, async (store) => {
    const target = context.positionals[0] ?? '';
    if (target === '') throw new WhittleError('USAGE', 'umount: DIR is empty');
    await store.umount(resolve(target));
    context.output.json({ event: 'unmounted', mountPoint: resolve(target) });
    return undefined;
  }),
};
