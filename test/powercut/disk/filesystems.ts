import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { BlockDevice } from './block-device.js';

const execute = promisify(execFile);
const mib = 2 ** 20;

/** A filesystem as a device may have it. */
export interface Filesystem {
  readonly name: string;
  readonly type: string;
  /** Small, so that states are made and mounted quickly. */
  readonly sizeBytes: number;
  readonly make: readonly string[];
  readonly options: string;
}

/**
 * The filesystems whose crash states are built. Names stand before the scenario in the table. (What mkfs.xfs calls
 * unsupported is a filesystem below 300 MiB: its log of 64 MiB would be read at each mount.)
 */
export const filesystems: readonly Filesystem[] = [
  { name: 'ext4', type: 'ext4', sizeBytes: 64 * mib, make: ['mkfs.ext4', '-q', '-F', '-b', '4096', '-E', 'lazy_itable_init=0,lazy_journal_init=0,nodiscard'], options: '' },
  { name: 'ext4-writeback', type: 'ext4', sizeBytes: 64 * mib, make: ['mkfs.ext4', '-q', '-F', '-b', '4096', '-E', 'lazy_itable_init=0,lazy_journal_init=0,nodiscard'], options: 'data=writeback,noauto_da_alloc' },
  { name: 'xfs', type: 'xfs', sizeBytes: 96 * mib, make: ['mkfs.xfs', '-q', '-f', '-K', '--unsupported', '-l', 'size=8m'], options: '' },
  { name: 'btrfs', type: 'btrfs', sizeBytes: 160 * mib, make: ['mkfs.btrfs', '-q', '-f', '-K'], options: '' },
];

/** Programs that making them needs. */
export const mkfsPrograms: readonly string[] = [...new Set(filesystems.map(({ make }) => make[0] ?? ''))];

/** Makes the filesystem on the device, empty. */
export async function makeFilesystem(device: BlockDevice, filesystem: Filesystem): Promise<void> {
  const [program = '', ...words] = filesystem.make;
  const path = await device.attach();
  try {
    await execute(program, [...words, path]);
  } finally {
    await device.detach();
  }
}
