import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { program, runOk } from '../../../bench/process.js';
import { orderDelta, startService, type Service } from '../../../bench/services.js';
import { makeImage, noise, type ImageFile, type MadeImage } from '../../support/images.js';
import { startOciRegistry, type OciRegistry } from '../../support/oci-registry.js';
import { pushMade, remoteAt } from '../../support/publish.js';

/** What an independent reader must find of one file of a layer. */
export interface ExpectedFile {
  readonly kind: 'file' | 'directory' | 'symlink';
  readonly mode: number;
  readonly mtimeSec: number;
  /** sha256 of the content, hex; of a symbolic link its target. */
  readonly content: string;
}

/** One version of the image: what was published, and where it is served as `app:latest`. */
export interface Version {
  readonly image: MadeImage;
  /** By diffID, by path. */
  readonly layers: ReadonlyMap<string, ReadonlyMap<string, ExpectedFile>>;
  readonly from: string;
}

/**
 * Three versions of an image, each served by a delta-server of its own that makes deltas from the others; and two of another
 * that lie further apart: a plain registry has a delta from the first to an image between, and one from that to the second.
 */
export interface World {
  readonly versions: readonly [Version, Version, Version, Version, Version];
  close(): Promise<void>;
}

/** The name under which every version is pulled. */
export const imageName = 'registry.example/app:latest';

/** Indexes of the versions at both ends of the chain. */
export const chainVersions = { start: 3, end: 4 } as const;

const folders: readonly ImageFile[] = [{ path: 'etc/' }, { path: 'lib/' }, { path: 'lib/deep/' }];

function manyFiles(folder: string, count: number, seed: number): ImageFile[] {
  return Array.from({ length: count }, (_, at) => ({
    path: `${folder}/f${String(at)}`, content: noise(200 + ((at * 977) % 5000), seed * 1000 + at), mode: at % 3 === 0 ? 0o755 : 0o644, mtimeSec: 1_700_000_000 + at,
  }));
}

/** A base that stays, and an app layer of which each version changes a part: some files stay as they are and are linked. */
function layersOf(version: number): ImageFile[][] {
  const base = [...folders, ...manyFiles('lib', 10, 1), { path: 'lib/deep/blob', content: noise(40_000, 2) }, { path: 'etc/link', type: 'symlink' as const, linkPath: '../lib/f1' }, { path: 'etc/empty', content: '' }];
  const app = [{ path: 'app/' }, ...manyFiles('app', 8, 3), ...manyFiles('app', 4, 10 + version).map((file) => ({ ...file, path: `${file.path}-new` })), { path: 'app/data', content: noise(40_000 + version * 5000, 20 + version) }];
  return [base, app];
}

function expectedOf(files: readonly ImageFile[]): Map<string, ExpectedFile> {
  return new Map(files.map((file) => {
    const kind = file.type === 'symlink' ? 'symlink' : file.path.endsWith('/') ? 'directory' : 'file';
    const content = kind === 'symlink' ? file.linkPath ?? '' : kind === 'file' ? createHash('sha256').update(Buffer.from(file.content ?? '')).digest('hex') : '';
    return [file.path.replace(/\/$/, ''), { kind, mode: file.mode ?? (kind === 'directory' ? 0o755 : 0o644), mtimeSec: file.mtimeSec ?? 1_700_000_000, content }];
  }));
}

/** So much stays that two small deltas and their manifests cost less than the layer. */
function chainLayersOf(step: number): ImageFile[][] {
  const [base = []] = layersOf(1);
  return [base, [{ path: 'opt/' }, ...manyFiles('opt', 8, 40), { path: 'opt/stays', content: noise(60_000, 41) }, ...manyFiles('opt', 3, 50 + step).map((file) => ({ ...file, path: `${file.path}-new` }))]];
}

function versionOf(image: MadeImage, layers: readonly ImageFile[][], from: string): Version {
  return { image, from, layers: new Map(layers.map((files, layer) => [image.layers[layer]?.diffId ?? '', expectedOf(files)] as const)) };
}

/** Pushes the images of the chain, with no other deltas than from each to the next; both ends. */
async function publishChain(registry: OciRegistry, layout: string): Promise<[Version, Version]> {
  const images: MadeImage[] = [];
  for (const step of [1, 2, 3]) images.push(await makeImage(layout, `c${String(step)}`, chainLayersOf(step)));
  const [first, between, last] = images;
  if (first === undefined || between === undefined || last === undefined) throw new Error('there are three images');
  const [start, end] = [remoteAt(registry.host, 'start'), remoteAt(registry.host, 'end')];
  await pushMade(start, first);
  for (const image of images) await pushMade(end, image);
  await Promise.all([start.client.close(), end.client.close()]);
  registry.repository('start').tags.set('latest', first.manifestDigest);
  registry.repository('end').tags.set('latest', last.manifestDigest);
  for (const [basis, target] of [[first, between], [between, last]] as const) {
    await runOk([...program('delta-server'), 'publish', `oci:${layout}:${basis.tag}`, `oci:${layout}:${target.tag}`, '--to', `docker://${registry.host}/end`, '--profile', 'fast', '--quiet']);
  }
  return [versionOf(first, chainLayersOf(1), `http://${registry.host}/start`), versionOf(last, chainLayersOf(3), `http://${registry.host}/end`)];
}

/** One version, its tag `latest` on a delta-server of its own. */
async function serveVersion(made: readonly MadeImage[], at: number, scratch: string, services: Service[]): Promise<Version> {
  const image = made[at];
  if (image === undefined) throw new Error(`there is no version ${String(at)}`);
  // For this server the tag `latest` is this version.
  const layout = join(scratch, `app-${String(at)}`);
  const others = made.map((_, other) => other + 1).filter((version) => version !== at + 1);
  for (const version of others) await makeImage(layout, `v${String(version)}`, layersOf(version));
  await makeImage(layout, 'latest', layersOf(at + 1));
  const service = await startService(['latest', ...others.map((version) => `v${String(version)}`)].map((tag) => `app=oci:${layout}:${tag}`), join(scratch, `server-${String(at)}`), 'fast');
  services.push(service);
  const basis = made[at - 1];
  if (basis !== undefined) await orderDelta(service.port, 'app', basis.configDigest, image.manifestDigest);
  return versionOf(image, layersOf(at + 1), `http://127.0.0.1:${String(service.port)}`);
}

/** Makes the images and starts the servers, with the deltas from each version to the next made beforehand. The caller closes it. */
export async function makeWorld(): Promise<World> {
  const scratch = await mkdtemp(join(tmpdir(), 'whittle-disk-world-'));
  const services: Service[] = [];
  const registry = await startOciRegistry();
  const close = async (): Promise<void> => {
    for (const service of services) await service.stop();
    await registry.close();
    await rm(scratch, { recursive: true, force: true, maxRetries: 5 });
  };
  try {
    const made: MadeImage[] = [];
    for (const version of [1, 2, 3]) made.push(await makeImage(join(scratch, 'app'), `v${String(version)}`, layersOf(version)));
    const [first, second, third] = await Promise.all(made.map((_, at) => serveVersion(made, at, scratch, services)));
    if (first === undefined || second === undefined || third === undefined) throw new Error('there are three versions');
    return { versions: [first, second, third, ...(await publishChain(registry, join(scratch, 'chain')))], close };
  } catch (error) {
    await close();
    throw error;
  }
}
