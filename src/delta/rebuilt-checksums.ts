import type { BasisContent } from './basis.js';
import { PatchedFiles, updateChecksums, type ChecksumList } from './checksum-list.js';
import { firstOf } from './content-chunks.js';
import { basisTooShort, scratchContent } from './inflated-content.js';
import type { LayerPlan } from './plan.js';

/** Checksums of the files of one layer that are rebuilt, for its lists of them. */
export class RebuiltChecksums {
  readonly #files: PatchedFiles;
  readonly #md5 = new Map<number, Buffer>();
  readonly #lastMd5List: number;

  /** `plan`'s entries are to have the digest of each patched file before a list after it is asked for. */
  constructor(plan: LayerPlan) {
    this.#files = new PatchedFiles(plan.meta.entries, plan.content);
    this.#lastMd5List = plan.content.findLastIndex((content) => content.kind === 'patch' && content.checksums?.kind === 'md5');
  }

  /** Whether a later list may say what the md5 of this entry is: `setMd5` is to be told it then. */
  wantsMd5(entry: number): boolean {
    return entry < this.#lastMd5List;
  }

  /** Takes note of the md5 of the file at `entry`. */
  setMd5(entry: number, md5: Buffer): void {
    this.#md5.set(entry, md5);
  }

  /**
   * What stands for `source`, the first source of the list at `entry`: its text brought up to date, in a scratch file in `directory` which
   * goes with `close()`. Throws BASIS_DAMAGED when the source ends too early.
   */
  updated(entry: number, { kind }: ChecksumList, source: BasisContent, directory: string): Promise<BasisContent> {
    const text = firstOf(source, basisTooShort);
    const list = updateChecksums(kind, text, this.#files.checksums(entry, (found) => this.#md5.get(found) ?? null));
    return scratchContent(list, directory);
  }
}
