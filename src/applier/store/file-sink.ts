import { removeTree, type Attributes, type DurableFile, type DurableFs, type FsPath } from '../../atomic/index.js';
import type { OpQueue } from './op-queue.js';
import type { SparseLayout } from './sparse.js';

/** Content up to this size goes with a batch; larger files are written as they come. */
export const smallFileBytes = 128 * 1024;

/** What a writer counts as it goes; `StageCounters` says what each figure is. */
export interface WriterCounters {
  writtenBytes: number;
  writtenFiles: number;
  linkedBytes: number;
  linkedFiles: number;
  keptBytes: number;
  keptFiles: number;
}

/** Counters of one who has done nothing yet. */
export function noCounters(): WriterCounters {
  return { writtenBytes: 0, writtenFiles: 0, linkedBytes: 0, linkedFiles: 0, keptBytes: 0, keptFiles: 0 };
}

/** A file that content goes to. */
export interface ContentTarget {
  readonly path: FsPath;
  readonly attributes: Attributes;
  /** Where the data goes within a sparse file; null for plain ones. */
  readonly layout: SparseLayout | null;
}

/** Where a file's content goes, and how much of it will come. */
export interface FileSinkOptions {
  readonly fs: DurableFs;
  readonly queue: OpQueue;
  readonly counters: WriterCounters;
  readonly target: ContentTarget;
  readonly sizeBytes: number;
  readonly fresh: boolean;
  /** Spare blocks, handed on from file to file. */
  readonly blocks: Buffer[];
}

const blockBytes = 512 * 1024;

/**
 * Takes the content of one file in order. Small plain files go with a batch. Large ones are written as they come, one
 * write in flight; over a leftover of the same file, what is there already is compared instead of written.
 */
export class FileSink {
  readonly #isSmall: boolean;
  #small: Buffer | null = null;
  #done = 0;
  #file: DurableFile | null = null;
  /** The leftover agrees with the content so far. */
  #comparing = false;
  #block: Buffer | null = null;
  #spare: Buffer | null = null;
  #blockFill = 0;
  #blockOffset = 0;
  #running: Promise<void> | null = null;
  #failure: { readonly error: unknown } | null = null;

  constructor(private readonly options: FileSinkOptions) {
    const { sizeBytes, target } = options;
    this.#isSmall = target.layout === null && sizeBytes <= smallFileBytes;
  }

  /** Takes the next bytes of the content; they may be reused when it settles. */
  async write(chunk: Buffer): Promise<void> {
    if (this.#isSmall) {
      this.#small ??= await this.options.queue.allocate(this.options.sizeBytes);
      this.#done += chunk.copy(this.#small, this.#done);
      return;
    }
    this.#file ??= await this.#open();
    for (let at = 0; at < chunk.length;) {
      this.#block ??= this.options.blocks.pop() ?? Buffer.allocUnsafeSlow(blockBytes);
      if (this.#blockFill === 0) this.#blockOffset = this.#done;
      const count = chunk.copy(this.#block, this.#blockFill, at);
      at += count;
      this.#blockFill += count;
      this.#done += count;
      if (this.#blockFill === blockBytes) await this.#writeBlock();
    }
  }

  /** Says that all of the content came. The file has its attributes once the queue was flushed. */
  async end(): Promise<void> {
    const { queue, target, fresh } = this.options;
    if (this.#small !== null) {
      await queue.add({ op: 'putFile', path: target.path, content: this.#small, attributes: target.attributes, reuse: !fresh });
      return;
    }
    this.#file ??= await this.#open();
    if (this.#blockFill > 0) await this.#writeBlock();
    await this.#settle();
    if (this.#comparing) await this.#file.truncate(this.#done);
    this.#count();
    await this.#file.close();
    this.#file = null;
    for (const block of [this.#block, this.#spare]) if (block !== null) this.options.blocks.push(block);
    await queue.add({ op: 'attributes', path: target.path, attributes: target.attributes });
  }

  /** Closes the file, whatever is in it. */
  async abandon(): Promise<void> {
    await this.#running;
    await this.#file?.close();
    this.#file = null;
  }

  #count(): void {
    const { counters, sizeBytes } = this.options;
    if (this.#comparing) {
      counters.keptFiles++;
      counters.keptBytes += sizeBytes;
    } else {
      counters.writtenFiles++;
      counters.writtenBytes += sizeBytes;
    }
  }

  async #open(): Promise<DurableFile> {
    const { fs, queue, target, fresh } = this.options;
    await queue.flush();
    if (!fresh) {
      const there = await fs.stat(target.path);
      // More than one link: another name, perhaps a committed layer's, would be written to.
      if (there?.kind === 'file' && there.linkCount === 1 && target.layout === null) {
        this.#comparing = true;
        return fs.open(target.path, 'update');
      }
      if (there !== undefined) await removeTree(fs, target.path);
    }
    const file = await fs.open(target.path, 'create');
    if (target.layout !== null) await file.truncate(target.layout.sizeBytes);
    return file;
  }

  async #settle(): Promise<void> {
    await this.#running;
    this.#running = null;
    if (this.#failure !== null) throw this.#failure.error;
  }

  async #writeBlock(): Promise<void> {
    const block = this.#block;
    if (block === null || this.#file === null) return;
    const data = block.subarray(0, this.#blockFill);
    const offset = this.#blockOffset;
    this.#blockFill = 0;
    await this.#settle();
    this.#running = this.#put(this.#file, data, offset).catch((error: unknown) => { this.#failure ??= { error }; });
    // The block in flight comes back as the spare one when the next is full.
    this.#block = this.#spare;
    this.#spare = block;
  }

  async #put(file: DurableFile, data: Buffer, offset: number): Promise<void> {
    if (this.#comparing) {
      const block = this.options.blocks.pop() ?? Buffer.allocUnsafeSlow(blockBytes);
      const there = block.subarray(0, data.length);
      const same = (await file.read(there, offset)) === data.length && there.equals(data);
      this.options.blocks.push(block);
      if (same) return;
      this.#comparing = false;
      await file.truncate(offset);
    }
    const { layout } = this.options.target;
    const extents = layout?.extents ?? null;
    if (extents === null) {
      await file.write(data, offset);
      return;
    }
    let start = 0;
    for (const extent of extents) {
      const from = Math.max(offset, start);
      const to = Math.min(offset + data.length, start + extent.lengthBytes);
      if (from < to) await file.write(data.subarray(from - offset, to - offset), extent.offset + from - start);
      start += extent.lengthBytes;
    }
  }
}
