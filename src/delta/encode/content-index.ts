import type { LayerMeta } from '../../tar/types.js';
import type { ContentRef } from '../plan.js';

/** Finds entries of an image's layers by path, by a path with its version numbers blotted out, by file name and by content. */
export class ContentIndex {
  readonly #byPath = new Map<string, ContentRef[]>();
  readonly #byShape = new Map<string, ContentRef[]>();
  readonly #byName = new Map<string, ContentRef[]>();
  readonly #byDigest = new Map<string, ContentRef[]>();

  constructor(private readonly from: 'basis' | 'target') {}

  /** Adds all entries of a layer. */
  addLayer(layer: number, meta: LayerMeta): void {
    for (const [entry, record] of meta.entries.entries()) {
      const path = record.header.path.toString('latin1');
      this.add(path, record.digest, { from: this.from, layer, entry });
    }
  }

  /** Adds one entry; `digest` is null without content. */
  add(path: string, digest: Buffer | null, ref: ContentRef): void {
    push(this.#byPath, path, ref);
    if (digest === null) return;
    push(this.#byShape, pathShape(path), ref);
    push(this.#byName, baseName(path), ref);
    push(this.#byDigest, digest.toString('latin1'), ref);
  }

  /** Entries with exactly this path, lowest layer first. */
  withPath(path: string): readonly ContentRef[] {
    return this.#byPath.get(path) ?? [];
  }

  /** Entries with content whose path differs at most in digits. */
  withShape(path: string): readonly ContentRef[] {
    return this.#byShape.get(pathShape(path)) ?? [];
  }

  /** Entries with content of the same file name, in any directory. */
  withName(path: string): readonly ContentRef[] {
    return this.#byName.get(baseName(path)) ?? [];
  }

  /** Entries with exactly this content. */
  withDigest(digest: Buffer): readonly ContentRef[] {
    return this.#byDigest.get(digest.toString('latin1')) ?? [];
  }
}

function push(map: Map<string, ContentRef[]>, key: string, ref: ContentRef): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [ref]);
  else list.push(ref);
}

/** A path with every run of digits replaced, so that libz.so.1.2.13 and libz.so.1.3 are near. */
export function pathShape(path: string): string {
  return path.replaceAll(/\d+(?:[.\-_]\d+)*/g, '#');
}

/** The last component of a path. */
export function baseName(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}
