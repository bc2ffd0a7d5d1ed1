import { maxConfigBytes, maxIndexEntries, maxLayers, maxManifestBytes } from '../core/limits.js';
import { WhittleError } from '../core/errors.js';
import { isMediaType, maxAnnotations, parseDescriptor, type Annotations, type Descriptor } from './descriptor.js';
import { isDigest } from './digest.js';
import { JsonFields, parseJsonObject, type JsonObject } from './json.js';
import { isConfigType, isForeignLayerType, isIndexType, isManifestType, layerCompression, mediaTypes } from './media-types.js';
import { parsePlatformFields, type Platform } from './platform.js';

/** A checked image or artifact manifest (OCI, or Docker version 2 schema 2). */
export interface Manifest {
  readonly kind: 'manifest';
  readonly mediaType: string;
  readonly artifactType?: string;
  readonly config: Descriptor;
  /** Bottom layer first. */
  readonly layers: readonly Descriptor[];
  readonly subject?: Descriptor;
  readonly annotations: Annotations;
}

/** A checked image index (OCI) or manifest list (Docker). */
export interface ImageIndex {
  readonly kind: 'index';
  readonly mediaType: string;
  readonly artifactType?: string;
  readonly manifests: readonly Descriptor[];
  readonly subject?: Descriptor;
  readonly annotations: Annotations;
}

/** A checked image config. `raw` is the whole document. */
export interface ImageConfig {
  readonly platform: Platform;
  /** Digests of the uncompressed layer tars, bottom first. */
  readonly diffIds: readonly string[];
  readonly created?: string;
  readonly raw: JsonObject;
}

function optionalParts(fields: JsonFields): { artifactType?: string; subject?: Descriptor; annotations: Annotations } {
  const artifactType = fields.optionalString('artifactType');
  if (artifactType !== undefined && artifactType !== '' && !isMediaType(artifactType)) fields.fail('artifactType', 'is not a media type');
  const subject = fields.optionalFields('subject');
  return {
    ...(artifactType === undefined || artifactType === '' ? {} : { artifactType }),
    ...(subject === undefined ? {} : { subject: parseDescriptor(subject) }),
    annotations: fields.stringMap('annotations', maxAnnotations),
  };
}

function requireSchema2(fields: JsonFields): void {
  const version = fields.size('schemaVersion');
  if (version === 2) return;
  throw new WhittleError('IMAGE_MEDIA_TYPE', `${fields.what}: manifest schema version ${String(version)} is not supported`, {
    hint: 'Push the image again with a current Docker, Podman or skopeo: schema 1 manifests are no longer read.',
  });
}

/** The type a document claims for itself, else the one it came with; a document that claims another one is refused. */
function documentType(fields: JsonFields, outside: string | undefined): string | undefined {
  const inside = fields.optionalString('mediaType');
  if (inside !== undefined && outside !== undefined && (isManifestType(outside) || isIndexType(outside)) && inside !== outside) {
    fields.fail('mediaType', `is ${inside}, but it was served as ${outside}`);
  }
  return inside ?? outside;
}

function manifestFrom(fields: JsonFields, mediaType: string): Manifest {
  if (fields.has('manifests')) fields.fail('manifests', 'stands in a manifest that is not an index');
  return {
    kind: 'manifest', mediaType,
    config: parseDescriptor(fields.fields('config')),
    layers: fields.objects('layers', maxLayers).map(parseDescriptor),
    ...optionalParts(fields),
  };
}

function indexFrom(fields: JsonFields, mediaType: string): ImageIndex {
  if (fields.has('layers') || fields.has('config')) fields.fail('layers', 'stands in an index');
  return { kind: 'index', mediaType, manifests: fields.objects('manifests', maxIndexEntries).map(parseDescriptor), ...optionalParts(fields) };
}

/**
 * Parses a manifest or an index from untrusted bytes. `mediaType` is what the content came as (Content-Type or
 * descriptor); without one the document must say it or be unambiguous. Layers may have any media type: see
 * `checkImageManifest`. Throws IMAGE_INVALID, IMAGE_MEDIA_TYPE, LIMIT_EXCEEDED.
 */
export function parseManifestOrIndex(bytes: Uint8Array, what: string, mediaType?: string): Manifest | ImageIndex {
  const fields = new JsonFields(parseJsonObject(bytes, what, maxManifestBytes), what);
  requireSchema2(fields);
  const type = documentType(fields, mediaType) ?? (fields.has('manifests') ? mediaTypes.ociIndex : mediaTypes.ociManifest);
  if (isManifestType(type)) return manifestFrom(fields, type);
  if (isIndexType(type)) return indexFrom(fields, type);
  throw new WhittleError('IMAGE_MEDIA_TYPE', `${what}: media type ${type} is neither an image manifest nor an index`);
}

/** Parses a manifest from untrusted bytes; an index is IMAGE_INVALID. See `parseManifestOrIndex`. */
export function parseManifest(bytes: Uint8Array, what = 'manifest', mediaType?: string): Manifest {
  const parsed = parseManifestOrIndex(bytes, what, mediaType);
  if (parsed.kind !== 'manifest') throw new WhittleError('IMAGE_INVALID', `${what}: an index where a manifest was expected`);
  return parsed;
}

/** Parses an index from untrusted bytes; a manifest is IMAGE_INVALID. See `parseManifestOrIndex`. */
export function parseIndex(bytes: Uint8Array, what = 'index', mediaType?: string): ImageIndex {
  const parsed = parseManifestOrIndex(bytes, what, mediaType);
  if (parsed.kind !== 'index') throw new WhittleError('IMAGE_INVALID', `${what}: a manifest where an index was expected`);
  return parsed;
}

/**
 * Throws unless the manifest is that of a container image whose layers Whittle can read: IMAGE_MEDIA_TYPE for
 * another artifact or an unknown layer type, IMAGE_FOREIGN_LAYER for layers that registries do not hold.
 */
export function checkImageManifest(manifest: Manifest, what = 'manifest'): void {
  if (!isConfigType(manifest.config.mediaType)) {
    const type = manifest.artifactType ?? manifest.config.mediaType;
    throw new WhittleError('IMAGE_MEDIA_TYPE', `${what}: not a container image but an artifact of type ${type}`);
  }
  for (const [at, layer] of manifest.layers.entries()) {
    if (isForeignLayerType(layer.mediaType)) {
      throw new WhittleError('IMAGE_FOREIGN_LAYER', `${what}: layer ${String(at)} (${layer.digest}) is a foreign layer that registries do not carry`);
    }
    if (layerCompression(layer.mediaType) === undefined) {
      throw new WhittleError('IMAGE_MEDIA_TYPE', `${what}: layer ${String(at)} has the unsupported media type ${layer.mediaType}`);
    }
  }
}

/**
 * Parses an image config from untrusted bytes. `layerCount`, when given, must equal the number of diffIDs.
 * Throws IMAGE_INVALID, LIMIT_EXCEEDED.
 */
export function parseConfig(bytes: Uint8Array, layerCount?: number, what = 'image config'): ImageConfig {
  const fields = new JsonFields(parseJsonObject(bytes, what, maxConfigBytes), what);
  const rootfs = fields.fields('rootfs');
  if (rootfs.string('type') !== 'layers') rootfs.fail('type', 'is not "layers"');
  const diffIds = rootfs.strings('diff_ids', maxLayers);
  for (const [at, diffId] of diffIds.entries()) {
    if (!isDigest(diffId)) rootfs.fail(`diff_ids[${String(at)}]`, 'is not a sha256 or sha512 digest');
  }
  if (layerCount !== undefined && diffIds.length !== layerCount) {
    rootfs.fail('diff_ids', `has ${String(diffIds.length)} entries for ${String(layerCount)} layers`);
  }
  const created = fields.optionalString('created');
  return { platform: parsePlatformFields(fields), diffIds, raw: fields.object, ...(created === undefined ? {} : { created }) };
}
