import { createHash, type Hash } from 'node:crypto';
import type { DurableFile, DurableFs } from '../../atomic/durable-fs.js';
import { storageError } from '../../atomic/storage-error.js';
import { isWhittleError, systemErrorCode, WhittleError } from '../../core/errors.js';

/** One piece of a download. `digest` is its sha256 (32 bytes), or null when nobody declared one. */
export interface SpoolFrame {
  readonly sizeBytes: number;
  readonly digest: Buffer | null;
}

const digestBytes = 32;

/**
 * How much of a download without declared digests may be whole but not yet durable: so many bytes, or what came in so
 * long. On a slow link that is one frame; on a fast one each sync would wait for everything that the apply has written
 * meanwhile, to save a fraction of a second after a power cut.
 */
const maxUnsyncedBytes = 4 * 1024 * 1024;
const maxUnsyncedMs = 500;

/** The part of the filesystem port that a spool uses. */
export type SpoolFs = Pick<DurableFs, 'open' | 'unlink' | 'fsyncDir'>;

/**
 * A download on disk, frame by frame. A frame counts once its bytes have their digest and are synced; bytes of
 * the frame in progress are kept too, so that an interrupted transfer goes on where it stopped.
 *
 * A frame with a declared digest is stored as it is, as it comes. A frame without one is followed on disk by the sha256 of
 * what was received, so that after a power cut a torn or lost frame is told from a whole one; its bytes are
 * proven only by the digest of the whole blob, which is the reader's to check. Until then nothing tells what of it is right,
 * so it is kept in memory and written when it is whole.
 *
 * Frames with a digest are durable one by one: `append` syncs each before it takes bytes of the next, so that a power
 * cut costs at most one. Frames without are synced at least every 4 MiB and every half second.
 */
export class Spool {
  /** Bytes of the download that are in the file or held for it, the frame in progress included. */
  #position = 0;
  /** A frame in progress without a declared digest, and room for the digest that follows it. */
  #held: Buffer = Buffer.alloc(0);
  #verified = 0;
  #verifiedBytes = 0;
  #hash: Hash = createHash('sha256');
  #unsyncedBytes = 0;
  #syncedMs = performance.now();
  #condemned = false;

  private constructor(
    private readonly fs: SpoolFs,
    /** Relative to the filesystem port's root. */
    readonly path: string,
    readonly frames: readonly SpoolFrame[],
    readonly sizeBytes: number,
    private readonly file: DurableFile,
  ) {}

  /**
   * Opens or makes the spool file `name` in the existing directory `directory`, both relative to `fs`, and
   * verifies from the disk what an earlier run left. The caller closes it. Throws STORAGE_*.
   */
  static async open(fs: SpoolFs, directory: string, name: string, frames: readonly SpoolFrame[]): Promise<Spool> {
    const path = directory === '' ? name : `${directory}/${name}`;
    return guardDisk(path, async () => {
      const file = await openOrCreate(fs, directory, path);
      const spool = new Spool(fs, path, frames, frames.reduce((sum, frame) => sum + frame.sizeBytes, 0), file);
      try {
        await spool.#recover();
      } catch (error) {
        await file.close();
        throw error;
      }
      return spool;
    });
  }

  /** Bytes of the download that are kept, the frame in progress included: where a transfer goes on. */
  get position(): number {
    return this.#position;
  }

  /** How many frames are whole and verified; always the first ones. */
  get verifiedFrames(): number {
    return this.#verified;
  }

  /** Whether every frame is whole and verified. */
  get complete(): boolean {
    return this.#verified === this.frames.length;
  }

  async #recover(): Promise<void> {
    const size = (await this.file.stat()).sizeBytes;
    let fileOffset = 0;
    while (this.#verified < this.frames.length) {
      const frame = this.#frame(this.#verified);
      const stored = storedBytes(frame);
      if (fileOffset + stored > size) break;
      const bytes = await this.#readAt(fileOffset, stored);
      if (!matches(frame, bytes)) break;
      fileOffset += stored;
      this.#verified++;
      this.#verifiedBytes += frame.sizeBytes;
    }
    this.#position = this.#verifiedBytes;
    await this.#recoverPartial(fileOffset, size);
  }

  /** Takes up the bytes of the frame in progress, when a declared digest will prove them; cuts the rest off. */
  async #recoverPartial(fileOffset: number, size: number): Promise<void> {
    const frame = this.frames[this.#verified];
    const rest = size - fileOffset;
    if (rest === 0) return;
    if (frame === undefined || frame.digest === null || rest >= frame.sizeBytes) {
      await this.file.truncate(fileOffset);
      return;
    }
    this.#hash.update(await this.#readAt(fileOffset, rest));
    this.#position += rest;
  }

  /**
   * Adds the next bytes. When the promise settles, the frames that they completed are durable as the class says. Throws
   * FETCH_CORRUPT when a frame does not have its declared digest: the frame's bytes are dropped and `position`
   * is its start again. Throws STORAGE_* when the disk refuses; the spool is then unusable. After an error of the disk (not for
   * want of space) the file is gone as well, and whoever opens the spool again gets a new one.
   */
  async append(chunk: Buffer): Promise<void> {
    let offset = 0;
    while (offset < chunk.length) {
      const frame = this.frames[this.#verified];
      if (frame === undefined) throw new WhittleError('INTERNAL', `${this.path}: more bytes than the download has`);
      const inFrame = this.#position - this.#verifiedBytes;
      const piece = chunk.subarray(offset, offset + Math.min(frame.sizeBytes - inFrame, chunk.length - offset));
      if (frame.digest === null) {
        if (this.#held.length < storedBytes(frame)) this.#held = Buffer.allocUnsafeSlow(storedBytes(frame));
        piece.copy(this.#held, inFrame);
      } else {
        this.#hash.update(piece);
        await this.#onDisk(() => this.file.write(piece, this.#fileOffset(this.#verified) + inFrame));
      }
      this.#position += piece.length;
      offset += piece.length;
      if (inFrame + piece.length === frame.sizeBytes) await this.#finishFrame(frame);
    }
  }

  async #finishFrame(frame: SpoolFrame): Promise<void> {
    if (frame.digest === null) this.#hash.update(this.#held.subarray(0, frame.sizeBytes));
    const digest = this.#hash.digest();
    this.#hash = createHash('sha256');
    if (frame.digest !== null && !digest.equals(frame.digest)) {
      this.#position = this.#verifiedBytes;
      throw new WhittleError('FETCH_CORRUPT', `frame ${String(this.#verified)} of ${String(this.frames.length)} does not have its digest`, { data: { frame: this.#verified } });
    }
    await this.#onDisk(async () => {
      if (frame.digest === null) {
        digest.copy(this.#held, frame.sizeBytes);
        await this.file.write(this.#held.subarray(0, storedBytes(frame)), this.#fileOffset(this.#verified));
      }
      this.#unsyncedBytes += frame.sizeBytes;
      if (frame.digest !== null || this.#syncIsDue()) await this.#sync();
    });
    this.#verified++;
    this.#verifiedBytes += frame.sizeBytes;
  }

  /**
   * Writes or syncs. The kernel tells of a page that it could not write once, and counts it as clean from then on: a later sync
   * of this file would say that all is well, so nothing is ever synced in it again.
   */
  async #onDisk(work: () => Promise<void>): Promise<void> {
    try {
      await guardDisk(this.path, work);
    } catch (error) {
      if (isWhittleError(error) && error.code === 'STORAGE_IO') await this.#condemn();
      throw error;
    }
  }

  async #condemn(): Promise<void> {
    this.#condemned = true;
    try {
      await this.fs.unlink(this.path);
    } catch {
      // The first error is the one to report.
    }
  }

  #syncIsDue(): boolean {
    return this.#unsyncedBytes >= maxUnsyncedBytes || performance.now() - this.#syncedMs >= maxUnsyncedMs;
  }

  async #sync(): Promise<void> {
    await this.file.fsync('spool.frame');
    this.#unsyncedBytes = 0;
    this.#syncedMs = performance.now();
  }

  /** Forgets the bytes of the frame in progress, because they may be of another content. */
  dropPartial(): void {
    this.#position = this.#verifiedBytes;
    this.#hash = createHash('sha256');
  }

  /** Forgets everything: the whole was not what it should have been. The file is empty when the promise settles. */
  async reset(): Promise<void> {
    await guardDisk(this.path, () => this.file.truncate(0));
    this.#verified = 0;
    this.#verifiedBytes = 0;
    this.dropPartial();
  }

  /** The bytes of a verified frame, checked again as they come from the disk. Throws STORAGE_IO when they have changed. */
  async readFrame(index: number): Promise<Buffer> {
    const frame = this.#frame(index);
    const stored = await guardDisk(this.path, () => this.#readAt(this.#fileOffset(index), storedBytes(frame)));
    if (!matches(frame, stored)) throw new WhittleError('STORAGE_IO', `${this.path}: frame ${String(index)} changed on disk after it was verified`);
    return stored.subarray(0, frame.sizeBytes);
  }

  /** Closes the file and keeps it. */
  async close(): Promise<void> {
    await this.file.close();
  }

  /** Closes the file and removes it. */
  async discard(): Promise<void> {
    await this.file.close();
    if (!this.#condemned) await guardDisk(this.path, () => this.fs.unlink(this.path));
  }

  #frame(index: number): SpoolFrame {
    const frame = this.frames[index];
    if (frame === undefined) throw new WhittleError('INTERNAL', `${this.path}: no frame ${String(index)}`);
    return frame;
  }

  /** Frames of one download are all of one kind and, but for the last, of one size in the common case; the sum is exact for any. */
  #offsets: number[] = [0];

  #fileOffset(index: number): number {
    for (let next = this.#offsets.length; next <= index; next++) {
      this.#offsets.push((this.#offsets[next - 1] ?? 0) + storedBytes(this.#frame(next - 1)));
    }
    return this.#offsets[index] ?? 0;
  }

  async #readAt(offset: number, count: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(count);
    const got = await this.file.read(buffer, offset);
    if (got < count) throw new WhittleError('STORAGE_IO', `${this.path}: ends at byte ${String(offset + got)}`);
    return buffer;
  }
}

async function openOrCreate(fs: SpoolFs, directory: string, path: string): Promise<DurableFile> {
  try {
    return await fs.open(path, 'update');
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'ELOOP') await fs.unlink(path);
    else if (code !== 'ENOENT') throw error;
  }
  const file = await fs.open(path, 'create', 0o600);
  // Without its name on disk, everything in the file would be fetched again after a power cut.
  await fs.fsyncDir(directory, 'spool.name');
  return file;
}

function storedBytes(frame: SpoolFrame): number {
  return frame.digest === null ? frame.sizeBytes + digestBytes : frame.sizeBytes;
}

function matches(frame: SpoolFrame, stored: Buffer): boolean {
  const expected = frame.digest ?? stored.subarray(frame.sizeBytes);
  return createHash('sha256').update(stored.subarray(0, frame.sizeBytes)).digest().equals(expected);
}

/** Size of the file that a complete spool of these frames is. */
export function spoolFileBytes(frames: readonly SpoolFrame[]): number {
  return frames.reduce((sum, frame) => sum + storedBytes(frame), 0);
}

/** Frames for a blob that nobody declared frames for. */
export function plainFrames(sizeBytes: number, frameBytes: number): SpoolFrame[] {
  const frames: SpoolFrame[] = [];
  for (let offset = 0; offset < sizeBytes; offset += frameBytes) {
    frames.push({ sizeBytes: Math.min(frameBytes, sizeBytes - offset), digest: null });
  }
  return frames;
}

async function guardDisk<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const code = systemErrorCode(error);
    if (isWhittleError(error) || code === undefined) throw error;
    const known = storageError(error, `writing ${path}`, { path });
    throw isWhittleError(known) ? known : new WhittleError('STORAGE_IO', `${path}: ${code}`, { cause: error, data: { path, systemCode: code } });
  }
}
