import { readFile } from 'node:fs/promises';
import { program, run, type Outcome } from '../../../bench/process.js';

/** A system call of a traced program that touched the store. */
export interface StoreCall {
  readonly name: string;
  /** The how-manieth call of this name it is in its thread, from 1: what strace's `when=` counts. */
  readonly when: number;
  /** Where not null, `when` counts only calls on the file or directory of this path below the store's root ('' is the root itself). */
  readonly below: string | null;
  /** Arguments as strace writes them. */
  readonly text: string;
}

/** With one worker thread (see `runTraced`) the calls of a pull come in the same order each time, but for a few. */
const straced = ['strace', '-f', '-qq', '-y', '-s', '0'];

/**
 * Runs `device WORDS` under strace; `inject` is what strace shall do, such as `fsync:error=EIO:when=3`. The log has the calls of
 * `trace`; with a `path` only those on that very path are logged, counted and changed. (strace's own seccomp filter would be quicker, but loses signals that are to be injected.)
 */
export async function runTraced(words: readonly string[], log: string, trace: string, inject: string | null, path: string | null = null): Promise<Outcome> {
  const injected = inject === null ? [] : [...(inject.includes('signal=') ? [] : ['--seccomp-bpf']), '-e', `inject=${inject}`];
  return run([...straced, ...(path === null ? [] : ['-P', path]), '-o', log, '-e', `trace=${trace}`, ...injected, ...program('device'), ...words], { env: { UV_THREADPOOL_SIZE: '1' }, timeoutMs: 120_000 });
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

/** Paths at or below `root` in the arguments of a call, as what is below it. */
function pathsBelow(text: string, root: string): string[] {
  const [words = ''] = text.split(') = ');
  return [...words.matchAll(/"(\/[^"]*)"|<(\/[^>]*)>/g)].map(([, quoted, open]) => quoted ?? open ?? '').filter((path) => path === root || path.startsWith(`${root}/`)).map((path) => path.slice(root.length + 1));
}

/** Its log has the other calls that a sync is judged by, so it is not counted on its path alone. */
function isSync(name: string): boolean {
  return name === 'fsync' || name === 'fdatasync' || name === 'syncfs';
}

/**
 * The calls of a log that touched the files below `root`, each of which can be hit: by its number alone, where no other
 * thread has a call of that name and number that is about something else; else by its number among the calls on its path.
 */
export async function storeCalls(log: string, root: string): Promise<{ readonly calls: StoreCall[]; readonly unreachable: number }> {
  const counts = new Map<string, number>();
  const counted = (key: string): number => {
    const count = (counts.get(key) ?? 0) + 1;
    counts.set(key, count);
    return count;
  };
  const about = new Map<string, { name: string; when: number; outside: number; inside: StoreCall[] }>();
  for (const { thread, name, text } of parseLog(await readFile(log, 'latin1'))) {
    const when = counted(`${thread} ${name}`);
    const key = `${name} ${String(when)}`;
    const entry = about.get(key) ?? { name, when, outside: 0, inside: [] };
    about.set(key, entry);
    const paths = pathsBelow(text, root);
    const onPaths = [...new Set(paths)].map((below) => ({ name, when: counted(`${thread} ${name} ${below}`), text, below }));
    if (!text.includes(root)) entry.outside++;
    else entry.inside.push(onPaths[0] ?? { name, when, text, below: null });
  }
  const all = [...about.values()].filter(({ inside }) => inside.length > 0);
  const calls = all.flatMap(({ name, when, outside, inside }): StoreCall[] => {
    if (outside === 0) return [{ name, when, text: inside.at(-1)?.text ?? '', below: null }];
    return inside.filter(({ below }) => below !== null && !isSync(name));
  });
  return { calls, unreachable: all.filter(({ name, outside, inside }) => outside > 0 && (isSync(name) || inside.some(({ below }) => below === null))).length };
}
