import { createHash } from 'node:crypto';
import { WhittleError } from '../../core/errors.js';
import type { Basis, BasisContent } from '../basis.js';
import { checksumListKind, PatchedFiles, telltaleBytes, updateChecksums, type ChecksumList, type FileChecksums } from '../checksum-list.js';
import { chunksOf, firstOf } from '../content-chunks.js';
import { deltaLimits } from '../limits.js';
import type { ContentPlan } from '../plan.js';

/** The texts that stand for the first sources of lists that were planned, which is where all of them come from. */
const plannedTexts = new WeakMap<ChecksumList, Buffer>();

/** What stands for the first source of a planned list. */
export function plannedText(list: ChecksumList): Buffer {
  return plannedTexts.get(list) ?? Buffer.alloc(0);
}

/** Finds the lists of checksums among the files of one target layer. Nothing in such a list foretells a checksum but the file itself. */
export class ChecksumLists {
  readonly #files: PatchedFiles;
  readonly #checksums = new Map<number, FileChecksums>();
  readonly #buffer = Buffer.allocUnsafeSlow(64 * 1024);

  /** `content` is the layer's plan, and grows as it is made. */
  constructor(private readonly target: Basis, private readonly layer: number, content: readonly ContentPlan[]) {
    this.#files = new PatchedFiles(target.layers[layer]?.entries ?? [], content);
  }

  /** Whether the file at `entry` is a list of which more is known when that which it is differenced against, `source`, no larger than a list may be, is brought up to date. */
  async plan(entry: number, source: BasisContent, file: BasisContent): Promise<ChecksumList | null> {
    if (file.sizeBytes > deltaLimits.checksumListBytes) return null;
    const kind = checksumListKind(firstOf(source, tooShort, telltaleBytes));
    if (kind === null) return null;
    const text = firstOf(source, tooShort);
    await this.#gather(entry, (note) => { updateChecksums(kind, text, note); });
    const updated = updateChecksums(kind, text, (name) => this.#checksums.get(this.#files.find(entry, name) ?? -1));
    if (!isNearer(firstOf(file, tooShort), text, updated)) return null;
    const list = { kind };
    plannedTexts.set(list, updated);
    return list;
  }

  /** Finds the checksums of the files that a list names. `forEachName` calls what it is given with each name. */
  async #gather(entry: number, forEachName: (note: (name: string) => undefined) => void): Promise<void> {
    const named = new Set<number>();
    forEachName((name) => {
      const found = this.#files.find(entry, name);
      if (found !== undefined && !this.#checksums.has(found)) named.add(found);
      return undefined;
    });
    for (const found of named) this.#checksums.set(found, await this.#of(found));
  }

  async #of(entry: number): Promise<FileChecksums> {
    const content = await this.target.openContent(this.layer, entry, { callerVerifies: true });
    try {
      const [sha256, md5] = [createHash('sha256'), createHash('md5')];
      for (const chunk of chunksOf(content, this.#buffer, tooShort)) for (const hash of [sha256, md5]) hash.update(chunk);
      return { sizeBytes: content.sizeBytes, sha256: sha256.digest(), md5: md5.digest() };
    } finally {
      await content.close();
    }
  }
}

/** Whether more lines of `file` are in `updated` than in `old`. */
function isNearer(file: Buffer, old: Buffer, updated: Buffer): boolean {
  if (updated.equals(old)) return false;
  const lines = new Set(linesOf(file));
  const count = (text: Buffer): number => linesOf(text).filter((line) => lines.has(line)).length;
  return count(updated) > count(old);
}

function linesOf(text: Buffer): string[] {
  return text.toString('latin1').split('\n');
}

function tooShort(): WhittleError {
  return new WhittleError('BASIS_DAMAGED', 'content of an image ends too early');
}
