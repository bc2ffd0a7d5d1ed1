import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { pullDefaults } from '../../../src/applier/pull/options.js';
import { pullImage } from '../../../src/applier/pull/pull.js';
import { parseFromUrl, registrySource } from '../../../src/applier/pull/registry-source.js';
import { openStore } from '../../../src/applier/store/open.js';
import type { Store } from '../../../src/applier/store/types.js';
import { hostPlatform, parseReference } from '../../../src/oci/index.js';
import { imageName, type ExpectedFile, type Version, type World } from './fixtures.js';
import type { Names } from './scenarios.js';

/** What a store may hold after a cut. */
export interface Expectation {
  /** One of these, whole. */
  readonly names: readonly Names[];
  /** A layer that may be damaged. */
  readonly damaged: string | null;
}

/** Recovers the store at `root` (`twice`: a second recovery must find nothing to do) and says what is wrong with it; nothing when all is as it must be. */
export async function checkStore(root: string, world: World, expected: Expectation, twice = true): Promise<string[]> {
  const problems: string[] = [];
  try {
    const store = await openStore(root, { create: true });
    try {
      problems.push(...(await checkOpen(store, world, expected)));
    } finally {
      await store.close();
    }
    if (!twice) return problems;
    const again = await openStore(root, { create: true });
    const { removed, finished } = again.recovery;
    await again.close();
    if (removed + finished > 0) problems.push(`a second recovery removed ${String(removed)} and finished ${String(finished)}`);
  } catch (error) {
    problems.push(`recovery failed: ${String(error)}`);
  }
  return problems;
}

async function checkOpen(store: Store, world: World, expected: Expectation): Promise<string[]> {
  const problems: string[] = [];
  if (store.recovery.fellBack.length > 0) problems.push(`records fell back: ${store.recovery.fellBack.join(', ')}`);
  const report = await store.verify();
  for (const { diffId, damages } of report.damagedLayers) if (diffId !== expected.damaged) problems.push(`layer ${diffId} is damaged: ${damages[0]?.path ?? ''} ${damages[0]?.detail ?? ''}`);
  for (const record of report.damagedRecords) problems.push(`record ${record} is damaged`);
  const names = await namesOf(store, world);
  const allowed = expected.names.some(({ current, previous }) => current === names.current && previous === names.previous);
  if (!allowed) problems.push(`the name means ${JSON.stringify(names)}, allowed is ${expected.names.map((each) => JSON.stringify(each)).join(' or ')}`);
  for (const version of [names.current, names.previous]) {
    const wanted = version === null ? undefined : world.versions[version];
    if (wanted !== undefined) problems.push(...(await checkImage(store, wanted, expected.damaged)));
  }
  return problems;
}

/** The versions that the name means; -1 for an image that nobody published. */
async function namesOf(store: Store, world: World): Promise<Names> {
  const reference = (await store.references()).find(({ name }) => name === imageName);
  const index = (digest: string | null | undefined): number | null => (digest == null ? null : world.versions.findIndex(({ image }) => image.manifestDigest === digest));
  return { current: index(reference?.current), previous: index(reference?.previous) };
}

/** Reads the image's files from the disk by themselves, without the store's own notion of what they should be. */
async function checkImage(store: Store, version: Version, damaged: string | null): Promise<string[]> {
  const problems: string[] = [];
  const image = await store.findImage(version.image.manifestDigest);
  if (image?.configDigest !== version.image.configDigest || !image.config.equals(version.image.config)) return [`the record of image ${version.image.manifestDigest} is gone or wrong`];
  for (const [diffId, files] of version.layers) {
    if (diffId !== damaged) problems.push(...checkTree(join(store.root, 'layers', diffId.slice('sha256:'.length), 'fs'), files));
  }
  return problems;
}

/** Synchronously: hundreds of small files, and nothing else in this process waits. */
function checkTree(root: string, files: ReadonlyMap<string, ExpectedFile>): string[] {
  const problems: string[] = [];
  try {
    for (const [path, file] of files) {
      const found = JSON.stringify(look(join(root, path)));
      if (found !== JSON.stringify(file)) problems.push(`${path} is ${found}, not ${JSON.stringify(file)}`);
    }
    const count = readdirSync(root, { recursive: true }).length;
    if (count !== files.size) problems.push(`${root} has ${String(count)} entries, not ${String(files.size)}`);
  } catch (error) {
    problems.push(String(error));
  }
  return problems;
}

function look(path: string): ExpectedFile {
  const facts = lstatSync(path);
  const kind = facts.isDirectory() ? 'directory' : facts.isSymbolicLink() ? 'symlink' : 'file';
  const content = kind === 'directory' ? '' : kind === 'symlink' ? readlinkSync(path) : createHash('sha256').update(readFileSync(path)).digest('hex');
  return { kind, mode: kind === 'symlink' ? 0o644 : facts.mode & 0o7777, mtimeSec: Math.floor(facts.mtimeMs / 1000), content };
}

/** Pulls the version as the program does, in this process; says what went wrong. A layer that was `damaged` before may still be so. */
export async function pullNext(root: string, world: World, target: number, damaged: string | null): Promise<string[]> {
  const version = world.versions[target];
  if (version === undefined) return [`there is no version ${String(target)}`];
  const reference = parseReference(imageName);
  const source = registrySource(reference, parseFromUrl(version.from), {});
  try {
    const store = await openStore(root, { create: true });
    try {
      await pullImage(store, source, {
        ...pullDefaults, image: imageName, reference, platform: hostPlatform(), platformChosen: false, onEvent: () => undefined, signal: new AbortController().signal,
      });
      const names = await namesOf(store, world);
      if (names.current !== target) return [`the next pull ended, but the name means ${JSON.stringify(names)}`];
      return await checkImage(store, version, damaged);
    } finally {
      await store.close();
    }
  } catch (error) {
    return [`the next pull failed: ${String(error)}`];
  } finally {
    await source.close();
  }
}
