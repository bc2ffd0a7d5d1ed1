import { readdir, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { maxConfigBytes, maxIndexDepth } from '../core/limits.js';
import { isWhittleError, WhittleError } from '../core/errors.js';
import { throwIfAborted } from '../core/interruption.js';
import { isConfigType, isIndexType, isManifestType, isRepository, isTag, layerCompression, parseConfig, parseDigest, parseManifestOrIndex, type Descriptor, type Manifest } from '../oci/index.js';
import { replaceFile } from '../registry/new-file.js';
import { LayoutReader, openSource, parseSourceSpec, type ContentReader, type SourceSpec } from '../registry/index.js';
import type { BlobPlace, ServedImage, ServedManifest, SourceContent } from './catalog.js';
import { digestFile, makeDirectory, removeIfThere } from './durable.js';
import { openOptions, type SourceOptions } from './sources.js';

export type { SourceOptions } from './sources.js';

/** Where the blobs of one source are, or come to be. */
type PlaceBlob = (descriptor: Descriptor) => Promise<BlobPlace>;

/** How sources are read, and who is told. */
export interface LoadOptions extends SourceOptions {
  readonly log: (event: { readonly event: 'loading'; readonly source: string }) => void;
}

/** Splits `[NAME=]SOURCE`. A name is one only if a repository could be called so. */
function splitNamed(text: string): { readonly name: string | null; readonly source: string } {
  const equals = text.indexOf('=');
  const name = text.slice(0, Math.max(0, equals));
  if (equals > 0 && isRepository(name)) return { name, source: text.slice(equals + 1) };
  if (equals > 0 && /^[^:/]*=(oci|oci-archive|docker-archive|docker):/.test(text)) {
    throw new WhittleError('USAGE', `--images: not a repository name: ${JSON.stringify(name.slice(0, 80))}`, { hint: 'Names are lower case: words joined by . _ - and /.' });
  }
  return { name: null, source: text };
}

/** A source as it was read. */
export interface LoadedSource {
  /** As it was named. */
  readonly text: string;
  readonly contents: readonly SourceContent[];
  /** The `index.json` of a layout that is served where it is, which may come to name other images; null for a source that is read once. */
  readonly indexPath: string | null;
  /** What that file was like before it was read. */
  readonly stamp: string;
}

/** What tells one state of a file from another without reading it; empty where there is none. Taken before the file is read, so that no later change is missed. */
export async function fileStamp(path: string): Promise<string> {
  const facts = await stat(path, { bigint: true }).catch(() => null);
  return facts === null ? '' : [facts.dev, facts.ino, facts.size, facts.mtimeNs, facts.ctimeNs].join(':');
}

/**
 * Reads every source: what its tag names, the images below that, and where each blob lies. The blobs of OCI layout
 * directories are served where they are; all others are copied into `copies` first, durably and verified, unless an
 * earlier run did. Copies that no source needs any more are removed at the end. Throws what reading the sources throws.
 */
export async function loadSources(images: readonly string[], copies: string, options: LoadOptions): Promise<readonly LoadedSource[]> {
  await makeDirectory(copies);
  const used = new Set<string>();
  const loaded: LoadedSource[] = [];
  for (const text of images) {
    throwIfAborted(options.signal);
    const { source } = splitNamed(text);
    options.log({ event: 'loading', source });
    const spec = parseSourceSpec(source);
    const indexPath = spec.transport === 'oci' ? join(resolve(spec.path), 'index.json') : null;
    const stamp = indexPath === null ? '' : await fileStamp(indexPath);
    loaded.push({ text, contents: await readSource(text, copies, used, options), indexPath, stamp });
  }
  for (const file of await readdir(copies)) if (!used.has(file)) await removeIfThere(join(copies, file));
  return loaded;
}

/** Reads the images of one source; the names of files that it needs below `copies` go into `used`. */
export async function readSource(text: string, copies: string, used: Set<string>, options: LoadOptions): Promise<readonly SourceContent[]> {
  const { name, source } = splitNamed(text);
  const spec = parseSourceSpec(source);
  if (spec.transport === 'docker' || spec.transport === 'docker-archive') return [await loadSingle(source, spec, name, copies, used, options)];
  const contents: SourceContent[] = [];
  for await (const content of loadLayout(spec, name, copies, used, options)) contents.push(content);
  return contents;
}

async function* loadLayout(spec: Extract<SourceSpec, { path: string }>, name: string | null, copies: string, used: Set<string>, options: LoadOptions): AsyncGenerator<SourceContent> {
  const inPlace = spec.transport === 'oci';
  const layout = inPlace ? await LayoutReader.openDirectory(spec.path) : await LayoutReader.openArchive(spec.path);
  try {
    const place = inPlace ? placeIn(spec.path, layout) : copyInto(copies, used, layout);
    const { platform } = openOptions(options);
    const roots = spec.tag === undefined && layout.index.manifests.length > 1
      ? layout.index.manifests.filter((entry) => tagOf(entry) !== null)
      : [layout.select(spec.tag, platform)];
    if (roots.length === 0) throw new WhittleError('IMAGE_NOT_FOUND', `${layout.name} has several images and no tags`, { hint: 'Tag them, or name one by its tag.' });
    const repository = name ?? fileRepository(spec.path);
    for (const root of roots) yield { repository, tag: spec.tag !== undefined && isTag(spec.tag) ? spec.tag : (tagOf(root) ?? 'latest'), ...(await collect(layout, root, place, layout.name)) };
  } finally {
    await layout.close();
  }
}

async function loadSingle(source: string, spec: SourceSpec, name: string | null, copies: string, used: Set<string>, options: LoadOptions): Promise<SourceContent> {
  const image = await openSource(source, openOptions(options));
  try {
    const content: ContentReader = {
      readManifest: () => Promise.resolve(image.manifest.bytes), readBlob: () => Promise.resolve(image.config.bytes),
      openBlob: (descriptor) => image.openBlob(descriptor), close: () => Promise.resolve(),
    };
    return { ...singleName(spec, name), ...(await collect(content, image.manifest.descriptor, copyInto(copies, used, content), source)) };
  } finally {
    await image.close();
  }
}

/** Repository and tag of a source that holds one image. */
function singleName(spec: SourceSpec, name: string | null): { readonly repository: string; readonly tag: string | null } {
  if (spec.transport === 'docker') {
    const { repository, tag, digest } = spec.reference;
    return { repository: name ?? repository, tag: tag ?? (digest === undefined ? 'latest' : null) };
  }
  const [, saved, tag] = /^(?:.*\/)?([^/:]+)(?::([^/:]+))?$/.exec(spec.tag ?? '') ?? [];
  return { repository: name ?? saved ?? fileRepository(spec.path), tag: tag !== undefined && isTag(tag) ? tag : 'latest' };
}

function fileRepository(path: string): string {
  return basename(resolve(path)).replace(/\.(oci|tar|docker)+$/i, '');
}

/** The tag that a layout's index gives an entry; of a whole image name, its tag. */
function tagOf(entry: Descriptor): string | null {
  const refName = entry.annotations?.['org.opencontainers.image.ref.name'];
  const tag = refName?.slice(refName.lastIndexOf(':') + 1);
  return tag !== undefined && isTag(tag) ? tag : null;
}

/** Collects what hangs below a manifest or index. Of an index, platforms that are not here are left out, as the spec allows. */
async function collect(content: ContentReader, root: Descriptor, place: PlaceBlob, what: string): Promise<Omit<SourceContent, 'repository' | 'tag'>> {
  const found = { manifests: [] as ServedManifest[], images: [] as ServedImage[], blobs: new Map<string, BlobPlace>() };
  const visit = async (descriptor: Descriptor, depth: number): Promise<void> => {
    const bytes = await content.readManifest(descriptor);
    const parsed = parseManifestOrIndex(bytes, `manifest ${descriptor.digest} of ${what}`, descriptor.mediaType);
    const manifest = { digest: descriptor.digest, mediaType: parsed.mediaType, bytes };
    found.manifests.push(manifest);
    if (parsed.kind === 'manifest') {
      for (const blob of [parsed.config, ...parsed.layers]) if (!found.blobs.has(blob.digest)) found.blobs.set(blob.digest, await place(blob));
      const image = await imageOf(content, manifest, parsed);
      if (image !== null) found.images.push(image);
      return;
    }
    if (depth + 1 >= maxIndexDepth) throw new WhittleError('IMAGE_INVALID', `${what}: indexes within indexes, more than ${String(maxIndexDepth)} deep`);
    for (const child of parsed.manifests) {
      if (isManifestType(child.mediaType) || isIndexType(child.mediaType)) await skipMissing(() => visit(child, depth + 1));
    }
    if (found.images.length === 0) throw new WhittleError('IMAGE_NOT_FOUND', `${what} holds none of the images of its index`);
  };
  await visit(root, 0);
  const [first] = found.manifests;
  if (first === undefined) throw new WhittleError('IMAGE_NOT_FOUND', `${what} holds no image`);
  return { root: first, ...found };
}

/** The image that a manifest describes; null for an artifact, and for layers that no delta can be made of. */
async function imageOf(content: ContentReader, manifest: ServedManifest, parsed: Manifest): Promise<ServedImage | null> {
  if (!isConfigType(parsed.config.mediaType) || parsed.layers.some((layer) => layerCompression(layer.mediaType) === undefined)) return null;
  const { diffIds } = parseConfig(await content.readBlob(parsed.config, maxConfigBytes), parsed.layers.length);
  return { manifest, configDigest: parsed.config.digest, layers: parsed.layers.map((descriptor, at) => ({ descriptor, diffId: diffIds[at] ?? '' })) };
}

async function skipMissing(visit: () => Promise<void>): Promise<void> {
  try {
    await visit();
  } catch (error) {
    if (!isWhittleError(error) || error.code !== 'BLOB_MISSING') throw error;
  }
}

/** Blobs of a layout directory stay where they are. */
function placeIn(directory: string, layout: LayoutReader): PlaceBlob {
  return async (descriptor) => {
    const sizeBytes = await layout.blobSize(descriptor.digest);
    if (sizeBytes === undefined) throw new WhittleError('BLOB_MISSING', `${layout.name} lacks the blob ${descriptor.digest}`, { data: { digest: descriptor.digest } });
    if (sizeBytes !== descriptor.size) throw new WhittleError('DIGEST_MISMATCH', `blob ${descriptor.digest} of ${layout.name} has ${String(sizeBytes)} bytes instead of ${String(descriptor.size)}`);
    const { algorithm, hex } = parseDigest(descriptor.digest);
    return { path: join(resolve(directory), 'blobs', algorithm, hex), sizeBytes };
  };
}

/** Blobs from elsewhere are copied once and verified again at each start. */
function copyInto(copies: string, used: Set<string>, content: ContentReader): PlaceBlob {
  return async (descriptor) => {
    const { algorithm, hex } = parseDigest(descriptor.digest);
    const name = `${algorithm}-${hex}`;
    const path = join(copies, name);
    used.add(name);
    const known = await digestFile(path, algorithm);
    if (known?.digest !== descriptor.digest) await replaceFile(path, content.openBlob(descriptor));
    return { path, sizeBytes: descriptor.size };
  };
}
