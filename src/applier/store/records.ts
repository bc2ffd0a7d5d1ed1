import { readRecord, SlottedRecord, writeRecord, type DurableFs } from '../../atomic/index.js';
import { WhittleError } from '../../core/errors.js';
import { hexName, imagePath, layout, nameKey } from './layout.js';
import { parseTarget, type Target } from './target.js';
import type { StoreReference } from './types.js';

/** What an image record holds; digests and diffIDs are worked out from the bytes. */
export interface ImageRecord extends Target {
  readonly source: string;
  readonly committedAt: string;
  readonly sequence: number;
}

/** A readable part of a directory of records, and the files that were not readable. */
export interface Readable<T> {
  readonly values: T[];
  readonly damaged: string[];
}

function fields(payload: Buffer): Readonly<Record<string, unknown>> {
  const value: unknown = JSON.parse(payload.toString());
  if (typeof value !== 'object' || value === null) throw new WhittleError('STORE_DAMAGED', 'a record is not an object');
  return value as Readonly<Record<string, unknown>>;
}

function text(value: unknown): string {
  if (typeof value !== 'string') throw new WhittleError('STORE_DAMAGED', 'a record lacks a text');
  return value;
}

function count(value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw new WhittleError('STORE_DAMAGED', 'a record lacks a number');
  return value;
}

/** Writes an image's record; durable when it returns. */
export async function writeImage(fs: DurableFs, image: ImageRecord): Promise<void> {
  const payload = JSON.stringify({
    manifest: image.manifest.toString('base64'), manifestMediaType: image.manifestMediaType, config: image.config.toString('base64'),
    source: image.source, committedAt: image.committedAt, sequence: image.sequence,
  });
  await writeRecord(fs, imagePath(image.manifestDigest), Buffer.from(payload), 'image');
}

function parseImage(payload: Buffer): ImageRecord {
  const all = fields(payload);
  const target = parseTarget({
    manifest: Buffer.from(text(all['manifest']), 'base64'), manifestMediaType: text(all['manifestMediaType']), config: Buffer.from(text(all['config']), 'base64'),
  });
  return { ...target, source: text(all['source']), committedAt: text(all['committedAt']), sequence: count(all['sequence']) };
}

/** The image record of this manifest: undefined when there is none, 'damaged' when it is not whole. */
export async function readImage(fs: DurableFs, manifestDigest: string): Promise<ImageRecord | 'damaged' | undefined> {
  const record = await readRecord(fs, imagePath(manifestDigest));
  if (record === 'absent') return undefined;
  if (record === 'damaged') return 'damaged';
  try {
    const image = parseImage(record.payload);
    return image.manifestDigest === manifestDigest ? image : 'damaged';
  } catch {
    return 'damaged';
  }
}

/** Every image record. */
export async function readImages(fs: DurableFs): Promise<Readable<ImageRecord>> {
  const values: ImageRecord[] = [];
  const damaged: string[] = [];
  for (const entry of await fs.readdir(layout.images)) {
    const name = entry.name.toString('latin1');
    if (!hexName.test(name)) continue;
    const image = await readImage(fs, `sha256:${name}`);
    if (image === 'damaged') damaged.push(`${layout.images}/${name}`);
    else if (image !== undefined) values.push(image);
  }
  return { values, damaged };
}

/** The names of the store: each points to an image and remembers the one before. */
export class References {
  constructor(private readonly fs: DurableFs) {}

  #slots(name: string): SlottedRecord {
    return new SlottedRecord(this.fs, `${layout.references}/${nameKey(name)}`);
  }

  /** The reference of a name; undefined when there is none that can be read. */
  async read(name: string): Promise<StoreReference | undefined> {
    const { record } = await this.#slots(name).read();
    return record === undefined ? undefined : parseReference(record.payload);
  }

  /** The one step that makes an image what `name` means. Durable when it returns. */
  async write(reference: StoreReference): Promise<void> {
    await this.#slots(reference.name).write(Buffer.from(JSON.stringify(reference)));
  }

  /** Removes the reference of a name, durably. Idempotent. */
  async remove(name: string): Promise<void> {
    await this.#slots(name).remove();
  }

  /** Every readable reference by name; `damaged` lists files that are not whole, `lost` of these those without a whole twin. */
  async all(): Promise<Readable<StoreReference> & { readonly lost: number }> {
    const keys = new Set<string>();
    for (const entry of await this.fs.readdir(layout.references)) {
      const match = /^([0-9a-f]{64})\.[ab]$/.exec(entry.name.toString('latin1'));
      if (match?.[1] !== undefined) keys.add(match[1]);
    }
    const values: StoreReference[] = [];
    const damaged: string[] = [];
    let lost = 0;
    for (const key of keys) {
      const { record, fellBack } = await new SlottedRecord(this.fs, `${layout.references}/${key}`).read();
      const reference = record === undefined ? undefined : parseReference(record.payload);
      if (fellBack || reference === undefined) damaged.push(`${layout.references}/${key}`);
      if (reference === undefined) lost++;
      else values.push(reference);
    }
    values.sort((a, b) => (a.name < b.name ? -1 : 1));
    return { values, damaged, lost };
  }
}

/** Manifest digests of the images that names mean now, or meant before and can be rolled back to; each once. */
export function namedImages(references: readonly StoreReference[]): Set<string> {
  return new Set(references.flatMap(({ current, previous }) => (previous === null ? [current] : [current, previous])));
}

/** Those of `digests` of which `images` has no record. */
export function withoutRecord(digests: ReadonlySet<string>, images: readonly ImageRecord[]): string[] {
  const known = new Set(images.map((image) => image.manifestDigest));
  return [...digests].filter((digest) => !known.has(digest));
}

function parseReference(payload: Buffer): StoreReference | undefined {
  try {
    const all = fields(payload);
    const previous = all['previous'];
    return { name: text(all['name']), current: text(all['current']), previous: previous === null ? null : text(previous) };
  } catch {
    return undefined;
  }
}

