import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { program, run } from './process.js';

/** A `delta-server serve` that runs on loopback. */
export interface Service {
  readonly port: number;
  /** Ends it and waits until it is gone. */
  stop(): Promise<void>;
}

/** A port on 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => { server.once('error', reject); server.listen(0, '127.0.0.1', resolve); });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Starts `delta-server serve` for some images, its state below `root`, and waits until it answers. */
export async function startService(images: readonly string[], root: string, profile: 'small' | 'fast'): Promise<Service> {
  const port = await freePort();
  let kill = (): void => undefined;
  const state = { ended: '' };
  const outcome = run([...program('delta-server'), 'serve', '--images', ...images, '--root', root, '--profile', profile, '--listen', `127.0.0.1:${String(port)}`], {
    onStart: (child) => { kill = () => { child.kill('SIGTERM'); }; },
  }).then((result) => { state.ended = `exit code ${String(result.exitCode)}\n${result.stderr.slice(-2000)}`; });
  for (let attempt = 0; attempt < 300; attempt++) {
    if (state.ended !== '') throw new Error(`delta-server serve ended early: ${state.ended}`);
    const answer = await fetch(`http://127.0.0.1:${String(port)}/v2/`).catch(() => null);
    if (answer?.ok === true) return { port, stop: async () => { kill(); await outcome; } };
    await sleep(100);
  }
  kill();
  throw new Error('delta-server serve did not answer within 30 s');
}

/** A delta as the server lists it. */
export interface ListedDelta {
  readonly digest: string;
  /** Bytes of the artifact: its manifest, index and data. */
  readonly sizeBytes: number;
  /** How long the server took to make it, this asker's waiting included. */
  readonly waitedMs: number;
}

interface ReferrersIndex { manifests: { digest: string; size: number; annotations?: Record<string, string> }[] }

/** A delta that takes longer than this is given up. */
const orderTimeoutMs = 10 * 60_000;

/** Orders the delta between two images from the service, as a device does, and waits until it is made. */
export async function orderDelta(port: number, repository: string, basisConfig: string, targetManifest: string): Promise<ListedDelta> {
  const began = performance.now();
  const base = `http://127.0.0.1:${String(port)}/v2/${repository}`;
  const query = `artifactType=${encodeURIComponent('application/vnd.whittle.delta.v1')}&basis=${encodeURIComponent(basisConfig)}`;
  while (performance.now() - began < orderTimeoutMs) {
    const answer = await fetch(`${base}/referrers/${targetManifest}?${query}`);
    if (answer.status === 200) {
      const { manifests } = (await answer.json()) as ReferrersIndex;
      const found = manifests.find((one) => one.annotations?.['dev.whittle.basis.config'] === basisConfig);
      if (found === undefined) throw new Error(`the server lists no delta from ${basisConfig} to ${targetManifest} (${answer.headers.get('whittle-delta') ?? 'it does not say why'})`);
      const manifest = (await (await fetch(`${base}/manifests/${found.digest}`)).json()) as { layers: { size: number }[] };
      return { digest: found.digest, sizeBytes: found.size + manifest.layers.reduce((sum, layer) => sum + layer.size, 0), waitedMs: performance.now() - began };
    }
    if (answer.status !== 202) throw new Error(`referrers: the server answered ${String(answer.status)} ${(await answer.text()).slice(0, 500)}`);
    await answer.arrayBuffer();
    await sleep(Math.min(1000, Number(answer.headers.get('retry-after') ?? 1) * 1000));
  }
  throw new Error(`the server made no delta within ${String(orderTimeoutMs / 1000)} s`);
}
