import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import tar from 'tar-stream';
import * as zstd from 'zstd-napi';

/** One tar entry. `type` defaults to `file`, or `directory` when the path ends in `/`. */
export interface ImageFile {
  readonly path: string;
  readonly content?: string | Buffer;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Seconds. Default 1700000000. */
  readonly mtimeSec?: number;
  readonly type?: 'file' | 'directory' | 'symlink' | 'link' | 'fifo' | 'character-device' | 'block-device';
  /** Target of a symlink or hard link. */
  readonly linkPath?: string;
  readonly devMajor?: number;
  readonly devMinor?: number;
  /** Extra PAX records, such as `SCHILY.xattr.user.a`. */
  readonly pax?: Readonly<Record<string, string>>;
}

/** Files to put into a tar, or the bytes of a tar as they are (for hostile ones). */
export type ImageLayer = readonly ImageFile[] | Buffer;

export interface MakeImageOptions {
  /** Default `gzip`. */
  readonly compression?: 'gzip' | 'zstd' | 'none';
  /** `oci` (default) or `docker` (v2s2) media types. */
  readonly mediaTypes?: 'oci' | 'docker';
  /** Default linux/amd64. */
  readonly platform?: { readonly os: string; readonly architecture: string; readonly variant?: string };
  /** Goes into the config's `config` object. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** Changes the config digest and nothing else. */
  readonly created?: string;
}

/** What `makeImage` wrote. Digests are `sha256:<hex>`. */
export interface MadeImage {
  readonly dir: string;
  readonly tag: string;
  readonly manifest: Buffer;
  readonly manifestDigest: string;
  readonly config: Buffer;
  readonly configDigest: string;
  readonly layers: readonly { readonly digest: string; readonly sizeBytes: number; readonly diffId: string; readonly tar: Buffer }[];
}

const mediaTypes = {
  oci: {
    manifest: 'application/vnd.oci.image.manifest.v1+json', config: 'application/vnd.oci.image.config.v1+json',
    none: 'application/vnd.oci.image.layer.v1.tar', gzip: 'application/vnd.oci.image.layer.v1.tar+gzip', zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  },
  docker: {
    manifest: 'application/vnd.docker.distribution.manifest.v2+json', config: 'application/vnd.docker.container.image.v1+json',
    none: 'application/vnd.docker.image.rootfs.diff.tar', gzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip', zstd: 'application/vnd.docker.image.rootfs.diff.tar.zstd',
  },
} as const;

/** `sha256:<hex>` of bytes. */
export function digestOf(bytes: Buffer | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** A tar with these entries, made by tar-stream. */
export async function makeTar(files: readonly ImageFile[]): Promise<Buffer> {
  const pack = tar.pack();
  const chunks: Buffer[] = [];
  pack.on('data', (chunk: Buffer) => chunks.push(chunk));
  const ended = new Promise<void>((resolve, reject) => { pack.on('end', resolve); pack.on('error', reject); });
  for (const file of files) {
    const type = file.type ?? (file.path.endsWith('/') ? 'directory' : 'file');
    const content = Buffer.from(file.content ?? '');
    const header = {
      name: file.path, type, mode: file.mode ?? (type === 'directory' ? 0o755 : 0o644), uid: file.uid ?? 0, gid: file.gid ?? 0,
      mtime: new Date((file.mtimeSec ?? 1_700_000_000) * 1000), size: type === 'file' ? content.length : 0,
      ...(file.linkPath === undefined ? {} : { linkname: file.linkPath }),
      ...(file.devMajor === undefined ? {} : { devmajor: file.devMajor, devminor: file.devMinor ?? 0 }),
      ...(file.pax === undefined ? {} : { pax: { ...file.pax } }),
    };
    await new Promise<void>((resolve, reject) => {
      const done = (error?: Error | null): void => { if (error) reject(error); else resolve(); };
      if (type === 'file') pack.entry(header, content, done);
      else pack.entry(header, done);
    });
  }
  pack.finalize();
  await ended;
  return Buffer.concat(chunks);
}

/** Adds an image to the OCI layout in `dir` (made when missing) under `tag`; a tag that exists moves. */
export async function makeImage(dir: string, tag: string, layers: readonly ImageLayer[], options: MakeImageOptions = {}): Promise<MadeImage> {
  const types = mediaTypes[options.mediaTypes ?? 'oci'];
  const compression = options.compression ?? 'gzip';
  await mkdir(join(dir, 'blobs', 'sha256'), { recursive: true });
  const made = [];
  for (const layer of layers) {
    const bytes = Buffer.isBuffer(layer) ? layer : await makeTar(layer);
    const blob = await compress(bytes, compression);
    made.push({ digest: await putBlob(dir, blob), sizeBytes: blob.length, diffId: digestOf(bytes), tar: bytes });
  }
  const platform = options.platform ?? { os: 'linux', architecture: 'amd64' };
  const config = Buffer.from(JSON.stringify({
    created: options.created ?? '2024-01-01T00:00:00Z', ...platform, config: options.config ?? { Cmd: ['/bin/true'] },
    rootfs: { type: 'layers', diff_ids: made.map((layer) => layer.diffId) },
    history: made.map(() => ({ created: '2024-01-01T00:00:00Z', created_by: 'test' })),
  }));
  const configDigest = await putBlob(dir, config);
  const manifest = Buffer.from(JSON.stringify({
    schemaVersion: 2, mediaType: types.manifest,
    config: { mediaType: types.config, digest: configDigest, size: config.length },
    layers: made.map((layer) => ({ mediaType: types[compression], digest: layer.digest, size: layer.sizeBytes })),
  }));
  const manifestDigest = await putBlob(dir, manifest);
  await addToIndex(dir, { mediaType: types.manifest, digest: manifestDigest, size: manifest.length, platform, annotations: { 'org.opencontainers.image.ref.name': tag } });
  return { dir, tag, manifest, manifestDigest, config, configDigest, layers: made };
}

/** Writes a blob into an OCI layout and returns its digest. */
export async function putBlob(dir: string, bytes: Buffer): Promise<string> {
  const digest = digestOf(bytes);
  await writeFile(join(dir, 'blobs', 'sha256', digest.slice(7)), bytes);
  return digest;
}

interface IndexEntry {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: unknown;
}

/** Adds a descriptor to the layout's index.json; an entry of the same ref name is replaced. */
export async function addToIndex(dir: string, entry: IndexEntry): Promise<void> {
  const path = join(dir, 'index.json');
  const refName = 'org.opencontainers.image.ref.name';
  let manifests: IndexEntry[] = [];
  try {
    manifests = (JSON.parse(await readFile(path, 'utf8')) as { manifests: IndexEntry[] }).manifests;
  } catch {
    await writeFile(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  }
  manifests = manifests.filter((known) => known.annotations?.[refName] !== entry.annotations?.[refName]);
  await writeFile(path, JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [...manifests, entry] }));
}

async function compress(bytes: Buffer, compression: 'gzip' | 'zstd' | 'none'): Promise<Buffer> {
  if (compression === 'gzip') return promisify(gzip)(bytes, { level: 6 });
  if (compression === 'zstd') return zstd.compress(bytes, { compressionLevel: 3 });
  return bytes;
}

/** Bytes that look like nothing in particular and are the same on every run (a 32-bit xorshift). */
export function noise(sizeBytes: number, seed = 1): Buffer {
  const out = Buffer.allocUnsafe(sizeBytes);
  let state = (seed * 2654435761) >>> 0 || 1;
  for (let at = 0; at < sizeBytes; at++) {
    state ^= state << 13; state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5; state >>>= 0;
    out[at] = state & 0xff;
  }
  return out;
}
