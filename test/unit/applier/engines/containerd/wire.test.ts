import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { isWhittleError } from '../../../../../src/core/errors.js';
import { layerDirectories } from '../../../../../src/applier/engines/containerd/trees.js';
import { bytes, flag, integer, MessageType, nested, nestedList, text, textMap, texts } from '../../../../../src/applier/engines/containerd/wire.js';

const inner = new MessageType({ name: text(1), sizeBytes: integer(2) });
const outer = new MessageType({ name: text(1), labels: textMap(2), target: nested(3, inner), sync: flag(4), data: bytes(5), words: texts(6), many: nestedList(20, inner) });

const word = fc.string({ unit: 'grapheme', maxLength: 20 });
const innerValue = fc.record({ name: word, sizeBytes: fc.maxSafeInteger() });
const value = fc.record({
  name: word, labels: fc.array(fc.tuple(word, word), { maxLength: 5 }).map((pairs) => new Map(pairs)), target: fc.option(innerValue, { nil: undefined }),
  sync: fc.boolean(), data: fc.uint8Array({ maxLength: 40 }), words: fc.array(word, { maxLength: 4 }), many: fc.array(innerValue, { maxLength: 4 }),
});

describe('the messages of containerd', () => {
  test('come out as they went in', () => {
    fc.assert(fc.property(value, (message) => {
      expect(outer.decode(outer.encode(message))).toEqual(message);
    }));
  });

  test('are written as the protocol says', () => {
    expect(outer.encode({ name: 'a', labels: new Map([['k', 'v']]), target: { name: '', sizeBytes: 300 }, sync: true }).toString('hex')).toBe('0a016112060a016b1201761a050a0010ac022001');
    expect(inner.decode(Buffer.from('10ffffffffffffffffff01', 'hex')).sizeBytes).toBe(-1);
  });

  test('of unknown fields keep what is known', () => {
    fc.assert(fc.property(value, (message) => {
      const { name, target } = new MessageType({ name: text(1), target: nested(3, new MessageType({})) }).decode(outer.encode(message));
      expect([name, target === undefined]).toEqual([message.name, message.target === undefined]);
    }));
  });

  test('of any bytes are read or refused, never anything else', () => {
    fc.assert(fc.property(fc.oneof(fc.uint8Array({ maxLength: 60 }), fc.tuple(value, fc.nat(), fc.nat(255)).map(([message, at, byte]) => {
      const encoded = outer.encode(message);
      if (encoded.length > 0) encoded[at % encoded.length] = byte;
      return encoded;
    })), (hostile) => {
      try {
        outer.decode(hostile);
      } catch (error) {
        expect(isWhittleError(error) && error.code).toBe('ENGINE_FAILED');
      }
    }), { numRuns: 2000 });
  });

  test('with numbers that are not exact are refused', () => {
    expect(() => inner.decode(Buffer.from('10ffffffffffffffff7f', 'hex'))).toThrow(expect.objectContaining({ code: 'ENGINE_FAILED' }));
  });
});

describe('a snapshot\'s directories', () => {
  const mount = (type: string, source: string, ...options: string[]): Parameters<typeof layerDirectories>[0] => [{ type, source, target: '', options }];

  test('are told from the mounts of the overlayfs snapshotter', () => {
    expect(layerDirectories(mount('bind', '/s/1/fs', 'rw', 'rbind'))).toEqual({ own: '/s/1', parents: [] });
    expect(layerDirectories(mount('bind', '/s/1/fs', 'ro', 'rbind'))).toEqual({ own: undefined, parents: ['/s/1'] });
    expect(layerDirectories(mount('overlay', 'overlay', 'index=off', 'workdir=/s/3/work', 'upperdir=/s/3/fs', 'lowerdir=/s/2/fs:/s/1/fs'))).toEqual({ own: '/s/3', parents: ['/s/2', '/s/1'] });
    expect(layerDirectories(mount('overlay', 'overlay', 'lowerdir=/s/2/fs:/s/1/fs'))).toEqual({ own: undefined, parents: ['/s/2', '/s/1'] });
  });

  test('of any other snapshotter, or elsewhere than an absolute path, are refused', () => {
    const others = [
      [], [...mount('bind', '/s/1/fs', 'rw'), ...mount('bind', '/s/2/fs', 'rw')], mount('btrfs', '/dev/sda'), mount('bind', '/s/1', 'rw'), mount('bind', 's/1/fs', 'rw'),
      mount('bind', '/s/1\0/fs', 'rw'), mount('overlay', 'overlay', 'lowerdir='), mount('overlay', 'overlay', 'lowerdir=/s/1/fs:../fs'), mount('overlay', 'overlay', 'userxattr', 'lowerdir=/s/1/fs'),
    ];
    for (const each of others) expect(() => layerDirectories(each)).toThrow(expect.objectContaining({ code: 'ENGINE_UNSUPPORTED' }));
  });
});
