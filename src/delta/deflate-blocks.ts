/** Symbols of one deflate block (RFC 1951, 3.2.5), in order. */
export interface BlockSymbols {
  readonly count: number;
  /** A literal's byte; or, where the distance is not 0, a match's length less 3. */
  readonly literals: Uint8Array;
  /** 0 for a literal, else the distance of a match. */
  readonly distances: Uint16Array;
}

const endOfBlock = 256;
const literalCodes = 286;
const distanceCodes = 30;
const lengthExtra = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const distanceExtra = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
const runExtra = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 7];
/** The order in which the lengths of the code for code lengths are sent (RFC 1951, 3.2.7). */
const lengthOrder: readonly number[] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/** First value of each code whose values have so many extra bits. */
function bases(extra: readonly number[], first: number): number[] {
  let next = first;
  return extra.map((bits) => {
    const base = next;
    next += 2 ** bits;
    return base;
  });
}
/** The longest length has a code of its own. */
const lengthBase = [...bases(lengthExtra.slice(0, 28), 0), 255];
const distanceBase = bases(distanceExtra, 1);

/** Code for each length less 3. Every start of the device makes these tables: each code fills all behind its base, and the next what is its own. */
const lengthCodes = new Uint8Array(256);
lengthBase.forEach((base, code) => lengthCodes.fill(code, base));
/** Codes of distances to 256, then of those above by their 128s. */
const distanceCodesOf = new Uint8Array(512);
distanceBase.forEach((base, code) => {
  distanceCodesOf.subarray(0, 256).fill(code, base - 1);
  distanceCodesOf.subarray(256).fill(code, Math.ceil((base - 1) / 128));
});

/** The code of a distance from 1 to 32768. */
export function distanceCode(distance: number): number {
  return distanceCodesOf[distance <= 256 ? distance - 1 : 256 + ((distance - 1) >> 7)]!;
}

/** The extra bits of a distance's code. */
export function distanceExtraBits(code: number): number {
  return distanceExtra[code]!;
}

/** A prefix code: lengths and bits (as sent, first bit lowest) of each symbol, and the last symbol that has a code. */
interface PrefixCode {
  readonly lengths: Uint8Array;
  readonly bits: Uint16Array;
  readonly last: number;
}

/** Codes of given lengths, shorter first, then by symbol (RFC 1951, 3.2.2). */
function prefixCode(lengths: Uint8Array, last: number): PrefixCode {
  const counts = new Uint16Array(16);
  for (const length of lengths) if (length > 0) counts[length]! += 1;
  const next = new Uint16Array(16);
  for (let length = 1; length < 16; length++) next[length] = (next[length - 1]! + counts[length - 1]!) << 1;
  const bits = Uint16Array.from(lengths, (length) => {
    if (length === 0) return 0;
    let code = next[length]!;
    next[length] = code + 1;
    let reversed = 0;
    for (let left = length; left > 0; left--, code >>= 1) reversed = reversed << 1 | (code & 1);
    return reversed;
  });
  return { lengths, bits, last };
}

let madeFixedCodes: readonly [literals: PrefixCode, distances: PrefixCode] | undefined;

/** The codes of blocks that send none. Made when they are first needed: most pulls pack nothing, and would begin with this longest of all. */
function fixedCodes(): readonly [literals: PrefixCode, distances: PrefixCode] {
  madeFixedCodes ??= [
    prefixCode(Uint8Array.from({ length: 288 }, (_, symbol) => symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8), 287),
    prefixCode(new Uint8Array(distanceCodes).fill(5), distanceCodes - 1),
  ];
  return madeFixedCodes;
}

/**
 * Huffman's tree over `frequencies`, as zlib and gzip build it: a heap by frequency, then by depth. A tree has two symbols
 * at least. Codes longer than `longest` are shortened by lengthening the longest that has room.
 */
class CodeBuilder {
  readonly #frequencies: Uint32Array;
  readonly #depths: Uint8Array;
  readonly #parents: Uint16Array;
  readonly #heap: number[] = [];
  /** Nodes in the order in which the tree took them; the root is the last. */
  readonly #taken: number[] = [];
  #last = -1;

  constructor(frequencies: Uint32Array, private readonly longest: number) {
    this.#frequencies = new Uint32Array(2 * frequencies.length + 1);
    this.#frequencies.set(frequencies);
    this.#depths = new Uint8Array(this.#frequencies.length);
    this.#parents = new Uint16Array(this.#frequencies.length);
    for (let symbol = 0; symbol < frequencies.length; symbol++) if (frequencies[symbol]! > 0) this.#add(symbol);
    while (this.#heap.length < 2) {
      const symbol = this.#last < 2 ? this.#last + 1 : 0;
      this.#frequencies[symbol] = 1;
      this.#add(symbol);
    }
    for (let at = (this.#heap.length >> 1) - 1; at >= 0; at--) this.#sink(at);
    this.#join(frequencies.length);
  }

  #add(symbol: number): void {
    this.#heap.push(symbol);
    if (symbol > this.#last) this.#last = symbol;
  }

  #before(a: number, b: number): boolean {
    const [fa, fb] = [this.#frequencies[a]!, this.#frequencies[b]!];
    return fa < fb || (fa === fb && this.#depths[a]! <= this.#depths[b]!);
  }

  #sink(from: number): void {
    const heap = this.#heap;
    const node = heap[from]!;
    let at = from;
    for (let child = 2 * at + 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && this.#before(heap[child + 1]!, heap[child]!)) child++;
      if (this.#before(node, heap[child]!)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = node;
  }

  #join(symbols: number): void {
    const heap = this.#heap;
    for (let node = symbols; heap.length > 1; node++) {
      const least = heap[0]!;
      heap[0] = heap.pop()!;
      this.#sink(0);
      const second = heap[0];
      this.#taken.push(least, second);
      this.#frequencies[node] = this.#frequencies[least]! + this.#frequencies[second]!;
      this.#depths[node] = Math.max(this.#depths[least]!, this.#depths[second]!) + 1;
      this.#parents[least] = node;
      this.#parents[second] = node;
      heap[0] = node;
      this.#sink(0);
    }
    this.#taken.push(heap[0]!);
  }

  /** The code for the first `symbols` symbols. */
  build(symbols: number): PrefixCode {
    const lengths = new Uint8Array(this.#frequencies.length);
    const counts = new Array<number>(this.longest + 1).fill(0);
    let tooLong = 0;
    for (let at = this.#taken.length - 2; at >= 0; at--) {
      const node = this.#taken[at]!;
      let length = lengths[this.#parents[node]!]! + 1;
      if (length > this.longest) {
        length = this.longest;
        tooLong++;
      }
      lengths[node] = length;
      if (node < symbols) counts[length]! += 1;
    }
    if (tooLong > 0) this.#shorten(lengths, counts, tooLong, symbols);
    return prefixCode(lengths.subarray(0, symbols), this.#last);
  }

  #shorten(lengths: Uint8Array, counts: number[], tooLong: number, symbols: number): void {
    for (let left = tooLong; left > 0; left -= 2) {
      let length = this.longest - 1;
      while (counts[length] === 0) length--;
      counts[length]! -= 1;
      counts[length + 1]! += 2;
      counts[this.longest]! -= 1;
    }
    // The rarest symbols get the longest codes.
    const leaves = this.#taken.filter((node) => node < symbols);
    let at = 0;
    for (let length = this.longest; length > 0; length--) for (let left = counts[length]!; left > 0; left--) lengths[leaves[at++]!] = length;
  }
}

/** A step of sending code lengths: 0-15 a length, 16 the one before again, 17 and 18 zeros; `more` goes into the extra bits. */
interface LengthRun {
  readonly symbol: number;
  readonly more: number;
}

/** Code lengths as runs, each as long as it may be; runs do not go on from one code to the other. */
function lengthRuns({ lengths, last }: PrefixCode): LengthRun[] {
  const runs: LengthRun[] = [];
  let before = -1;
  for (let at = 0; at <= last; ) {
    const length = lengths[at]!;
    const most = length === 0 ? 138 : length === before ? 6 : 7;
    let count = 1;
    while (count < most && at + count <= last && lengths[at + count] === length) count++;
    at += count;
    const fewest = length !== 0 && length !== before ? 4 : 3;
    if (count < fewest) {
      for (let left = count; left > 0; left--) runs.push({ symbol: length, more: 0 });
    } else if (length !== 0) {
      if (length !== before) {
        runs.push({ symbol: length, more: 0 });
        count--;
      }
      runs.push({ symbol: 16, more: count - 3 });
    } else {
      runs.push(count <= 10 ? { symbol: 17, more: count - 3 } : { symbol: 18, more: count - 11 });
    }
    before = length;
  }
  return runs;
}

/** Writes blocks of a deflate stream (RFC 1951), each in the way that takes the fewest bytes, with the codes that zlib and gzip give it. */
export class BlockWriter {
  #out = Buffer.allocUnsafe(64 * 1024);
  #size = 0;
  #pending = 0;
  #pendingBits = 0;

  /** What is whole of what was written since it was last taken. */
  take(): Buffer {
    const bytes = Buffer.from(this.#out.subarray(0, this.#size));
    this.#size = 0;
    return bytes;
  }

  /** Writes a block; `plain`: what it holds, null where that is not at hand any more. The last block is filled up to a byte. */
  write(symbols: BlockSymbols, plain: Uint8Array | null, plainBytes: number, last: boolean): void {
    const [literalCounts, distanceCounts] = count(symbols);
    const literals = new CodeBuilder(literalCounts, 15).build(literalCodes);
    const distances = new CodeBuilder(distanceCounts, 15).build(distanceCodes);
    const runs = [...lengthRuns(literals), ...lengthRuns(distances)];
    const runCounts = new Uint32Array(runExtra.length);
    for (const { symbol } of runs) runCounts[symbol]! += 1;
    const lengths = new CodeBuilder(runCounts, 7).build(runExtra.length);
    let sent = lengthOrder.length;
    while (sent > 4 && lengths.lengths[lengthOrder[sent - 1]!] === 0) sent--;
    const coded = 14 + 3 * sent + cost(runCounts, lengths, (symbol) => runExtra[symbol]!) + contentBits(literalCounts, distanceCounts, literals, distances);
    const [fixedLiterals, fixedDistances] = fixedCodes();
    const fixed = contentBits(literalCounts, distanceCounts, fixedLiterals, fixedDistances);
    const [codedBytes, fixedBytes] = [(coded + 10) >> 3, (fixed + 10) >> 3];
    if (plain !== null && plainBytes + 4 <= Math.min(codedBytes, fixedBytes)) {
      this.#stored(plain.subarray(0, plainBytes), last);
    } else if (fixedBytes <= codedBytes) {
      this.#bits(2 + Number(last), 3);
      this.#symbols(symbols, fixedLiterals, fixedDistances);
    } else {
      this.#bits(4 + Number(last), 3);
      this.#codes(literals, distances, lengths, sent, runs);
      this.#symbols(symbols, literals, distances);
    }
    if (last) this.#fill();
  }

  #stored(plain: Uint8Array, last: boolean): void {
    this.#bits(Number(last), 3);
    this.#fill();
    this.#bits(plain.length, 16);
    this.#bits(~plain.length & 0xffff, 16);
    this.#reserve(plain.length);
    this.#out.set(plain, this.#size);
    this.#size += plain.length;
  }

  #codes(literals: PrefixCode, distances: PrefixCode, lengths: PrefixCode, sent: number, runs: readonly LengthRun[]): void {
    this.#bits(literals.last - 256, 5);
    this.#bits(distances.last, 5);
    this.#bits(sent - 4, 4);
    for (const symbol of lengthOrder.slice(0, sent)) this.#bits(lengths.lengths[symbol]!, 3);
    for (const { symbol, more } of runs) {
      this.#symbol(lengths, symbol);
      this.#bits(more, runExtra[symbol]!);
    }
  }

  #symbols(symbols: BlockSymbols, literals: PrefixCode, distances: PrefixCode): void {
    for (let at = 0; at < symbols.count; at++) {
      const distance = symbols.distances[at]!;
      const literal = symbols.literals[at]!;
      if (distance === 0) {
        this.#symbol(literals, literal);
        continue;
      }
      const length = lengthCodes[literal]!;
      this.#symbol(literals, 257 + length);
      this.#bits(literal - lengthBase[length]!, lengthExtra[length]!);
      const code = distanceCode(distance);
      this.#symbol(distances, code);
      this.#bits(distance - distanceBase[code]!, distanceExtra[code]!);
    }
    this.#symbol(literals, endOfBlock);
  }

  #symbol(code: PrefixCode, symbol: number): void {
    this.#bits(code.bits[symbol]!, code.lengths[symbol]!);
  }

  /** Appends up to 16 bits, lowest first. */
  #bits(value: number, bits: number): void {
    this.#pending |= value << this.#pendingBits;
    this.#pendingBits += bits;
    while (this.#pendingBits >= 8) {
      if (this.#size === this.#out.length) this.#reserve(1);
      this.#out[this.#size++] = this.#pending;
      this.#pending >>>= 8;
      this.#pendingBits -= 8;
    }
  }

  #fill(): void {
    if (this.#pendingBits > 0) this.#bits(0, 8 - this.#pendingBits);
  }

  #reserve(bytes: number): void {
    if (this.#size + bytes <= this.#out.length) return;
    const larger = Buffer.allocUnsafe(2 * (this.#size + bytes));
    larger.set(this.#out.subarray(0, this.#size));
    this.#out = larger;
  }
}

function count({ count: symbols, literals, distances }: BlockSymbols): [literals: Uint32Array, distances: Uint32Array] {
  const counts: [Uint32Array, Uint32Array] = [new Uint32Array(literalCodes), new Uint32Array(distanceCodes)];
  counts[0][endOfBlock] = 1;
  for (let at = 0; at < symbols; at++) {
    const distance = distances[at]!;
    if (distance === 0) {
      counts[0][literals[at]!]! += 1;
    } else {
      counts[0][257 + lengthCodes[literals[at]!]!]! += 1;
      counts[1][distanceCode(distance)]! += 1;
    }
  }
  return counts;
}

function cost(counts: Uint32Array, code: PrefixCode, extra: (symbol: number) => number): number {
  return counts.reduce((sum, times, symbol) => sum + (times === 0 ? 0 : times * (code.lengths[symbol]! + extra(symbol))), 0);
}

function contentBits(literalCounts: Uint32Array, distanceCounts: Uint32Array, literals: PrefixCode, distances: PrefixCode): number {
  return cost(literalCounts, literals, (symbol) => symbol > endOfBlock ? lengthExtra[symbol - 257]! : 0) + cost(distanceCounts, distances, distanceExtraBits);
}
