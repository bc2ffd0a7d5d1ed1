import { readFile } from 'node:fs/promises';
import { checkState } from './check.js';
import { Disk, type Inode } from './disk.js';
import type { Expectation } from './expect.js';
import type { World } from './fixtures.js';
import type { MachineOptions } from './machine.js';

/** What a failure says of itself beside the state. */
interface Failure {
  readonly scenario: string;
  /** Number of the last operation before the cut. */
  readonly cut: number;
  readonly violations: readonly string[];
  /** What was lost. */
  readonly lost: readonly string[];
  readonly lied: boolean;
}

interface Dump extends Failure {
  readonly expectation: Expectation;
  readonly machine: Pick<MachineOptions, 'exchange' | 'reflink'> & { readonly without?: readonly string[] };
  readonly inodes: readonly (readonly [number, Readonly<Record<string, unknown>>])[];
}

/** A crash state as text: the whole disk, base64, and what must hold for it. */
export function dumpState(disk: Disk, expectation: Expectation, machine: MachineOptions, failure: Failure): string {
  const inodes = [...disk.inodes].map(([ino, inode]): Dump['inodes'][number] => [ino, {
    ...inode, content: inode.content.toString('base64'), target: inode.target.toString('base64'),
    xattrs: [...inode.xattrs].map(([name, value]) => [name, value.toString('base64')]), entries: [...inode.entries],
  }]);
  const { exchange, reflink, without } = machine;
  const kept = { ...(exchange === undefined ? {} : { exchange }), ...(reflink === undefined ? {} : { reflink }), ...(without === undefined ? {} : { without: [...without] }) };
  const dump: Dump = { ...failure, expectation, machine: kept, inodes };
  return `${JSON.stringify(dump, null, 1)}\n`;
}

/** Checks a state again that `dumpState` wrote; its violations. The world must be the same: it is made of nothing random. */
export async function replayState(world: World, file: string): Promise<string[]> {
  const dump = JSON.parse(await readFile(file, 'utf8')) as Dump;
  const inodes = new Map(dump.inodes.map(([ino, fields]): [number, Inode] => {
    const inode = fields as unknown as Inode & { readonly content: string; readonly target: string; readonly xattrs: [string, string][]; readonly entries: [string, number][] };
    return [ino, {
      ...inode, content: Buffer.from(String(inode.content), 'base64'), target: Buffer.from(String(inode.target), 'base64'),
      xattrs: new Map(inode.xattrs.map(([name, value]) => [name, Buffer.from(value, 'base64')])), entries: new Map(inode.entries),
    }];
  }));
  const disk = new Disk(inodes, Math.max(...inodes.keys()) + 1);
  const { without, ...machine } = dump.machine;
  const verdict = await checkState(world, disk, dump.expectation, { machine: { ...machine, ...(without === undefined ? {} : { without: new Set(without) as NonNullable<MachineOptions['without']> }) }, pull: true, lied: dump.lied });
  return [...verdict.violations];
}
