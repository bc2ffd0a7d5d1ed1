import { deltaFormatVersion } from '../delta/format.js';
import { isDigest } from '../oci/digest.js';

/** A blob by digest and size. */
export interface BlobFacts {
  readonly digest: string;
  readonly sizeBytes: number;
}

/** What a server remembers of one pair of images. */
export type DeltaRecord = DeltaFacts & (
  | {
      readonly result: 'delta';
      readonly manifest: BlobFacts & { readonly mediaType: string };
      /** Annotations of the delta's manifest, repeated in the list of referrers. */
      readonly annotations: Readonly<Record<string, string>>;
      /** Config, index and data blob. */
      readonly blobs: readonly BlobFacts[];
    }
  /** The delta would not have been smaller than the layers, so it was not kept. */
  | { readonly result: 'not-smaller' }
);

/** The part of a record that does not depend on its result. */
export interface DeltaFacts {
  readonly targetManifest: string;
  readonly basisConfig: string;
  readonly layerPullBytes: number;
  /** Manifest, index and data of the delta. */
  readonly deltaBytes: number;
  readonly computeMs: number;
}

const recordVersion = 2;

/** Name of the record's file. One pair has one record. */
export function recordFileName(targetManifestDigest: string, basisConfigDigest: string): string {
  return `${targetManifestDigest.slice('sha256:'.length)}-${basisConfigDigest.slice('sha256:'.length)}.json`;
}

/** A record as it lies on disk. */
export function serializeRecord(record: DeltaRecord): Buffer {
  return Buffer.from(`${JSON.stringify({ version: recordVersion, deltaFormat: deltaFormatVersion, ...record }, null, 1)}\n`);
}

/** Reads a record; null when it is torn, malformed, or of another version of the record or of the delta's format (the delta is then simply made again). */
export function parseRecord(bytes: Buffer): DeltaRecord | null {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    return null;
  }
  if (!isObject(value) || value['version'] !== recordVersion || value['deltaFormat'] !== deltaFormatVersion) return null;
  const { targetManifest, basisConfig, layerPullBytes, deltaBytes, computeMs } = value;
  if (!isDigestText(targetManifest) || !isDigestText(basisConfig) || !isSize(layerPullBytes) || !isSize(deltaBytes) || !isSize(computeMs)) return null;
  const facts = { targetManifest, basisConfig, layerPullBytes, deltaBytes, computeMs };
  if (value['result'] === 'not-smaller') return { ...facts, result: 'not-smaller' };
  const { manifest, blobs, annotations } = value;
  if (value['result'] !== 'delta' || !isManifestFacts(manifest) || !Array.isArray(blobs) || !blobs.every(isBlobFacts) || !isTextMap(annotations)) return null;
  return { ...facts, result: 'delta', manifest, blobs, annotations };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isDigestText(value: unknown): value is string {
  return typeof value === 'string' && isDigest(value);
}

function isSize(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isBlobFacts(value: unknown): value is BlobFacts {
  return isObject(value) && isDigestText(value['digest']) && isSize(value['sizeBytes']);
}

function isManifestFacts(value: unknown): value is BlobFacts & { mediaType: string } {
  return isBlobFacts(value) && typeof (value as { mediaType?: unknown }).mediaType === 'string';
}

function isTextMap(value: unknown): value is Record<string, string> {
  return isObject(value) && Object.values(value).every((text) => typeof text === 'string');
}
