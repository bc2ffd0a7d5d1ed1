import { join } from 'node:path';
import { afterAll, beforeAll, expect } from '@jest/globals';
import { startContainerd, type TestContainerd } from '../../support/engines/containerd.js';
import { makeEngineWorld, pullToEngine, type EnginePull, type EngineWorld } from '../../support/engines/containerd-world.js';
import { testUnlessWanting, hasTool } from '../../support/tools.js';

const wanting = [...['containerd', 'ctr', 'runc', 'cc'].filter((name) => !hasTool(name)), ...(process.geteuid?.() === 0 ? [] : ['root'])];
const test = testUnlessWanting(wanting);
let world: EngineWorld;
let containerd: TestContainerd;
let root: string;
let containers = 0;

beforeAll(async () => {
  if (wanting.length > 0) return;
  world = await makeEngineWorld();
  containerd = await startContainerd();
  root = join(await world.folder('device'), 'store');
});
afterAll(async () => {
  if (wanting.length > 0) return;
  await containerd.close();
  await world.close();
});

function pull(version: number, into = containerd, device = root): Promise<EnginePull> {
  return pullToEngine(device, (store) => into.engine(store), world.image(version));
}

/** What a container of the image says when it is asked for some files. */
function say(version: number, into = containerd): Promise<string> {
  return into.runContainer(world.image(version), `c${String(++containers)}`, '/bin/print', '/app/version', '/app/soft', '/etc/gone', '/old/a', '/old/b');
}

const said = (version: number): string => `version ${String(version)}\nversion ${String(version)}\n/etc/gone is not there\n/old/a is not there\nb ${String(version)}\n`;

test('a pull in full, a delta from what it made, and another: each runs, and is listed under its name with its digest', async () => {
  for (const [version, way] of [[1, 'layers'], [2, 'delta'], [3, 'delta']] as const) {
    const { result, error, events } = await pull(version);
    expect(error).toBeNull();
    expect(result).toMatchObject({ outcome: 'committed', way, image: { configDigest: world.version(version).configDigest, manifestDigest: world.version(version).manifestDigest } });
    expect(events.filter(({ event }) => event === 'fallback')).toEqual([]);
    console.log(JSON.stringify(result?.figures));
    expect(await say(version)).toBe(said(version));
    expect(await containerd.ctr('images', 'ls')).toContain(`${world.image(version)} application/vnd.oci.image.manifest.v1+json ${world.version(version).manifestDigest}`);
    expect((await pull(version)).result?.outcome).toBe('current');
  }
  expect(await say(1)).toBe(said(1));
  expect(await containerd.ctr('leases', 'ls', '-q')).toBe('');
});
