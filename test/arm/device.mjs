import { join } from 'node:path';
import { runOk } from '../../bench/.built/bench/process.js';
import { orderDelta, startService } from '../../bench/.built/bench/services.js';
import { lastJson } from '../../bench/.built/bench/whittle.js';
import { sourceName } from '../../bench/.built/bench/pairs.js';
import { openImage } from '../../dist/server/sources.js';
import { unpackPair } from '../../dist/server/unpack.js';
import { emulated } from './targets.mjs';

/** What a command under emulation may take at most. */
const timeoutMs = 30 * 60_000;

/** Reads the image of an archive whole, each layer against its diffID; returns its image ID and diffIDs. */
async function readArchive(path, folder) {
  const image = await openImage(`oci-archive:${path}`, {});
  try {
    const pair = await unpackPair({ basis: image.input, target: image.input, directory: folder });
    await pair.close();
    return { configDigest: image.input.configDigest, diffIds: image.input.layers.map((layer) => layer.diffId) };
  } finally {
    await image.close();
  }
}

async function platformOf(image) {
  const opened = await openImage(sourceName(image), {});
  await opened.close();
  return opened.platform;
}

/**
 * Updates an image from its old to its new version with the whole device program on a target, and exports it. Throws unless it
 * came by a delta, verifies, and has the published image ID and diffIDs. `device`: the words that run the program.
 */
export async function updateDevice({ pair, profile, service, device, folder, say }) {
  const platform = await platformOf(pair.target);
  const diffIds = pair.target.layers.map((layer) => layer.diffId);
  const at = (image) => `127.0.0.1:${service.port}/${pair.name}@${image.manifestDigest}`;
  const store = ['--root', join(folder, 'store')];
  const command = (...words) => runOk([...device, ...words, ...store], { timeoutMs });
  say(`  ${pair.name} ${profile}: pulling the old version whole`);
  await command('pull', '--no-delta', '--platform', platform, '--json', at(pair.basis));
  await orderDelta(service.port, pair.name, pair.basis.configDigest, pair.target.manifestDigest);
  say(`  ${pair.name} ${profile}: pulling the new version by its delta`);
  const pulled = lastJson(await command('pull', '--delta', '--platform', platform, '--json', at(pair.target)));
  if (pulled.event !== 'committed' || pulled.way !== 'delta') throw new Error(`the pull ended with ${JSON.stringify(pulled)}`);
  await command('verify');
  say(`  ${pair.name} ${profile}: exporting it`);
  const archive = join(folder, 'exported.tar');
  await command('export', at(pair.target), `oci-archive:${archive}`);
  const exported = await readArchive(archive, folder);
  if (exported.configDigest !== pair.target.configDigest) throw new Error(`the exported image is ${exported.configDigest} instead of ${pair.target.configDigest}`);
  if (exported.diffIds.join() !== diffIds.join()) throw new Error(`the exported layers are ${exported.diffIds.join(', ')} instead of ${diffIds.join(', ')}`);
  return { deltaBytes: pulled.deltaBytes };
}

/** Serves both versions of a pair from this machine. */
export function servePair(pair, profile, folder) {
  return startService([pair.basis, pair.target].map((image) => `${pair.name}=${sourceName(image)}`), join(folder, 'server'), profile);
}

/** The words that run a program of an installation under emulation. */
export function programOf(target, node, installation, name) {
  return [...emulated(target), join(node, 'bin/node'), join(installation, 'bin', `${name}.js`)];
}
