import { promisify } from 'node:util';
import { constants, deflate, inflate, inflateSync } from 'node:zlib';
import { openRecord, sealRecord } from '../../atomic/index.js';
import { ByteReader, ByteWriter } from '../../core/bytes.js';
import { WhittleError } from '../../core/errors.js';
import { decodeLayerMeta, decodeLayerMetaHead, encodeLayerMeta, type LayerMeta, type LayerMetaHead } from '../../tar/index.js';
import { storeLimits } from './limits.js';

const deflateAsync = promisify(deflate);
const inflateAsync = promisify(inflate);
const version = 1;
const privilegedFlag = 1;
const maxSkipped = 65_536;
/** More than deflate makes of the head of metadata: its tables of codes take at most some 300 bytes. */
const packedHeadBytes = 1024;

/** What a layer's `meta` file holds. */
export interface LayerFile {
  readonly meta: LayerMeta;
  /** Extracted with owners, devices, whiteouts and all xattrs that the filesystem took. */
  readonly privileged: boolean;
  /** Kinds of attributes that the filesystem refused somewhere in this layer: 'owner', 'mode', 'time', 'xattr:<name>'. */
  readonly skipped: readonly string[];
}

/** The bytes of a `meta` file: a record whose payload is version, flags, the skipped attributes and the deflated metadata. */
export async function encodeLayerFile(layer: LayerFile): Promise<Buffer> {
  const packed = await deflateAsync(encodeLayerMeta(layer.meta));
  const out = new ByteWriter().u8(version).u8(layer.privileged ? privilegedFlag : 0).varint(layer.skipped.length);
  for (const name of layer.skipped) out.blob(Buffer.from(name, 'latin1'));
  return sealRecord(out.blob(packed).finish());
}

function damaged(what: string): WhittleError {
  return new WhittleError('STORE_DAMAGED', `layer metadata ${what}`);
}

/** A `meta` file with its metadata still deflated. */
interface PackedLayerFile {
  readonly packed: Buffer;
  readonly privileged: boolean;
  readonly skipped: readonly string[];
}

function openLayerFile(bytes: Buffer): PackedLayerFile | undefined {
  const record = openRecord(bytes);
  if (record === undefined) return undefined;
  const reader = new ByteReader(record.payload, damaged);
  const found = reader.u8();
  if (found > version) throw new WhittleError('STORE_VERSION', `layer metadata has version ${String(found)}, this Whittle knows ${String(version)}`);
  const flags = reader.u8();
  const skipped: string[] = [];
  for (let count = reader.varint(maxSkipped); count > 0; count--) skipped.push(reader.blob(512).toString('latin1'));
  const packed = reader.blob(storeLimits.maxMetaBytes);
  reader.end();
  return { packed, privileged: (flags & privilegedFlag) !== 0, skipped };
}

/**
 * Which layer a `meta` file is about; undefined when it is damaged. The record's checksum covers all of it, so that what follows the head
 * need not be decoded to know that it is whole. Throws STORE_VERSION when a newer Whittle wrote it.
 */
export function decodeLayerFileHead(bytes: Buffer): LayerMetaHead | undefined {
  const file = openLayerFile(bytes);
  if (file === undefined) return undefined;
  try {
    return decodeLayerMetaHead(inflateSync(file.packed.subarray(0, packedHeadBytes), { finishFlush: constants.Z_SYNC_FLUSH }));
  } catch {
    return undefined;
  }
}

/** Reads a `meta` file. Undefined when it is damaged; throws STORE_VERSION when a newer Whittle wrote it. */
export async function decodeLayerFile(bytes: Buffer): Promise<LayerFile | undefined> {
  const file = openLayerFile(bytes);
  if (file === undefined) return undefined;
  const { packed, privileged, skipped } = file;
  try {
    return { meta: decodeLayerMeta(await inflateAsync(packed, { maxOutputLength: storeLimits.maxMetaBytes })), privileged, skipped };
  } catch {
    // The record's checksum is right, so this is no rot; but it cannot be used either.
    return undefined;
  }
}
