import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { BitDecoder, Choice, Flag, NumberModel, SignedModel, StringModel, type BitPort } from '../../../src/delta/bits.js';
import { BitEncoder } from '../../../src/delta/encode/bit-encoder.js';

type Value =
  | { kind: 'flag'; value: boolean }
  | { kind: 'choice'; value: number }
  | { kind: 'number'; value: number }
  | { kind: 'signed'; value: number }
  | { kind: 'string'; value: Uint8Array };

const value: fc.Arbitrary<Value> = fc.oneof(
  fc.boolean().map((v): Value => ({ kind: 'flag', value: v })),
  fc.nat({ max: 255 }).map((v): Value => ({ kind: 'choice', value: v })),
  fc.maxSafeNat().map((v): Value => ({ kind: 'number', value: v })),
  fc.integer({ min: -(2 ** 51), max: 2 ** 51 }).map((v): Value => ({ kind: 'signed', value: v })),
  fc.uint8Array({ maxLength: 300 }).map((v): Value => ({ kind: 'string', value: v })),
);

/** Codes all values with fresh models; returns what came out. */
function transcode(port: BitPort, values: readonly Value[]): Value[] {
  const [flag, choice, number, signed, string] = [new Flag(), new Choice(8), new NumberModel(), new SignedModel(), new StringModel()];
  return values.map((one): Value => {
    switch (one.kind) {
      case 'flag': return { kind: 'flag', value: flag.code(port, one.value) };
      case 'choice': return { kind: 'choice', value: choice.code(port, one.value) };
      case 'number': return { kind: 'number', value: number.code(port, one.value) };
      case 'signed': return { kind: 'signed', value: signed.code(port, one.value) };
      case 'string': return { kind: 'string', value: Uint8Array.from(string.code(port, one.value, 1000) ?? []) };
    }
  });
}

const blank = (one: Value): Value => (one.kind === 'flag' ? { kind: 'flag', value: false } : one.kind === 'string' ? { kind: 'string', value: new Uint8Array() } : { kind: one.kind, value: 0 });

test('what was encoded is decoded, whatever it is', () => {
  fc.assert(fc.property(fc.array(value, { maxLength: 200 }), (values) => {
    const encoder = new BitEncoder();
    expect(transcode(encoder, values)).toEqual(values);
    const decoder = new BitDecoder(encoder.finish());
    expect(transcode(decoder, values.map(blank))).toEqual(values);
    expect(decoder.overrun).toBe(false);
  }), { numRuns: 300 });
});

test('garbage decodes to something and a short stream is noticed', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 50 }), fc.array(value, { maxLength: 50 }), (bytes, values) => {
    const decoder = new BitDecoder(bytes);
    expect(transcode(decoder, values.map(blank))).toHaveLength(values.length);
  }));
  const starved = new BitDecoder(new Uint8Array());
  const number = new NumberModel();
  for (let count = 0; count < 100; count++) number.code(starved, 0);
  const choice = new Choice(8);
  for (let count = 0; count < 1000; count++) choice.code(starved, 0);
  expect(starved.overrun).toBe(true);
});

test('a flag that never changes costs next to nothing', () => {
  const encoder = new BitEncoder();
  const flag = new Flag();
  for (let count = 0; count < 100_000; count++) flag.code(encoder, true);
  expect(encoder.finish().length).toBeLessThan(120);
});
