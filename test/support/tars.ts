import { TarScanner, joinHeader, type TarHeader } from '../../src/tar/index.js';

/** Fields of a hand-made ustar member; numbers are printed as 7 or 11 octal digits and a NUL, as Go does. */
export interface Member {
  readonly name: string | Buffer;
  readonly type?: string;
  readonly data?: Buffer;
  readonly link?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly mtime?: number;
  readonly size?: number;
  readonly magic?: string;
  readonly prefix?: string;
  /** Changes the block before its checksum is made. */
  readonly edit?: (block: Buffer) => void;
}

/** Writes the checksum of a 512-byte header block as six octal digits, NUL, space. */
export function seal(block: Buffer): Buffer {
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** One member: header block, data, zeros up to a multiple of 512. */
export function member(o: Member): Buffer {
  const data = o.data ?? Buffer.alloc(0);
  const block = Buffer.alloc(512);
  const name = typeof o.name === 'string' ? Buffer.from(o.name) : o.name;
  name.copy(block, 0, 0, 100);
  const octal = (value: number, at: number, digits: number): void => { block.write(`${value.toString(8).padStart(digits, '0')}\0`, at, 'latin1'); };
  octal(o.mode ?? 0o644, 100, 7);
  octal(o.uid ?? 0, 108, 7);
  octal(0, 116, 7);
  octal(o.size ?? data.length, 124, 11);
  octal(o.mtime ?? 0, 136, 11);
  block.write(o.type ?? '0', 156, 'latin1');
  block.write(o.link ?? '', 157, 100, 'latin1');
  block.write(o.magic ?? 'ustar\x0000', 257, 'latin1');
  octal(0, 329, 7);
  octal(0, 337, 7);
  block.write(o.prefix ?? '', 345, 155, 'latin1');
  o.edit?.(block);
  return Buffer.concat([seal(block), data, Buffer.alloc((512 - (data.length % 512)) % 512)]);
}

/** Data of a PAX header. */
export function paxData(records: Readonly<Record<string, string>>): Buffer {
  return Buffer.concat(Object.entries(records).map(([key, value]) => {
    const rest = Buffer.byteLength(key) + Buffer.byteLength(value) + 3;
    let total = rest + String(rest).length;
    if (rest + String(total).length !== total) total = rest + String(total).length;
    return Buffer.from(`${String(total)} ${key}=${value}\n`);
  }));
}

/** A PAX header in Go's style, in front of a member called `path`. */
export function goPax(path: string, records: Readonly<Record<string, string>>, type = 'x'): Buffer {
  const at = path.lastIndexOf('/');
  const name = `${path.slice(0, at + 1)}PaxHeaders.0/${path.slice(at + 1)}`;
  return member({ name, type, mode: 0, data: paxData(records) });
}

/** The two zero blocks that end a tar. */
export const endOfTar = Buffer.alloc(1024);

/** What a scanner told of a tar. */
export interface Scanned {
  readonly headers: TarHeader[];
  readonly contents: Buffer[];
  readonly paddings: (Buffer | null)[];
  readonly trailerZeroBytes: number;
  readonly trailer: Buffer | null;
}

/** Scans `tar` in pieces of the given sizes, over and over; the whole at once without. */
export function scan(tar: Buffer, pieceBytes: readonly number[] = [], limits: ConstructorParameters<typeof TarScanner>[1] = {}): Scanned {
  const headers: TarHeader[] = [];
  const contents: Buffer[][] = [];
  const paddings: (Buffer | null)[] = [];
  let trailerZeroBytes = -1;
  let trailer: Buffer | null = null;
  const scanner = new TarScanner({
    entry: (header, index) => {
      if (index !== headers.length) throw new Error(`entry ${String(index)} came as number ${String(headers.length)}`);
      headers.push(header);
      contents.push([]);
    },
    content: (chunk) => { contents.at(-1)?.push(Buffer.from(chunk)); },
    endContent: (padding) => { paddings.push(padding); },
    trailer: (zeroBytes, bytes) => {
      trailerZeroBytes = zeroBytes;
      trailer = bytes;
    },
  }, limits);
  let at = 0;
  for (let turn = 0; at < tar.length; turn++) {
    const piece = pieceBytes.length === 0 ? tar.length : (pieceBytes[turn % pieceBytes.length] ?? 1);
    // A copy that is overwritten at once: who keeps a view of the chunk is found out.
    const chunk = Buffer.from(tar.subarray(at, at + piece));
    scanner.write(chunk);
    chunk.fill(0xa5);
    at += piece;
  }
  scanner.end();
  return { headers, contents: contents.map((parts) => Buffer.concat(parts)), paddings, trailerZeroBytes, trailer };
}

/** The tar that a scanner told of. */
export function unscan(scanned: Scanned): Buffer {
  const pieces: Buffer[] = [];
  scanned.headers.forEach((header, index) => {
    const content = scanned.contents[index] ?? Buffer.alloc(0);
    pieces.push(joinHeader(header), content, scanned.paddings[index] ?? Buffer.alloc((512 - (content.length % 512)) % 512));
  });
  pieces.push(scanned.trailer ?? Buffer.alloc(scanned.trailerZeroBytes));
  return Buffer.concat(pieces);
}
