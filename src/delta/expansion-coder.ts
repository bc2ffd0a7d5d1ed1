import { WhittleError } from '../core/errors.js';
import type { BitPort } from './bits.js';
import { expandedSize, standInSize, type DecidedFormat, type DeflatedRange, type Expansion, type InflatedRange, type Packing } from './expansion.js';
import { deltaLimits } from './limits.js';
import type { MetaModels } from './meta-models.js';
import { framedStreamBytes, type PictureFrame } from './picture.js';

/** Codes how a patched file is expanded (see Expansion): usually not at all, in next to no bits. */
export class ExpansionCoder {
  #brotliBytes = 0;
  #decidedBytes = 0;

  constructor(private readonly models: MetaModels) {}

  /**
   * Codes the expansion of a file of `sizeBytes` whose sources have `sourceSizes`. What is returned when decoding lies
   * within those sizes and `deltaLimits`; otherwise DELTA_CORRUPT.
   */
  code(port: BitPort, wanted: Expansion | null, sizeBytes: number, sourceSizes: readonly number[]): Expansion | null {
    if (!this.models.expanded.code(port, wanted !== null)) return null;
    const inflated = this.#list(port, wanted?.inflated, (range, last: InflatedRange | undefined) => this.#inflated(port, range, last, sourceSizes));
    const deflated = this.#list(port, wanted?.deflated, (range, last: DeflatedRange | undefined) => this.#deflated(port, range, last, sizeBytes));
    const expansion = { inflated, deflated };
    const total = inflated.reduce((sum, range) => sum + range.sizeBytes, 0) + deflated.reduce((sum, range) => sum + standInSize(range), 0);
    if (total > deltaLimits.expandedBytes) fail('a file inflates to too much');
    if (expandedSize(sizeBytes, expansion) <= 0) fail('an expanded file has no size');
    return expansion;
  }

  #list<T>(port: BitPort, wanted: readonly T[] | undefined, one: (range: T | undefined, last: T | undefined) => T): T[] {
    const count = this.models.count.code(port, wanted?.length ?? 0, 3);
    if (count > deltaLimits.expandedRanges) fail('a file has too many compressed streams');
    const ranges: T[] = [];
    for (let index = 0; index < count; index++) ranges.push(one(wanted?.[index], ranges.at(-1)));
    return ranges;
  }

  #inflated(port: BitPort, range: InflatedRange | undefined, last: InflatedRange | undefined, sourceSizes: readonly number[]): InflatedRange {
    const numbers = this.models.rangeNumbers;
    const source = (last?.source ?? 0) + numbers.code(port, (range?.source ?? 0) - (last?.source ?? 0), 0);
    const end = last?.source === source ? last.offset + last.lengthBytes : 0;
    const offset = end + numbers.code(port, (range?.offset ?? end) - end, 1);
    const lengthBytes = numbers.code(port, range?.lengthBytes ?? 0, 2);
    const sizeBytes = numbers.code(port, range?.sizeBytes ?? 0, 3);
    if (lengthBytes === 0 || offset + lengthBytes > (sourceSizes[source] ?? 0)) fail('a compressed stream lies outside its source');
    return { source, offset, lengthBytes, sizeBytes, chunkBytes: this.#chunkBytes(port, range?.chunkBytes ?? 0, lengthBytes, 8) };
  }

  #deflated(port: BitPort, range: DeflatedRange | undefined, last: DeflatedRange | undefined, fileBytes: number): DeflatedRange {
    const numbers = this.models.rangeNumbers;
    const end = last === undefined ? 0 : last.offset + last.lengthBytes;
    const offset = end + numbers.code(port, (range?.offset ?? end) - end, 4);
    const lengthBytes = numbers.code(port, range?.lengthBytes ?? 0, 5);
    const sizeBytes = numbers.code(port, range?.sizeBytes ?? 0, 6);
    if (lengthBytes === 0 || sizeBytes <= 0 || offset + lengthBytes > fileBytes) fail('a compressed stream lies outside its file');
    const packing = this.#packing(port, range?.packing, { sizeBytes, lengthBytes });
    return { offset, lengthBytes, sizeBytes, packing, picture: this.#picture(port, range?.picture, lengthBytes) };
  }

  #picture(port: BitPort, wanted: PictureFrame | null | undefined, lengthBytes: number): PictureFrame | null {
    const chunkBytes = this.#chunkBytes(port, wanted?.chunkBytes ?? 0, lengthBytes, 9);
    if (chunkBytes === 0) return null;
    const zlibHeader = this.models.rangeNumbers.code(port, wanted?.zlibHeader ?? 0, 10);
    if (zlibHeader > 0xffff) fail('a compressed stream has no such header');
    return { chunkBytes, zlibHeader };
  }

  #chunkBytes(port: BitPort, wanted: number, lengthBytes: number, context: number): number {
    const chunkBytes = this.models.rangeNumbers.code(port, wanted, context);
    if (chunkBytes !== 0 && framedStreamBytes(lengthBytes, chunkBytes) === 0) fail('a compressed stream does not fit its chunks');
    return chunkBytes;
  }

  /** Two numbers of 4 bits: zlib's levels; GNU gzip's level and 10; 0 and brotli's quality; or 0 and 12 (brotli) or 13 (deflate), and the size of the decisions. */
  #packing(port: BitPort, wanted: Packing | undefined, { sizeBytes, lengthBytes }: Pick<DeflatedRange, 'sizeBytes' | 'lengthBytes'>): Packing {
    const [wantedLevel, wantedParameter] = numbersOf(wanted);
    const level = this.models.zlibLevels.code(port, wantedLevel, 0);
    const parameter = this.models.zlibLevels.code(port, wantedParameter, 1);
    if (level > 9 || parameter > (level === 0 ? decisionsParameters.deflate : gnuParameter) || (level > 0 && parameter === 0)) fail('a stream is compressed in an unknown way');
    if (level > 0) return parameter === gnuParameter ? { kind: 'gnu', level } : { kind: 'deflate', level, memLevel: parameter };
    if (parameter === decisionsParameters.brotli) return this.#decisions(port, wanted, 'brotli', { sizeBytes, lengthBytes });
    if (parameter === decisionsParameters.deflate) return this.#decisions(port, wanted, 'deflate', { sizeBytes, lengthBytes });
    this.#brotliBytes += sizeBytes;
    if (sizeBytes > deltaLimits.brotliBytes || this.#brotliBytes > deltaLimits.brotliTotalBytes) fail('brotli streams hold too much');
    return { kind: 'brotli', quality: parameter };
  }

  #decisions(port: BitPort, wanted: Packing | undefined, format: DecidedFormat, { sizeBytes, lengthBytes }: Pick<DeflatedRange, 'sizeBytes' | 'lengthBytes'>): Packing {
    const decisionBytes = this.models.rangeNumbers.code(port, wanted?.kind === 'decisions' ? wanted.decisionBytes : 0, 7);
    this.#decidedBytes += sizeBytes;
    if (sizeBytes > deltaLimits.decidedBytes || this.#decidedBytes > deltaLimits.decidedTotalBytes) fail('streams made of decisions hold too much');
    if (decisionBytes === 0 || decisionBytes > lengthBytes) fail('the decisions of a stream are none, or more than it');
    return { kind: 'decisions', format, decisionBytes };
  }
}

/** Stands where zlib's memory level would, which is 9 at most. */
const gnuParameter = 10;
/** Stand where brotli's quality would, which is 11 at most. */
const decisionsParameters = { brotli: 12, deflate: 13 } as const;

function numbersOf(packing: Packing | undefined): [level: number, parameter: number] {
  switch (packing?.kind) {
    case undefined: return [0, 0];
    case 'deflate': return [packing.level, packing.memLevel];
    case 'gnu': return [packing.level, gnuParameter];
    case 'brotli': return [0, packing.quality];
    case 'decisions': return [0, decisionsParameters[packing.format]];
  }
}

function fail(what: string): never {
  throw new WhittleError('DELTA_CORRUPT', `the delta's tar metadata is malformed: ${what}`);
}
