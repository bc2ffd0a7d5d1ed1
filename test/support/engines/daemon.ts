import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm } from 'node:fs/promises';
import { run } from '../../../bench/process.js';

/** Ends a daemon that a test has started, and waits until it is gone; does nothing when it is. */
export async function endDaemon(child: ChildProcess | null, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
  if (child === null || child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
}

/** Bytes that a process has had written to disks so far, as the kernel counts them. */
export async function writtenBytes(pid: number | 'self'): Promise<number> {
  return Number(/^write_bytes: (\d+)$/m.exec(await readFile(`/proc/${String(pid)}/io`, 'latin1'))?.[1]);
}

/** Removes a daemon's folder, and what is mounted below it. */
export async function removeFolder(folder: string): Promise<void> {
  const mountPoints = (await readFile('/proc/self/mountinfo', 'latin1')).split('\n').map((line) => line.split(' ')[4] ?? '');
  for (const point of mountPoints.filter((each) => each.startsWith(`${folder}/`)).reverse()) await run(['umount', '-l', point]);
  await rm(folder, { recursive: true, force: true, maxRetries: 5 });
}
