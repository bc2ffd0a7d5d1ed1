import { expect, test } from '@jest/globals';
import type { ContainerdApi, ImageRecord } from '../../../../../src/applier/engines/containerd/api.js';
import { ImageReader } from '../../../../../src/applier/engines/containerd/images.js';
import { chainIds, mediaTypes } from '../../../../../src/oci/index.js';
import { digestOf } from '../../../../support/images.js';

/** As much of containerd as reading images takes. Counts the documents that are read. */
class FakeContents {
  readonly documents = new Map<string, Buffer>();
  readonly records: ImageRecord[] = [];
  read = 0;

  put(value: unknown): { digest: string; size: number } {
    const bytes = Buffer.from(JSON.stringify(value));
    this.documents.set(digestOf(bytes), bytes);
    return { digest: digestOf(bytes), size: bytes.length };
  }

  addImage(name: string, atSec: number, diffIds: readonly string[]): void {
    const config = this.put({ architecture: 'amd64', os: 'linux', name, rootfs: { type: 'layers', diff_ids: diffIds } });
    const layers = diffIds.map((diffId) => ({ mediaType: mediaTypes.ociLayerGzip, digest: digestOf(`blob of ${diffId}`), size: 10 }));
    const manifest = this.put({ schemaVersion: 2, mediaType: mediaTypes.ociManifest, config: { mediaType: mediaTypes.ociConfig, ...config }, layers });
    this.records.push({ name, target: { mediaType: mediaTypes.ociManifest, ...manifest }, createdAt: { seconds: atSec, nanos: 0 } } as unknown as ImageRecord);
  }

  api(): ContainerdApi {
    const api = {
      images: () => Promise.resolve(this.records),
      contentInfo: (digest: string) => Promise.resolve({ digest, size: this.documents.get(digest)?.length ?? 0 }),
      content: (digest: string) => once(read, digest),
    };
    const read = (digest: string): Buffer => {
      this.read++;
      return this.documents.get(digest) ?? Buffer.alloc(0);
    };
    return api as unknown as ContainerdApi;
  }
}

test('of snapshots that the newest image shows, no other image is read', async () => {
  const fake = new FakeContents();
  const diffIds = ['base', 'libraries', 'app'].map((name) => digestOf(name));
  for (let other = 0; other < 20; other++) fake.addImage(`other:${String(other)}`, 100 + other, [digestOf(`other ${String(other)}`)]);
  fake.addImage('app:1', 500, diffIds);
  for (let other = 20; other < 40; other++) fake.addImage(`other:${String(other)}`, 100 + other, [digestOf(`other ${String(other)}`)]);
  const reader = new ImageReader(fake.api());
  const chain = chainIds(diffIds);
  expect(await reader.unshown(chain.slice(0, 2), () => true)).toEqual(new Set());
  expect(fake.read).toBe(2);
  expect(await reader.unshown([...chain, 'left'], () => true)).toEqual(new Set(['left']));
  expect(fake.read).toBe(2 + 41 * 2);
  expect((await reader.all(() => true, () => undefined)).map(({ names }) => names[0]).slice(0, 2)).toEqual(['app:1', 'other:39']);
});

async function* once(read: (digest: string) => Buffer, digest: string): AsyncGenerator<Buffer, void, void> {
  yield await Promise.resolve(read(digest));
}
