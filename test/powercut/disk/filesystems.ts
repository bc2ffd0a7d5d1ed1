import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { BlockDevice } from './block-device.js';

const execute = promisify(execFile);
const mib = 2 ** 20;

/** A filesystem as a device may have it. */
export interface Filesystem {
  readonly name: string;
  readonly type: string;
  /** The smallest size that its mkfs makes without being asked twice, or a little more. */
  readonly sizeBytes: number;
  readonly make: readonly string[];
  readonly options: string;
}

/** The filesystems whose crash states are built. Names are of the command line: `--filesystem NAME`. */
export const filesystems: readonly Filesystem[] = [
  { name: 'ext4', type: 'ext4', sizeBytes: 64 * mib, make: ['mkfs.ext4', '-q', '-F', '-b', '4096'], options: '' },
  { name: 'ext4-writeback', type: 'ext4', sizeBytes: 64 * mib, make: ['mkfs.ext4', '-q', '-F', '-b', '4096'], options: 'data=writeback,noauto_da_alloc' },
  { name: 'xfs', type: 'xfs', sizeBytes: 320 * mib, make: ['mkfs.xfs', '-q', '-f', '-K'], options: '' },
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
