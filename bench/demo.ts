import { mkdir, mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { formatBytes, formatDuration, formatExact } from '../src/core/format.js';
import { formatTable } from '../src/cli/output.js';
import { differences, layerPullBytes, layoutTags, readImage, unpackArchive, type Image } from './image.js';
import { openLink, type Link } from './link.js';
import { program, projectRoot, run, runOk, withScratch } from './process.js';
import { orderDelta, startService, type ListedDelta } from './services.js';

/** Images of test/fixtures that the demo updates, and what each one is. */
const images = [
  { name: 'alpine', what: 'Alpine Linux base image for armv7, 18 months of patches' },
  { name: 'tinycore', what: 'Tiny Core Linux for x86-64, a minor release' },
  { name: 'esbuild', what: 'one Go program for arm64, a patch release' },
] as const;

interface Fixture { name: string; what: string; basis: Image; target: Image }

/** The link is so slow that a delta takes this long, or there would be no middle to cut it in. */
const deltaTransferMs = 2000;

interface Update { name: string; layerPull: number; delta: number; wire: number }

const say = (text: string): void => { process.stdout.write(`${text}\n`); };

/** One step of the story: what happens, and what came of it. */
const tell = (what: string, outcome: string): void => { say(`  ${`${what}:`.padEnd(33)}${outcome}`); };

/** The published old and new version of a fixture. */
async function versions(name: string): Promise<{ basis: Image; target: Image }> {
  const layout = join(projectRoot, 'test/fixtures/images', name);
  const [oldTag, newTag] = await layoutTags(layout);
  return { basis: await readImage(layout, oldTag), target: await readImage(layout, newTag) };
}

/** Runs one command of the device program on a store. */
const device = (root: string, ...words: string[]): string[] => [...program('device'), ...words, '--root', root];

/** Pulls the delta over a link that is cut in the middle while the device program is killed; says what is left. */
async function pullAndCut(link: Link, store: string, image: string, cutBytes: number): Promise<number> {
  const cut = link.cutAfter(cutBytes);
  let power = (): void => undefined;
  const pull = run(device(store, 'pull', '--delta', image), { onStart: (child) => { power = () => { child.kill('SIGKILL'); }; } });
  await Promise.race([cut, pull.then((outcome) => {
    throw new Error(`the pull ended before it could be cut: exit code ${String(outcome.exitCode)}\n${outcome.stderr.slice(-2000)}`);
  })]);
  power();
  await pull;
  link.mend();
  return link.receivedBytes;
}

/** One image from its old version to its new one, as a device lives it. `making` is the delta that the server is making. */
async function update(fixture: Fixture, making: Promise<ListedDelta>, serverPort: number, work: string): Promise<Update> {
  const { name, what, basis, target } = fixture;
  const layerPull = layerPullBytes(basis, target);
  const store = join(work, 'device', name);
  const link = await openLink(serverPort);
  const at = (tag: string): string => `127.0.0.1:${String(link.port)}/${name}:${tag}`;
  say(`\n${name} ${basis.tag} -> ${target.tag}  (${what})`);
  try {
    await runOk(device(store, 'pull', '--no-delta', at(basis.tag)));
    tell(`the device pulls ${basis.tag} in full`, `${formatBytes(link.receivedBytes)} on the wire`);
    const delta = await making;
    tell('the server makes the delta', `${formatBytes(delta.sizeBytes)}, where a layer pull is ${formatBytes(layerPull)}`);
    link.reset(Math.ceil((delta.sizeBytes * 1000) / deltaTransferMs));
    const before = await pullAndCut(link, store, at(target.tag), Math.floor(delta.sizeBytes / 2));
    tell('the update begins and is cut', `after ${formatBytes(before)} the link is gone, and the device program is killed (kill -9)`);
    await runOk(device(store, 'verify'));
    tell('the store after the cut', `device verify finds it whole, with ${basis.tag} in place`);
    link.reset(Math.ceil((delta.sizeBytes * 1000) / deltaTransferMs));
    await runOk(device(store, 'pull', '--delta', at(target.tag)));
    const after = link.receivedBytes;
    tell('the same command again resumes', `${formatBytes(after)} more, ${formatBytes(before + after)} in all`);
    await proveSame(store, at(target.tag), target, join(work, 'export', name));
    return { name: `${name} ${target.tag}`, layerPull, delta: delta.sizeBytes, wire: before + after };
  } finally {
    await link.close();
  }
}

/** Verifies the store and holds the exported image against the published one; throws when a bit differs. */
async function proveSame(store: string, image: string, published: Image, work: string): Promise<void> {
  await runOk(device(store, 'verify'));
  const archive = `${work}.tar`;
  const folder = await mkdtemp(`${work}-`);
  await runOk(device(store, 'export', image, `oci-archive:${archive}`));
  await unpackArchive(archive, folder);
  const wrong = await differences(published, await readImage(folder));
  if (wrong.length > 0) throw new Error(`the updated image is not the published one: ${wrong.join('; ')}`);
  tell('the updated image is exported', `image ID ${published.configDigest.slice(7, 19)} and every layer are bit for bit the published ones`);
}

function table(updates: readonly Update[]): string {
  const rows = updates.map((one) => [
    one.name, formatExact(one.layerPull), formatExact(one.delta), `${(one.layerPull / one.delta).toFixed(1)}x`, formatExact(one.wire),
  ]);
  const total = (pick: (one: Update) => number): number => updates.reduce((sum, one) => sum + pick(one), 0);
  const all = ['all', formatExact(total((one) => one.layerPull)), formatExact(total((one) => one.delta)),
    `${(total((one) => one.layerPull) / total((one) => one.delta)).toFixed(1)}x`, formatExact(total((one) => one.wire))];
  return formatTable([['update', 'layer pull, bytes', 'delta, bytes', 'smaller', 'on the wire with the cut'], ...rows, all], { header: true, indent: '  ' });
}

async function main(work: string): Promise<void> {
  const began = performance.now();
  say('Whittle demo: real images, a real server and a real device program on loopback.');
  const fixtures = await Promise.all(images.map(async (image): Promise<Fixture> => ({ ...image, ...await versions(image.name) })));
  const sources = fixtures.flatMap(({ basis, target }) => [basis, target].map((image) => `oci:${image.layout}:${image.tag}`));
  for (const folder of ['device', 'export']) await mkdir(join(work, folder));
  const service = await startService(sources, join(work, 'server'), 'small');
  const updates: Update[] = [];
  try {
    // All are ordered at once: the server makes the next delta while the device is busy with this one.
    const orders = fixtures.map(({ name, basis, target }) => orderDelta(service.port, name, basis.configDigest, target.manifestDigest));
    for (const order of orders) order.catch(() => undefined);
    for (const [at, fixture] of fixtures.entries()) updates.push(await update(fixture, orders[at]!, service.port, work));
  } finally {
    await service.stop();
  }
  say(`\n${table(updates)}`);
  say('\n  "delta" is everything that the update needs: manifest, index and data of the delta. "On the wire" is every byte that reached');
  say('  the device in both attempts, HTTP headers, the target\'s manifest and config and what the cut made it fetch again included.');
  say(`\nAll images are bit for bit what was published. ${formatDuration(performance.now() - began)} in all; everything is cleaned up.`);
}

await withScratch('whittle-demo-', main, (message) => { say(`\nThe demo ended early: ${message}`); });
