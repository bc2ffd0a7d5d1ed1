import { promisify } from 'node:util';
import { deflate, inflate } from 'node:zlib';
import { openRecord, sealRecord } from '../../atomic/index.js';
import { ByteReader, ByteWriter } from '../../core/bytes.js';
import { WhittleError } from '../../core/errors.js';
import { decodeLayerMeta, encodeLayerMeta, type LayerMeta } from '../../tar/index.js';
import { storeLimits } from './limits.js';

const deflateAsync = promisify(deflate);
const inflateAsync = promisify(inflate);
const version = 1;
const privilegedFlag = 1;
const maxSkipped = 65_536;

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

/** Reads a `meta` file. Undefined when it is damaged; throws STORE_VERSION when a newer Whittle wrote it. */
export async function decodeLayerFile(bytes: Buffer): Promise<LayerFile | undefined> {
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
  try {
    const meta = decodeLayerMeta(await inflateAsync(packed, { maxOutputLength: storeLimits.maxMetaBytes }));
    return { meta, privileged: (flags & privilegedFlag) !== 0, skipped };
  } catch {
    // The record's checksum is right, so this is no rot; but it cannot be used either.
    return undefined;
  }
}
