import { BlockWriter, distanceCode, distanceExtraBits } from './deflate-blocks.js';

const windowBytes = 32 * 1024;
const shortest = 3;
const longest = 258;
/** With less than this at hand more is read: a match and the string after it. */
const leastAhead = longest + shortest + 1;
const farthest = windowBytes - leastAhead;
/** A match of three bytes costs more than literals when it lies farther back. */
const farForThree = 4096;
const mostSymbols = 32 * 1024 - 1;

/** How hard a level looks: matches from `good` on are searched a quarter as long, from `lazy` on not again, from `nice` on no further; `chain` places at most. */
const efforts = [
  { good: 4, lazy: 4, nice: 8, chain: 4 }, { good: 4, lazy: 5, nice: 16, chain: 8 }, { good: 4, lazy: 6, nice: 32, chain: 32 },
  { good: 4, lazy: 4, nice: 16, chain: 16 }, { good: 8, lazy: 16, nice: 32, chain: 32 }, { good: 8, lazy: 16, nice: 128, chain: 128 },
  { good: 8, lazy: 32, nice: 128, chain: 256 }, { good: 32, lazy: 128, nice: 258, chain: 1024 }, { good: 32, lazy: 258, nice: 258, chain: 4096 },
] as const;

/**
 * The deflate stream that GNU gzip makes of a file, bit for bit. It is not zlib's: a block ends early when ending it seems to
 * pay (looked at every 4096 symbols), blocks hold up to 32767 symbols, strings are hashed in 15 bits, and at the end of the
 * input matches are measured over what the window held before. Held against gzip 1.12. Takes 350 KiB, and as much as is
 * pushed at a time.
 */
export class GnuDeflate {
  /** Upper half: what is read; lower half: what was before. Matches are measured past what was read, so what is left there counts. */
  readonly #window = new Uint8Array(2 * windowBytes);
  /** Last place of each hash, and of each place the one before with its hash; 0 is none. */
  readonly #heads = new Uint16Array(windowBytes);
  readonly #chain = new Uint16Array(windowBytes);
  readonly #literals = new Uint8Array(mostSymbols + 1);
  readonly #distances = new Uint16Array(mostSymbols + 1);
  readonly #distanceCounts = new Uint32Array(30);
  readonly #blocks = new BlockWriter();
  readonly #effort: (typeof efforts)[number];
  #symbols = 0;
  #matches = 0;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #hasLast = false;
  /** No more input will come. */
  #ended = false;
  #at = 0;
  #ahead = 0;
  #blockStart = 0;
  #matchStart = 0;
  #matchLength = shortest - 1;
  #previousLength = shortest - 1;
  /** Whether the byte before is still to be told, as a literal or as the start of a match. */
  #literalWaits = false;

  /** `level`: 1 to 9. */
  constructor(private readonly level: number) {
    this.#effort = efforts[level - 1]!;
  }

  /** Takes the next bytes, and with `last` the end; gives what can be told of the stream. */
  push(part: Uint8Array, last: boolean): Buffer {
    if (part.length > 0) this.#waiting.push(Buffer.from(part));
    this.#waitingBytes += part.length;
    this.#hasLast ||= last;
    while (this.#ready()) {
      if (this.#ahead === 0) {
        if (this.#literalWaits) this.#tell(0, this.#window[this.#at - 1]!);
        this.#endBlock(true);
        break;
      }
      if (this.level <= 3) this.#stepGreedy();
      else this.#stepLazy();
    }
    return this.#blocks.take();
  }

  /** Reads on where that is due; false when it has to wait for input. */
  #ready(): boolean {
    while (this.#ahead < leastAhead && !this.#ended) {
      const slides = this.#at >= windowBytes + farthest;
      const room = 2 * windowBytes - this.#ahead - this.#at + (slides ? windowBytes : 0);
      // A file is read in as large pieces as there is room for.
      if (this.#waitingBytes < room && !this.#hasLast) return false;
      if (slides) this.#slide();
      this.#read(Math.min(room, this.#waitingBytes));
    }
    return true;
  }

  #slide(): void {
    this.#window.copyWithin(0, windowBytes);
    this.#at -= windowBytes;
    this.#matchStart -= windowBytes;
    this.#blockStart -= windowBytes;
    for (const table of [this.#heads, this.#chain]) {
      for (let at = 0; at < windowBytes; at++) table[at] = Math.max(0, table[at]! - windowBytes);
    }
  }

  #read(bytes: number): void {
    const end = this.#at + this.#ahead;
    if (bytes === 0) {
      this.#ended = true;
      this.#window.fill(0, end, end + shortest - 1);
    }
    for (let done = 0; done < bytes; ) {
      const first = this.#waiting[0]!;
      const part = first.subarray(0, bytes - done);
      this.#window.set(part, end + done);
      done += part.length;
      if (part.length === first.length) this.#waiting.shift();
      else this.#waiting[0] = first.subarray(part.length);
    }
    this.#waitingBytes -= bytes;
    this.#ahead += bytes;
  }

  /** Notes the string at a place; gives the last place with its hash, 0 for none. */
  #note(at: number): number {
    const window = this.#window;
    const hash = (window[at]! << 10 ^ window[at + 1]! << 5 ^ window[at + 2]!) & (windowBytes - 1);
    const before = this.#heads[hash]!;
    this.#chain[at & (windowBytes - 1)] = before;
    this.#heads[hash] = at;
    return before;
  }

  /** Takes the first match, and finds nothing better. */
  #stepGreedy(): void {
    const head = this.#note(this.#at);
    this.#matchLength = this.#mayMatch(head) ? Math.min(this.#longestMatch(head), this.#ahead) : 0;
    let ends: boolean;
    if (this.#matchLength >= shortest) {
      ends = this.#tell(this.#at - this.#matchStart, this.#matchLength - shortest);
      if (this.#matchLength <= this.#effort.lazy) for (let index = 1; index < this.#matchLength; index++) this.#note(this.#at + index);
      this.#advance(this.#matchLength);
    } else {
      ends = this.#tell(0, this.#window[this.#at]!);
      this.#advance(1);
    }
    if (ends) this.#endBlock(false);
  }

  /** Takes a match only when the next place has no better one. */
  #stepLazy(): void {
    const head = this.#note(this.#at);
    this.#previousLength = this.#matchLength;
    const previousStart = this.#matchStart;
    this.#matchLength = shortest - 1;
    if (this.#previousLength < this.#effort.lazy && this.#mayMatch(head)) {
      this.#matchLength = Math.min(this.#longestMatch(head), this.#ahead);
      if (this.#matchLength === shortest && this.#at - this.#matchStart > farForThree) this.#matchLength--;
    }
    if (this.#previousLength >= shortest && this.#matchLength <= this.#previousLength) {
      const ends = this.#tell(this.#at - 1 - previousStart, this.#previousLength - shortest);
      for (let index = 1; index < this.#previousLength - 1; index++) this.#note(this.#at + index);
      this.#advance(this.#previousLength - 1);
      this.#literalWaits = false;
      this.#matchLength = shortest - 1;
      if (ends) this.#endBlock(false);
      return;
    }
    if (this.#literalWaits && this.#tell(0, this.#window[this.#at - 1]!)) this.#endBlock(false);
    this.#literalWaits = true;
    this.#advance(1);
  }

  #advance(bytes: number): void {
    this.#at += bytes;
    this.#ahead -= bytes;
  }

  /** Whether a match is looked for: there is a place in reach, and the window goes on far enough behind this one (but for the end of some files it does). */
  #mayMatch(head: number): boolean {
    return head !== 0 && this.#at - head <= farthest && this.#at <= 2 * windowBytes - leastAhead;
  }

  /** Length of the longest match of the string here on the chain from `head`, the nearest of equals, if it is longer than the one before; its start goes to #matchStart. */
  #longestMatch(head: number): number {
    const window = this.#window;
    const at = this.#at;
    const { good, nice, chain } = this.#effort;
    const limit = Math.max(0, at - farthest);
    let best = this.level <= 3 ? shortest - 1 : this.#previousLength;
    let places = best >= good ? chain >> 2 : chain;
    let candidate = head;
    do {
      if (window[candidate + best] === window[at + best] && window[candidate + best - 1] === window[at + best - 1]) {
        let length = 0;
        while (length < longest && window[candidate + length] === window[at + length]) length++;
        if (length > best) {
          this.#matchStart = candidate;
          best = length;
          if (length >= nice) break;
        }
      }
      candidate = this.#chain[candidate & (windowBytes - 1)]!;
    } while (candidate > limit && --places !== 0);
    return best;
  }

  /** Adds a symbol to the block; true when the block is to end. */
  #tell(distance: number, literal: number): boolean {
    this.#literals[this.#symbols] = literal;
    this.#distances[this.#symbols++] = distance;
    if (distance !== 0) {
      this.#matches++;
      this.#distanceCounts[distanceCode(distance)]! += 1;
    }
    if (this.level > 2 && (this.#symbols & 4095) === 0 && this.#seemsGood()) return true;
    return this.#symbols === mostSymbols;
  }

  /** Whether the block seems to take less than half of what it holds, and matches are rare. */
  #seemsGood(): boolean {
    const bits = this.#distanceCounts.reduce((sum, times, code) => sum + times * (5 + distanceExtraBits(code)), this.#symbols * 8);
    return this.#matches < this.#symbols >> 1 && bits >> 3 < (this.#at - this.#blockStart) >> 1;
  }

  #endBlock(last: boolean): void {
    const plain = this.#blockStart >= 0 ? this.#window.subarray(this.#blockStart) : null;
    this.#blocks.write({ count: this.#symbols, literals: this.#literals, distances: this.#distances }, plain, this.#at - this.#blockStart, last);
    this.#symbols = this.#matches = 0;
    this.#distanceCounts.fill(0);
    this.#blockStart = this.#at;
  }
}
