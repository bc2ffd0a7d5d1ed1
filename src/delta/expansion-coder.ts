import { WhittleError } from '../core/errors.js';
import type { BitPort } from './bits.js';
import { expandedSize, type DeflatedRange, type Expansion, type InflatedRange } from './expansion.js';
import { deltaLimits } from './limits.js';
import type { MetaModels } from './meta-models.js';

/** Codes how a patched file is expanded (see Expansion): usually not at all, in next to no bits. */
export class ExpansionCoder {
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
    const total = [...inflated, ...deflated].reduce((sum, range) => sum + range.sizeBytes, 0);
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
    return { source, offset, lengthBytes, sizeBytes };
  }

  #deflated(port: BitPort, range: DeflatedRange | undefined, last: DeflatedRange | undefined, fileBytes: number): DeflatedRange {
    const numbers = this.models.rangeNumbers;
    const end = last === undefined ? 0 : last.offset + last.lengthBytes;
    const offset = end + numbers.code(port, (range?.offset ?? end) - end, 4);
    const lengthBytes = numbers.code(port, range?.lengthBytes ?? 0, 5);
    const sizeBytes = numbers.code(port, range?.sizeBytes ?? 0, 6);
    const level = this.models.zlibLevels.code(port, range?.level ?? 1, 0);
    const memLevel = this.models.zlibLevels.code(port, range?.memLevel ?? 1, 1);
    const valid = lengthBytes > 0 && sizeBytes > 0 && offset + lengthBytes <= fileBytes && level >= 1 && level <= 9 && memLevel >= 1 && memLevel <= 9;
    return valid ? { offset, lengthBytes, sizeBytes, level, memLevel } : fail('a compressed stream lies outside its file');
  }
}

function fail(what: string): never {
  throw new WhittleError('DELTA_CORRUPT', `the delta's tar metadata is malformed: ${what}`);
}
