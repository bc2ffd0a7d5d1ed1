import { createHash } from 'node:crypto';
import type { DurableFile, DurableFs, FileStat, FsPath } from '../../atomic/index.js';
import { isSystemError, withStorageErrors } from '../../atomic/index.js';
import { WhittleError } from '../../core/errors.js';
import type { BasisBytes, BasisContent, BasisEntry, FileExtent, OpenContentOptions } from '../../delta/basis.js';
import type { LayerMeta } from '../../tar/index.js';
import type { HeldBasis, HeldImage } from '../engines/types.js';
import type { Layer } from './layer.js';
import { unreadable, type LayerContents } from './layer-contents.js';

const readBytes = 256 * 1024;
const smallBytes = 128 * 1024;
/** Room for the contents of one `readContents` and what the results say of each. */
const scratchBytes = 448 * 1024;

/**
 * Layers whose contents are files, as a delta's basis. Every content is hashed and compared with its record before it is
 * given, unless this object did so with the very same file before or the caller verifies what it makes of them.
 */
export class ContentsBasis<L extends LayerContents> implements HeldBasis {
  readonly layers: readonly LayerMeta[];
  /** By layer and entry: what files whose content was checked looked like then, to tell that they are still the same. */
  readonly #checked: readonly Map<number, FileStat>[];
  /** The same of files whose content was hashed, by this object or by whoever opened them. */
  readonly #hashed: readonly Map<number, FileStat>[];
  readonly #buffer = Buffer.allocUnsafeSlow(readBytes);
  /** Made when they are first needed. */
  readonly #scratch: Buffer[] = [];
  #turn = 0;
  #closed = false;

  /** `release` is called once, by `close`. */
  constructor(readonly image: HeldImage, readonly storeLayers: readonly L[], private readonly release: () => Promise<void>) {
    this.layers = storeLayers.map((layer) => layer.meta);
    this.#checked = storeLayers.map(() => new Map<number, FileStat>());
    this.#hashed = storeLayers.map(() => new Map<number, FileStat>());
  }

  async openContent(layer: number, entry: number, { callerVerifies = false }: OpenContentOptions = {}): Promise<BasisContent> {
    return withStorageErrors('reading the basis', async () => {
      const from = this.storeLayers[layer];
      if (from === undefined) throw new WhittleError('INTERNAL', `the basis has no layer ${String(layer)}`);
      const { path, extents } = from.place(entry);
      let file: DurableFile;
      try {
        file = await from.fs.open(path, 'read');
      } catch (error) {
        if (isSystemError(error, ...unreadable)) throw this.#damaged(from, entry, error);
        throw error;
      }
      let stat: FileStat;
      try {
        stat = await file.stat();
        if (stat.kind !== 'file') throw this.#damaged(from, entry);
        if (!callerVerifies) await this.#check(from, layer, entry, { file, extents, stat });
      } catch (error) {
        await file.close();
        throw error;
      }
      const sizeBytes = from.meta.entries.at(entry)?.header.sizeBytes ?? 0;
      return { fd: file.fd, extents, sizeBytes, hashed: () => { this.#hashed[layer]?.set(entry, stat); }, close: () => file.close() };
    });
  }

  async readContents(wanted: readonly BasisEntry[]): Promise<readonly (BasisBytes | undefined)[]> {
    const fs = this.storeLayers[wanted[0]?.layer ?? 0]?.fs;
    if (fs === undefined) return [];
    const places = wanted.map(({ layer, entry }) => this.#wholeFile(fs, layer, entry));
    const paths = places.filter((place) => place !== undefined);
    this.#turn = 1 - this.#turn;
    const files = await fs.lookAndReadFiles(paths, smallBytes, this.#scratch[this.#turn] ??= Buffer.allocUnsafeSlow(scratchBytes));
    let at = 0;
    return wanted.map(({ layer, entry }, index) => {
      const file = places[index] === undefined ? undefined : files[at++];
      return file === undefined ? undefined : { bytes: file.content, hashed: () => { this.#hashed[layer]?.set(entry, file.stat); } };
    });
  }

  /** The path of a small content that is a whole file below `fs`; undefined for others. */
  #wholeFile(fs: DurableFs, layer: number, entry: number): FsPath | undefined {
    const from = this.storeLayers[layer];
    if (from?.fs !== fs) return undefined;
    const sizeBytes = from.plainSizeBytes(entry);
    return sizeBytes > 0 && sizeBytes <= smallBytes ? from.contentPath(entry) : undefined;
  }

  /** What the file of `entry` looked like when its content was last hashed; undefined before that. */
  hashedStat(layer: number, entry: number): FileStat | undefined {
    return this.#hashed[layer]?.get(entry);
  }

  /** Hashes the content, unless this very file was hashed before and has not changed since. */
  async #check(layer: L, layerNumber: number, entry: number, { file, extents, stat }: OpenFile): Promise<void> {
    const before = this.#checked[layerNumber]?.get(entry);
    if (before?.inode === stat.inode && before.ctimeNs === stat.ctimeNs && before.sizeBytes === stat.sizeBytes) return;
    const hash = createHash('sha256');
    try {
      for (const chunk of readExtents(file, extents, this.#buffer)) hash.update(await chunk);
    } catch (error) {
      if (isSystemError(error, ...unreadable) || error instanceof ShortContent) throw this.#damaged(layer, entry, error);
      throw error;
    }
    const expected = layer.meta.entries.at(entry)?.digest;
    if (expected === null || expected === undefined || !hash.digest().equals(expected)) throw this.#damaged(layer, entry);
    this.#checked[layerNumber]?.set(entry, stat);
    this.#hashed[layerNumber]?.set(entry, stat);
  }

  #damaged(layer: L, entry: number, cause?: unknown): WhittleError {
    const path = layer.meta.entries.at(entry)?.header.path.toString() ?? '';
    return new WhittleError('BASIS_DAMAGED', `${JSON.stringify(path)} in layer ${layer.meta.diffId} is not what its record says`, {
      ...(cause === undefined ? {} : { cause }), data: { layers: layer.meta.diffId, path },
    });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.release();
  }
}

/** Layers of the device's own store. */
export class LayersBasis extends ContentsBasis<Layer> {}

/** A file that content is in, what it looked like when it was opened, and where in it the content is. */
interface OpenFile {
  readonly file: DurableFile;
  readonly stat: FileStat;
  readonly extents: readonly FileExtent[];
}

/** A file ends before its extents do. */
class ShortContent extends Error {}

/** Pieces of a file; small ones are read at once, since a hop to the thread pool costs more than a read from the page cache. */
function* readExtents(file: DurableFile, extents: readonly FileExtent[], buffer: Buffer): Generator<Buffer | Promise<Buffer>, void, undefined> {
  for (const { offset, lengthBytes } of extents) {
    for (let done = 0; done < lengthBytes;) {
      const wanted = buffer.subarray(0, Math.min(buffer.length, lengthBytes - done));
      yield lengthBytes <= readBytes ? readNow(file, wanted, offset + done) : readLater(file, wanted, offset + done);
      done += wanted.length;
    }
  }
}

function readNow(file: DurableFile, buffer: Buffer, offset: number): Buffer {
  if (file.readNow(buffer, offset) !== buffer.length) throw new ShortContent();
  return buffer;
}

async function readLater(file: DurableFile, buffer: Buffer, offset: number): Promise<Buffer> {
  if ((await file.read(buffer, offset)) !== buffer.length) throw new ShortContent();
  return buffer;
}

