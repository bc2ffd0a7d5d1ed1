import { crc32 } from './crc32.js';
import { noise } from './delta-images.js';
import { deflaterFor } from '../../src/delta/expansion.js';

/** Text that deflate makes smaller, another for each seed. */
export function words(seed: number, count: number): Buffer {
  return Buffer.from(noise(seed, count).toString('hex').replaceAll(/[a-f]/g, ' word '));
}

/** A raw deflate stream as stock zlib makes it. */
export function deflate(content: Buffer, level: number, memLevel = 8): Buffer {
  return Buffer.concat(deflaterFor({ kind: 'deflate', level, memLevel }).push(content, true));
}

/** A zip as archivers write it; level 0 stores. */
export function zip(members: readonly { name: string; content: Buffer; level: number }[]): Buffer {
  const parts: Buffer[] = [];
  const central: Buffer[] = [];
  let at = 0;
  for (const { name, content, level } of members) {
    const bytes = level === 0 ? content : deflate(content, level);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(level === 0 ? 0 : 8, 4);
    common.writeUInt32LE(crc32(content), 10);
    common.writeUInt32LE(bytes.length, 14);
    common.writeUInt32LE(content.length, 18);
    common.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, Buffer.from(name)]);
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(at, 10);
    central.push(Buffer.from('PK\x01\x02', 'latin1'), Buffer.from([20, 0]), common, tail, Buffer.from(name));
    parts.push(local, bytes);
    at += local.length + bytes.length;
  }
  const directory = Buffer.concat(central);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(members.length, 8);
  end.writeUInt16LE(members.length, 10);
  end.writeUInt32LE(directory.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...parts, directory, end]);
}

/** A gzip file of one member, with a name; `packed` is its deflate stream. */
export function gzip(content: Buffer, level: number, packed = deflate(content, level)): Buffer {
  const tail = Buffer.alloc(8);
  tail.writeUInt32LE(crc32(content), 0);
  tail.writeUInt32LE(content.length, 4);
  return Buffer.concat([Buffer.from([0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3]), Buffer.from('name\0'), packed, tail]);
}

/** A zlib stream (RFC 1950). */
export function zlib(content: Buffer, level: number): Buffer {
  let [a, b] = [1, 0];
  for (const byte of content) [a, b] = [(a + byte) % 65_521, (a + b + byte) % 65_521];
  const tail = Buffer.alloc(4);
  tail.writeUInt32BE(b * 65_536 + a);
  return Buffer.concat([Buffer.from([0x78, { 1: 0x01, 6: 0x9c, 9: 0xda }[level] ?? 0x5e]), deflate(content, level), tail]);
}

/** A PNG chunk (PNG specification, section 5.3). */
export function pngChunk(type: string, data: Buffer): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(data.length);
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const check = Buffer.alloc(4);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([head, body, check]);
}

/** A PNG file of one zlib stream in chunks of `chunkBytes`, as its encoders write it. */
export function png(stream: Buffer, chunkBytes: number): Buffer {
  const data: Buffer[] = [];
  for (let at = 0; at < stream.length; at += chunkBytes) data.push(pngChunk('IDAT', stream.subarray(at, at + chunkBytes)));
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), pngChunk('IHDR', Buffer.alloc(13, 1)), ...data, pngChunk('IEND', Buffer.alloc(0))]);
}
