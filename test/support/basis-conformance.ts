import { createHash } from 'node:crypto';
import { readSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { HeldBasis } from '../../src/applier/engines/types.js';
import type { BasisContent } from '../../src/delta/basis.js';
import { entryHeaderBytes, LayerMetaBuilder, type LayerMeta } from '../../src/tar/index.js';
import { makeTar, noise, type ImageFile } from './images.js';

/** An image in the place under test. */
export interface InstalledImage {
  /** Opens its layers as a basis, as a new process would: nothing is remembered but what is on disk. */
  basis(): Promise<HeldBasis>;
  /** The file on disk that holds the content of `path` of layer `layer`. */
  fileOf(layer: number, path: string): Promise<string>;
  /** Deletes the files of a layer behind the place's back. */
  removeLayer(layer: number): Promise<void>;
  /**
   * Lets the place collect its garbage while nothing but the open basis needs the image: `held` where the basis keeps the layers,
   * `gone` where the place deletes them all the same. Undefined where it is not tried.
   */
  readonly collect?: () => Promise<'held' | 'gone'>;
  /** Takes the image out again. */
  close(): Promise<void>;
}

/** What is tried on a place. */
export interface ConformanceOptions {
  /** Installs an image with these layers. */
  readonly install: (tars: readonly Buffer[]) => Promise<InstalledImage>;
  readonly test?: typeof test | typeof test.skip;
}

const oddName = 'odd/\u00e4 b\tc\n"d".txt';
const longName = `long/${'directory-with-a-long-name/'.repeat(8)}file`;

const base: readonly ImageFile[] = [
  { path: 'bin/' }, { path: 'bin/tool', content: noise(300_000, 11), mode: 0o4755 },
  { path: 'bin/alias', type: 'link', linkPath: 'bin/tool' },
  { path: 'bin/soft', type: 'symlink', linkPath: '/bin/tool' },
  { path: 'etc/' }, { path: 'etc/motd', content: 'hello\n', mtimeSec: 1_600_000_001 },
  { path: 'etc/empty', content: '' }, { path: 'etc/removed', content: 'to be removed\n' },
  { path: 'old/' }, { path: 'old/a', content: 'a\n' },
  { path: 'odd/' }, { path: oddName, content: 'odd\n' }, { path: longName, content: 'long\n' },
  { path: 'owned', content: 'owned\n', uid: 1234, gid: 4321, mode: 0o600, pax: { 'SCHILY.xattr.user.note': 'value' } },
  { path: 'holes', content: Buffer.concat([noise(4096, 12), Buffer.alloc(1024 * 1024), noise(4096, 13)]) },
];
const upper: readonly ImageFile[] = [
  { path: 'etc/' }, { path: 'etc/motd', content: 'hello again\n' }, { path: 'etc/.wh.removed', content: '' },
  { path: 'old/' }, { path: 'old/.wh..wh..opq', content: '' }, { path: 'old/b', content: 'b\n' },
  { path: 'data/' }, { path: 'data/blob', content: noise(700_000, 14) },
];

/** What a tar holds, known without any place. */
interface Expected {
  readonly meta: LayerMeta;
  readonly contents: ReadonlyMap<string, Buffer>;
}

function expected(tar: Buffer): Expected {
  const contents = new Map<string, Buffer>();
  let path = '';
  let chunks: Buffer[] = [];
  const builder = new LayerMetaBuilder({
    onEntry: (header) => { path = header.path.toString(); chunks = []; },
    onContent: (chunk) => { chunks.push(Buffer.from(chunk)); },
    onContentEnd: (digest) => { if (digest !== null) contents.set(path, Buffer.concat(chunks)); },
  });
  builder.write(tar);
  return { meta: builder.finish(), contents };
}

/** The whole of a content, as the decoder reads it. The content is closed. */
async function readContent(content: BasisContent): Promise<Buffer> {
  try {
    const chunks = content.extents.map(({ offset, lengthBytes }) => {
      const chunk = Buffer.alloc(lengthBytes);
      const got = readSync(content.fd, chunk, 0, lengthBytes, offset);
      return chunk.subarray(0, got);
    });
    return Buffer.concat(chunks);
  } finally {
    await content.close();
  }
}

function entryOf(meta: LayerMeta, path: string): number {
  for (const [entry, { header }] of meta.entries.entries()) if (header.path.toString() === path) return entry;
  throw new Error(`no entry ${path}`);
}

/**
 * What every place that gives a basis must do, tried on images that it installs: tar metadata as in the tar, contents bit
 * for bit, and no content that is not what was published.
 */
export function basisConformance(name: string, options: ConformanceOptions): void {
  const { install } = options;
  const run = options.test ?? test;

  describe(`${name} as a basis`, () => {
    let tars: Buffer[] = [];
    let image: InstalledImage | undefined;
    const installed = (): InstalledImage => {
      if (image === undefined) throw new Error('nothing is installed');
      return image;
    };
    beforeAll(async () => {
      if (run !== test) return;
      tars = [await makeTar(base), await makeTar(upper)];
      image = await install(tars);
    });
    afterAll(async () => { await image?.close(); });

    run('contents that are read in a group are those of the tars', async () => {
      const basis = await installed().basis();
      try {
        for (const [layer, tar] of tars.entries()) {
          const { meta, contents } = expected(tar);
          const wanted = [...meta.entries.entries()].filter(([, { header }]) => header.sizeBytes > 0).map(([entry]) => ({ layer, entry }));
          const read = await basis.readContents?.(wanted);
          if (read === undefined) return;
          for (const [at, { entry }] of wanted.entries()) {
            const content = contents.get(meta.entries.at(entry)?.header.path.toString() ?? '');
            // Undefined where it is to be opened by itself.
            expect(read[at] === undefined || read[at].bytes.equals(content ?? Buffer.alloc(0))).toBe(true);
          }
        }
      } finally {
        await basis.close();
      }
    });

    run('metadata is that of the tars', async () => {
      const basis = await installed().basis();
      try {
        expect(basis.layers.map((layer) => layer.diffId)).toEqual(tars.map((tar) => expected(tar).meta.diffId));
        for (const [layer, tar] of tars.entries()) {
          const { meta } = expected(tar);
          const found = basis.layers[layer];
          expect([found?.sizeBytes, found?.trailerZeroBytes, found?.entries.length]).toEqual([meta.sizeBytes, meta.trailerZeroBytes, meta.entries.length]);
          for (const [entry, wanted] of meta.entries.entries()) {
            const got = found?.entries.at(entry);
            if (got === undefined) throw new Error('an entry is missing');
            expect(entryHeaderBytes(got).equals(entryHeaderBytes(wanted))).toBe(true);
            expect(got.digest).toEqual(wanted.digest);
          }
        }
      } finally {
        await basis.close();
      }
    });

    run('every content is bit for bit the published one, and read again the same', async () => {
      const basis = await installed().basis();
      try {
        for (const [layer, tar] of tars.entries()) {
          const { meta, contents } = expected(tar);
          for (const [path, wanted] of contents) {
            const entry = entryOf(meta, path);
            for (const callerVerifies of [false, true]) {
              const content = await basis.openContent(layer, entry, { callerVerifies });
              expect(content.sizeBytes).toBe(wanted.length);
              expect((await readContent(content)).equals(wanted)).toBe(true);
            }
          }
          expect(contents.size).toBeGreaterThan(2);
        }
      } finally {
        await basis.close();
      }
    });

    run('a basis says which image it is', async () => {
      const basis = await installed().basis();
      await basis.close();
      expect(basis.image.diffIds).toEqual(tars.map((tar) => expected(tar).meta.diffId));
      expect(basis.image.configDigest).toMatch(/^sha256:[0-9a-f]{64}$/);
      expect(`sha256:${createHash('sha256').update(basis.image.config).digest('hex')}`).toBe(basis.image.configDigest);
    });

    run('closing twice is closing once', async () => {
      const basis = await installed().basis();
      await basis.close();
      await basis.close();
    });

    run('what the place collects while a basis is open is either kept, or found missing', async () => {
      const { collect } = installed();
      if (collect === undefined) return;
      const basis = await installed().basis();
      try {
        const entry = entryOf(expected(tars[1] ?? Buffer.alloc(0)).meta, 'data/blob');
        const outcome = await collect();
        if (outcome === 'gone') await expect(basis.openContent(1, entry)).rejects.toMatchObject({ code: 'BASIS_DAMAGED' });
        else expect((await readContent(await basis.openContent(1, entry))).equals(noise(700_000, 14))).toBe(true);
      } finally {
        await basis.close();
      }
      // Whatever was collected is put back for the tests that follow.
      await image?.close();
      image = await install(tars);
    });

    run('a file that was edited is refused, the others are not', async () => {
      const { meta } = expected(tars[0] ?? Buffer.alloc(0));
      const opened = await installed().basis();
      await opened.close();
      const file = await installed().fileOf(0, 'owned');
      const handle = await open(file, 'r+');
      await handle.write('OWNED', 0);
      await handle.close();
      const basis = await installed().basis();
      try {
        await expect(basis.openContent(0, entryOf(meta, 'owned'))).rejects.toMatchObject({ code: 'BASIS_DAMAGED' });
        expect((await readContent(await basis.openContent(0, entryOf(meta, oddName)))).toString()).toBe('odd\n');
      } finally {
        await basis.close();
      }
      await image?.close();
      image = await install(tars);
    });

    run('a layer whose files are gone is a clear error', async () => {
      await installed().removeLayer(1);
      const failure = (async () => {
        const basis = await installed().basis();
        try {
          await readContent(await basis.openContent(1, entryOf(expected(tars[1] ?? Buffer.alloc(0)).meta, 'data/blob')));
        } finally {
          await basis.close();
        }
      })();
      await expect(failure).rejects.toMatchObject({ code: 'BASIS_DAMAGED' });
    });
  });
}
