import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { hasProgram, projectRoot, run, type Outcome } from './process.js';

/** What is measured: two files, the basis's and the target's uncompressed layers, each as one file. */
export interface Job {
  /** All layers of the basis, uncompressed, one after the other. */
  readonly oldTar: string;
  readonly oldBytes: number;
  /** The target's layers that the basis lacks, likewise. */
  readonly newTar: string;
  readonly newBytes: number;
  /** Digest of `newTar`, in hex. */
  readonly newSha256: string;
  /** An empty folder for this measurement. */
  readonly work: string;
  /** One command may take no longer. */
  readonly timeoutMs: number;
}

/** Figures of one tool on one pair. Memory is that of the largest process, in bytes. */
export interface Figures {
  readonly deltaBytes: number;
  readonly computeMs: number;
  readonly computePeakRssBytes: number;
  readonly applyMs: number | null;
  readonly applyPeakRssBytes: number | null;
}

/** A tool that makes deltas of two files. */
export interface Peer {
  readonly name: string;
  /** The command, as the report shows it. */
  readonly how: string;
  /** What must be installed. */
  readonly needs: readonly string[];
  /** A larger basis is not tried, and the report says so. */
  readonly maxOldBytes?: number;
  /** Measures; throws an Error with one line when the tool fails, takes too long, or rebuilds other bytes. */
  measure(job: Job): Promise<Figures>;
}

/** A peer written as shell commands with {old}, {new}, {out}, {restored}, {work} and {window} (a power of two above the basis's size, at least 64 MiB); `apply` may be absent. */
export function shellPeer(name: string, diff: string, apply: string | null, options: { needs?: readonly string[]; maxOldBytes?: number } = {}): Peer {
  return {
    name,
    how: diff,
    needs: options.needs ?? [],
    ...(options.maxOldBytes === undefined ? {} : { maxOldBytes: options.maxOldBytes }),
    measure: async (job) => {
      const out = join(job.work, 'delta');
      const restored = join(job.work, 'restored');
      const compute = await shell(fill(diff, job, out, restored), job);
      const deltaBytes = (await stat(out)).size;
      const applied = apply === null ? null : await shell(fill(apply, job, out, restored), job);
      if (applied !== null && (await sha256(restored)) !== job.newSha256) throw new Error('rebuilt other bytes than the target\'s');
      return figures(deltaBytes, compute, applied);
    },
  };
}

function figures(deltaBytes: number, compute: Outcome, applied: Outcome | null): Figures {
  return {
    deltaBytes,
    computeMs: compute.elapsedMs,
    computePeakRssBytes: compute.peakRssBytes,
    applyMs: applied?.elapsedMs ?? null,
    applyPeakRssBytes: applied?.peakRssBytes ?? null,
  };
}

function fill(command: string, job: Job, out: string, restored: string): string {
  const words: Readonly<Record<string, string>> = {
    project: projectRoot, old: job.oldTar, new: job.newTar, out, restored, work: job.work, window: String(Math.max(2 ** 26, 2 ** Math.ceil(Math.log2(job.oldBytes + 1)))),
  };
  return command.replace(/\{(\w+)\}/g, (whole, name: string) => words[name] ?? whole);
}

async function shell(command: string, job: Job): Promise<Outcome> {
  const outcome = await run(['sh', '-ec', command], { timeoutMs: job.timeoutMs, cwd: job.work, watchMemory: true });
  if (outcome.exitCode === null) throw new Error(`ended after ${String(Math.round(outcome.elapsedMs / 1000))} s (limit, or out of memory)`);
  if (outcome.exitCode !== 0) throw new Error(`exit code ${String(outcome.exitCode)}: ${lastLine(outcome.stderr)}`);
  return outcome;
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1)?.slice(0, 200) ?? '';
}

/** sha256 of a file, in hex. */
export async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

/** casync cuts both sides into chunks; what a device downloads is the chunks that it lacks and the new index. */
const casync: Peer = {
  name: 'casync 16K',
  how: 'casync make --chunk-size=16384 of both; chunks that the old side lacks, and the new index',
  needs: ['casync'],
  measure: async (job) => {
    const make = (side: string, tar: string): string => `casync make --chunk-size=16384 --store=${job.work}/${side}.castr ${job.work}/${side}.caibx ${tar}`;
    await shell(make('old', job.oldTar), job);
    const compute = await shell(make('new', job.newTar), job);
    const held = new Set((await filesBelow(join(job.work, 'old.castr'))).map((file) => file.name));
    const lacking = (await filesBelow(join(job.work, 'new.castr'))).filter((file) => !held.has(file.name));
    const index = await stat(join(job.work, 'new.caibx'));
    const restored = join(job.work, 'restored');
    const applied = await shell(`casync extract --store=${job.work}/new.castr --extra-store=${job.work}/old.castr ${job.work}/new.caibx ${restored}`, job);
    if ((await sha256(restored)) !== job.newSha256) throw new Error('rebuilt other bytes than the target\'s');
    return figures(lacking.reduce((sum, file) => sum + file.sizeBytes, index.size), compute, applied);
  },
};

/** ostree keeps trees, not tars: its delta rebuilds files and their modes and owners, but neither times nor tar headers. */
const ostree: Peer = {
  name: 'ostree static delta',
  how: 'ostree commit of both trees, then ostree static-delta generate; rebuilds files, not tars: no times, no layers',
  needs: ['ostree', 'tar'],
  measure: async (job) => {
    const repo = join(job.work, 'repo');
    const commit = (side: string, tar: string): string =>
      `mkdir ${job.work}/${side} && tar -xf ${tar} -i --exclude='dev/*' -C ${job.work}/${side} && ostree --repo=${repo} commit --branch=${side} --tree=dir=${job.work}/${side}`;
    await shell(`ostree --repo=${repo} init --mode=bare-user`, job);
    await shell(commit('old', job.oldTar), job);
    await shell(commit('new', job.newTar), job);
    const compute = await shell(`ostree --repo=${repo} static-delta generate --from=old --to=new --inline --min-fallback-size=0 --filename=${job.work}/delta`, job);
    const deltaBytes = (await stat(join(job.work, 'delta'))).size;
    await shell(`ostree --repo=${job.work}/device init --mode=bare-user && ostree --repo=${job.work}/device pull-local ${repo} old`, job);
    const applied = await shell(`ostree --repo=${job.work}/device static-delta apply-offline ${job.work}/delta`, job);
    return figures(deltaBytes, compute, applied);
  },
};

async function filesBelow(folder: string): Promise<{ name: string; sizeBytes: number }[]> {
  const found: { name: string; sizeBytes: number }[] = [];
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) found.push(...await filesBelow(join(folder, entry.name)));
    else found.push({ name: entry.name, sizeBytes: (await stat(join(folder, entry.name))).size });
  }
  return found;
}

/** What `bsdiff-node` runs in: a process of its own, since a bad input can end it. */
const bsdiffNode = (call: string): string => `cd {project} && node -e "require('bsdiff-node').${call}"`;

/** The peers that the bench knows, whether installed or not. */
export function knownPeers(): Peer[] {
  return [
    shellPeer('xdelta3 -9', 'xdelta3 -e -f -9 -B {window} -s {old} {new} {out}', 'xdelta3 -d -f -B {window} -s {old} {out} {restored}', { needs: ['xdelta3'] }),
    shellPeer('zstd -19 --patch-from', 'zstd -q -f -19 --long=31 --patch-from={old} {new} -o {out}',
      'zstd -q -d -f --long=31 --memory=2048MB --patch-from={old} {out} -o {restored}', { needs: ['zstd'] }),
    shellPeer('bsdiff', 'bsdiff {old} {new} {out}', 'bspatch {old} {restored} {out}', { needs: ['bsdiff', 'bspatch'], maxOldBytes: 32e6 }),
    shellPeer('bsdiff-node', bsdiffNode('diffSync(\'{old}\', \'{new}\', \'{out}\')'), bsdiffNode('patchSync(\'{old}\', \'{restored}\', \'{out}\')'),
      { needs: ['node'], maxOldBytes: 32e6 }),
    shellPeer('rdiff 512 + gzip', 'rdiff -b 512 -f signature {old} {work}/sig && rdiff -f delta {work}/sig {new} {work}/raw && gzip -c {work}/raw > {out}',
      'gzip -dc {out} > {work}/raw2 && rdiff -f patch {old} {work}/raw2 {restored}', { needs: ['rdiff', 'gzip'] }),
    casync,
    ostree,
  ];
}

/** Measures one peer on a pair, in a folder that is made and removed here; a string says why there are no figures. */
export async function measurePeer(peer: Peer, job: Job): Promise<Figures | string> {
  const wanting = peer.needs.filter((name) => !hasProgram(name));
  if (wanting.length > 0) return `not installed: ${wanting.join(', ')}`;
  if (job.newBytes === 0) return 'no layer differs';
  if (peer.maxOldBytes !== undefined && job.oldBytes > peer.maxOldBytes) return `basis over ${String(peer.maxOldBytes / 1e6)} MB: not tried`;
  await rm(job.work, { recursive: true, force: true });
  await mkdir(job.work, { recursive: true });
  try {
    return await peer.measure(job);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    await rm(job.work, { recursive: true, force: true, maxRetries: 5 });
  }
}
