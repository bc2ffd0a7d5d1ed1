import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { readImage } from '../../bench/image.js';
import { program, projectRoot, run, runOk, type Outcome } from '../../bench/process.js';
import { deltaFormatVersion } from '../../src/delta/index.js';
import { openDeltaFile } from '../../src/server/delta-file.js';

/** Deltas as the first build of this format version made them, and the images that they lead from and to. */
const kept = [
  { file: 'alpine.small.delta', name: 'alpine', old: '3.10.3', target: '3.10.9', platform: 'linux/arm/v7' },
  { file: 'tinycore.fast.delta', name: 'tinycore', old: '8.1', target: '8.2', platform: 'linux/amd64' },
  { file: 'esbuild.small.delta', name: 'esbuild', old: '0.28.1', target: '0.28.2', platform: 'linux/arm64' },
] as const;

const fixtures = join(projectRoot, 'test/fixtures');
let scratch: string;
beforeAll(async () => { scratch = await mkdtemp(join(tmpdir(), 'whittle-format-')); });
afterAll(async () => { await rm(scratch, { recursive: true, force: true, maxRetries: 5 }); });

/** Red: what the data blob means has changed. Raise deltaFormatVersion, then run test/fixtures/make-deltas. */
test.each(kept)('a device applies $file as it was made when its format version was new', async ({ file, name, old, target, platform }) => {
  const delta = await openDeltaFile(join(fixtures, 'deltas', file));
  await delta.close();
  expect(delta.index.version).toBe(deltaFormatVersion);
  const pull = (tag: string, from: string): readonly string[] =>
    [...program('device'), 'pull', '--json', `127.0.0.1:1/${name}:${tag}`, '--from', from, '--platform', platform, '--root', join(scratch, name)];
  await runOk(pull(old, `oci:${join(fixtures, 'images', name)}`));
  const updated: Outcome = await run(pull(target, `oci-archive:${join(fixtures, 'deltas', file)}`));
  expect(updated.stderr).toBe('');
  const { configDigest } = await readImage(join(fixtures, 'images', name), target);
  expect(JSON.parse(updated.stdout.trim().split('\n').at(-1) ?? '')).toMatchObject({ event: 'committed', way: 'delta', configDigest });
});
