import { BitDecoder } from '../../src/delta/bits.js';
import { BitEncoder } from '../../src/delta/encode/bit-encoder.js';
import { ExpansionCoder } from '../../src/delta/expansion-coder.js';
import { Collapser, type DeflatedRange, type Expansion } from '../../src/delta/expansion.js';
import { MetaModels } from '../../src/delta/meta-models.js';

/** The target that an expanded one gives when it comes in pieces of `pieceBytes`. */
export async function collapsed(ranges: readonly DeflatedRange[], expanded: Buffer, pieceBytes: number): Promise<Buffer> {
  const out: Buffer[] = [];
  const collapser = new Collapser(ranges, (bytes) => { out.push(Buffer.from(bytes)); return Promise.resolve(); });
  for (let at = 0; at < expanded.length; at += pieceBytes) await collapser.push(expanded.subarray(at, at + pieceBytes));
  return Buffer.concat(out);
}

/** An expansion as a delta tells it and as that is read. */
export function coded(expansion: Expansion, fileBytes: number, sourceSizes: readonly number[] = []): Expansion | null {
  const encoder = new BitEncoder();
  new ExpansionCoder(new MetaModels()).code(encoder, expansion, fileBytes, sourceSizes);
  return new ExpansionCoder(new MetaModels()).code(new BitDecoder(encoder.finish()), null, fileBytes, sourceSizes);
}
