import type { Basis, BasisContent } from '../basis.js';
import { checksumListKind, createMd5, PatchedFiles, telltaleBytes, updateChecksums, type ChecksumList } from '../checksum-list.js';
import { chunksOf } from '../content-chunks.js';
import { deltaLimits } from '../limits.js';
import type { ContentPlan } from '../plan.js';
import { imageTooShort, readContent } from './image-content.js';

const chunkBytes = 64 * 1024;

/** The texts that stand for the first sources of lists that were planned, which is where all of them come from. */
const plannedTexts = new WeakMap<ChecksumList, Buffer>();

/** What stands for the first source of a planned list. */
export function plannedText(list: ChecksumList): Buffer {
  return plannedTexts.get(list) ?? Buffer.alloc(0);
}

/** Finds the lists of checksums among the files of one target layer. Nothing in such a list foretells a checksum but the file itself. */
export class ChecksumLists {
  readonly #files: PatchedFiles;
  readonly #md5 = new Map<number, Buffer>();

  /** `content` is the layer's plan, and grows as it is made. */
  constructor(private readonly target: Basis, private readonly layer: number, content: readonly ContentPlan[]) {
    this.#files = new PatchedFiles(target.layers[layer]?.entries ?? [], content);
  }

  /** Whether the file at `entry` is a list of which more is known when that which it is differenced against, `source`, no larger than a list may be, is brought up to date. */
  async plan(entry: number, source: BasisContent, file: BasisContent): Promise<ChecksumList | null> {
    if (file.sizeBytes > deltaLimits.checksumListBytes) return null;
    const kind = checksumListKind(readContent(source, telltaleBytes));
    if (kind === null) return null;
    const text = readContent(source);
    if (kind === 'md5') await this.#hashNamed(entry, text);
    const updated = updateChecksums(kind, text, this.#files.checksums(entry, (found) => this.#md5.get(found) ?? null));
    if (!isNearer(readContent(file), text, updated)) return null;
    const list = { kind };
    plannedTexts.set(list, updated);
    return list;
  }

  /** Finds the md5 of the files that a list names. What else lists say is known of every file. */
  async #hashNamed(entry: number, text: Buffer): Promise<void> {
    const named = this.#files.named(entry);
    const wanted = new Set<number>();
    updateChecksums('md5', text, (name) => {
      const found = named(name);
      if (found !== undefined && !this.#md5.has(found)) wanted.add(found);
      return undefined;
    });
    for (const found of wanted) this.#md5.set(found, await this.#md5Of(found));
  }

  async #md5Of(entry: number): Promise<Buffer> {
    const content = await this.target.openContent(this.layer, entry, { callerVerifies: true });
    try {
      const md5 = createMd5();
      for (const chunk of chunksOf(content, Buffer.allocUnsafeSlow(Math.min(content.sizeBytes, chunkBytes)), imageTooShort)) md5.update(chunk);
      return Buffer.from(md5.digest());
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
