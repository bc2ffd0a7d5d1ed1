import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { computeDelta } from '../../src/delta/encode/compute.js';
import { deltaMediaTypes } from '../../src/delta/index.js';
import { makeDeltaManifest } from '../../src/server/artifact.js';
import { openImage } from '../../src/server/sources.js';
import { unpackPair } from '../../src/server/unpack.js';
import type { Answer, Asked } from './flaky-proxy.js';
import { digestOf, makeImage, noise, type ImageFile, type MadeImage } from './images.js';

/** A small registry in memory with two images `app:v1`, `app:v2` and the delta between them in many small frames. */
export interface MemoryRegistry {
  readonly v1: MadeImage;
  readonly v2: MadeImage;
  /** What a registry answers that does nothing wrong. */
  readonly answer: (asked: Asked) => Answer;
  readonly delta: { readonly manifestDigest: string; readonly dataDigest: string; readonly dataBytes: number; readonly data: Buffer };
}

export const memoryFrameBytes = 8192;
const type = { manifest: 'application/vnd.oci.image.manifest.v1+json', index: 'application/vnd.oci.image.index.v1+json' };

/** Makes both images and their delta. v1 has some 60 kB; v2 has `freshBytes` more that no delta can predict. */
export async function makeMemoryRegistry(freshBytes = 50_000): Promise<MemoryRegistry> {
  const folder = await mkdtemp(join(tmpdir(), 'whittle-memory-'));
  try {
    const shared: ImageFile[] = [{ path: 'etc/' }, { path: 'etc/motd', content: 'hello\n' }, { path: 'lib/' }, { path: 'lib/shared.so', content: noise(20_000, 1), mode: 0o755 }];
    const files = (data: Buffer): ImageFile[] => [...shared, { path: 'app/' }, { path: 'app/data', content: data }, { path: 'app/link', type: 'link', linkPath: 'app/data' }];
    const [v1, v2] = [
      await makeImage(folder, 'v1', [[{ path: 'base', content: noise(9000, 2) }], files(noise(30_000, 3))]),
      await makeImage(folder, 'v2', [[{ path: 'base', content: noise(9000, 2) }], files(Buffer.concat([noise(25_000, 3), noise(freshBytes, 4)]))]),
    ];
    const blobs = new Map<string, { readonly bytes: Buffer; readonly mediaType: string }>();
    for (const image of [v1, v2]) {
      blobs.set(image.manifestDigest, { bytes: image.manifest, mediaType: type.manifest });
      blobs.set(image.configDigest, { bytes: image.config, mediaType: 'application/octet-stream' });
      for (const layer of image.layers) {
        const bytes = await readFile(join(folder, 'blobs', 'sha256', layer.digest.slice(7)));
        blobs.set(layer.digest, { bytes, mediaType: 'application/octet-stream' });
      }
    }
    const delta = await makeDelta(folder, blobs);
    const referrers = Buffer.from(JSON.stringify({
      schemaVersion: 2, mediaType: type.index,
      manifests: [{ mediaType: type.manifest, digest: delta.manifestDigest, size: blobs.get(delta.manifestDigest)?.bytes.length, artifactType: deltaMediaTypes.artifact, annotations: delta.annotations }],
    }));
    const tags: Readonly<Record<string, string>> = { v1: v1.manifestDigest, v2: v2.manifestDigest };
    const answer = ({ url, headers }: Asked): Answer => {
      const [, kind, name = ''] = /^\/v2\/app\/(manifests|blobs|referrers)\/([^?]*)/.exec(url) ?? [];
      if (kind === 'referrers') return { status: 200, headers: { 'content-type': type.index }, body: name === v2.manifestDigest ? referrers : Buffer.from(`{"schemaVersion":2,"mediaType":"${type.index}","manifests":[]}`) };
      const digest = tags[name] ?? name;
      const blob = blobs.get(digest);
      if (url === '/v2/') return { status: 200, headers: {}, body: Buffer.from('{}') };
      if (blob === undefined) return { status: 404, headers: { 'content-type': 'application/json' }, body: Buffer.from('{"errors":[{"code":"NOT_FOUND","message":"not here"}]}') };
      return ranged(blob.bytes, digest, blob.mediaType, headers);
    };
    return { v1, v2, answer, delta: { ...delta, data: blobs.get(delta.dataDigest)?.bytes ?? Buffer.alloc(0) } };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The whole, or from where it was asked for. */
function ranged(bytes: Buffer, digest: string, mediaType: string, headers: Asked['headers']): Answer {
  const common = { 'content-type': mediaType, etag: `"${digest}"`, 'accept-ranges': 'bytes', 'docker-content-digest': digest };
  const from = Number(/^bytes=(\d+)-$/.exec(String(headers['range'] ?? ''))?.[1] ?? NaN);
  const condition = headers['if-range'];
  if (Number.isNaN(from) || (condition !== undefined && condition !== common.etag)) return { status: 200, headers: common, body: bytes };
  if (from >= bytes.length) return { status: 416, headers: { ...common, 'content-range': `bytes */${String(bytes.length)}` }, body: Buffer.alloc(0) };
  return { status: 206, headers: { ...common, 'content-range': `bytes ${String(from)}-${String(bytes.length - 1)}/${String(bytes.length)}` }, body: bytes.subarray(from) };
}

async function makeDelta(folder: string, blobs: Map<string, { readonly bytes: Buffer; readonly mediaType: string }>): Promise<{ manifestDigest: string; dataDigest: string; dataBytes: number; annotations: Readonly<Record<string, string>> }> {
  const options = { platform: 'linux/amd64' };
  const [basis, target] = [await openImage(`oci:${folder}:v1`, options), await openImage(`oci:${folder}:v2`, options)];
  try {
    const pair = await unpackPair({ basis: basis.input, target: target.input, directory: folder });
    try {
      const dataPath = join(folder, 'data');
      const image = (opened: typeof basis): { manifestDigest: string; configDigest: string } => ({ manifestDigest: opened.input.manifest.digest, configDigest: opened.input.configDigest });
      const made = await computeDelta({ basis: pair.basis, target: pair.target, basisImage: image(basis), targetImage: image(target), profile: 'fast', dataPath, frameBytes: memoryFrameBytes });
      const manifest = makeDeltaManifest(basis.input, target.input, { digest: digestOf(made.index), sizeBytes: made.index.length }, { digest: made.dataDigest, sizeBytes: made.dataSizeBytes });
      blobs.set(manifest.digest, { bytes: manifest.bytes, mediaType: type.manifest });
      blobs.set(digestOf(made.index), { bytes: made.index, mediaType: 'application/octet-stream' });
      blobs.set(made.dataDigest, { bytes: await readFile(dataPath), mediaType: 'application/octet-stream' });
      return { manifestDigest: manifest.digest, dataDigest: made.dataDigest, dataBytes: made.dataSizeBytes, annotations: manifest.annotations };
    } finally {
      await pair.close();
    }
  } finally {
    await basis.close();
    await target.close();
  }
}
