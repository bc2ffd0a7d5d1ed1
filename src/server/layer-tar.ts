import { createHash } from 'node:crypto';
import { open, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { BasisContent } from '../delta/basis.js';
import { PackedEntries } from '../tar/entry-list.js';
import { TarScanner, type TarHandler } from '../tar/scanner.js';
import type { LayerMeta, TarHeader } from '../tar/types.js';
import { writeAll } from './durable.js';

/**
 * One layer's uncompressed tar in a file without a name, and what stands where in it. The file goes with its
 * descriptor, so nothing is left behind however the process ends.
 */
export class LayerTar {
  private constructor(
    private readonly file: FileHandle,
    readonly meta: LayerMeta,
    /** Where each entry's content starts in the file. */
    private readonly offsets: Float64Array,
  ) {}

  /**
   * Writes a tar, given piece by piece, to a fresh unnamed file in `directory` and scans it. `chunks` must prove itself
   * that the whole has the digest `diffId`, as `layerTar` does. Throws TAR_CORRUPT, LIMIT_EXCEEDED and what `chunks`
   * throws. The caller closes the result.
   */
  static async write(directory: string, name: string, diffId: string, chunks: AsyncIterable<Buffer>): Promise<LayerTar> {
    const path = join(directory, name);
    const file = await open(path, 'wx+', 0o600);
    try {
      await unlink(path);
      const builder = new MetaBuilder();
      let sizeBytes = 0;
      for await (const chunk of chunks) {
        builder.write(chunk, sizeBytes);
        await writeAll(file, chunk, sizeBytes);
        sizeBytes += chunk.length;
      }
      return new LayerTar(file, builder.finish(diffId, sizeBytes), builder.offsets());
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Content of an entry in place. Closing it does nothing: the file is open as long as the LayerTar is. */
  content(entry: number): BasisContent {
    const sizeBytes = this.meta.entries.at(entry)?.header.sizeBytes ?? 0;
    return { fd: this.file.fd, extents: [{ offset: this.offsets[entry] ?? 0, lengthBytes: sizeBytes }], sizeBytes, close: () => Promise.resolve() };
  }

  /** Gives the file and its space back. */
  async close(): Promise<void> {
    await this.file.close();
  }
}

/** Collects a LayerMeta from what the scanner hands over. */
class MetaBuilder implements TarHandler {
  readonly #scanner = new TarScanner(this);
  readonly #entries = new PackedEntries();
  readonly #offsets: number[] = [];
  #header: TarHeader | null = null;
  #hash: ReturnType<typeof createHash> | null = null;
  #chunk: Buffer = Buffer.alloc(0);
  #chunkOffset = 0;
  #trailer: { readonly zeroBytes: number; readonly bytes: Buffer | null } = { zeroBytes: 0, bytes: null };

  /** Scans a chunk that starts at `offset` of the tar. */
  write(chunk: Buffer, offset: number): void {
    this.#chunk = chunk;
    this.#chunkOffset = offset;
    this.#scanner.write(chunk);
  }

  finish(diffId: string, sizeBytes: number): LayerMeta {
    this.#scanner.end();
    return { diffId, sizeBytes, entries: this.#entries, trailerZeroBytes: this.#trailer.zeroBytes, trailer: this.#trailer.bytes };
  }

  offsets(): Float64Array {
    return Float64Array.from(this.#offsets);
  }

  entry(header: TarHeader): void {
    this.#header = header;
    this.#hash = null;
  }

  content(piece: Buffer): void {
    if (this.#hash === null) {
      this.#hash = createHash('sha256');
      // A piece is a view into the chunk, which tells where in the tar it stands.
      this.#offsets[this.#entries.length] = this.#chunkOffset + piece.byteOffset - this.#chunk.byteOffset;
    }
    this.#hash.update(piece);
  }

  endContent(padding: Buffer | null): void {
    if (this.#header === null) return;
    this.#offsets[this.#entries.length] ??= 0;
    this.#entries.push({ header: this.#header, digest: this.#hash?.digest() ?? null, padding });
  }

  trailer(zeroBytes: number, bytes: Buffer | null): void {
    this.#trailer = { zeroBytes, bytes };
  }
}
