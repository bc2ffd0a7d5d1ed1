import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { BitDecoder } from '../../../src/delta/bits.js';
import { checksumListKind, checksumListKinds, updateChecksums, type ChecksumListKind, type FileChecksums } from '../../../src/delta/checksum-list.js';
import { BitEncoder } from '../../../src/delta/encode/bit-encoder.js';
import { deltaLimits } from '../../../src/delta/limits.js';
import { MetaCoder } from '../../../src/delta/meta-coder.js';
import type { ContentPlan } from '../../../src/delta/plan.js';
import type { LayerEntry, TarHeader } from '../../../src/tar/types.js';
import { noise, type TestFile } from '../../support/delta-images.js';
import { ImageDelta, layerDeltaBytes } from '../../support/image-delta.js';

let dir = '';
beforeAll(() => { dir = mkdtempSync(join(tmpdir(), 'checksums-')); });
afterAll(() => { rmSync(dir, { recursive: true, force: true }); });

const of = (content: Buffer): FileChecksums => ({ sizeBytes: content.length, sha256: createHash('sha256').update(content).digest(), md5: createHash('md5').update(content).digest() });

/** A line as the tools write it that make such lists. */
function line(kind: ChecksumListKind, name: string, content: Buffer): string {
  const { sizeBytes, sha256 } = of(content);
  if (kind === 'record') return `${name},sha256=${sha256.toString('base64').replaceAll('+', '-').replaceAll('/', '_').replace('=', '')},${String(sizeBytes)}`;
  return `${createHash(kind).update(content).digest('hex')}  ${name}`;
}

test.each(checksumListKinds)('of a list of kind %s what it says of a file is brought up to date, and nothing else', (kind) => {
  const [was, is] = [noise(1, 50), noise(2, 1234)];
  const list = (content: Buffer, end: string): Buffer => Buffer.from([line(kind, 'a/b c', content), 'some text', line(kind, 'gone', noise(3, 3)), line(kind, 'a/\xe9', content), ''].join(end), 'latin1');
  const names: string[] = [];
  const checksumsOf = (name: string): FileChecksums | undefined => {
    names.push(name);
    return name === 'gone' ? undefined : of(is);
  };
  for (const end of ['\n', '\r\n']) {
    names.length = 0;
    expect(checksumListKind(list(was, end))).toBe(kind);
    expect(updateChecksums(kind, list(was, end), checksumsOf).toString('latin1')).toBe(list(is, end).toString('latin1'));
    expect(names).toEqual(['a/b c', 'gone', 'a/\xe9']);
  }
});

test('what only looks like a line of a list stays as it is', () => {
  const hex = 'ab'.repeat(16);
  const others = [`${hex.toUpperCase()}  a`, `${hex} a`, `${hex}0  a`, ` ${hex}  a`, `${hex}  `, `a,sha256=${'x'.repeat(42)},1`, `"a",sha256=${'x'.repeat(43)},1`, `a,sha256=${'x'.repeat(43)},`, 'a,,'];
  const text = Buffer.from(others.join('\n'));
  expect(checksumListKind(text)).toBeNull();
  for (const kind of checksumListKinds) expect(updateChecksums(kind, text, () => of(noise(1, 1))).equals(text)).toBe(true);
});

test('no bytes make it fail, and without checksums they stay as they are', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 2000 }), fc.constantFrom(...checksumListKinds), (bytes, kind) => {
    expect(updateChecksums(kind, Buffer.from(bytes), () => undefined).equals(Buffer.from(bytes))).toBe(true);
  }));
});

const file = (path: string, content: Buffer): TestFile => ({ path, content, mode: 0o644, mtimeSec: 1 });
const changed = 150;

/** Libraries of a package of which all change, and around them what stays; `now` tells the versions apart. */
function library(index: number, now: boolean): Buffer {
  return Buffer.concat([noise(index, 300), noise(now ? index + 5000 : index + 9000, 6)]);
}

/** Both versions of a layer whose list names the files by `name`, and stands at `path` behind them (or before them). */
function versions(kind: ChecksumListKind, path: string, name: (index: number) => string, listFirst = false): { old: TestFile[]; now: TestFile[] } {
  const [old, now] = [false, true].map((isNow) => {
    const files = Array.from({ length: changed }, (_, index) => file(`usr/lib/app/f${String(index)}`, library(index, isNow)));
    const list = file(path, Buffer.from(`${files.map(({ content }, index) => line(kind, name(index), content)).join('\n')}\n`));
    return listFirst ? [list, ...files] : [...files, list];
  });
  return { old: old ?? [], now: now ?? [] };
}

function deltaBytes({ old, now }: { old: readonly TestFile[]; now: readonly TestFile[] }, profile: 'small' | 'fast' = 'small'): Promise<number> {
  return layerDeltaBytes(dir, old, now, { profile });
}

/** What the list adds to the delta, in bytes for each line. */
async function listCost(pair: { old: readonly TestFile[]; now: readonly TestFile[] }, profile: 'small' | 'fast' = 'small'): Promise<number> {
  const others = { old: pair.old.filter(({ path }) => path.startsWith('usr/lib/app')), now: pair.now.filter(({ path }) => path.startsWith('usr/lib/app')) };
  return (await deltaBytes(pair, profile) - await deltaBytes(others, profile)) / changed;
}

const named = (index: number): string => `usr/lib/app/f${String(index)}`;

test.each([
  ['md5', 'var/lib/dpkg/info/app.md5sums', named],
  ['md5', 'var/lib/dpkg/info/app.md5sums', (index: number) => `./${named(index)}`],
  ['sha256', 'usr/lib/app.sha256', (index: number) => `/${named(index)}`],
  ['sha256', 'usr/lib/appSUMS', (index: number) => `app/f${String(index)}`],
  ['record', 'usr/lib/app.dist-info/RECORD', (index: number) => `app/f${String(index)}`],
  ['record', 'usr/share/lib/app.dist-info/RECORD', (index: number) => `../../lib/app/f${String(index)}`],
] as const)('a %s list at %s costs next to nothing', async (kind, path, name) => {
  for (const profile of ['small', 'fast'] as const) expect(await listCost(versions(kind, path, name), profile)).toBeLessThan(0.4);
});

test('a hard link to a file that changed is known, a list before its files is not, and a list of other images is no use', async () => {
  const pair = versions('md5', 'var/app.md5sums', (index) => `links/f${String(index)}`);
  const links = Array.from({ length: changed }, (_, index): TestFile => ({ ...file(`links/f${String(index)}`, Buffer.alloc(0)), hardLink: named(index) }));
  const linked = (files: readonly TestFile[]): TestFile[] => [...files.slice(0, changed), ...links, ...files.slice(changed)];
  expect(await listCost({ old: linked(pair.old), now: linked(pair.now) })).toBeLessThan(2);
  expect(await listCost(versions('md5', 'etc/app.md5sums', named, true))).toBeGreaterThan(15);
  expect(await listCost(versions('md5', 'var/app.md5sums', (index) => `elsewhere/f${String(index)}`))).toBeGreaterThan(15);
});

test('a list is made only with the memory that the delta declares, and none that is too large is read as one', async () => {
  const made = async (padding: number): Promise<ImageDelta> => {
    const { old, now } = versions('md5', 'var/app.md5sums', named);
    const tail = Buffer.alloc(padding, 'some other text\n');
    const longer = (files: readonly TestFile[]): TestFile[] => files.map((each) => (each.path === 'var/app.md5sums' ? { ...each, content: Buffer.concat([each.content, tail]) } : each));
    return ImageDelta.make(dir, [longer(old)], [longer(now)]);
  };
  const delta = await made(2 ** 20);
  delta.expectSame(await delta.apply());
  await expect(delta.apply({ index: { ...delta.index, memoryBytes: delta.index.memoryBytes - 3 * 2 ** 20 } })).rejects.toMatchObject({ code: 'DELTA_CORRUPT' });
  delta.close();
  const tooLarge = await made(deltaLimits.checksumListBytes);
  tooLarge.expectSame(await tooLarge.apply());
  expect(tooLarge.data.length - delta.data.length).toBeGreaterThan(15 * changed);
  tooLarge.close();
});

const none = Buffer.alloc(0);
const header: TarHeader = {
  path: none, linkPath: none, typeflag: 0x30, mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, mtimeSec: 0, mtimeNsec: 0, uname: none, gname: none,
  devMajor: 0, devMinor: 0, pax: [], style: none, residue: none,
};

test('a delta says of no more that it is a list than the limit allows', () => {
  const mebibytes = 2 ** 20;
  const entries = (count: number): LayerEntry[] => Array.from({ length: count }, (_, index) => ({
    header: { ...header, path: Buffer.from(`f${String(index)}`), sizeBytes: 4 * mebibytes }, digest: Buffer.alloc(32), padding: null,
  }));
  const coded = (count: number): number => {
    const layer = { diffId: `sha256:${'0'.repeat(64)}`, sizeBytes: 0, entries: entries(count), trailerZeroBytes: 0, trailer: null };
    const content = entries(count).map((_, entry): ContentPlan => ({ kind: 'patch', sources: [{ from: 'basis', layer: 0, entry }], expansion: null, checksums: { kind: 'md5' } }));
    const bits = new BitEncoder();
    new MetaCoder([layer]).layer(bits, 0, layer.diffId, { plan: { meta: layer, content }, bases: Int32Array.from(content.keys()) });
    return new MetaCoder([layer]).layer(new BitDecoder(bits.finish()), 0, layer.diffId).content.filter((plan) => plan.kind === 'patch' && plan.checksums?.kind === 'md5').length;
  };
  expect(coded(32)).toBe(32);
  expect(() => coded(33)).toThrow(expect.objectContaining({ code: 'DELTA_CORRUPT' }));
});
