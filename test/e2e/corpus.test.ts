import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect } from '@jest/globals';
import { differences, layerPullBytes, readImage, unpackArchive, type Image } from '../../bench/image.js';
import { program, projectRoot, runOk, type Outcome } from '../../bench/process.js';
import { startService } from '../../bench/services.js';
import { lastJson } from '../../bench/whittle.js';
import { findCorpus } from '../support/corpus.js';
import { startDockerRegistry, type DockerRegistry } from '../support/docker-registry.js';
import { hasTool, testUnlessWanting } from '../support/tools.js';

/**
 * What tar-diff 2020 at level 9 makes of the pairs (bytes; the container world's own delta tool). Each of our deltas,
 * manifest and index included, is smaller.
 */
const tarDiffBytes: Readonly<Record<string, number>> = {
  'alpine-arm64-3.19-3.20': 1_654_637,
  'alpine-armv7-3.10': 219_419,
  'tinycore-amd64-8.1-8.2': 182_735,
  'debian-slim-amd64-security': 468_863,
  'python-flask-arm64': 2_254_345,
  'express-node20-amd64': 2_688_965,
  'esbuild-go-arm64': 565_049,
  'swc-rust-amd64': 3_841_295,
  'zigbee2mqtt-arm64': 9_121_728,
};

/** A pull by delta asks for lists of deltas that a pull by layers does not; they may cost this much. */
const askingBytes = 16_384;

interface Committed {
  event: string;
  configDigest: string;
  way: 'delta' | 'layers' | 'nothing';
  deltaBytes: number;
  downloadedBytes: { total: number };
  wallMs: number;
  peakRssBytes: number;
}

const corpus = findCorpus();
const wanting = [...corpus.wanting, ...['skopeo', 'umoci', 'docker-registry', 'python3'].filter((tool) => !hasTool(tool))];
const test = testUnlessWanting(wanting);

/** One line for each entry of the image's file tree, as umoci unpacks it. */
async function umociTree(layout: string, tag: string, work: string): Promise<string> {
  const nowSeconds = Math.floor(Date.now() / 1000);
  const bundle = await mkdtemp(join(work, 'umoci-'));
  const rootless = process.getuid?.() === 0 ? [] : ['--rootless'];
  await runOk(['umoci', 'unpack', ...rootless, '--image', `${layout}:${tag}`, join(bundle, 'bundle')]);
  const { stdout } = await runOk(['python3', join(projectRoot, 'test/support/tree.py'), join(bundle, 'bundle/rootfs'), String(nowSeconds)]);
  await runOk(['chmod', '-R', 'u+rwX', bundle]);
  await rm(bundle, { recursive: true, force: true });
  return stdout;
}

/** Compares two trees line by line; a diff of thousands of lines helps nobody, so only the first few are shown. */
function treeDifferences(published: string, exported: string): string[] {
  const [old, now] = [new Set(published.split('\n')), new Set(exported.split('\n'))];
  return [...[...old].filter((line) => !now.has(line)).map((line) => `- ${line}`), ...[...now].filter((line) => !old.has(line)).map((line) => `+ ${line}`)].slice(0, 20);
}

describe('every pair of the corpus', () => {
  let scratch = '';
  let registry: DockerRegistry | null = null;

  beforeAll(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'whittle-corpus-'));
    if (wanting.length === 0) registry = await startDockerRegistry();
  });

  afterAll(async () => {
    await registry?.close();
    await rm(scratch, { recursive: true, force: true, maxRetries: 5 });
  });

  const device = (store: string, ...words: string[]): Promise<Outcome> => runOk([...program('device'), ...words, '--root', store]);

  /** Exports an image of a store, has skopeo read the archive, and returns it as a layout. */
  async function exported(store: string, image: string, work: string): Promise<Image> {
    const archive = join(work, 'exported.tar');
    await device(store, 'export', image, `oci-archive:${archive}`);
    await unpackArchive(archive, join(work, 'exported'));
    await runOk(['skopeo', 'copy', '--quiet', `oci-archive:${archive}`, `oci:${join(work, 'stranger')}:exported`]);
    expect(await readImage(join(work, 'exported'))).toHaveProperty('configDigest', (await readImage(join(work, 'stranger'), 'exported')).configDigest);
    return readImage(join(work, 'stranger'), 'exported');
  }

  const names = corpus.pairs.length > 0 ? corpus.pairs : ['(none)'];
  for (const name of names) {
    test(`${name}: full pull of old, delta pull of new, export: bit for bit what was published`, async () => {
      if (registry === null) throw new Error('no registry');
      const work = await mkdtemp(join(scratch, 'pair-'));
      const { basis: basisLayout, target: targetLayout } = await corpus.layouts(name, join(work, 'unpacked'));
      const [basis, target] = [await readImage(basisLayout, 'old'), await readImage(targetLayout, 'new')];
      const at = (tag: string): string => `${registry?.host ?? ''}/corpus/${name}:${tag}`;
      const store = join(work, 'store');
      const push = (image: Image): Promise<Outcome> =>
        runOk(['skopeo', 'copy', '--quiet', '--dest-tls-verify=false', `oci:${image.layout}:${image.tag}`, `docker://${at(image.tag)}`]);

      // One after the other: docker-registry answers 500 to who asks for a blob that both share while it writes the blob's link.
      await push(basis);
      await push(target);
      const full = lastJson(await device(store, 'pull', '--no-delta', '--json', at('old'))) as Committed;
      expect(full.configDigest).toBe(basis.configDigest);

      const sources = [basis, target].map((image) => `corpus/${name}=oci:${image.layout}:${image.tag}`);
      const service = await startService(sources, join(work, 'server'), 'small');
      let update: Committed;
      try {
        update = lastJson(await device(store, 'pull', '--delta', '--json', '--from', `http://127.0.0.1:${String(service.port)}`, at('new'))) as Committed;
      } finally {
        await service.stop();
      }
      expect(update.configDigest).toBe(target.configDigest);
      const layers = layerPullBytes(basis, target);
      process.stderr.write(`${name}: layer pull ${String(layers)}, delta ${String(update.deltaBytes)}, received ${String(update.downloadedBytes.total)} (${update.way}), `
        + `${String(Math.round(update.wallMs))} ms, ${String(Math.round(update.peakRssBytes / 2 ** 20))} MiB\n`);
      expect(update.downloadedBytes.total).toBeLessThanOrEqual(layers + askingBytes);
      const bound = tarDiffBytes[name];
      if (bound !== undefined) {
        expect(update.way).toBe('delta');
        expect(update.deltaBytes).toBeLessThan(bound);
      }

      const copy = await exported(store, at('new'), work);
      expect(await differences(target, copy)).toEqual([]);
      const [published, ours] = await Promise.all([umociTree(targetLayout, 'new', work), umociTree(copy.layout, copy.tag, work)]);
      expect(published.split('\n').length).toBeGreaterThan(1);
      expect(treeDifferences(published, ours)).toEqual([]);
      await rm(work, { recursive: true, force: true, maxRetries: 5 });
    });
  }
});
