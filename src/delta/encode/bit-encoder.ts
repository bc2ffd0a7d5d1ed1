import { ByteWriter } from '../../core/bytes.js';
import { middle, type BitPort } from '../bits.js';

/** Writes bits that BitDecoder reads. Call `finish()` once, last. */
export class BitEncoder implements BitPort {
  readonly decoding = false;
  readonly #out = new ByteWriter();
  #low = 0;
  #high = 0xffffffff;

  code(one16: number, bit: number): number {
    const mid = middle(this.#low, this.#high, one16);
    if (bit === 1) this.#high = mid;
    else this.#low = mid + 1;
    while ((this.#low ^ this.#high) >>> 24 === 0) {
      this.#out.u8(this.#high >>> 24);
      this.#low = (this.#low << 8) >>> 0;
      this.#high = ((this.#high << 8) | 0xff) >>> 0;
    }
    return bit;
  }

  /** The whole stream. The decoder reads zeros after its end, so the last value is written in as few bytes as will do. */
  finish(): Buffer {
    if (this.#low > 0) {
      const top = (this.#low >>> 24) + 1;
      if (top * 2 ** 24 <= this.#high) this.#out.u8(top);
      else for (let shift = 24; shift >= 0; shift -= 8) this.#out.u8((this.#high >>> shift) & 0xff);
    }
    return this.#out.finish();
  }
}
