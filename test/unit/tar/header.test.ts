import { describe, expect, test } from '@jest/globals';
import { derivePaxValue, joinHeader, paxDerived, splitHeader, type TarHeader } from '../../../src/tar/index.js';
import { goPax, member, paxData, scan, seal } from '../../support/tars.js';

function onlyHeader(raw: Buffer): TarHeader {
  return splitHeader(raw);
}

describe('fields of a header', () => {
  test('come from PAX records before the block', () => {
    const raw = Buffer.concat([
      goPax('short', { path: 'caf\u00e9/x', uid: '5000000', mtime: '-1.25', size: '7' }),
      member({ name: 'short', data: Buffer.alloc(0), size: 3 }),
    ]);
    const header = onlyHeader(raw);
    expect(header.path.toString()).toBe('café/x');
    expect(header).toMatchObject({ uid: 5_000_000, mtimeSec: -2, mtimeNsec: 750_000_000, sizeBytes: 7 });
    expect(header.pax.map(({ key }) => key.toString())).toEqual(['path', 'uid', 'mtime', 'size']);
    expect(joinHeader(header)).toEqual(raw);
  });

  test('an empty PAX value takes the record back', () => {
    const raw = Buffer.concat([goPax('a', { path: '' }), member({ name: 'a' })]);
    expect(onlyHeader(raw).path.toString()).toBe('a');
  });

  test('come from GNU long-name headers, which win over PAX', () => {
    const long = (type: string, text: string): Buffer => member({ name: '././@LongLink', type, magic: 'ustar  \0', data: Buffer.from(`${text}\0`) });
    const path = 'p/'.repeat(80);
    const link = 'l/'.repeat(90);
    const raw = Buffer.concat([long('K', link), long('L', path), member({ name: path, link, type: '2', magic: 'ustar  \0' })]);
    const header = onlyHeader(raw);
    expect(header.path.toString()).toBe(path);
    expect(header.linkPath.toString()).toBe(link);
    expect(header.residue).toHaveLength(0);
    expect(joinHeader(header)).toEqual(raw);
  });

  test('join the ustar prefix and name', () => {
    const header = onlyHeader(member({ name: 'b', prefix: 'a/c' }));
    expect(header.path.toString()).toBe('a/c/b');
  });

  test('read base-256 numbers, negative ones too', () => {
    const negative = onlyHeader(member({ name: 'a', edit: (block) => { Buffer.from('fffffffffffffffffffffff6', 'hex').copy(block, 136); } }));
    expect(negative.mtimeSec).toBe(-10);
    const large = onlyHeader(member({ name: 'a', edit: (block) => { Buffer.from('800000000000000200000000', 'hex').copy(block, 124); } }));
    expect(large.sizeBytes).toBe(2 ** 33);
  });

  test.each(['1', '2', '3', '4', '5', '6'])('type %s has no data whatever its size field says', (type) => {
    const raw = member({ name: 'a', type, size: 1000 });
    expect(onlyHeader(raw).sizeBytes).toBe(0);
    expect(joinHeader(onlyHeader(raw))).toEqual(raw);
  });

  test('an old regular entry that ends in a slash is a directory', () => {
    expect(onlyHeader(member({ name: 'a/', type: '\0', size: 1000 })).sizeBytes).toBe(0);
    expect(onlyHeader(member({ name: 'a', type: '\0', size: 1000 })).sizeBytes).toBe(1000);
  });
});

describe('malformed headers are refused', () => {
  const octal = (at: number) => member({ name: 'a', edit: (block) => { block.write('12x', at, 'latin1'); } });
  const cases: Record<string, Buffer> = {
    'letters in a number': octal(124),
    'a space within a number': member({ name: 'a', edit: (block) => { block.write('1 1', 108, 'latin1'); } }),
    'a number beyond 2^53': member({ name: 'a', edit: (block) => { Buffer.from('8000000001ffffffffffffff', 'hex').copy(block, 124); } }),
    'a negative size': member({ name: 'a', edit: (block) => { block.fill(0xff, 124, 136); } }),
    'a negative PAX size': Buffer.concat([goPax('a', { size: '-1' }), member({ name: 'a' })]),
    'a PAX size in words': Buffer.concat([goPax('a', { size: 'many' }), member({ name: 'a' })]),
    'a NUL in a PAX path': Buffer.concat([goPax('a', { path: 'a\0b' }), member({ name: 'a' })]),
    'a PAX record that is too long': Buffer.concat([member({ name: 'x', type: 'x', data: Buffer.from('99 path=a\n') }), member({ name: 'a' })]),
    'a PAX record without a key': Buffer.concat([member({ name: 'x', type: 'x', data: Buffer.from('6 =ab\n') }), member({ name: 'a' })]),
    'a PAX time in words': Buffer.concat([goPax('a', { mtime: '1.2.3' }), member({ name: 'a' })]),
    'half a block': member({ name: 'a' }).subarray(0, 300),
  };
  test.each(Object.entries(cases))('%s', (_, raw) => {
    expect(() => splitHeader(raw)).toThrow(expect.objectContaining({ code: 'TAR_CORRUPT' }));
  });

  test('a malformed style or residue', () => {
    const header = onlyHeader(member({ name: 'a' }));
    const broken: Partial<TarHeader>[] = [
      { style: Buffer.alloc(0) }, { style: Buffer.from([255]) }, { style: Buffer.concat([header.style, Buffer.of(0)]) },
      { residue: Buffer.from([255]) }, { residue: Buffer.from([8, 1, 200, 200, 200, 1]) }, { residue: Buffer.from([2, 250]) },
    ];
    for (const part of broken) expect(() => joinHeader({ ...header, ...part })).toThrow(expect.objectContaining({ code: 'TAR_CORRUPT' }));
  });
});

describe('style', () => {
  test('does not depend on field values', () => {
    const [first, second] = scan(Buffer.concat([
      member({ name: 'a', mode: 0o755, uid: 3, mtime: 1_700_000_000, data: Buffer.from('x') }),
      member({ name: 'some/other/path', type: '5', mtime: 1_600_000_000 }),
    ])).headers;
    expect(second?.style).toBe(first?.style);
    expect(first?.residue).toHaveLength(0);
  });

  test('lets edited fields give the header that the writer would have made', () => {
    const made = (name: string, mtime: number): Buffer => Buffer.concat([
      goPax(name, { mtime: `${String(mtime)}.5`, 'SCHILY.xattr.user.a': 'v' }), member({ name, mtime }),
    ]);
    const header = onlyHeader(made('d/file', 1_700_000_000));
    const pax = header.pax.map((record) => record.key.toString() === 'mtime' ? { ...record, value: Buffer.from('1800000000.5') } : record);
    const edited = { ...header, path: Buffer.from('other/name'), mtimeSec: 1_800_000_000, pax };
    expect(joinHeader(edited)).toEqual(made('other/name', 1_800_000_000));
  });

  test('one odd byte costs a residue, not a style', () => {
    const [plain, odd] = scan(Buffer.concat([
      member({ name: 'a' }),
      member({ name: 'b', edit: (block) => { block[510] = 7; } }),
    ])).headers;
    expect(odd?.style).toBe(plain?.style);
    expect(odd?.residue.length).toBeGreaterThan(0);
    expect(odd?.residue.length).toBeLessThan(10);
  });

  test('keeps a signed checksum', () => {
    const raw = member({ name: Buffer.from([0xe9, 0x61]), type: '0' });
    const signed = Buffer.from(raw);
    signed.fill(0x20, 148, 156);
    const sum = [...signed.subarray(0, 512)].reduce((total, byte) => total + (byte > 127 ? byte - 256 : byte), 0);
    signed.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
    const [header] = scan(Buffer.concat([signed, Buffer.alloc(1024)])).headers;
    expect(header === undefined ? null : joinHeader(header)).toEqual(signed);
  });
});

describe('PAX values that follow from fields', () => {
  const derived = (records: Readonly<Record<string, string>>): Record<string, boolean> => {
    const header = onlyHeader(Buffer.concat([goPax('n', records), member({ name: 'n' })]));
    const flags = paxDerived(header);
    return Object.fromEntries(header.pax.map(({ key }, index) => [key.toString(), flags[index] ?? false]));
  };

  test('are those that repeat a field exactly', () => {
    expect(derived({ path: 'long', uid: '7', mtime: '1700000000.123456789', 'SCHILY.xattr.a': 'b' }))
      .toEqual({ path: true, uid: true, mtime: true, 'SCHILY.xattr.a': false });
    expect(derived({ mtime: '1700000000' })).toEqual({ mtime: true });
    expect(derived({ mtime: '1700000000.0' })).toEqual({ mtime: true });
    expect(derived({ mtime: '-0.5' })).toEqual({ mtime: true });
    expect(derived({ mtime: '1700000000.1234567890123', uid: '007', path: '' })).toEqual({ mtime: false, uid: false, path: false });
  });

  test('are given without looking at the records', () => {
    const header = onlyHeader(Buffer.concat([goPax('n', { path: 'long', mtime: '12.5' }), member({ name: 'n' })]));
    const value = (key: string): string | undefined => derivePaxValue(header, Buffer.from(key))?.toString();
    expect([value('path'), value('mtime'), value('uid'), value('comment')]).toEqual(['long', '12.5', '0', undefined]);
  });
});

test('a PAX record whose length has needless zeros, and one before it, come back exactly', () => {
  const odd = member({ name: 'PaxHeaders.0/a', type: 'x', data: Buffer.from('012 path=bc\n') });
  const raw = Buffer.concat([goPax('a', { path: 'first' }), odd, member({ name: 'a' })]);
  const header = onlyHeader(raw);
  expect(header.path.toString()).toBe('bc');
  expect(joinHeader(header)).toEqual(raw);
});

test('a PAX header in front of which another stands is the one that counts', () => {
  const raw = Buffer.concat([goPax('a', { path: 'first', uid: '9' }), goPax('a', { path: 'second' }), member({ name: 'a' })]);
  expect(onlyHeader(raw)).toMatchObject({ path: Buffer.from('second'), uid: 0 });
  expect(joinHeader(onlyHeader(raw))).toEqual(raw);
});

test('sealing gives the checksum that Go computes', () => {
  expect(seal(Buffer.alloc(512)).toString('latin1', 148, 156)).toBe('000400\0 ');
  expect(paxData({ path: 'a'.repeat(90) }).toString('latin1', 0, 8)).toBe('99 path=');
});
