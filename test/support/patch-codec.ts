import { afterEach, beforeEach, expect } from '@jest/globals';
import { mkdtemp, open, rm, writeFile, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deviceAddon, serverAddon, type CodecProfile, type NativeContent } from '../../src/core/native.js';

/** One stretch of a target that resembles a stretch of its sources. */
export type OpTriple = readonly [newPos: number, oldPos: number, length: number];

/** What the codec is given for one file. */
export interface PatchCase {
  readonly sources: readonly Uint8Array[];
  readonly target: Uint8Array;
  readonly ops: readonly OpTriple[];
}

/** A program, and where in its file its functions begin, the first after 4 KiB, and, last, what follows them. */
export interface TinyProgram {
  readonly file: Buffer;
  readonly starts: readonly number[];
}

/** A program whose functions grew from `sizes` to `grownSizes` bytes before their last 16: all else is copied from where it was. */
export function movedFunctions({ old, target, sizes, grownSizes }: { old: TinyProgram; target: TinyProgram; sizes: readonly number[]; grownSizes: readonly number[] }): PatchCase {
  const ops: OpTriple[] = [[0, 0, 0x1000]];
  for (const [index, size] of sizes.entries()) {
    const from = old.starts[index] ?? 0;
    const to = target.starts[index] ?? 0;
    const grown = grownSizes[index] ?? size;
    ops.push([to, from, size - 16], [to + grown - 16, from + size - 16, 16]);
  }
  const end = old.starts.at(-1) ?? 0;
  ops.push([target.starts.at(-1) ?? 0, end, old.file.length - end]);
  return { sources: [old.file], target: target.file, ops };
}

/** Puts byte strings into one real file and hands them out as native content. Close it when done. */
export class ContentFile {
  readonly #parts: Uint8Array[] = [];
  #offset = 0;

  private constructor(private readonly directory: string, private readonly handle: FileHandle) {}

  static async create(): Promise<ContentFile> {
    const directory = await mkdtemp(join(tmpdir(), 'whittle-codec-'));
    await writeFile(join(directory, 'content'), '');
    return new ContentFile(directory, await open(join(directory, 'content'), 'r+'));
  }

  get fd(): number {
    return this.handle.fd;
  }

  /** Content of `bytes` in pieces of at most `pieceBytes`, stored apart from each other. Call `write` before use. */
  content(bytes: Uint8Array, pieceBytes = Infinity): NativeContent {
    const extents: number[] = [];
    for (let start = 0; start < bytes.length; start += pieceBytes) {
      const piece = bytes.subarray(start, Math.min(bytes.length, start + pieceBytes));
      this.#parts.push(piece, Buffer.from([0xa5]));
      extents.push(this.#offset, piece.length);
      this.#offset += piece.length + 1;
      if (pieceBytes === Infinity) break;
    }
    return { fd: this.handle.fd, extents: Float64Array.from(extents), sizeBytes: bytes.length };
  }

  async write(): Promise<void> {
    await this.handle.truncate(0);
    await this.handle.write(Buffer.concat(this.#parts), 0, undefined, 0);
  }

  async truncate(sizeBytes: number): Promise<void> {
    await this.handle.truncate(sizeBytes);
  }

  async close(): Promise<void> {
    await this.handle.close();
    await rm(this.directory, { recursive: true });
  }
}

/** Gives each test of the suite that calls this a file of its own, which is closed after it. */
export function fileOfEachTest(): () => ContentFile {
  let file: ContentFile;
  beforeEach(async () => {
    file = await ContentFile.create();
  });
  afterEach(async () => {
    await file.close();
  });
  return () => file;
}

/** Encodes segments of cases in one solid stream. */
export async function encodeSegments(
  file: ContentFile,
  segments: readonly (readonly PatchCase[])[],
  options: { readonly profile: CodecProfile; readonly threads?: number; readonly pieceBytes?: number },
): Promise<Buffer[]> {
  const { PatchEncoder } = serverAddon();
  const encoder = new PatchEncoder({ profile: options.profile, threads: options.threads ?? 1 });
  const prepared = segments.map((cases) =>
    cases.map(({ sources, target, ops }) => ({
      sources: sources.map((source) => file.content(source, options.pieceBytes)),
      target: file.content(target, options.pieceBytes),
      ops: Float64Array.from(ops.flat()),
    })),
  );
  await file.write();
  const streams: Buffer[] = [];
  for (const cases of prepared) {
    for (const one of cases) encoder.add(one);
    streams.push((await encoder.flush()).streams);
  }
  return streams;
}

/** Decodes what encodeSegments made, `chunkBytes` at a time; returns the targets. */
export async function decodeSegments(
  file: ContentFile,
  streams: readonly Buffer[],
  segments: readonly (readonly PatchCase[])[],
  options: { readonly profile: CodecProfile; readonly chunkBytes?: number; readonly pieceBytes?: number },
): Promise<Buffer[]> {
  const { PatchDecoder } = deviceAddon();
  const decoder = new PatchDecoder({ profile: options.profile });
  try {
    const prepared = segments.map((cases) => cases.map(({ sources }) => sources.map((source) => file.content(source, options.pieceBytes))));
    await file.write();
    const targets: Buffer[] = [];
    for (const [index, cases] of segments.entries()) {
      decoder.segment(streams[index] ?? Buffer.alloc(0));
      for (const [number, { target }] of cases.entries()) {
        decoder.begin({ sources: prepared[index]?.[number] ?? [], sizeBytes: target.length });
        targets.push(await readAll(decoder, target.length, options.chunkBytes ?? 65_536));
      }
    }
    decoder.end();
    return targets;
  } finally {
    decoder.close();
  }
}

async function readAll(decoder: { next(out: Buffer): Promise<number> }, sizeBytes: number, chunkBytes: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let total = 0;
  for (;;) {
    const out = Buffer.alloc(chunkBytes + 16, 0xee);
    const count = await decoder.next(out.subarray(0, chunkBytes));
    if (!out.subarray(chunkBytes).every((byte) => byte === 0xee)) throw new Error('decoder wrote past its buffer');
    total += count;
    if (total > sizeBytes) throw new Error('decoder wrote more than the declared size');
    if (count === 0) return Buffer.concat(parts);
    parts.push(out.subarray(0, count));
  }
}

/** Encodes one file, sees to it that it comes back the same, and gives what it took. */
export async function roundTrip(file: ContentFile, one: PatchCase, profile: CodecProfile = 'small'): Promise<Buffer> {
  const [streams] = await encodeSegments(file, [[one]], { profile });
  if (streams === undefined) throw new Error('no segment was made');
  const [decoded] = await decodeSegments(file, [streams], [[one]], { profile });
  expect(decoded?.equals(Buffer.from(one.target))).toBe(true);
  return streams;
}
