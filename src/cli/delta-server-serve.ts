import { homedir, hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { WhittleError } from '../core/errors.js';
import { formatBytes, formatCount, formatDuration, formatList, formatRatio, shortDigest } from '../core/format.js';
import type { DeltaProfile } from '../delta/index.js';
import { isLoopbackHost } from '../registry/endpoint.js';
import type { Catalog } from '../server/catalog.js';
import type { LoggedPair } from '../server/jobs.js';
import { startServer, type DeltaServer, type ServerEvent } from '../server/serve.js';
import { parseCount, parseMemory, parseThreads } from './delta-server-compute.js';
import { oneLine, type Output } from './output.js';

/** Flags of `delta-server serve` as commander gives them. */
export interface ServeFlags {
  readonly images: readonly string[];
  readonly root?: string;
  readonly listen: string;
  readonly profile: DeltaProfile;
  readonly memory: string;
  readonly threads?: string;
  readonly platform?: string;
  readonly creds?: string;
  readonly jobs: string;
  readonly verbose?: boolean;
}

/** Reads `--listen`: `host:port`, `[v6]:port`, `:port` (every address) or `port` (loopback). Throws USAGE. */
function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:(\[[0-9a-fA-F:.%\w]+\]|[^:[\]\s]*):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port > 65535) throw new WhittleError('USAGE', `--listen: not an address: ${JSON.stringify(text.slice(0, 80))}`, { hint: 'Write it as 127.0.0.1:8080, [::1]:8080 or :8080.' });
  const host = match[1]?.replace(/^\[|\]$/g, '');
  if (host === undefined) return { host: '127.0.0.1', port };
  return { host: host === '' ? '::' : host, port };
}

function defaultRoot(): string {
  const state = process.env['XDG_STATE_HOME'];
  return join(state !== undefined && state.startsWith('/') ? state : join(homedir(), '.local', 'state'), 'whittle-server');
}

/** `delta-server serve`: serves until a signal comes, then ends in order. */
export async function runServe(flags: ServeFlags, output: Output, signal: AbortSignal): Promise<void> {
  const root = resolve(flags.root ?? defaultRoot());
  const server = await startServer({
    images: flags.images, root, ...parseListen(flags.listen), profile: flags.profile,
    memoryLimitBytes: parseMemory(flags.memory), threads: parseThreads(flags.threads), jobs: parseCount(flags.jobs, '--jobs', 64),
    platform: flags.platform, creds: flags.creds, signal, log: makeLog(output, flags.verbose === true),
  });
  try {
    announce(server, root, output);
    if (!signal.aborted) await new Promise((stop) => { signal.addEventListener('abort', stop, { once: true }); });
    output.note('stopping');
  } finally {
    await server.close();
  }
}

function announce({ service, catalog, store }: DeltaServer, root: string, output: Output): void {
  const host = ['0.0.0.0', '::'].includes(service.host) ? `${hostname()}:${String(service.port)}` : service.url.slice('http://'.length);
  const names = catalog.repositoriesAsAdded().flatMap((repository) => catalog.tagsAsAdded(repository).map((tag) => `${repository}:${tag}`));
  output.json({ event: 'listening', url: service.url, root, images: names });
  output.print(`listening on ${service.url}, deltas are kept in ${root}`);
  for (const name of names) output.note(`  ${name}  ${describeImage(catalog, name)}`);
  for (const line of suggestion(catalog, host)) output.note(line);
  if (store.size > 0) output.note(`${formatCount(store.size, 'delta')} of earlier runs kept`);
}

function describeImage(catalog: Catalog, name: string): string {
  const colon = name.lastIndexOf(':');
  const manifest = catalog.manifest(name.slice(0, colon), name.slice(colon + 1));
  const image = manifest === undefined ? undefined : catalog.imageByManifest(manifest.digest);
  if (image === undefined) return '(several platforms)';
  const sizeBytes = image.layers.reduce((sum, layer) => sum + layer.descriptor.size, 0);
  return `image ${shortDigest(image.configDigest)}, ${formatCount(image.layers.length, 'layer')}, ${formatBytes(sizeBytes)}`;
}

/** The commands to try, for the first repository that has an image to go from and one to go to. */
function suggestion(catalog: Catalog, host: string): string[] {
  const repositories = catalog.repositoriesAsAdded();
  const repository = repositories.find((name) => catalog.tagsAsAdded(name).length > 1) ?? repositories[0];
  const [first, ...more] = repository === undefined ? [] : catalog.tagsAsAdded(repository);
  if (repository === undefined || first === undefined) return [];
  const last = more.at(-1);
  // What is served here is plain http, which a device speaks with its own machine unasked, and with no other.
  const plain = isLoopbackHost(host) ? '' : ' --plain-http';
  const pull = (tag: string, flag: string): string => `  device pull ${flag}${host}/${repository}:${tag}${plain}`;
  return ['try on a device:', pull(first, ''), ...(last === undefined ? [] : [pull(last, '--delta ')])];
}

function makeLog(output: Output, verbose: boolean): (event: ServerEvent) => void {
  return (event) => {
    if (event.event === 'request' && !verbose) return;
    if (event.event === 'error') {
      output.json({ time: new Date().toISOString(), event: 'error', message: event.message });
      output.warn(event.message);
      return;
    }
    output.json({ time: new Date().toISOString(), ...event });
    const line = describeEvent(event);
    if (event.event === 'failed' || event.event === 'unread' || (event.event === 'store' && event.dropped.length > 0)) output.warn(line ?? '');
    else if (line !== null) output.note(oneLine(line));
  };
}

function describeEvent(event: Exclude<ServerEvent, { event: 'error' }>): string | null {
  switch (event.event) {
    case 'request': return `${event.remote} ${event.method} ${event.url.slice(0, 300)} ${String(event.status)} ${formatBytes(event.sentBytes)} ${formatDuration(event.durationMs)}${event.aborted ? ' (client left)' : ''}`;
    case 'loading': return `reading ${event.source}`;
    case 'store': return event.dropped.length === 0 ? null : `dropped damaged deltas, they will be made again: ${event.dropped.join('; ')}`;
    case 'images': return `${event.source} has changed${listed('; now: ', event.added)}${listed('; gone: ', event.removed)}`;
    case 'unread': return `${event.source} has changed and cannot be read, so it is served as it was: ${event.code}: ${event.message}`;
    case 'queued': return `delta ${pairName(event)}: waiting`;
    case 'started': return `delta ${pairName(event)}: computing`;
    case 'failed': return `delta ${pairName(event)}: ${event.code}: ${event.message}`;
    case 'finished': {
      const { layerPullBytes, deltaBytes } = event.facts;
      const outcome = event.result === 'delta' ? `${formatBytes(deltaBytes)} instead of ${formatBytes(layerPullBytes)}, ${formatRatio(layerPullBytes, deltaBytes)}` : 'not smaller than the layers; not kept';
      return `delta ${pairName(event)}: ${outcome}, in ${formatDuration(event.totalMs)}`;
    }
  }
}

function listed(before: string, names: readonly string[]): string {
  return names.length === 0 ? '' : before + formatList(names, '');
}

/** By their image IDs, as everything else names them. */
function pairName({ basis, targetConfig }: LoggedPair): string {
  return `${shortDigest(basis)} -> ${shortDigest(targetConfig)}`;
}
