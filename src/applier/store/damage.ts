import { isSystemError, type DurableFs } from '../../atomic/index.js';
import { hexName, hexOf, layout } from './layout.js';

/**
 * Which layers verification found damaged, so that the next pull of their image repairs them: an empty file for each. Not
 * synced, since a mark that a power cut takes along is made again by the next verification, and one that it brings back
 * only has a layer fetched once more.
 */
export class DamageMarks {
  constructor(private readonly fs: DurableFs) {}

  /** Marks a layer. Idempotent; never synced. */
  async set(diffId: string): Promise<void> {
    try {
      await (await this.fs.open(markPath(diffId), 'create')).close();
    } catch (error) {
      if (!isSystemError(error, 'EEXIST')) throw error;
    }
  }

  /** Takes marks off. Idempotent. */
  async clear(diffIds: Iterable<string>): Promise<void> {
    for (const diffId of diffIds) {
      try {
        await this.fs.unlink(markPath(diffId));
      } catch (error) {
        if (!isSystemError(error, 'ENOENT', 'ENOTDIR')) throw error;
      }
    }
  }

  /** diffIDs of every layer with a mark. */
  async all(): Promise<Set<string>> {
    try {
      const names = (await this.fs.readdir(layout.damaged)).map(({ name }) => name.toString('latin1'));
      return new Set(names.filter((name) => hexName.test(name)).map((name) => `sha256:${name}`));
    } catch (error) {
      // A store of before there were marks, opened read-only.
      if (isSystemError(error, 'ENOENT', 'ENOTDIR')) return new Set();
      throw error;
    }
  }
}

function markPath(diffId: string): string {
  return `${layout.damaged}/${hexOf(diffId)}`;
}
