import { join } from 'node:path';
import { afterAll, beforeAll, expect } from '@jest/globals';
import { makeEngineWorld, pullToEngine, type EnginePull, type EngineWorld } from '../../support/engines/containerd-world.js';
import { makePodman, podmanWanting, type TestPodman } from '../../support/engines/podman.js';
import { testUnlessWanting } from '../../support/tools.js';

const test = testUnlessWanting(podmanWanting);
let world: EngineWorld;
let podman: TestPodman;
let root: string;

beforeAll(async () => {
  if (podmanWanting.length > 0) return;
  world = await makeEngineWorld();
  podman = await makePodman();
  root = join(await world.folder('device'), 'store');
});
afterAll(async () => {
  if (podmanWanting.length > 0) return;
  await podman.close();
  await world.close();
});

function pull(version: number, into = podman, device = root): Promise<EnginePull> {
  return pullToEngine(device, (store) => into.engine(store), world.image(version));
}

/** What a container of the image says when it is asked for some files. */
function say(version: number, into = podman): Promise<string> {
  return into.runContainer(world.image(version), '/bin/print', '/app/version', '/app/soft', '/etc/gone', '/old/a', '/old/b');
}

const said = (version: number): string => `version ${String(version)}\nversion ${String(version)}\n/etc/gone is not there\n/old/a is not there\nb ${String(version)}\n`;

/** The names and IDs of podman's list, unfinished images too. */
async function listed(into = podman): Promise<string[]> {
  const list = await into.podman('images', '--all', '--no-trunc', '--format', '{{.Repository}}:{{.Tag}} {{.ID}}');
  return list.split('\n').filter((line) => line !== '').sort();
}

const line = (version: number): string => `${world.image(version)} ${world.version(version).configDigest}`;

test('a pull in full, a delta from what podman holds, and another: each runs, and is listed under its name with its ID', async () => {
  for (const [version, way] of [[1, 'layers'], [2, 'delta'], [3, 'delta']] as const) {
    const { result, error, events } = await pull(version);
    expect(error).toBeNull();
    expect(result).toMatchObject({ outcome: 'committed', way, image: { configDigest: world.version(version).configDigest } });
    expect(events.filter(({ event }) => event === 'fallback' || event === 'note')).toEqual([]);
    console.log(JSON.stringify(result?.figures));
    expect(await say(version)).toBe(said(version));
    expect(await listed()).toEqual([1, 2, 3].slice(0, version).map(line).sort());
    expect((await pull(version)).result?.outcome).toBe('current');
  }
  expect(await say(1)).toBe(said(1));
});
