import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { bufferBlob } from '../registry/blob-input.js';
import { replaceFile } from '../registry/new-file.js';
import { isDigest } from '../oci/digest.js';
import type { BlobPlace, ServedManifest } from './catalog.js';
import { parseRecord, recordFileName, serializeRecord, type BlobFacts, type DeltaRecord } from './delta-record.js';
import { digestFile, makeDirectory, moveFileDurably, removeIfThere } from './durable.js';

/** A delta as a finished computation leaves it: files in a job directory on the store's filesystem. */
export interface FinishedDelta {
  readonly record: DeltaRecord & { readonly result: 'delta' };
  /** Where each blob of the record (the manifest's too) lies now. */
  readonly files: ReadonlyMap<string, string>;
}

/** What opening the store found, for the log. */
export interface StoreReport {
  readonly deltas: number;
  readonly verifiedBytes: number;
  /** One line for each record that was dropped because it, or a blob of it, was damaged. */
  readonly dropped: readonly string[];
}

/**
 * The deltas that a server has made, on disk:
 *
 *     ROOT/deltas/records/<target>-<basis>.json   what was made of which pair; its rename is what makes a delta visible
 *     ROOT/deltas/blobs/<sha256>                  manifests, index and data blobs
 *     ROOT/tmp/                                   computations under way; emptied at every start
 *
 * One process owns a root at a time.
 */
export class DeltaStore {
  readonly #records = new Map<string, DeltaRecord>();
  readonly #byTarget = new Map<string, DeltaRecord[]>();
  readonly #manifests = new Map<string, ServedManifest>();
  readonly #blobs = new Map<string, BlobPlace>();

  private constructor(private readonly root: string) {}

  /** Opens a store, making it when it is missing: throws away what an earlier process left unfinished and every record that is not whole. */
  static async open(root: string): Promise<{ store: DeltaStore; report: StoreReport }> {
    const store = new DeltaStore(root);
    await rm(store.#temporaryDirectory, { recursive: true, force: true });
    for (const directory of [store.#temporaryDirectory, store.#recordDirectory, store.#blobDirectory]) await makeDirectory(directory);
    const report = await store.#load();
    await store.#sweep();
    return { store, report };
  }

  get #temporaryDirectory(): string { return join(this.root, 'tmp'); }
  get #recordDirectory(): string { return join(this.root, 'deltas', 'records'); }
  get #blobDirectory(): string { return join(this.root, 'deltas', 'blobs'); }

  /** Number of deltas, results that were not kept left out. */
  get size(): number {
    return this.#manifests.size;
  }

  /** A fresh directory for one computation. The caller removes it; after a crash the next start does. */
  async makeJobDirectory(): Promise<string> {
    return mkdtemp(join(this.#temporaryDirectory, 'job-'));
  }

  /** The record of a pair, whatever its result. */
  find(targetManifestDigest: string, basisConfigDigest: string): DeltaRecord | undefined {
    return this.#records.get(recordFileName(targetManifestDigest, basisConfigDigest));
  }

  /** Every delta to a target, in a stable order. */
  deltasTo(targetManifestDigest: string): readonly DeltaRecord[] {
    return this.#byTarget.get(targetManifestDigest) ?? [];
  }

  /** A delta's manifest by digest. */
  manifest(digest: string): ServedManifest | undefined {
    return this.#manifests.get(digest);
  }

  /** A blob of a delta. */
  blob(digest: string): BlobPlace | undefined {
    return this.#blobs.get(digest);
  }

  /** Takes a finished delta in. When it returns, the delta is durable and visible; blobs come first, the record last. */
  async add(finished: FinishedDelta): Promise<void> {
    for (const blob of blobsOf(finished.record)) {
      const from = finished.files.get(blob.digest);
      if (this.#blobs.has(blob.digest) || from === undefined) continue;
      await moveFileDurably(from, this.#blobPath(blob.digest));
    }
    await this.#write(finished.record);
    await this.#publish(finished.record);
  }

  /** Remembers that a pair has no delta worth sending. Durable when it returns. */
  async addRefusal(record: DeltaRecord & { readonly result: 'not-smaller' }): Promise<void> {
    await this.#write(record);
    await this.#publish(record);
  }

  async #write(record: DeltaRecord): Promise<void> {
    const name = recordFileName(record.targetManifest, record.basisConfig);
    await replaceFile(join(this.#recordDirectory, name), bufferBlob('application/json', serializeRecord(record)).open());
  }

  async #publish(record: DeltaRecord): Promise<void> {
    if (record.result === 'delta') {
      const bytes = await readFile(this.#blobPath(record.manifest.digest));
      this.#manifests.set(record.manifest.digest, { ...record.manifest, bytes });
      for (const blob of blobsOf(record)) this.#blobs.set(blob.digest, { path: this.#blobPath(blob.digest), sizeBytes: blob.sizeBytes });
      const known = this.#byTarget.get(record.targetManifest) ?? [];
      this.#byTarget.set(record.targetManifest, [...known.filter((other) => other.basisConfig !== record.basisConfig), record]);
    }
    this.#records.set(recordFileName(record.targetManifest, record.basisConfig), record);
  }

  async #load(): Promise<StoreReport> {
    const dropped: string[] = [];
    // A blob may belong to several records (the empty config does): each is read once.
    const checked = new Map<string, Promise<boolean>>();
    let verifiedBytes = 0;
    const whole = (blob: BlobFacts): Promise<boolean> => {
      const known = checked.get(blob.digest);
      if (known !== undefined) return known;
      verifiedBytes += blob.sizeBytes;
      const answer = digestFile(this.#blobPath(blob.digest)).then((found) => found?.digest === blob.digest && found.sizeBytes === blob.sizeBytes);
      checked.set(blob.digest, answer);
      return answer;
    };
    for (const name of (await readdir(this.#recordDirectory)).sort()) {
      const path = join(this.#recordDirectory, name);
      const problem = name.endsWith('.json') ? await this.#loadRecord(path, name, whole) : 'unfinished';
      if (problem === null) continue;
      await removeIfThere(path);
      if (problem !== 'unfinished') dropped.push(`${name}: ${problem}`);
    }
    return { deltas: this.#manifests.size, verifiedBytes, dropped };
  }

  /** Loads one record; returns what is wrong with it, or null. */
  async #loadRecord(path: string, name: string, whole: (blob: BlobFacts) => Promise<boolean>): Promise<string | null> {
    const record = parseRecord(await readFile(path));
    if (record === null || recordFileName(record.targetManifest, record.basisConfig) !== name) return 'not a record of this version of Whittle';
    for (const blob of blobsOf(record)) {
      if (!(await whole(blob))) return `blob ${blob.digest} is damaged or missing`;
    }
    await this.#publish(record);
    return null;
  }

  /** Removes blobs that no record names: left by a crash between blobs and record, or by a dropped record. */
  async #sweep(): Promise<void> {
    for (const name of await readdir(this.#blobDirectory)) {
      if (!this.#blobs.has(`sha256:${name}`)) await rm(join(this.#blobDirectory, name), { recursive: true, force: true });
    }
  }

  #blobPath(digest: string): string {
    // The digest becomes a file name, so it is looked at even though records were checked when they were read.
    if (!isDigest(digest)) throw new RangeError(`not a digest: ${digest}`);
    return join(this.#blobDirectory, digest.slice('sha256:'.length));
  }
}

function blobsOf(record: DeltaRecord): readonly BlobFacts[] {
  return record.result === 'delta' ? [record.manifest, ...record.blobs] : [];
}
