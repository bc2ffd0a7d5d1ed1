/**
 * Adaptive binary arithmetic coding for the small, structured part of a delta (tar headers, sources, content
 * operations). Everything is integer arithmetic on values below 2^53, so every platform decodes the same.
 *
 * One piece of code describes a value both ways: a `BitPort` is either a decoder, which ignores the bit that it is
 * given and returns the one that it read, or an encoder, which writes the bit and returns it.
 */
export interface BitPort {
  /** Whether `bit` arguments are ignored. */
  readonly decoding: boolean;
  /** Codes one bit; `one16` is the probability of a 1 in 1/65536, 1 to 65535. */
  code(one16: number, bit: number): number;
  /** Whether more was read than there is: what comes now is made of nothing. */
  readonly overrun?: boolean;
  /** Told what the bits that follow are for, where somebody keeps account. */
  enter?(part: MetaPart): void;
}

/** What bits of tar metadata are for: a layer as a whole, the name that begins the next entry, and what follows it. */
export type MetaPart = 'layer' | 'name' | 'plan' | 'expansion' | 'attributes' | 'time';

/** Decodes bits from `bytes`; reading past the end gives zeros and sets `overrun`, so a hostile stream cannot make it throw or loop. */
export class BitDecoder implements BitPort {
  readonly decoding = true;
  #low = 0;
  #high = 0xffffffff;
  #code = 0;
  #next = 0;

  constructor(private readonly bytes: Uint8Array) {
    for (let count = 0; count < 4; count++) this.#code = ((this.#code << 8) | this.#byte()) >>> 0;
  }

  #byte(): number {
    return this.bytes[this.#next++] ?? 0;
  }

  /** True when more than the encoder's flush bytes were missing: the stream was cut short or is garbage. */
  get overrun(): boolean {
    return this.#next > this.bytes.length + 4;
  }

  code(one16: number): number {
    const mid = middle(this.#low, this.#high, one16);
    let bit = 0;
    if (this.#code <= mid) {
      bit = 1;
      this.#high = mid;
    } else {
      this.#low = mid + 1;
    }
    while ((this.#low ^ this.#high) >>> 24 === 0) {
      this.#low = (this.#low << 8) >>> 0;
      this.#high = ((this.#high << 8) | 0xff) >>> 0;
      this.#code = ((this.#code << 8) | this.#byte()) >>> 0;
    }
    return bit;
  }
}

/** Splits [low, high] so that the lower part has the share `one16` / 65536. */
export function middle(low: number, high: number, one16: number): number {
  const range = high - low;
  return low + Math.floor(range / 65536) * one16 + Math.floor(((range % 65536) * one16) / 65536);
}

const slowestRate = 250;

/** A table of adaptive bit probabilities; each learns fast at first and settles to a rate of 1/250. */
export class BitTable {
  readonly #one: Uint16Array;
  readonly #seen: Uint8Array;

  constructor(size: number) {
    this.#one = new Uint16Array(size).fill(32768);
    this.#seen = new Uint8Array(size);
  }

  /** Probability of a 1 in slot `index`, 1 to 65535. */
  one16(index: number): number {
    const value = this.#one[index] ?? 32768;
    return value < 1 ? 1 : value;
  }

  /** How often slot `index` was updated, at most 250. */
  seen(index: number): number {
    return this.#seen[index] ?? 0;
  }

  /** Learns that slot `index` was followed by `bit`. */
  update(index: number, bit: number): void {
    const seen = this.#seen[index] ?? 0;
    const old = this.#one[index] ?? 32768;
    const step = bit === 1 ? Math.floor((65535 - old) / (seen + 1.5)) : -Math.floor(old / (seen + 1.5));
    this.#one[index] = old + step;
    if (seen < slowestRate) this.#seen[index] = seen + 1;
  }

  /** Codes one bit in slot `index`, which learns from it; gives the bit. */
  code(port: BitPort, index: number, bit: number): number {
    const coded = port.code(this.one16(index), bit);
    this.update(index, coded);
    return coded;
  }
}

/** A yes-or-no question whose answer depends on its last two answers and on a caller's context. */
export class Flag {
  readonly #table: BitTable;
  readonly #history: Uint8Array;

  constructor(contexts = 1) {
    this.#table = new BitTable(contexts * 4);
    this.#history = new Uint8Array(contexts);
  }

  /** Codes a yes or no; gives it. */
  code(port: BitPort, value: boolean, context = 0): boolean {
    const history = this.#history[context] ?? 0;
    const bit = this.#table.code(port, context * 4 + history, value ? 1 : 0);
    this.#history[context] = ((history << 1) | bit) & 3;
    return bit === 1;
  }
}

/** One of 2^`bits` symbols, coded as a binary tree. */
export class Choice {
  readonly #table: BitTable;

  constructor(private readonly bits: number, contexts = 1) {
    this.#table = new BitTable(contexts << bits);
  }

  /** Codes a number below 2^bits; gives it. */
  code(port: BitPort, value: number, context = 0): number {
    let node = 1;
    for (let bit = this.bits - 1; bit >= 0; bit--) {
      node = (node << 1) | this.#table.code(port, (context << this.bits) + node, (value >>> bit) & 1);
    }
    return node - (1 << this.bits);
  }
}

/** An unsigned integer below 2^53: the number of its bits as a symbol, its upper bits modelled, the rest plain. */
export class NumberModel {
  readonly #width: Choice;
  readonly #upper: BitTable;

  constructor(contexts = 1) {
    this.#width = new Choice(6, contexts);
    this.#upper = new BitTable(contexts * 64 * 8);
  }

  /** Codes an unsigned safe integer; gives it. */
  code(port: BitPort, value: number, context = 0): number {
    const width = this.#width.code(port, bitLength(value), context);
    if (width === 0) return 0;
    let result = 1;
    let node = 1;
    for (let bit = Math.min(width, 53) - 2; bit >= 0; bit--) {
      const wanted = Math.floor(value / 2 ** bit) % 2;
      const coded = node < 8 ? this.#upper.code(port, (context * 64 + width) * 8 + node, wanted) : port.code(32768, wanted);
      if (node < 8) node = node * 2 + coded;
      result = result * 2 + coded;
    }
    return result;
  }
}

/** A signed integer: |value| below 2^52. */
export class SignedModel {
  readonly #magnitude: NumberModel;
  readonly #sign: BitTable;

  constructor(contexts = 1) {
    this.#magnitude = new NumberModel(contexts);
    this.#sign = new BitTable(contexts);
  }

  /** Codes a signed safe integer; gives it. */
  code(port: BitPort, value: number, context = 0): number {
    const magnitude = this.#magnitude.code(port, Math.abs(value), context);
    if (magnitude === 0) return 0;
    return this.#sign.code(port, context, value < 0 ? 1 : 0) === 1 ? -magnitude : magnitude;
  }
}

function bitLength(value: number): number {
  return value < 2 ** 32 ? 32 - Math.clz32(value) : 64 - Math.clz32(Math.floor(value / 2 ** 32));
}

const stringSlots = 1 << 16;
const orderWeights = [1, 3, 12, 24] as const;
const orders = orderWeights.length;
/** What each order sees of the last three bytes, and a bit above them that tells the orders apart. */
const orderMasks = [0, 0xff, 0xffff, 0xffffff] as const;
const orderMarks = [0, 0x100, 0x10000, 0x1000000] as const;

/** Byte strings (names, link targets, PAX values): orders 0 to 3 of the string's own bytes, weighted by how much each has seen. */
export class StringModel {
  readonly #length = new NumberModel();
  /** The tables of all orders, one behind the other. */
  readonly #table = new BitTable(orders * stringSlots);
  readonly #slots = new Uint32Array(orders);

  /** Codes a string of at most `maxBytes`; returns null when a decoded length is above it, or the stream ends long before its end. */
  code(port: BitPort, value: Uint8Array, maxBytes: number): Buffer | null {
    const length = this.#length.code(port, value.length);
    if (length > maxBytes) return null;
    const out = Buffer.alloc(length);
    let last = 0;
    for (let at = 0; at < length; at++) {
      // A few hostile bytes may claim a string that takes seconds to make of nothing.
      if (at % 256 === 0 && port.overrun === true) return null;
      const byte = this.#byte(port, last, value[at] ?? 0);
      out[at] = byte;
      last = ((last << 8) | byte) & 0xffffff;
    }
    return out;
  }

  #byte(port: BitPort, last: number, wanted: number): number {
    let node = 1;
    for (let bit = 7; bit >= 0; bit--) {
      this.#findSlots(last, node);
      const coded = port.code(this.#one16(), (wanted >>> bit) & 1);
      for (let order = 0; order < orders; order++) this.#table.update(this.#slots[order] ?? 0, coded);
      node = (node << 1) | coded;
    }
    return node - 256;
  }

  #findSlots(last: number, node: number): void {
    for (let order = 0; order < orders; order++) {
      const context = (last & (orderMasks[order] ?? 0)) + (orderMarks[order] ?? 0);
      this.#slots[order] = order * stringSlots + (Math.imul(context * 256 + node, 0x9e3779b1) >>> 16);
    }
  }

  /** The orders' probabilities of a 1, mixed. */
  #one16(): number {
    let sum = 0;
    let weights = 0;
    for (let order = 0; order < orders; order++) {
      const slot = this.#slots[order] ?? 0;
      const seen = Math.min(this.#table.seen(slot), 20);
      const weight = seen === 0 ? 0 : (orderWeights[order] ?? 1) * (seen + 1);
      sum += weight * this.#table.one16(slot);
      weights += weight;
    }
    return weights === 0 ? 32768 : Math.min(65500, Math.max(36, Math.floor(sum / weights)));
  }
}
