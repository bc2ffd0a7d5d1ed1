import { gzipSync } from 'node:zlib';
import { TarScanner, joinHeader, type TarHeader } from '../../src/tar/index.js';

/** One line of a tar-split file. */
export interface TarSplitLine {
  type: number;
  name?: string;
  name_raw?: string;
  size?: number;
  payload: string | null;
  position: number;
}

/**
 * The lines that an engine keeps of a tar: the bytes before each entry, the entry, and what follows the last, which current
 * engines cut into pieces of a kilobyte and older ones keep in one (`wholeTrailer`). Checksums of contents are left out.
 */
export function tarSplitLines(tar: Buffer, wholeTrailer = false): TarSplitLine[] {
  const lines: TarSplitLine[] = [];
  let pending: Buffer[] = [];
  const segment = (bytes: Buffer): void => { if (bytes.length > 0) lines.push({ type: 2, payload: bytes.toString('base64'), position: lines.length }); };
  const flush = (): void => {
    segment(Buffer.concat(pending));
    pending = [];
  };
  let header: TarHeader | undefined;
  const scanner = new TarScanner({
    entry: (found) => {
      header = found;
      pending.push(joinHeader(found));
      flush();
      const name = found.path.toString();
      const named = Buffer.from(name).equals(found.path) ? { name } : { name_raw: found.path.toString('base64') };
      lines.push({ type: 1, ...named, ...(found.sizeBytes > 0 ? { size: found.sizeBytes } : {}), payload: found.sizeBytes > 0 ? Buffer.alloc(8).toString('base64') : null, position: lines.length });
    },
    content: () => undefined,
    endContent: (padding) => { pending.push(padding ?? Buffer.alloc((512 - ((header?.sizeBytes ?? 0) % 512)) % 512)); },
    trailer: (zeroBytes, bytes) => {
      const rest = Buffer.concat([...pending, bytes ?? Buffer.alloc(zeroBytes)]);
      if (wholeTrailer) segment(rest);
      else for (let at = 0; at < rest.length; at += 1024) segment(rest.subarray(at, at + 1024));
    },
  });
  scanner.write(tar);
  scanner.end();
  return lines;
}

/** Lines as they are in the file. */
export function packTarSplit(lines: readonly unknown[]): Buffer {
  return gzipSync(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
}

/** The tar-split file of a tar. */
export function tarSplitOf(tar: Buffer): Buffer {
  return packTarSplit(tarSplitLines(tar));
}

/** Bytes as a stream in pieces of `pieceBytes`. */
export async function* inPieces(bytes: Buffer, pieceBytes = 1000): AsyncGenerator<Buffer, void, undefined> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield await Promise.resolve(Buffer.from(bytes.subarray(at, at + pieceBytes)));
}
