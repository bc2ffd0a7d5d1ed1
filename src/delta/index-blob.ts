import { ByteReader, ByteWriter } from '../core/bytes.js';
import { WhittleError } from '../core/errors.js';
import { requireDeltaFormat } from './format.js';
import { deltaLimits } from './limits.js';

const magic = Buffer.from('WHTL', 'latin1');

/** How much is spent on a delta: `small` is as small as can be, `fast` is quicker to make. It selects the codec's models. */
export type DeltaProfile = 'small' | 'fast';
const profiles: readonly DeltaProfile[] = ['small', 'fast'];

/** Digests of an image, "sha256:<hex>". `manifestDigest` is empty where the image came without a manifest (an empty basis). */
export interface ImageDigests {
  readonly manifestDigest: string;
  readonly configDigest: string;
}

/** One layer of the target: rebuilt by the delta, or already a layer of the basis image. */
export interface DeltaLayer {
  readonly diffId: string;
  readonly how: 'delta' | 'basis';
}

/** One frame of the data blob, verified on its own. `digest` is sha256, 32 bytes. */
export interface DeltaFrame {
  readonly sizeBytes: number;
  readonly digest: Buffer;
}

/** What the index blob of a delta says. */
export interface DeltaIndex {
  readonly version: number;
  readonly profile: DeltaProfile;
  readonly basis: ImageDigests;
  readonly target: ImageDigests;
  /** Layers of the target in manifest order. */
  readonly layers: readonly DeltaLayer[];
  /** diffIDs of the basis layers that the delta reads, in the order in which it counts them. */
  readonly basisLayers: readonly string[];
  readonly frames: readonly DeltaFrame[];
  readonly dataSizeBytes: number;
  /** Memory that the decoder needs beside its runtime, declared by the encoder and checked before use. */
  readonly memoryBytes: number;
}

/**
 * Writes an index blob: magic, version, profile, digests, layers, basis layers, frames (docs/format.md). All
 * frames but the last have the size of the first.
 */
export function encodeDeltaIndex(index: DeltaIndex): Buffer {
  const out = new ByteWriter().bytes(magic).varint(index.version).u8(profiles.indexOf(index.profile)).varint(index.memoryBytes);
  for (const image of [index.basis, index.target]) {
    putDigest(out, image.manifestDigest);
    putDigest(out, image.configDigest);
  }
  out.varint(index.basisLayers.length);
  for (const diffId of index.basisLayers) putDigest(out, diffId);
  out.varint(index.layers.length);
  for (const layer of index.layers) {
    const held = index.basisLayers.indexOf(layer.diffId);
    if (layer.how === 'basis' && held >= 0) out.varint(held + 2);
    else putDigest(out.varint(layer.how === 'basis' ? 1 : 0), layer.diffId);
  }
  out.varint(index.dataSizeBytes).varint(index.frames[0]?.sizeBytes ?? 0);
  for (const frame of index.frames) out.bytes(frame.digest);
  return out.finish();
}

function putDigest(out: ByteWriter, digest: string): void {
  if (digest === '') out.u8(0);
  else out.u8(1).bytes(Buffer.from(digest.slice('sha256:'.length), 'hex'));
}

function takeDigest(reader: ByteReader): string {
  const kind = reader.u8();
  if (kind === 0) return '';
  if (kind !== 1) reader.fail('unknown digest algorithm');
  return `sha256:${reader.bytes(32).toString('hex')}`;
}

/**
 * Reads an index blob from untrusted bytes. Throws DELTA_CORRUPT for anything malformed or above `deltaLimits`,
 * DELTA_VERSION for another format than this code's.
 */
export function parseDeltaIndex(bytes: Buffer): DeltaIndex {
  const reader = new ByteReader(bytes, (what) => new WhittleError('DELTA_CORRUPT', `delta index ${what}`));
  if (bytes.length > deltaLimits.indexBytes) reader.fail('is too large');
  if (!reader.bytes(magic.length).equals(magic)) reader.fail('does not start like one');
  const version = reader.varint();
  if (version < 1) reader.fail('has no valid version');
  requireDeltaFormat(version);
  const profile = profiles[reader.u8()] ?? reader.fail('names an unknown profile');
  const memoryBytes = reader.varint(deltaLimits.memoryBytes);
  const basis = { manifestDigest: takeDigest(reader), configDigest: takeDigest(reader) };
  const target = { manifestDigest: takeDigest(reader), configDigest: takeDigest(reader) };
  const basisLayers = Array.from({ length: reader.varint(deltaLimits.layers) }, () => takeDigest(reader));
  const layers = Array.from({ length: reader.varint(deltaLimits.layers) }, () => takeLayer(reader, basisLayers));
  const dataSizeBytes = reader.varint(deltaLimits.dataBytes);
  const frames = takeFrames(reader, dataSizeBytes);
  reader.end();
  return { version, profile, basis, target, layers, basisLayers, frames, dataSizeBytes, memoryBytes };
}

function takeLayer(reader: ByteReader, basisLayers: readonly string[]): DeltaLayer {
  const kind = reader.varint(deltaLimits.layers + 2);
  if (kind < 2) return { diffId: takeDigest(reader), how: kind === 0 ? 'delta' : 'basis' };
  return { diffId: basisLayers[kind - 2] ?? reader.fail('names a basis layer that it does not list'), how: 'basis' };
}

function takeFrames(reader: ByteReader, dataSizeBytes: number): DeltaFrame[] {
  const frameBytes = reader.varint(deltaLimits.frameBytes);
  if (dataSizeBytes === 0) return [];
  if (frameBytes === 0 || Math.ceil(dataSizeBytes / frameBytes) * 32 > reader.remaining) reader.fail('lists too few frames');
  const frames: DeltaFrame[] = [];
  for (let at = 0; at < dataSizeBytes; at += frameBytes) {
    frames.push({ sizeBytes: Math.min(frameBytes, dataSizeBytes - at), digest: reader.bytes(32) });
  }
  return frames;
}
