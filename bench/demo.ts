import { mkdtemp, rm } from 'node:fs/promises';
import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatBytes, formatDuration, formatExact } from '../src/core/format.js';
import { formatTable } from '../src/cli/output.js';
import { differences, layerPullBytes, layoutTags, readImage, unpackArchive, type Image } from './image.js';
import { openLink, type Link } from './link.js';
import { killRunning, program, projectRoot, run, runOk } from './process.js';
import { orderDelta, startService } from './services.js';

/** Images of test/fixtures that the demo updates, and what each one is. */
const fixtures = [
  { name: 'alpine', what: 'Alpine Linux base image for armv7, 18 months of patches' },
  { name: 'tinycore', what: 'Tiny Core Linux for x86-64, a minor release' },
  { name: 'esbuild', what: 'one Go program for arm64, a patch release' },
] as const;

/** The link is so slow that a delta takes this long, or there would be no middle to cut it in. */
const deltaTransferMs = 2500;

interface Update { name: string; basis: Image; target: Image; layerPull: number; delta: number; wire: number; elapsedMs: number }

const say = (text: string): void => { process.stdout.write(`${text}\n`); };

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

async function update(fixture: (typeof fixtures)[number], serverPort: number, work: string): Promise<Update> {
  const { name, what } = fixture;
  const { basis, target } = await versions(name);
  const layerPull = layerPullBytes(basis, target);
  const store = join(work, 'device', name);
  const link = await openLink(serverPort);
  const at = (tag: string): string => `127.0.0.1:${String(link.port)}/${name}:${tag}`;
  say(`\n${name} ${basis.tag} -> ${target.tag}  (${what})`);
  try {
    await runOk(device(store, 'pull', '--no-delta', at(basis.tag)));
    say(`  the device pulls ${basis.tag} in full:    ${formatBytes(link.receivedBytes)} on the wire`);
    const delta = await orderDelta(serverPort, name, basis.configDigest, target.manifestDigest);
    say(`  the server makes the delta:      ${formatBytes(delta.sizeBytes)} in ${formatDuration(delta.waitedMs)}, where a layer pull is ${formatBytes(layerPull)}`);
    const began = performance.now();
    link.reset(Math.ceil((delta.sizeBytes * 1000) / deltaTransferMs));
    const before = await pullAndCut(link, store, at(target.tag), Math.floor(delta.sizeBytes / 2));
    say(`  the update begins and is cut:    after ${formatBytes(before)} the link is gone, and the device program is killed (kill -9)`);
    await runOk(device(store, 'verify'));
    say(`  the store after the cut:         device verify: whole, ${basis.tag} still runs`);
    link.reset(Math.ceil((delta.sizeBytes * 1000) / deltaTransferMs));
    await runOk(device(store, 'pull', '--delta', at(target.tag)));
    const after = link.receivedBytes;
    const elapsedMs = performance.now() - began;
    say(`  the same command again resumes:  ${formatBytes(after)} more, ${formatBytes(before + after)} in all`);
    await proveSame(store, at(target.tag), target, join(work, 'export', name));
    return { name: `${name} ${target.tag}`, basis, target, layerPull, delta: delta.sizeBytes, wire: before + after, elapsedMs };
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
  say(`  the updated image is exported:   image ID ${published.configDigest.slice(7, 19)} and every layer are bit for bit the published ones`);
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
  const sources = (await Promise.all(fixtures.map(async ({ name }) => {
    const { basis, target } = await versions(name);
    return [basis, target].map((image) => `oci:${image.layout}:${image.tag}`);
  }))).flat();
  await runOk(['mkdir', '-p', join(work, 'device'), join(work, 'export')]);
  const service = await startService(sources, join(work, 'server'), 'small');
  const updates: Update[] = [];
  try {
    for (const fixture of fixtures) updates.push(await update(fixture, service.port, work));
  } finally {
    await service.stop();
  }
  say(`\n${table(updates)}`);
  say('\n  "delta" is everything that the update needs: manifest, index and data of the delta. "On the wire" is every byte that reached');
  say('  the device in both attempts, HTTP headers, the target\'s manifest and config and what the cut made it fetch again included.');
  say(`\nAll images are bit for bit what was published. ${formatDuration(performance.now() - began)} in all; everything is cleaned up.`);
}

const work = await mkdtemp(join(tmpdir(), 'whittle-demo-'));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    killRunning();
    rmSync(work, { recursive: true, force: true, maxRetries: 5 });
    say('\nstopped; everything is cleaned up.');
    process.exit(130);
  });
}
try {
  await main(work);
} catch (error) {
  say(`\nThe demo failed: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
} finally {
  killRunning();
  await rm(work, { recursive: true, force: true, maxRetries: 5 });
}
