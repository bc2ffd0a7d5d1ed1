import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { PackedEntries } from '../../../src/tar/index.js';
import type { LayerEntry } from '../../../src/tar/types.js';

const bytes = (maxLength: number): fc.Arbitrary<Buffer> => fc.uint8Array({ maxLength }).map((found) => Buffer.from(found));
const whole = fc.oneof(fc.constantFrom(0, 1, 0o755, 63, 64, 2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER), fc.maxSafeNat());
const signed = fc.oneof(whole, whole.map((value) => (value === 0 ? 0 : -value)));
const name = fc.oneof(fc.constantFrom(Buffer.alloc(0), Buffer.from('root')), bytes(12));

const entry: fc.Arbitrary<LayerEntry> = fc.record({
  header: fc.record({
    path: bytes(300), linkPath: fc.oneof(fc.constant(Buffer.alloc(0)), bytes(90)), typeflag: fc.nat(255), mode: whole, uid: signed, gid: signed, sizeBytes: whole,
    mtimeSec: signed, mtimeNsec: fc.nat(999_999_999), uname: name, gname: name, devMajor: signed, devMinor: signed,
    pax: fc.array(fc.record({ key: name, value: bytes(40) }), { maxLength: 3 }), style: name, residue: fc.oneof(fc.constant(Buffer.alloc(0)), bytes(600)),
  }),
  digest: fc.oneof(fc.constant(null), fc.uint8Array({ minLength: 32, maxLength: 32 }).map((found) => Buffer.from(found))),
  padding: fc.oneof(fc.constant(null), bytes(511)),
}).map((found) => (found.header.sizeBytes === 0 ? { ...found, digest: null } : found));

test('a packed list gives back every field of every entry, in any order of asking', () => {
  fc.assert(fc.property(fc.array(entry, { maxLength: 40 }), fc.array(fc.nat(45), { maxLength: 20 }), (entries, asked) => {
    const packed = new PackedEntries();
    for (const each of entries) packed.push(each);
    expect([...packed]).toEqual(entries);
    for (const index of asked) expect(packed.at(index)).toEqual(entries[index]);
    expect(packed.at(-1)).toBeUndefined();
  }));
});

test('sizes of contents are known without the entry; where it may be a sparse file, that has to be looked at', () => {
  fc.assert(fc.property(fc.array(entry, { maxLength: 20 }), (entries) => {
    const packed = new PackedEntries();
    for (const each of entries) packed.push(each);
    for (const [index, { header }] of entries.entries()) {
      const mayBeSparse = header.sizeBytes > 0 && (header.pax.length > 0 || header.typeflag === 0x53);
      expect(packed.plainSizeBytes(index)).toBe(mayBeSparse ? undefined : header.sizeBytes);
      expect(packed.sizeBytes(index)).toBe(header.sizeBytes);
    }
    expect(packed.plainSizeBytes(entries.length)).toBe(0);
  }));
});

test('a row larger than a slab, and those around it, come back', () => {
  const packed = new PackedEntries();
  const [small] = fc.sample(entry, { numRuns: 1, seed: 1 });
  if (small === undefined) throw new Error('nothing sampled');
  const residue = Buffer.alloc(700_000, 7);
  for (const each of [small, { ...small, header: { ...small.header, residue } }, small, small]) packed.push(each);
  expect(packed.at(1)?.header.residue.equals(residue)).toBe(true);
  expect([packed.at(0), packed.at(2), packed.at(3)]).toEqual([small, small, small]);
});

test('a digest set later is there, and nothing else changes', () => {
  fc.assert(fc.property(fc.array(entry, { minLength: 1, maxLength: 9 }), fc.nat(), (entries, pick) => {
    const packed = new PackedEntries();
    for (const each of entries) packed.push({ ...each, digest: null });
    const index = pick % entries.length;
    const wanted = Buffer.alloc(32, 0xab);
    const set = (): void => { packed.setDigest(index, wanted); };
    expect(packed.at(index)?.digest).toBeNull();
    if (entries[index]?.header.sizeBytes === 0) expect(set).toThrow();
    else {
      set();
      expect(packed.at(-1)).toBeUndefined();
      expect([...packed]).toEqual(entries.map((each, at) => ({ ...each, digest: at === index ? wanted : null })));
    }
  }));
});
