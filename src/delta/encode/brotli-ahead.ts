import type { LayerEntry } from '../../tar/types.js';
import type { Basis, BasisEntry } from '../basis.js';
import { packedBrotli, type PackedFile } from './expander.js';

/** Streams tried at a time, at most: each is held with what it holds, and the pool has no more threads. */
const mostRunning = 4;

/** Streams that wait for the plan to come to them. */
const mostWaiting = 64;

/** Which brotli files are looked at, and by how many threads. */
export interface BrotliAheadOptions {
  readonly target: Basis;
  /** The layers that are planned, in order. */
  readonly layers: readonly number[];
  /** Whether the basis holds this content. */
  readonly isInBasis: (digest: Buffer) => boolean;
  readonly threads: number;
}

/**
 * Finds out how the target's brotli files are made, several at a time and ahead of the plan, which goes from file to file: that takes
 * longer than all else of it. What is found does not depend on how far ahead.
 */
export class BrotliAhead {
  readonly #candidates: Iterator<BasisEntry>;
  /** In the plan's order. */
  readonly #waiting: { readonly at: BasisEntry; readonly tried: Promise<PackedFile | null> }[] = [];
  /** What the target's new files before the candidate hold. */
  readonly #seen = new Set<string>();
  #running = 0;
  #isEnding = false;

  constructor(private readonly options: BrotliAheadOptions) {
    this.#candidates = this.#newBrotliFiles();
  }

  /** A file that is new and has a name as brotli's; to be called for each of them, in order. Null when it is no stream, or nobody else holds what it holds. */
  async take({ layer, entry }: BasisEntry): Promise<PackedFile | null> {
    // When none wait, none run.
    this.#fill();
    const first = this.#waiting.shift();
    if (first?.at.layer !== layer || first.at.entry !== entry) throw new RangeError(`entry ${String(entry)} of layer ${String(layer)} is out of order`);
    this.#fill();
    return first.tried;
  }

  /** Begins no more, and waits for what was begun. */
  async abandon(): Promise<void> {
    this.#isEnding = true;
    await Promise.allSettled(this.#waiting.splice(0).map(({ tried }) => tried));
  }

  #fill(): void {
    while (!this.#isEnding && this.#running < Math.min(this.options.threads, mostRunning) && this.#waiting.length < mostWaiting) {
      const next = this.#candidates.next();
      if (next.done === true) return;
      const at = next.value;
      this.#running++;
      const tried = this.#try(at).finally(() => {
        this.#running--;
        this.#fill();
      });
      // The failure is reported when the file's turn comes; until then it must not count as unhandled.
      tried.catch(() => undefined);
      this.#waiting.push({ at, tried });
    }
  }

  *#newBrotliFiles(): Generator<BasisEntry> {
    for (const layer of this.options.layers) {
      for (const [entry, record] of this.options.target.layers[layer]?.entries.entries() ?? []) {
        if (record.digest === null || this.#isKnown(record.digest)) continue;
        if (isBrotliName(record)) yield { layer, entry };
        this.#seen.add(record.digest.toString('latin1'));
      }
    }
  }

  #isKnown(digest: Buffer): boolean {
    return this.options.isInBasis(digest) || this.#seen.has(digest.toString('latin1'));
  }

  async #try({ layer, entry }: BasisEntry): Promise<PackedFile | null> {
    const content = await this.options.target.openContent(layer, entry);
    try {
      const packed = await packedBrotli(content);
      if (packed === null || !this.#isKnown(packed.plainDigest)) return null;
      const expansion = await packed.expansion();
      return { plainDigest: packed.plainDigest, expansion: () => Promise.resolve(expansion) };
    } finally {
      await content.close();
    }
  }
}

/** Whether a file is called as brotli files are. */
export function isBrotliName({ header }: LayerEntry): boolean {
  return header.path.subarray(-3).equals(brotliName);
}

const brotliName = Buffer.from('.br');
