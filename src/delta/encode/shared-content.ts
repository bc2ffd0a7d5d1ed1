/** Constants of a hash whose upper bits depend on the last 32 bytes: one random word for each byte. */
const gear = Int32Array.from({ length: 256 }, (_, byte) => {
  let word = Math.imul(byte + 1, 0x9e3779b1);
  word = Math.imul(word ^ (word >>> 15), 0x85ebca6b);
  word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
  return word ^ (word >>> 16);
});

/** One place of so many is looked at, as the hash of the bytes before it falls. */
const sampleBytes = 16;
const sampleShift = 28;
/** Bits of the filter for each byte that it is made for: 128 for each sample. */
const bitsPerByte = 8;
/** What is shared counts from here on. */
const leastBytes = 64;
const filterLog2 = { least: 13, most: 28 } as const;

/** Tells how much of a content stands in others, by a sample of their stretches of 32 bytes. */
export class SharedContent {
  readonly #bits: Uint8Array;
  readonly #shift: number;
  #filled = 0;

  /** `sizeBytes`: about how much will be added. */
  constructor(sizeBytes: number) {
    const log2 = Math.min(Math.max(Math.ceil(Math.log2(sizeBytes * bitsPerByte + 1)), filterLog2.least), filterLog2.most);
    this.#bits = new Uint8Array(2 ** (log2 - 3));
    this.#shift = 32 - log2;
  }

  /** Adds a content. */
  add(content: Buffer): void {
    const bits = this.#bits;
    samples(content, (hash) => {
      const slot = hash >>> this.#shift;
      const mask = 1 << (slot & 7);
      if ((bits[slot >>> 3]! & mask) !== 0) return;
      bits[slot >>> 3]! |= mask;
      this.#filled++;
    });
  }

  /**
   * The part of `content` that stands in what was added. What `content` repeats counts once: it costs once. 0 when that is
   * less than `leastBytes`.
   */
  sharedPart(content: Buffer): number {
    const bits = this.#bits;
    const own = new SharedContent(content.length);
    const seen = own.#bits;
    let hits = 0;
    let all = 0;
    samples(content, (hash) => {
      const slot = hash >>> own.#shift;
      const mask = 1 << (slot & 7);
      if ((seen[slot >>> 3]! & mask) !== 0) return;
      seen[slot >>> 3]! |= mask;
      all++;
      const place = hash >>> this.#shift;
      hits += (bits[place >>> 3]! >> (place & 7)) & 1;
    });
    // Of samples that are not there, this part is found by chance.
    const chance = this.#filled / (bits.length * 8);
    const there = (hits - all * chance) / (1 - chance);
    return there * sampleBytes < leastBytes ? 0 : there / all;
  }
}

function samples(content: Buffer, use: (hash: number) => void): void {
  let hash = 0;
  let last = 0;
  for (let at = 0; at < content.length; at++) {
    hash = (hash << 1) + gear[content[at]!]! | 0;
    // A run of equal bytes is one sample.
    if (hash >>> sampleShift !== 0 || hash === last || at < 31) continue;
    last = hash;
    use(Math.imul(hash, 0x9e3779b1));
  }
}
