import type { ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { program, run, type Outcome } from './process.js';

/** A server that has not read its images by then is given up. */
const startTimeoutMs = 120_000;

/** A `delta-server serve` that runs on loopback. */
export interface Service {
  readonly port: number;
  /** Ends it, by SIGTERM unless told otherwise, and waits until it is gone. Gives its exit code; null when the signal ended it. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

/** Starts `delta-server serve` for some images on a port that the kernel chooses, its state below `root`, and waits until it listens. */
export async function startService(images: readonly string[], root: string, profile: 'small' | 'fast'): Promise<Service> {
  const command = [...program('delta-server'), 'serve', '--images', ...images, '--root', root, '--profile', profile, '--listen', '127.0.0.1:0'];
  const kept: { child?: ChildProcess; outcome?: Promise<Outcome> } = {};
  const slow = setTimeout(() => kept.child?.kill(), startTimeoutMs);
  const port = await new Promise<number>((resolve, reject) => {
    kept.outcome = run(command, {
      onStart: (child) => {
        kept.child = child;
        let said = '';
        child.stdout?.on('data', (chunk: Buffer) => {
          said += chunk.toString('utf8');
          const listening = /^listening on http:\/\/127\.0\.0\.1:(\d+),/m.exec(said);
          if (listening !== null) resolve(Number(listening[1]));
        });
      },
    });
    kept.outcome.then((ended) => { reject(new Error(`delta-server serve ended before it listened (it is given ${String(startTimeoutMs / 1000)} s): exit code ${String(ended.exitCode)}\n${ended.stderr.slice(-2000)}`)); }, reject);
  }).finally(() => { clearTimeout(slow); });
  return {
    port,
    stop: async (signal = 'SIGTERM') => {
      kept.child?.kill(signal);
      return (await kept.outcome)?.exitCode ?? null;
    },
  };
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
