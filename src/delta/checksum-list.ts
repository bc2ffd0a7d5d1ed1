import { createHash } from 'node:crypto';
import { posix } from 'node:path';
import { md5 } from '@noble/hashes/legacy.js';
import { typeflags } from '../tar/index.js';
import type { EntryList } from '../tar/types.js';
import type { ContentPlan } from './plan.js';

/**
 * Files that list checksums of files beside them: as md5sum (dpkg's `*.md5sums`) and sha256sum write them, and as Python's
 * installers do (`RECORD`: path, urlsafe base64 of the sha256 without padding, and size). Their places are numbers of the format.
 */
export const checksumListKinds = ['md5', 'sha256', 'record'] as const;
/** One of them. */
export type ChecksumListKind = (typeof checksumListKinds)[number];

/** That a patched file's first source is such a list, which is read brought up to date. */
export interface ChecksumList {
  readonly kind: ChecksumListKind;
}

/** What lists say of a file. `md5` is null where nobody asked for it. */
export interface FileChecksums {
  readonly sizeBytes: number;
  readonly sha256: Buffer;
  readonly md5: Buffer | null;
}

/** A hash that takes bytes, and gives its digest once. */
export interface Hasher {
  update(bytes: Uint8Array): unknown;
  digest(): Uint8Array;
}

/** A hash for the md5s of lists: OpenSSL's, or, where that has none, as in FIPS mode, one that takes longer. Nothing is trusted for it: it foretells what files say. */
export function createMd5(): Hasher {
  try {
    return createHash('md5');
  } catch {
    return md5.create();
  }
}

/** A line of each kind. As `m` has it, lines stand between LF and CR; a path has neither, nor in a RECORD a quote or comma. */
const patterns: Readonly<Record<ChecksumListKind, RegExp>> = {
  md5: /^[0-9a-f]{32}( [ *])(.+)$/gm,
  sha256: /^[0-9a-f]{64}( [ *])(.+)$/gm,
  record: /^([^",\n\r]+),sha256=[\w-]{43},[0-9]+$/gm,
};

/** Bytes at the start of a file that show what kind of list it is. */
export const telltaleBytes = 4096;

/** What kind of list begins with these bytes: the first of which there is a line; null when there is none. */
export function checksumListKind(start: Buffer): ChecksumListKind | null {
  const lines = start.toString('latin1');
  return checksumListKinds.find((kind) => lines.search(patterns[kind]) >= 0) ?? null;
}

/** Memory that bringing a list of `sizeBytes` up to date takes: it, its text, and both anew. */
export function checksumListBytes(sizeBytes: number): number {
  return 4 * sizeBytes;
}

/** `text` with what each line says of a file replaced by what `checksumsOf` does; other lines stay as they are. */
export function updateChecksums(kind: ChecksumListKind, text: Buffer, checksumsOf: (name: string) => FileChecksums | undefined): Buffer {
  const lines = text.toString('latin1');
  if (kind === 'record') {
    return Buffer.from(lines.replace(patterns.record, (line, name: string) => {
      const file = checksumsOf(name);
      return file === undefined ? line : `${name},sha256=${file.sha256.toString('base64url')},${String(file.sizeBytes)}`;
    }), 'latin1');
  }
  return Buffer.from(lines.replace(patterns[kind], (line, mark: string, name: string) => {
    const digest = checksumsOf(name)?.[kind];
    return digest === undefined || digest === null ? line : `${digest.toString('hex')}${mark}${name}`;
  }), 'latin1');
}

/** The files of a layer that a delta patches, found by the names that lists have for them. Made for one layer; ask for its lists in order. */
export class PatchedFiles {
  readonly #byPath = new Map<string, number>();
  #seen = 0;

  /** `content` may grow between calls. */
  constructor(private readonly entries: EntryList, private readonly content: readonly ContentPlan[]) {}

  /**
   * Gives the entries of patched files by the names that the list at entry `list` has for them, among those before it: counted from the
   * root, from the list's directory, or from the one above that, whichever is first to have it. A hard link to such a file counts as it.
   */
  named(list: number): (name: string) => number | undefined {
    this.#add(list);
    const directory = posix.dirname(absolute(this.entries.at(list)?.header.path ?? Buffer.alloc(0)));
    const starts = ['/', directory, posix.dirname(directory)];
    return (name) => {
      for (const start of name.startsWith('/') ? ['/'] : starts) {
        const entry = this.#byPath.get(posix.join(start, name));
        if (entry !== undefined) return entry;
      }
      return undefined;
    };
  }

  /** What that list is to say of each of them, once their entries have digests. `md5Of` knows the md5 of an entry, or null. */
  checksums(list: number, md5Of: (entry: number) => Buffer | null): (name: string) => FileChecksums | undefined {
    const named = this.named(list);
    return (name) => {
      const entry = named(name);
      const file = entry === undefined ? undefined : this.entries.at(entry);
      if (entry === undefined || file === undefined || file.digest === null) return undefined;
      return { sizeBytes: file.header.sizeBytes, sha256: file.digest, md5: md5Of(entry) };
    };
  }

  #add(end: number): void {
    for (; this.#seen < end; this.#seen++) {
      if (this.content[this.#seen]?.kind === 'copy') continue;
      const header = this.entries.at(this.#seen)?.header;
      if (header === undefined) return;
      const own = this.content[this.#seen]?.kind === 'patch' ? this.#seen : undefined;
      const entry = header.typeflag === typeflags.hardLink ? this.#byPath.get(absolute(header.linkPath)) : own;
      if (entry !== undefined) this.#byPath.set(absolute(header.path), entry);
    }
  }
}

/** A path of a tar, counted from the root. */
function absolute(path: Buffer): string {
  return posix.join('/', path.toString('latin1'));
}
