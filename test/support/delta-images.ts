import { createHash } from 'node:crypto';
import fc from 'fast-check';
import tar from 'tar-stream';
import type { BasisContent } from '../../src/delta/basis.js';
import type { ContentOrigin, TargetSink } from '../../src/delta/sink.js';
import type { LayerMeta } from '../../src/tar/types.js';

/** A file, directory or link of a made-up layer. */
export interface TestFile {
  readonly path: string;
  readonly content: Buffer;
  readonly mode: number;
  readonly mtimeSec: number;
  /** Where a symbolic link leads. */
  readonly link?: string;
  /** What a hard link is one to. */
  readonly hardLink?: string;
}

/** The tar of a layer. */
export async function packTar(files: readonly TestFile[]): Promise<Buffer> {
  const pack = tar.pack();
  const chunks: Buffer[] = [];
  const done = new Promise<void>((resolve, reject) => {
    pack.on('data', (chunk: Buffer) => chunks.push(chunk));
    pack.on('end', resolve);
    pack.on('error', reject);
  });
  for (const file of files) {
    const common = { name: file.path, mode: file.mode, mtime: new Date(file.mtimeSec * 1000) };
    if (file.link !== undefined) pack.entry({ ...common, type: 'symlink', linkname: file.link });
    else if (file.hardLink !== undefined) pack.entry({ ...common, type: 'link', linkname: file.hardLink });
    else if (file.path.endsWith('/')) pack.entry({ ...common, type: 'directory' });
    else pack.entry(common, file.content);
  }
  pack.finalize();
  await done;
  return Buffer.concat(chunks);
}

const name = fc.constantFrom('a', 'bin', 'lib', 'x.js', 'libz.so.1.2', 'libz.so.1.3', 'README', 'data', 'été');
const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'));

/** Content that has something in common with other content: made of a few blocks that recur, with noise between. */
export const content = fc.array(fc.oneof(
  fc.integer({ min: 0, max: 20 }).chain((seed) => fc.integer({ min: 1, max: 4000 }).map((length) => noise(seed, length))),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
  fc.string({ maxLength: 60 }).map((text) => Buffer.from(text)),
), { maxLength: 6 }).map((parts) => Buffer.concat(parts));

/** Bytes that depend on nothing but `seed`. */
export function noise(seed: number, length: number): Buffer {
  const parts: Buffer[] = [];
  for (let count = 0; count * 32 < length; count++) parts.push(createHash('sha256').update(`${String(seed)}/${String(count)}`).digest());
  return Buffer.concat(parts).subarray(0, length);
}

const file: fc.Arbitrary<TestFile> = fc.record({ path, content, mode: fc.constantFrom(0o644, 0o755, 0o4755), mtimeSec: fc.integer({ min: 0, max: 2e9 }), link: fc.option(path, { nil: undefined, freq: 8 }) })
  .map(({ link, ...rest }) => (link === undefined ? rest : { ...rest, link }));

/** Layers of an old and of a new image that share some of their files. */
export const imagePair: fc.Arbitrary<{ old: TestFile[][]; now: TestFile[][] }> = fc.array(fc.array(file, { maxLength: 8 }), { minLength: 1, maxLength: 3 }).chain((old) => {
  const known = old.flat();
  const kept = known.length === 0 ? file : fc.oneof(file, fc.constantFrom(...known), fc.tuple(fc.constantFrom(...known), content, fc.nat()).map(([of, more, at]) => {
    const cut = at % (of.content.length + 1);
    return { ...of, content: Buffer.concat([of.content.subarray(0, cut), more, of.content.subarray(cut)]), mtimeSec: of.mtimeSec + 1 };
  }));
  return fc.array(fc.array(kept, { maxLength: 8 }), { minLength: 1, maxLength: 3 }).map((now) => ({ old, now }));
});

/** Keeps what a decoder hands over, and where it put it. */
export class MemorySink implements TargetSink {
  readonly layers = new Map<number, LayerMeta>();
  readonly copies: ContentOrigin[] = [];
  readonly written = new Map<string, Buffer[]>();
  openTarget: ((layer: number, entry: number) => Promise<BasisContent>) | undefined;

  beginLayer(): Promise<void> {
    return Promise.resolve();
  }

  copyEntry(_layer: number, _entry: number, origin: ContentOrigin): Promise<void> {
    this.copies.push(origin);
    return Promise.resolve();
  }

  writeEntry(layer: number, entry: number, chunk: Buffer): Promise<void> {
    const key = `${String(layer)}/${String(entry)}`;
    const list = this.written.get(key) ?? [];
    list.push(Buffer.from(chunk));
    this.written.set(key, list);
    return Promise.resolve();
  }

  endEntry(): Promise<void> {
    return Promise.resolve();
  }

  openContent(layer: number, entry: number): Promise<BasisContent> {
    return this.openTarget === undefined ? Promise.reject(new Error('no target content')) : this.openTarget(layer, entry);
  }

  endLayer(layer: number, meta: LayerMeta): Promise<void> {
    this.layers.set(layer, meta);
    return Promise.resolve();
  }
}
