import { createHash } from 'node:crypto';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Basis, BasisContent } from '../../src/delta/basis.js';
import { joinHeader, TarScanner } from '../../src/tar/index.js';
import type { LayerEntry, LayerMeta, TarHeader } from '../../src/tar/types.js';

/** Tars in files, seen as the layers of an image. `close()` when done. */
export interface TarBasis extends Basis {
  close(): void;
}

/** The metadata of a tar, and where each entry's content starts in it. */
function scanTar(tar: Buffer): { meta: LayerMeta; offsets: number[] } {
  const entries: LayerEntry[] = [];
  const offsets: number[] = [];
  let header: TarHeader | undefined;
  let hash = createHash('sha256');
  let at = 0;
  let trailer: { zero: number; bytes: Buffer | null } = { zero: 0, bytes: null };
  const scanner = new TarScanner({
    entry: (found) => {
      header = found;
      hash = createHash('sha256');
      at += joinHeader(found).length;
      offsets.push(at);
    },
    content: (chunk) => { hash.update(chunk); },
    endContent: (padding) => {
      if (header === undefined) throw new Error('content without a header');
      entries.push({ header, digest: header.sizeBytes > 0 ? hash.digest() : null, padding });
      at += header.sizeBytes + (padding?.length ?? (512 - (header.sizeBytes % 512)) % 512);
    },
    trailer: (zero, bytes) => { trailer = { zero, bytes }; },
  });
  scanner.write(tar);
  scanner.end();
  const diffId = `sha256:${createHash('sha256').update(tar).digest('hex')}`;
  return { meta: { diffId, sizeBytes: tar.length, entries, trailerZeroBytes: trailer.zero, trailer: trailer.bytes }, offsets };
}

/** Writes tars to files in `dir` and gives them as a basis; contents are read in place. */
export function tarBasis(dir: string, tars: readonly Buffer[]): TarBasis {
  const scanned = tars.map((tar, index) => {
    const path = join(dir, `${String(index)}-${createHash('sha256').update(tar).digest('hex').slice(0, 8)}.tar`);
    writeFileSync(path, tar);
    return { ...scanTar(tar), fd: openSync(path, 'r') };
  });
  return {
    layers: scanned.map((layer) => layer.meta),
    openContent: (layer, entry): Promise<BasisContent> => {
      const found = scanned[layer];
      const offset = found?.offsets[entry];
      const sizeBytes = found?.meta.entries.at(entry)?.header.sizeBytes;
      if (found === undefined || offset === undefined || sizeBytes === undefined) return Promise.reject(new Error('no such entry'));
      return Promise.resolve({ fd: found.fd, extents: [{ offset, lengthBytes: sizeBytes }], sizeBytes, close: () => Promise.resolve() });
    },
    close: () => { for (const { fd } of scanned) closeSync(fd); },
  };
}
