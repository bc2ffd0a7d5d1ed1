import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { ImageSource, ServedManifest } from '../../../src/applier/pull/image-source.js';
import type { BlobSource } from '../../../src/applier/pull/source.js';
import type { TargetImage } from '../../../src/applier/store/types.js';
import { WhittleError } from '../../../src/core/errors.js';
import { computeDelta } from '../../../src/delta/encode/compute.js';
import { deltaMediaTypes, parseDeltaIndex, type DeltaFrame } from '../../../src/delta/index.js';
import type { Descriptor } from '../../../src/oci/index.js';
import { makeDeltaManifest } from '../../../src/server/artifact.js';
import { digestOf, makeImage, noise, type ImageFile, type MadeImage } from '../../support/images.js';
import { tarBasis } from '../../support/tar-basis.js';

const manifestType = 'application/vnd.oci.image.manifest.v1+json';
/** Small, so that a delta has several. */
const frameBytes = 1500;

/** An image of the campaign: what is served of it, and what its files must be. */
export interface SimImage {
  readonly tag: Tag;
  readonly made: MadeImage;
  readonly target: TargetImage;
  /** By layer: what the files were made of, before any tar. */
  readonly files: readonly (readonly ImageFile[])[];
}

/** The images of the campaign by their tags. */
export type Tag = 'v1' | 'v2' | 'other' | 'large' | 'c1' | 'c2' | 'c3';

/** What a server has: manifests and blobs by digest, deltas by subject. */
export interface World {
  readonly v1: SimImage;
  readonly v2: SimImage;
  /** Another image, with the first layer of the others. */
  readonly other: SimImage;
  /** Has a file that is too large for a batch. */
  readonly large: SimImage;
  /** Three images that differ little: a chain of deltas leads from the first over the second to the third. */
  readonly c1: SimImage;
  readonly c2: SimImage;
  readonly c3: SimImage;
  /** The delta from v1 to v2. */
  readonly delta: { readonly index: Buffer; readonly data: Buffer; readonly frames: readonly DeltaFrame[] };
  /** All of it, or without layers (as a stick with nothing but a delta has it). */
  source(options?: SourceOptions): ImageSource;
}

export interface SourceOptions {
  /** The image that the tag `latest` means. Default v2. */
  readonly latest?: Tag;
  /** Blobs of layers are not there. */
  readonly deltaOnly?: boolean;
  /** Ends a body after so many bytes of blobs in all, and then answers nothing more. */
  readonly cutAfterBytes?: number;
  /** Told where each transfer begins. */
  readonly onOpen?: (digest: string, from: number) => void;
}

const sparsePax = { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 'data/holes', 'GNU.sparse.realsize': '9000' };
/** Map of a sparse file in PAX form 1.0: one extent of 512 bytes at 4096; the map fills a block. */
const sparseData = Buffer.concat([Buffer.from('1\n4096\n512\n'.padEnd(512, '\0')), noise(512, 77)]);

const base: ImageFile[] = [
  { path: 'etc/' }, { path: 'etc/motd', content: 'hello\n' }, { path: 'bin/' }, { path: 'bin/tool', content: noise(1400, 1), mode: 0o755 },
  { path: 'bin/alias', type: 'link', linkPath: 'bin/tool' }, { path: 'bin/sh', type: 'symlink', linkPath: 'tool' }, { path: 'old/' }, { path: 'old/file', content: 'old\n' },
];

const app = (version: number): ImageFile[] => [
  { path: 'data/', mtimeSec: 1_700_000_000 + version }, { path: 'data/same', content: noise(900, 2), mode: 0o640 },
  { path: 'data/changed', content: Buffer.concat([noise(1500, 3), noise(700, 10 + version), noise(500, 4)]), mtimeSec: 1_700_000_000 + version },
  { path: `data/only-${String(version)}`, content: noise(600, 20 + version) },
  { path: 'data/GNUSparseFile.0', content: sparseData, pax: sparsePax },
  { path: '.wh.old', content: '' },
  { path: 'data/same', content: noise(901, 30 + version) },
  { path: 'data/marked', content: `version ${String(version)}\n`, pax: { 'SCHILY.xattr.user.version': String(version) } },
];

const otherApp: ImageFile[] = [{ path: 'srv/' }, { path: 'srv/index', content: noise(1200, 50) }, { path: 'srv/page', content: noise(800, 51) }];
const largeApp: ImageFile[] = [{ path: 'big/' }, { path: 'big/file', content: noise(150_000, 60) }];

/** Enough that stays for two deltas and their manifests to cost less than the layer. */
const chained = (version: number): ImageFile[] => [{ path: 'opt/' }, { path: 'opt/stays', content: noise(40_000, 70) }, { path: 'opt/changes', content: noise(300, 70 + version) }];

/** Makes images and deltas. Everything is in memory when it returns. */
export async function makeWorld(): Promise<World> {
  const dir = await mkdtemp(join(tmpdir(), 'whittle-sim-'));
  try {
    const image = async (tag: Tag, files: readonly (readonly ImageFile[])[]): Promise<SimImage> => {
      const made = await makeImage(join(dir, 'layout'), tag, files.map((layer) => [...layer]));
      return { tag, made, files, target: { manifest: made.manifest, manifestMediaType: manifestType, config: made.config } };
    };
    const v1 = await image('v1', [base, app(1)]);
    const v2 = await image('v2', [base, app(2)]);
    const other = await image('other', [base, otherApp]);
    const large = await image('large', [base, largeApp]);
    const chain = { c1: await image('c1', [base, chained(1)]), c2: await image('c2', [base, chained(2)]), c3: await image('c3', [base, chained(3)]) };
    const images = [v1, v2, other, large, chain.c1, chain.c2, chain.c3];
    const blobs = new Map<string, Buffer>();
    for (const each of images) {
      blobs.set(each.made.configDigest, each.made.config);
      for (const layer of each.made.layers) blobs.set(layer.digest, await readFile(join(dir, 'layout/blobs/sha256', layer.digest.slice(7))));
    }
    const made = await makeDelta(dir, v1, v2);
    const deltas = new Map([[v2, made], [chain.c2, await makeDelta(dir, chain.c1, chain.c2)], [chain.c3, await makeDelta(dir, chain.c2, chain.c3)]]);
    const layers = new Set(images.flatMap((each) => each.made.layers.map((layer) => layer.digest)));
    const manifests = new Map(images.map((each): [string, Buffer] => [each.tag, each.made.manifest]));
    for (const [to, { index, data, manifest }] of deltas) {
      blobs.set(digestOf(index), index);
      blobs.set(digestOf(data), data);
      manifests.set(`delta to ${to.tag}`, manifest);
    }
    const offers = new Map([...deltas].map(([to, { manifest }]) => [to.made.manifestDigest, manifest]));
    return {
      v1, v2, other, large, ...chain, delta: { index: made.index, data: made.data, frames: parseDeltaIndex(made.index).frames },
      source: (options = {}) => new MemorySource(manifests, blobs, layers, offers, options),
    };
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function makeDelta(dir: string, v1: SimImage, v2: SimImage): Promise<{ index: Buffer; data: Buffer; manifest: Buffer }> {
  const [basis, target] = [v1, v2].map((each) => tarBasis(dir, each.made.layers.map((layer) => layer.tar)));
  if (basis === undefined || target === undefined) throw new Error('no basis');
  const name = (each: SimImage): { manifestDigest: string; configDigest: string } => ({ manifestDigest: each.made.manifestDigest, configDigest: each.made.configDigest });
  try {
    const dataPath = join(dir, 'delta.data');
    const { index } = await computeDelta({ basis, target, basisImage: name(v1), targetImage: name(v2), profile: 'fast', dataPath, frameBytes, threads: 1 });
    const data = await readFile(dataPath);
    const facts = (bytes: Buffer): { digest: string; sizeBytes: number } => ({ digest: digestOf(bytes), sizeBytes: bytes.length });
    const input = (each: SimImage): Parameters<typeof makeDeltaManifest>[0] => ({
      configDigest: each.made.configDigest, manifest: { mediaType: manifestType, digest: each.made.manifestDigest, sizeBytes: each.made.manifest.length },
    } as Parameters<typeof makeDeltaManifest>[0]);
    return { index, data, manifest: makeDeltaManifest(input(v1), input(v2), facts(index), facts(data)).bytes };
  } finally {
    basis.close();
    target.close();
  }
}

/** Serves from memory, as a registry does that has ranges. */
class MemorySource implements ImageSource {
  readonly name = 'simulated:5000/app';
  #servedBytes = 0;

  constructor(
    private readonly manifests: ReadonlyMap<string, Buffer>, private readonly blobs: ReadonlyMap<string, Buffer>, private readonly layers: ReadonlySet<string>,
    private readonly offers: ReadonlyMap<string, Buffer>, private readonly options: SourceOptions,
  ) {}

  manifest(target: string): Promise<ServedManifest> {
    const bytes = this.manifests.get(target === 'latest' ? (this.options.latest ?? 'v2') : target) ?? [...this.manifests.values()].find((each) => digestOf(each) === target);
    if (bytes === undefined) return Promise.reject(new WhittleError('IMAGE_NOT_FOUND', `no ${target}`));
    return Promise.resolve({ digest: digestOf(bytes), mediaType: manifestType, bytes });
  }

  blob(descriptor: Descriptor): BlobSource {
    return {
      name: descriptor.digest,
      open: (from) => {
        const bytes = this.blobs.get(descriptor.digest);
        if (bytes === undefined || (this.options.deltaOnly === true && this.layers.has(descriptor.digest))) return Promise.reject(new WhittleError('BLOB_MISSING', `no ${descriptor.digest}`));
        this.options.onOpen?.(descriptor.digest, from);
        const rest = bytes.subarray(from);
        const headers: Readonly<Record<string, string>> = {
          'content-length': String(rest.length), ...(from > 0 ? { 'content-range': `bytes ${String(from)}-${String(bytes.length - 1)}/${String(bytes.length)}` } : {}),
        };
        return Promise.resolve({ status: from > 0 ? 206 : 200, header: (name) => headers[name], body: Readable.from(this.#body(rest)) });
      },
    };
  }

  /** Pieces of odd sizes, so that frames end within them. */
  async *#body(bytes: Buffer): AsyncGenerator<Buffer, void, undefined> {
    const pieceBytes = 1100;
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      const piece = bytes.subarray(at, at + pieceBytes);
      this.#servedBytes += piece.length;
      if (this.#servedBytes > (this.options.cutAfterBytes ?? Infinity)) throw new WhittleError('FETCH_FAILED', 'the link is down');
      yield Buffer.from(piece);
      await Promise.resolve();
    }
  }

  deltas(subject: string): ReturnType<ImageSource['deltas']> {
    const manifest = this.offers.get(subject);
    const descriptors = manifest !== undefined ? [{ mediaType: manifestType, digest: digestOf(manifest), size: manifest.length, artifactType: deltaMediaTypes.artifact }] : [];
    return Promise.resolve({ kind: 'ready', descriptors, sizeBytes: 0 });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** One file as it must be on the disk. */
export interface ExpectedFile {
  readonly kind: 'file' | 'directory' | 'symlink' | 'char';
  readonly sha256: string;
  /** Null where it says nothing: of a whiteout nobody sees more than that it is one. */
  readonly mode: number | null;
  readonly mtimeSec: number | null;
  readonly target: string;
  readonly xattrs: Readonly<Record<string, string>>;
  /** The path that shares its inode. */
  readonly sameAs: string | null;
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The tree that a layer's files make, worked out from what they were made of. Without privilege there are no whiteouts. */
export function expectedTree(files: readonly ImageFile[], privileged: boolean): Map<string, ExpectedFile> {
  const tree = new Map<string, ExpectedFile>();
  for (const file of files) {
    const kind = file.type ?? (file.path.endsWith('/') ? 'directory' : 'file');
    const path = file.path.replace(/\/$/, '');
    const common = { mode: file.mode ?? (kind === 'directory' ? 0o755 : 0o644), mtimeSec: file.mtimeSec ?? 1_700_000_000, target: '', xattrs: {}, sameAs: null, sha256: '' };
    const name = path.slice(path.lastIndexOf('/') + 1);
    if (name.startsWith('.wh.')) {
      if (privileged) tree.set(path.replace('.wh.', ''), { ...common, kind: 'char', mode: null, mtimeSec: null });
    } else if (path === 'data/GNUSparseFile.0') {
      const expanded = Buffer.alloc(9000);
      sparseData.copy(expanded, 4096, 512);
      tree.set('data/holes', { ...common, kind: 'file', sha256: sha256(expanded) });
    } else if (kind === 'directory') tree.set(path, { ...common, kind });
    else if (kind === 'symlink') tree.set(path, { ...common, kind, mode: 0o777, target: file.linkPath ?? '' });
    else if (kind === 'link') {
      const other = tree.get(file.linkPath ?? '');
      if (other === undefined) throw new Error(`${path} links to nothing`);
      tree.set(path, { ...other, sameAs: file.linkPath ?? '' });
    } else {
      const xattrs = Object.fromEntries(Object.entries(file.pax ?? {}).map(([key, value]) => [key.replace('SCHILY.xattr.', ''), value]));
      tree.set(path, { ...common, kind: 'file', sha256: sha256(Buffer.from(file.content ?? '')), xattrs });
    }
  }
  return tree;
}
