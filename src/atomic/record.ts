import { createHash } from 'node:crypto';
import type { DurableKind } from './barriers.js';
import type { DurableFs } from './durable-fs.js';
import { writeFileDurably } from './durable.js';
import { isSystemError } from './storage-error.js';

const magic = Buffer.from('WHREC\x01\r\n', 'latin1');
const headerBytes = 24;
const digestBytes = 32;
const largestRecordBytes = 64 * 1024 * 1024;

/** A record's payload and its generation. */
export interface Record {
  readonly generation: number;
  readonly payload: Buffer;
}

/**
 * The bytes of a record file: magic "WHREC" 01 0D 0A, u64 generation and u64 payload size (little-endian), the payload,
 * the sha256 of everything before.
 */
export function sealRecord(payload: Buffer, generation = 0): Buffer {
  const header = Buffer.alloc(headerBytes);
  magic.copy(header);
  header.writeBigUInt64LE(BigInt(generation), 8);
  header.writeBigUInt64LE(BigInt(payload.length), 16);
  const digest = createHash('sha256').update(header).update(payload).digest();
  return Buffer.concat([header, payload, digest]);
}

/** The record in `bytes`, or undefined when they are not one, whole and unchanged. */
export function openRecord(bytes: Buffer): Record | undefined {
  if (bytes.length < headerBytes + digestBytes || !bytes.subarray(0, magic.length).equals(magic)) return undefined;
  const end = bytes.length - digestBytes;
  if (bytes.readBigUInt64LE(16) !== BigInt(end - headerBytes)) return undefined;
  if (!createHash('sha256').update(bytes.subarray(0, end)).digest().equals(bytes.subarray(end))) return undefined;
  return { generation: Number(bytes.readBigUInt64LE(8)), payload: bytes.subarray(headerBytes, end) };
}

/** Writes a record that is never changed afterwards; durable when it returns. */
export async function writeRecord(fs: DurableFs, path: string, payload: Buffer, kind: DurableKind): Promise<void> {
  await writeFileDurably(fs, path, sealRecord(payload), kind);
}

/** Reads a record: 'absent' when there is no file, 'damaged' when it is not whole. */
export async function readRecord(fs: DurableFs, path: string): Promise<Record | 'absent' | 'damaged'> {
  const bytes = await readRecordBytes(fs, path);
  if (bytes === undefined) return 'absent';
  return (bytes === 'damaged' ? undefined : openRecord(bytes)) ?? 'damaged';
}

/**
 * A bad sector within a record is damage to that record, not a reason to fail. A read that fails is made once more first: cards
 * have errors that pass, and what is believed to be damaged is written over.
 */
async function readRecordBytes(fs: DurableFs, path: string): Promise<Buffer | 'damaged' | undefined> {
  try {
    return await fs.readFile(path, largestRecordBytes).catch((error: unknown) => {
      if (isSystemError(error, 'EIO')) return fs.readFile(path, largestRecordBytes);
      throw error;
    });
  } catch (error) {
    if (isSystemError(error, 'EIO', 'EUCLEAN', 'EFBIG', 'EISDIR', 'ELOOP', 'ENXIO')) return 'damaged';
    throw error;
  }
}

/** What a pair of slots holds. `fellBack`: one slot has a file that is not whole, so this may be the previous generation. */
export interface SlotState {
  readonly record: Record | undefined;
  readonly fellBack: boolean;
}

/**
 * A record that changes, in two files `<path>.a` and `<path>.b` that are written in turn. Readers take the whole one
 * with the higher generation; so a torn, empty or stale file costs at most the newest generation.
 */
export class SlottedRecord {
  constructor(private readonly fs: DurableFs, private readonly path: string) {}

  /** The newest generation that is whole, and whether a newer one may have been lost. */
  async read(): Promise<SlotState> {
    const slots = await this.#slots();
    return { record: newest(slots), fellBack: slots.includes('damaged') };
  }

  /** Writes the next generation over the slot that does not hold the current one; durable when it returns. */
  async write(payload: Buffer): Promise<void> {
    const [a, b] = await this.#slots();
    const current = newest([a, b]);
    const slot = current !== undefined && current === a ? 'b' : 'a';
    await writeFileDurably(this.fs, `${this.path}.${slot}`, sealRecord(payload, (current?.generation ?? 0) + 1), 'reference');
  }

  /** Removes the older slot, then the newer, so that a cut between them leaves the current record. Durable when it returns. */
  async remove(): Promise<void> {
    const [a, b] = await this.#slots();
    const order = newest([a, b]) === a ? ['b', 'a'] : ['a', 'b'];
    const directory = this.path.slice(0, Math.max(this.path.lastIndexOf('/'), 0));
    for (const slot of order) {
      try {
        await this.fs.unlink(`${this.path}.${slot}`);
      } catch (error) {
        if (!isSystemError(error, 'ENOENT')) throw error;
      }
      await this.fs.fsyncDir(directory, 'reference.removal');
    }
  }

  async #slots(): Promise<[Record | 'absent' | 'damaged', Record | 'absent' | 'damaged']> {
    return [await readRecord(this.fs, `${this.path}.a`), await readRecord(this.fs, `${this.path}.b`)];
  }
}

function newest(slots: readonly (Record | 'absent' | 'damaged')[]): Record | undefined {
  let best: Record | undefined;
  for (const slot of slots) {
    if (slot !== 'absent' && slot !== 'damaged' && (best === undefined || slot.generation > best.generation)) best = slot;
  }
  return best;
}
