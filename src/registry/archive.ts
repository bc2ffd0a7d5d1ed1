import type { Writable } from 'node:stream';
import { throwIfAborted } from '../core/interruption.js';
import { parseDigest } from '../oci/digest.js';
import { layoutIndex, layoutMarker, type LayoutContents } from './blob-input.js';
import { replaceFile, writeInto } from './new-file.js';
import { verifiedBytes } from './verify.js';

const blockBytes = 512;
const largestOctalSize = 8 ** 11 - 1;

function writeSize(header: Buffer, sizeBytes: number): void {
  if (sizeBytes <= largestOctalSize) {
    header.write(`${sizeBytes.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
    return;
  }
  // Larger than eleven octal digits: big-endian binary, marked by the top bit, as GNU tar and all others write it.
  header[124] = 0x80;
  header.writeBigUInt64BE(BigInt(sizeBytes), 128);
}

/** A ustar header for a file or folder that belongs to nobody in particular and was made at no time. */
function tarHeader(name: string, sizeBytes: number, type: '0' | '5' | 'x'): Buffer {
  const header = Buffer.alloc(blockBytes);
  header.write(name, 0, 100, 'latin1');
  header.write(type === '5' ? '0000755\0' : '0000644\0', 100, 'latin1');
  header.write('0000000\0', 108, 'latin1');
  header.write('0000000\0', 116, 'latin1');
  writeSize(header, sizeBytes);
  header.write('00000000000\0', 136, 'latin1');
  header.write('        ', 148, 'latin1');
  header.write(type, 156, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return header;
}

/** The zeros that follow a member of so many bytes. */
export function memberPadding(sizeBytes: number): Buffer {
  return Buffer.alloc((blockBytes - (sizeBytes % blockBytes)) % blockBytes);
}

/** The tar header of a file, with a PAX header before it when the name is too long for ustar (sha512 blobs). */
export function fileHeader(name: string, sizeBytes: number): Buffer {
  if (name.length <= 100) return tarHeader(name, sizeBytes, '0');
  const body = ` path=${name}\n`;
  // The length counts its own digits; all such names make it three.
  const record = Buffer.from(`${String(body.length + 3)}${body}`);
  return Buffer.concat([tarHeader('PaxHeader', record.length, 'x'), record, memberPadding(record.length), tarHeader(name.slice(0, 100), sizeBytes, '0')]);
}

/** A file's header, content and padding. */
export function smallFile(name: string, content: Buffer): Buffer {
  return Buffer.concat([fileHeader(name, content.length), content, memberPadding(content.length)]);
}

/**
 * The bytes of an OCI archive: a tar of an OCI image layout, the same bytes for the same contents. `oci-layout` and
 * `index.json` come first, then the blobs in the order given. Every blob is verified while it passes; the iteration
 * throws DIGEST_MISMATCH when one is not what its descriptor says, and what the blobs' own readers throw.
 */
async function* archiveBytes(contents: LayoutContents): AsyncGenerator<Buffer, void, void> {
  yield smallFile('oci-layout', layoutMarker());
  yield smallFile('index.json', layoutIndex(contents));
  const seen = new Set<string>(['blobs/']);
  yield tarHeader('blobs/', 0, '5');
  for await (const blob of contents.blobs) {
    const { descriptor } = blob;
    const { algorithm, hex } = parseDigest(descriptor.digest);
    const folder = `blobs/${algorithm}/`;
    if (!seen.has(folder)) yield tarHeader(folder, 0, '5');
    seen.add(folder);
    const name = folder + hex;
    if (seen.has(name)) continue;
    seen.add(name);
    yield fileHeader(name, descriptor.size);
    yield* verifiedBytes(blob.open(), descriptor, `blob ${descriptor.digest}`);
    const rest = memberPadding(descriptor.size);
    if (rest.length > 0) yield rest;
  }
  yield Buffer.alloc(2 * blockBytes);
}

/**
 * Writes an OCI archive (a `.delta` file is one). When it returns, the file is whole and durable under `path`; on an
 * error nothing of it remains and a file that stood there still stands. Into a stream (standard output) it is written as it comes. Returns its size in
 * bytes. Throws DIGEST_MISMATCH, STORAGE_*, USAGE, INTERRUPTED, and what the blobs' readers throw.
 */
export async function writeArchive(place: string | Writable, contents: LayoutContents, signal?: AbortSignal): Promise<number> {
  let sizeBytes = 0;
  async function* counted(): AsyncGenerator<Buffer, void, void> {
    for await (const chunk of archiveBytes(contents)) {
      throwIfAborted(signal);
      sizeBytes += chunk.length;
      yield chunk;
    }
  }
  if (typeof place === 'string') await replaceFile(place, counted());
  else await writeInto(place, counted(), 'standard output');
  return sizeBytes;
}
