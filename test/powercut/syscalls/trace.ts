import { readFile } from 'node:fs/promises';
import { program, run, type Outcome } from '../../../bench/process.js';

/** A system call of a traced program that touched the store. */
export interface StoreCall {
  readonly name: string;
  /** The how-manieth call of this name it is in its thread, from 1: what strace's `when=` counts. */
  readonly when: number;
  /** Arguments as strace writes them. */
  readonly text: string;
}

/** With one worker thread (see `runTraced`) the calls of a pull come in the same order each time, but for a few. */
const straced = ['strace', '-f', '-qq', '-y', '-s', '0'];

/**
 * Runs `device WORDS` under strace; `inject` is what strace shall do, such as `fsync:error=EIO:when=3`. The log has the calls of
 * `trace`. (strace's own seccomp filter would be quicker, but loses signals that are to be injected.)
 */
export async function runTraced(words: readonly string[], log: string, trace: string, inject: string | null): Promise<Outcome> {
  const injected = inject === null ? [] : [...(inject.includes('signal=') ? [] : ['--seccomp-bpf']), '-e', `inject=${inject}`];
  return run([...straced, '-o', log, '-e', `trace=${trace}`, ...injected, ...program('device'), ...words], { env: { UV_THREADPOOL_SIZE: '1' }, timeoutMs: 120_000 });
}

/** A call in strace's log. */
export interface LoggedCall {
  readonly thread: string;
  readonly name: string;
  /** Its arguments, and its result where nothing came between. */
  readonly text: string;
  /** Whether strace changed what became of it. */
  injected: boolean;
}

/** The calls of a log, in the order in which they began. */
export function parseLog(log: string): LoggedCall[] {
  const calls: LoggedCall[] = [];
  const unfinished = new Map<string, LoggedCall>();
  for (const line of log.split('\n')) {
    const [, thread = '', rest = ''] = /^(\d+) +(.*)$/.exec(line) ?? [];
    const injected = rest.includes('(INJECTED');
    const [, name, text = ''] = /^([a-z0-9_]+)\((.*)$/.exec(rest) ?? [];
    const earlier = unfinished.get(thread);
    if (name !== undefined) {
      const call = { thread, name, text, injected };
      calls.push(call);
      if (rest.endsWith('<unfinished ...>')) unfinished.set(thread, call);
    } else if (earlier !== undefined && rest.startsWith('<... ')) earlier.injected ||= injected;
  }
  return calls;
}

/**
 * The calls of a log that touched the files below `root`, each of which can be hit by its number alone: no other thread has a call
 * of that name and number that is about something else.
 */
export async function storeCalls(log: string, root: string): Promise<{ readonly calls: StoreCall[]; readonly unreachable: number }> {
  const counts = new Map<string, number>();
  const about = new Map<string, { name: string; when: number; text: string; inside: number; outside: number }>();
  for (const call of parseLog(await readFile(log, 'latin1'))) {
    const when = (counts.get(`${call.thread} ${call.name}`) ?? 0) + 1;
    counts.set(`${call.thread} ${call.name}`, when);
    const key = `${call.name} ${String(when)}`;
    const entry = about.get(key) ?? { name: call.name, when, text: '', inside: 0, outside: 0 };
    about.set(key, entry);
    if (call.text.includes(root)) {
      entry.inside++;
      entry.text = call.text;
    } else entry.outside++;
  }
  const all = [...about.values()].filter(({ inside }) => inside > 0);
  const calls = all.filter(({ outside }) => outside === 0).map(({ name, when, text }) => ({ name, when, text }));
  return { calls, unreachable: all.length - calls.length };
}
