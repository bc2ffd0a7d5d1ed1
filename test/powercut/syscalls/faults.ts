import { access, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hasProgram, runOk, program, type Outcome } from '../../../bench/process.js';
import { errorCodes, type ErrorCode } from '../../../src/core/error-codes.js';
import { checkStore, pullNext } from '../disk/check-state.js';
import { imageName, type World } from '../disk/fixtures.js';
import { parseLog, runTraced, storeCalls, type LoggedCall, type StoreCall } from './trace.js';

/** What becomes of one system call. `lie`: it seems to succeed and does nothing. */
export type Fault = { readonly kind: 'error'; readonly errno: string } | { readonly kind: 'lie'; readonly returns: number } | { readonly kind: 'kill' };

/** A fault at one call of a delta pull. */
export interface Injection {
  readonly call: StoreCall;
  readonly fault: Fault;
}

const writeErrors = ['EIO', 'ENOSPC', 'EDQUOT', 'EROFS'];

/** The errors that each call is given: those that a disk, a full one, a quota or a read-only mount can make of it. */
const errorsOf: Readonly<Record<string, readonly string[]>> = {
  pwrite64: writeErrors, fsync: writeErrors, fdatasync: writeErrors, syncfs: writeErrors, mkdirat: writeErrors, mknodat: writeErrors, linkat: writeErrors, symlinkat: writeErrors,
  renameat: writeErrors, renameat2: writeErrors, ftruncate: writeErrors, openat: writeErrors, unlinkat: ['EIO', 'EROFS', 'ENOSPC'],
  fsetxattr: writeErrors, lsetxattr: writeErrors, setxattr: writeErrors, utimensat: ['EIO', 'EROFS', 'ENOSPC'], fchown: ['EIO', 'EROFS', 'EDQUOT'], fchownat: ['EIO', 'EROFS', 'EDQUOT'], fchmod: ['EIO', 'EROFS'], fchmodat: ['EIO', 'EROFS'],
  openat2: ['EIO'], pread64: ['EIO'], read: ['EIO'], getdents64: ['EIO'], newfstatat: ['EIO'], statx: ['EIO'], readlinkat: ['EIO'], fstatfs: ['EIO'], close: ['EIO'],
};

/** Calls whose seeming success is the lie of a disk: what they should have stored is not there. */
const lies: Readonly<Record<string, number>> = { pwrite64: 1, linkat: 0, mkdirat: 0 };

/** The codes that a user may be told for an error of the disk. */
const codesOf: Readonly<Record<string, readonly ErrorCode[]>> = {
  EIO: ['STORAGE_IO'], ENOSPC: ['STORAGE_FULL'], EDQUOT: ['STORAGE_FULL'], EROFS: ['STORAGE_READ_ONLY'],
};

/** Calls that only read: a disk that fails them while layers are proven has damaged what it holds, and is said to have. */
const readingCalls: ReadonlySet<string> = new Set(['openat2', 'openat', 'pread64', 'read', 'getdents64', 'newfstatat', 'statx', 'readlinkat']);

/** What a lie may be told as: it was found when the stage was proven, or when a frame was read back. */
const lieCodes: readonly ErrorCode[] = ['STORE_DAMAGED', 'STORAGE_IO', 'STAGE_INCOMPLETE', 'DELTA_MISMATCH', 'DELTA_CORRUPT', 'LAYER_MISMATCH', 'BASIS_DAMAGED'];

/** What this machine lacks; empty where it has all. */
export function wantingForInjection(): string[] {
  return [...(process.geteuid?.() === 0 ? [] : ['root']), ...(hasProgram('strace') ? [] : ['strace'])];
}

/** Injects faults into delta pulls of `device` from the first version to the second. The caller closes it. */
export class Injector {
  private constructor(private readonly world: World, private readonly scratch: string, readonly injections: readonly Injection[], readonly unreachable: number) {}

  /** Makes a store with the first version and learns what calls a pull of the second makes. */
  static async open(world: World): Promise<Injector> {
    const scratch = await mkdtemp(join(tmpdir(), 'whittle-inject-'));
    const seed = join(scratch, 'seed');
    await runOk([...program('device'), 'pull', imageName, '--from', world.versions[0].from, '--root', seed]);
    const root = join(scratch, 'store');
    await runOk(['cp', '-a', seed, root]);
    const log = join(scratch, 'log');
    const traced = await runTraced(pullWords(world, root), log, 'all', null);
    if (traced.exitCode !== 0) throw new Error(`the traced pull failed: ${traced.stderr}`);
    const { calls, unreachable } = await storeCalls(log, root);
    await rm(root, { recursive: true });
    return new Injector(world, scratch, calls.flatMap(faultsOf), unreachable);
  }

  /**
   * Runs one pull with the fault, then checks the store, and that the next pull succeeds. What is wrong, in words; nothing when all
   * is as it must be. `missed`: the fault hit something else than the store, as calls may come in another order.
   */
  async check(injection: Injection): Promise<{ readonly missed: boolean; readonly problems: readonly string[] }> {
    const root = join(this.scratch, 'store');
    const log = join(this.scratch, 'log');
    const { call, fault } = injection;
    await runOk(['cp', '-a', join(this.scratch, 'seed'), root]);
    try {
      const what = fault.kind === 'error' ? `error=${fault.errno}` : fault.kind === 'lie' ? `retval=${String(fault.returns)}` : 'signal=SIGKILL';
      const trace = [...new Set(['fsync', 'syncfs', 'renameat', call.name])].join(',');
      const outcome = await runTraced(pullWords(this.world, root), log, trace, `${call.name}:${what}:when=${String(call.when)}`, call.below === null ? null : join(root, call.below));
      const logged = parseLog(await readFile(log, 'latin1'));
      const missed = fault.kind === 'kill' ? outcome.exitCode !== null : logged.find(({ injected }) => injected)?.text.includes(root) !== true;
      const problems = missed ? [] : [...judge(injection, outcome), ...judgeLog(fault, call, logged)];
      const ended = { current: 1, previous: 0 };
      if (!missed) problems.push(...(await judgeSpool(fault, call, logged)));
      const names = outcome.exitCode === 0 ? [ended] : [{ current: 0, previous: null }, ended];
      const wrong = await checkStore(root, this.world, { names, damaged: null });
      // What a lying disk has lost of a record is found when the store is verified, and no earlier.
      if (fault.kind !== 'lie' || !wrong.some((problem) => problem.endsWith('is damaged'))) problems.push(...wrong);
      problems.push(...(await pullNext(root, this.world, 1, null)));
      return { missed, problems: problems.map((problem) => `${describeInjection(injection)}: ${problem}`) };
    } finally {
      await rm(root, { recursive: true, force: true });
    }
  }

  async close(): Promise<void> {
    await rm(this.scratch, { recursive: true, force: true });
  }
}

function pullWords(world: World, root: string): string[] {
  return ['pull', '--delta', imageName, '--from', world.versions[1].from, '--root', root, '--json'];
}

function faultsOf(call: StoreCall): Injection[] {
  const lie = lies[call.name];
  return [
    ...(errorsOf[call.name] ?? []).map((errno): Injection => ({ call, fault: { kind: 'error', errno } })),
    ...(lie === undefined || call.text.includes('EEXIST') ? [] : [{ call, fault: { kind: 'lie', returns: lie } } as const]),
    { call, fault: { kind: 'kill' } },
  ];
}

/** What the fault is called in a record of several runs: the same as long as the program makes the same calls. */
export function keyOf({ call, fault }: Injection): string {
  return `${fault.kind === 'error' ? fault.errno : fault.kind} ${call.name} ${String(call.when)}${call.below === null ? '' : ` on ./${call.below}`}`;
}

/** The fault in one line: enough to run it again by hand. */
export function describeInjection({ call, fault }: Injection): string {
  const what = fault.kind === 'error' ? fault.errno : fault.kind === 'lie' ? `a lie (${String(fault.returns)})` : 'SIGKILL';
  return `${what} at ${call.name} number ${String(call.when)}${call.below === null ? '' : ` on ./${call.below}`} (${call.text.replace(/\/[^<>" ]*\/store(?=[/>])/g, '…').slice(0, 160)})`;
}

/** Whether the program ended as its documentation says. */
function judge({ call, fault }: Injection, outcome: Outcome): string[] {
  if (fault.kind === 'kill' || outcome.exitCode === 0) return [];
  const told = outcome.stdout.trim().split('\n').at(-1) ?? '';
  const code = /^\{"error":\{"code":"([A-Z_]+)"/.exec(told)?.[1];
  const allowed = fault.kind === 'lie' ? lieCodes : [...(codesOf[fault.errno] ?? []), ...(fault.errno === 'EIO' && readingCalls.has(call.name) ? ['STORE_DAMAGED' as const] : [])];
  const problems: string[] = [];
  if (!allowed.some((each) => each === code)) problems.push(`it said ${code ?? 'nothing'} (${outcome.stderr.split('\n')[0] ?? ''}), allowed is ${allowed.join(' or ')}`);
  const wanted = code !== undefined && code in errorCodes ? errorCodes[code as ErrorCode].exitCode : undefined;
  if (outcome.exitCode !== wanted) problems.push(`its exit code is ${String(outcome.exitCode)}, docs/errors.md says ${String(wanted)}`);
  const lines = outcome.stderr.trimEnd().split('\n').filter((line) => !line.startsWith('device: warning: '));
  if (lines.length !== 2 || lines[0]?.startsWith('device: ') !== true) problems.push(`its error is not one line and a hint: ${JSON.stringify(outcome.stderr.slice(0, 300))}`);
  return problems;
}

/** After EIO from fsync or syncfs: nothing is committed, and no file is synced again whose sync failed. */
function judgeLog(fault: Fault, call: StoreCall, lines: readonly LoggedCall[]): string[] {
  if (fault.kind !== 'error' || fault.errno !== 'EIO' || (call.name !== 'fsync' && call.name !== 'syncfs')) return [];
  const at = lines.findIndex(({ injected }) => injected);
  const failed = /<([^>]+)>/.exec(lines[at]?.text ?? '')?.[1] ?? '';
  const committed = lines.slice(0, at).some(isCommit);
  const problems: string[] = [];
  const later = lines.slice(at + 1);
  if (!committed && later.some(isCommit)) problems.push('it committed after a failed sync');
  // A directory's sync may be asked for again: it is another change that it makes durable. A file's may not.
  if (/\/(\.tmp-[^/]*|spool\/[^/]+)$/.test(failed) && later.some(({ name, text }) => name === 'fsync' && text.includes(`<${failed}>`))) problems.push(`it synced ${failed} again`);
  if (call.name === 'syncfs' && later.some(({ name }) => name === 'syncfs')) problems.push('it called syncfs again');
  return problems;
}

/** A download whose sync failed: the next process would sync the same file again, and be told that all is well. */
async function judgeSpool(fault: Fault, call: StoreCall, lines: readonly LoggedCall[]): Promise<string[]> {
  const failed = /<([^>]+\/spool\/[^/>]+)>/.exec(lines.find(({ injected }) => injected)?.text ?? '')?.[1];
  if (fault.kind !== 'error' || fault.errno !== 'EIO' || (call.name !== 'fsync' && call.name !== 'pwrite64') || failed === undefined) return [];
  return access(failed).then(() => [`${failed} is still there`], () => []);
}

/** The rename of a reference: what makes an image visible. */
function isCommit({ name, text }: { readonly name: string; readonly text: string }): boolean {
  return name === 'renameat' && /\/refs>, "[0-9a-f]{64}\.[ab]"/.test(text);
}
