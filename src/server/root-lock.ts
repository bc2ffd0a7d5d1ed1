import { LinuxFs } from '../atomic/linux-fs.js';
import { WhittleError } from '../core/errors.js';

/** Takes a server's root for this process until `release` or the end of the process, however it ends. Throws SERVER_BUSY. */
export async function lockRoot(root: string): Promise<{ release(): Promise<void> }> {
  const fs = await LinuxFs.open(root);
  try {
    const lock = await fs.tryLock('lock', 'exclusive');
    if (lock === undefined) throw new WhittleError('SERVER_BUSY', `another delta-server works on ${root}`, { data: { root } });
    return lock;
  } finally {
    await fs.close();
  }
}
