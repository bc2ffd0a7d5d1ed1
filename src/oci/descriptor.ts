import { isDigest } from './digest.js';
import type { JsonFields } from './json.js';
import { parsePlatformFields, type Platform } from './platform.js';

/** String annotations of a descriptor, manifest or index. */
export type Annotations = Readonly<Record<string, string>>;

/** Names one blob or manifest: what it is, how many bytes it has, and their digest. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  /** Size of the content in bytes. Named as the specification names it, so that a Descriptor is its own JSON form. */
  readonly size: number;
  readonly platform?: Platform;
  readonly artifactType?: string;
  readonly annotations?: Annotations;
  /** Places to fetch a foreign layer from; kept to recognise one, never followed. */
  readonly urls?: readonly string[];
}

/** Most annotations that one document may carry. */
export const maxAnnotations = 1024;

const mediaTypePattern = /^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$/;

/** True for `type/subtype` as RFC 6838 allows it. */
export function isMediaType(text: string): boolean {
  return mediaTypePattern.test(text);
}

/** Checks one descriptor of an untrusted document. Throws IMAGE_INVALID naming the field. */
export function parseDescriptor(fields: JsonFields): Descriptor {
  const mediaType = fields.string('mediaType');
  if (!isMediaType(mediaType)) fields.fail('mediaType', 'is not a media type');
  const digest = fields.string('digest');
  if (!isDigest(digest)) fields.fail('digest', 'is not a sha256 or sha512 digest');
  const artifactType = fields.optionalString('artifactType');
  const platform = fields.optionalFields('platform');
  const annotations = fields.stringMap('annotations', maxAnnotations);
  const urls = fields.strings('urls', 64);
  return {
    mediaType, digest, size: fields.size('size'),
    ...(platform === undefined ? {} : { platform: parsePlatformFields(platform) }),
    ...(artifactType === undefined ? {} : { artifactType }),
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    ...(urls.length === 0 ? {} : { urls }),
  };
}
