import type { OpTriple, PatchCase } from './patch-codec.js';

/** Where a tiny module has numbers that name something: functions, types, a global, or records of its memory. */
export type WasmReference = 'call' | 'indirect call' | 'global' | 'constant' | 'offset' | 'element' | 'signature' | 'word';

/** What a tiny WebAssembly module is like. */
export interface TinyWasm {
  /** Names of its functions, in their order; each has 32 bytes of memory too, in that order. */
  readonly functions: readonly number[];
  readonly references: readonly WasmReference[];
  /** New types and globals, so many after each sixteen. */
  readonly more?: number;
  /** Whether its header is that of a module. */
  readonly isKnown?: boolean;
}

/** A stretch of a module; of two versions those of the same name are copied. */
interface Piece {
  readonly name: string;
  readonly bytes: Buffer;
}

/** A number as compilers write those that a linker fills in: of so many bytes, whatever it is. */
function leb(value: number, bytes: number): Buffer {
  return Buffer.from(Array.from({ length: bytes }, (_, at) => ((value >>> (7 * at)) & 127) | (at + 1 < bytes ? 128 : 0)));
}

const piece = (name: string, ...parts: readonly (Buffer | readonly number[])[]): Piece => ({ name, bytes: Buffer.concat(parts.map((part) => Buffer.from(part))) });

/** A section of so many entries: its size and their count have five bytes each. */
function section(name: string, number: number, count: number, head: Buffer, entries: readonly Piece[]): Piece[] {
  const bytes = entries.reduce((sum, entry) => sum + entry.bytes.length, 0);
  return [piece(name, [number], leb(5 + head.length + bytes, 5), leb(count, 5), head), ...entries];
}

const memoryStart = 4096;

function pieces({ functions, references, more = 0, isKnown = true }: TinyWasm): Piece[] {
  const used = (reference: WasmReference, value: number): number => (references.includes(reference) ? value : 300);
  /** Another function, by its number; functions that were put in do not change which. */
  const indexes = new Map(functions.map((name, index) => [name, index]));
  const other = (name: number, factor: number): number => indexes.get((name * factor) % 200) ?? 0;
  const address = (name: number, factor: number): number => memoryStart + 32 * other(name, factor) + 8;
  const numbered = (name: number, factor: number): number => {
    const type = (name * factor) & 63;
    return type + more * (type >> 4);
  };
  const body = (name: number): Piece => {
    const code = Buffer.concat([
      [0],
      ...Array.from({ length: 10 }, (_, at) => [0x41, (name * (at + 3)) & 63, 0x1a]),
      [0x10], leb(used('call', other(name, 7)), 3),
      [0x41, 0, 0x11], leb(used('indirect call', numbered(name, 37)), 3), [0],
      [0x23], leb(used('global', numbered(name, 21)), 3), [0x1a],
      [0x41], leb(used('constant', address(name, 3)), 4), [0x1a],
      [0x41, 0, 0x28, 2], leb(used('offset', address(name, 11)), 4), [0x1a, 0x0b],
    ].map((part) => Buffer.from(part)));
    return piece(`body ${String(name)}`, leb(code.length, 1), code);
  };
  const record = (name: number): Piece => {
    const bytes = Buffer.alloc(32, name & 255);
    for (const at of [4, 20]) bytes.writeUInt32LE(used('word', address(name, at + 1)), at);
    return piece(`record ${String(name)}`, bytes);
  };
  const count = functions.length;
  return [
    piece('header', Buffer.from(isKnown ? '\0asm\x01\0\0\0' : '\0asn\x01\0\0\0', 'latin1')),
    ...section('signatures', 3, count, Buffer.alloc(0), functions.map((name) => piece(`signature ${String(name)}`, leb(used('signature', numbered(name, 45)), 2)))),
    ...section('elements', 9, 1, Buffer.concat([Buffer.from([0, 0x41, 1, 0x0b]), leb(count, 5)]), functions.map((name) => piece(`element ${String(name)}`, leb(used('element', other(name, 13)), 2)))),
    ...section('code', 10, count, Buffer.alloc(0), functions.map(body)),
    ...section('data', 11, 1, Buffer.concat([Buffer.from([0, 0x41]), leb(memoryStart, 3), Buffer.from([0x0b]), leb(32 * count, 5)]), functions.map(record)),
  ];
}

/** Two versions of a module, each piece copied from that of the same name. */
export function movedWasm(old: TinyWasm, target: TinyWasm): PatchCase {
  const places = new Map<string, number>();
  let position = 0;
  for (const { name, bytes } of pieces(old)) {
    places.set(name, position);
    position += bytes.length;
  }
  const ops: OpTriple[] = [];
  position = 0;
  for (const { name, bytes } of pieces(target)) {
    const from = places.get(name);
    const last = ops.at(-1);
    if (from !== undefined && last !== undefined && last[0] + last[2] === position && last[1] + last[2] === from) ops.splice(-1, 1, [last[0], last[1], last[2] + bytes.length]);
    else if (from !== undefined) ops.push([position, from, bytes.length]);
    position += bytes.length;
  }
  return { sources: [tinyWasm(old)], target: tinyWasm(target), ops };
}

/** The file of a module. */
export const tinyWasm = (module: TinyWasm): Buffer => Buffer.concat(pieces(module).map(({ bytes }) => bytes));
