import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { orderDelta, startService, type Service } from '../../../bench/services.js';
import type { Engine } from '../../../src/applier/engines/types.js';
import type { PullEvent } from '../../../src/applier/pull/events.js';
import { pullDefaults, type PullOptions } from '../../../src/applier/pull/options.js';
import { enginePlace } from '../../../src/applier/pull/place.js';
import { pullInto, type PullResult } from '../../../src/applier/pull/pull.js';
import { registrySource } from '../../../src/applier/pull/registry-source.js';
import { openStore } from '../../../src/applier/store/open.js';
import type { Store } from '../../../src/applier/store/types.js';
import { parseReference } from '../../../src/oci/index.js';
import { makeImage, noise, type ImageFile, type MadeImage } from '../images.js';
import { hurried } from '../pull-world.js';
import { printer } from './runnable.js';

/** Three versions of an image that a container can be made of, served with the deltas between them. */
export interface EngineWorld {
  readonly service: Service;
  readonly versions: readonly MadeImage[];
  readonly layout: string;
  /** `127.0.0.1:port/app:v1`. */
  image(version: number): string;
  version(version: number): MadeImage;
  /** A new folder below the world's. */
  folder(name: string): Promise<string>;
  close(): Promise<void>;
}

/** Bytes of each version that no other has. */
export const changedBytes = 60_000;
const keptBytes = 2_000_000;

/** Makes and serves the world; deltas 1 to 2, 2 to 3 and 3 to 1 are ready. The caller closes it. */
export async function makeEngineWorld(): Promise<EngineWorld> {
  const scratch = await mkdtemp(join(tmpdir(), 'whittle-engine-'));
  const layout = join(scratch, 'app');
  const print = await printer();
  const platform = { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' };
  const base: ImageFile[] = [{ path: 'bin/' }, { path: 'bin/print', content: print, mode: 0o755 }, { path: 'etc/' }, { path: 'etc/gone', content: 'to be removed\n' }, { path: 'old/' }, { path: 'old/a', content: 'hidden\n' }];
  const versions: MadeImage[] = [];
  for (const version of [1, 2, 3]) {
    const app: ImageFile[] = [
      { path: 'app/' }, { path: 'app/version', content: `version ${String(version)}\n` }, { path: 'app/kept', content: noise(keptBytes, 1) },
      { path: 'app/data', content: Buffer.concat([noise(200_000, 2), noise(changedBytes, 10 + version)]) },
      ...Array.from({ length: 40 }, (_, at): ImageFile => ({ path: `app/small-${String(at)}`, content: noise(700, 100 + at) })),
      { path: 'app/twice', content: noise(3000, 50) }, { path: 'app/alias', type: 'link', linkPath: 'app/twice' }, { path: 'app/soft', type: 'symlink', linkPath: 'version' },
      { path: 'app/owned', content: 'owned\n', uid: 1234, gid: 4321, mode: 0o640, pax: { 'SCHILY.xattr.user.note': 'kept' } },
    ];
    const top: ImageFile[] = [{ path: 'etc/' }, { path: 'etc/.wh.gone', content: '' }, { path: 'old/' }, { path: 'old/.wh..wh..opq', content: '' }, { path: 'old/b', content: `b ${String(version)}\n` }];
    versions.push(await makeImage(layout, `v${String(version)}`, [base, app, top], { platform, config: { Cmd: ['/bin/print', '/app/version'] } }));
  }
  const service = await startService(versions.map(({ tag }) => `app=oci:${layout}:${tag}`), join(scratch, 'server'), 'fast');
  const find = (version: number): MadeImage => {
    const found = versions[version - 1];
    if (found === undefined) throw new Error(`no version ${String(version)}`);
    return found;
  };
  for (const [from, to] of [[1, 2], [2, 3], [3, 1]] as const) await orderDelta(service.port, 'app', find(from).configDigest, find(to).manifestDigest);
  return {
    service, versions, layout, version: find, image: (version) => `127.0.0.1:${String(service.port)}/app:v${String(version)}`,
    folder: (name) => mkdtemp(join(scratch, `${name}-`)),
    close: async () => {
      await service.stop();
      await rm(scratch, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** What one pull into an engine came to. */
export interface EnginePull {
  readonly result: PullResult | null;
  readonly error: unknown;
  readonly events: readonly PullEvent[];
}

/** Pulls into an engine, in this process, with the device's root at `root`. */
export async function pullToEngine(root: string, open: (store: Store) => Promise<Engine>, image: string, options: Partial<PullOptions> = {}): Promise<EnginePull> {
  const store = await openStore(root, { create: true });
  try {
    const engine = await open(store);
    try {
      return await pullOnce(store, engine, image, options);
    } finally {
      await engine.close();
    }
  } finally {
    await store.close();
  }
}

async function pullOnce(store: Store, engine: Engine, image: string, options: Partial<PullOptions>): Promise<EnginePull> {
  const events: PullEvent[] = [];
  const reference = parseReference(image);
  const source = registrySource(reference, null, { limits: { attempts: 4, backoffMs: 1, backoffMaxMs: 5, headersTimeoutMs: 5000, bodyTimeoutMs: 5000, retryAfterMaxMs: 50 } });
  try {
    const result = await pullInto(enginePlace(store, engine), source, {
      ...pullDefaults, image, reference, platform: { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' }, platformChosen: false, patience: hurried,
      signal: new AbortController().signal, ...options,
      onEvent: (event) => {
        events.push(event);
        options.onEvent?.(event);
      },
    });
    return { result, error: null, events };
  } catch (error) {
    return { result: null, error, events };
  } finally {
    await source.close();
  }
}
