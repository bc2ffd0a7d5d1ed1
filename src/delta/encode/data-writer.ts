import { createHash } from 'node:crypto';
import { open, type FileHandle } from 'node:fs/promises';
import { ByteWriter } from '../../core/bytes.js';
import type { DeltaFrame } from '../index-blob.js';

/** Writes a data blob to a file and cuts it into frames on the way. The caller removes the file after an error. */
export class DataWriter {
  readonly #whole = createHash('sha256');
  readonly #frames: DeltaFrame[] = [];
  #frame = createHash('sha256');
  #frameFilled = 0;
  #sizeBytes = 0;

  private constructor(private readonly file: FileHandle, private readonly frameBytes: number) {}

  /** Creates or truncates `path`. */
  static async open(path: string, frameBytes: number): Promise<DataWriter> {
    return new DataWriter(await open(path, 'w'), frameBytes);
  }

  /** Bytes written so far. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Appends numbers (unsigned LEB128), then bytes. */
  async write(numbers: readonly number[], bytes: Uint8Array): Promise<void> {
    const head = new ByteWriter();
    for (const number of numbers) head.varint(number);
    await this.#append(head.finish());
    await this.#append(bytes);
  }

  async #append(bytes: Uint8Array): Promise<void> {
    this.#whole.update(bytes);
    for (let at = 0; at < bytes.length; ) {
      const piece = bytes.subarray(at, at + this.frameBytes - this.#frameFilled);
      this.#frame.update(piece);
      this.#frameFilled += piece.length;
      at += piece.length;
      if (this.#frameFilled === this.frameBytes) this.#endFrame();
    }
    for (let done = 0; done < bytes.length; ) done += (await this.file.write(bytes, done)).bytesWritten;
    this.#sizeBytes += bytes.length;
  }

  #endFrame(): void {
    this.#frames.push({ sizeBytes: this.#frameFilled, digest: this.#frame.digest() });
    this.#frame = createHash('sha256');
    this.#frameFilled = 0;
  }

  /** Closes the file, which is not synced; gives the frames and the digest of the whole. */
  async finish(): Promise<{ frames: readonly DeltaFrame[]; digest: string }> {
    if (this.#frameFilled > 0) this.#endFrame();
    await this.file.close();
    return { frames: this.#frames, digest: `sha256:${this.#whole.digest('hex')}` };
  }

  /** Closes the file after an error. */
  async abandon(): Promise<void> {
    await this.file.close();
  }
}
