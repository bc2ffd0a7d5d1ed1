import { expect } from '@jest/globals';
import { writeFile } from 'node:fs/promises';
import { request, type IncomingHttpHeaders } from 'node:http';
import { join } from 'node:path';
import { makeDeltaManifest } from '../../src/server/artifact.js';
import type { JobRunner } from '../../src/server/jobs.js';
import { startServer, type DeltaServer, type ServeOptions, type ServerEvent } from '../../src/server/serve.js';
import { digestOf, noise } from './images.js';
import { until } from './until.js';

/** An answer with its whole body. */
export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** One request on a connection of its own; the target is sent as it is written. */
export function ask(url: string, target: string, options: { method?: string; headers?: Record<string, string> } = {}): Promise<Answer> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const sent = request({ host: hostname, port, path: target, method: options.method ?? 'GET', headers: options.headers ?? {}, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => { resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }); });
      response.on('error', reject);
    });
    sent.on('error', reject);
    sent.end();
  });
}

/** The body as JSON. */
export function json({ body }: Pick<Answer, 'body'>): unknown {
  return JSON.parse(body.toString('utf8'));
}

/** A runner that makes up a delta of `dataBytes` noise after `hold` settles, and counts its calls. */
export function fakeRunner(options: { hold?: () => Promise<void>; dataBytes?: number; fail?: () => Error | null } = {}): JobRunner & { calls: number } {
  const run: JobRunner = async ({ basis, target, directory, onProgress }) => {
    runner.calls++;
    onProgress(0.5);
    await options.hold?.();
    const failure = options.fail?.() ?? null;
    if (failure !== null) throw failure;
    const data = noise(options.dataBytes ?? 1000, runner.calls);
    const index = Buffer.from(`index of ${basis.configDigest} to ${target.configDigest}`);
    const image = (served: typeof basis) => ({ manifest: { ...served.manifest, sizeBytes: served.manifest.bytes.length }, configDigest: served.configDigest, layers: served.layers, openLayer: () => { throw new Error('not read'); } });
    const manifest = makeDeltaManifest(image(basis), image(target), { digest: digestOf(index), sizeBytes: index.length }, { digest: digestOf(data), sizeBytes: data.length });
    const contents = new Map([[manifest.digest, manifest.bytes], [digestOf('{}'), Buffer.from('{}')], [digestOf(index), index], [digestOf(data), data]]);
    const files = new Map<string, string>();
    for (const [digest, bytes] of contents) {
      files.set(digest, join(directory, digest.slice(7)));
      await writeFile(join(directory, digest.slice(7)), bytes);
    }
    const facts = { targetManifest: target.manifest.digest, basisConfig: basis.configDigest, layerPullBytes: 100_000, deltaBytes: data.length, computeMs: 5 };
    if (facts.deltaBytes >= facts.layerPullBytes) return { kind: 'not-smaller', facts };
    const { mediaType, digest, bytes, annotations, blobs } = manifest;
    return { kind: 'delta', finished: { record: { ...facts, result: 'delta', manifest: { mediaType, digest, sizeBytes: bytes.length }, annotations, blobs }, files } };
  };
  const runner = Object.assign(run, { calls: 0 });
  return runner;
}

/** Starts a server in this process on a free loopback port; the caller closes it. `events` collects its log. */
export async function startTestServer(options: Partial<ServeOptions> & Pick<ServeOptions, 'images' | 'root'>): Promise<{ server: DeltaServer; url: string; events: ServerEvent[] }> {
  const events: ServerEvent[] = [];
  const server = await startServer({
    host: '127.0.0.1', port: 0, profile: 'fast', memoryLimitBytes: 2 ** 28, threads: 1, jobs: 1, log: (event) => { events.push(event); }, ...options,
  });
  return { server, url: server.service.url, events };
}

/** The referrers call that a device makes. */
export function referrersTarget(repository: string, target: string, ...bases: readonly string[]): string {
  const query = new URLSearchParams([['artifactType', 'application/vnd.whittle.delta.v1'], ...bases.map((basis): [string, string] => ['basis', basis])]);
  return `/v2/${repository}/referrers/${target}?${query.toString()}`;
}

/** Asks as a device does until there is an answer that is not 202, and holds every 202 to what the protocol says of it. */
export async function untilReady(url: string, asked: string): Promise<Answer> {
  let got = await ask(url, asked);
  await until(async () => {
    if (got.status !== 202) return true;
    expect(Number(got.headers['retry-after'])).toBeGreaterThanOrEqual(1);
    expect((json(got) as { state: string }).state).toMatch(/^(computing|queued|busy)$/);
    got = await ask(url, asked);
    return false;
  });
  return got;
}
