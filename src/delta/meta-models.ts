import { Choice, Flag, NumberModel, SignedModel, StringModel, type BitPort } from './bits.js';

/** Numeric header fields that are predicted alike. */
export const numberFields = ['mode', 'uid', 'gid', 'devMajor', 'devMinor'] as const;
/** One of `numberFields`. */
export type NumberField = (typeof numberFields)[number];

/** Header fields with few distinct values. */
export const nameFields = ['uname', 'gname', 'style'] as const;
/** One of `nameFields`. */
export type NameField = (typeof nameFields)[number];

/** Values seen before, the last used first; a value is coded by its place or, once, in full. */
export class RecentValues {
  readonly #values: Buffer[] = [];
  readonly #place = new NumberModel();

  constructor(private readonly strings: StringModel) {}

  /** Codes `value`; null when a decoded string is above `maxBytes`. */
  code(port: BitPort, value: Buffer, maxBytes: number): Buffer | null {
    const place = this.#place.code(port, port.decoding ? 0 : this.#values.findIndex((known) => known.equals(value)) + 1);
    const known = this.#values[place - 1];
    const result = known ?? this.strings.code(port, value, maxBytes);
    if (result === null) return null;
    if (known !== undefined) this.#values.splice(place - 1, 1);
    this.#values.unshift(result);
    if (this.#values.length > 64) this.#values.pop();
    return result;
  }
}

/** All adaptive state of tar metadata coding; lives as long as one delta, so that later layers profit from earlier ones. */
export class MetaModels {
  readonly count = new NumberModel(4);
  /** How the path comes about (PathHow), given how the last two did. */
  readonly pathHow = new Choice(3, 64);
  readonly jump = new SignedModel(4);
  readonly prefix = new NumberModel(2);
  readonly suffix = new NumberModel();
  readonly names = new StringModel();
  readonly links = new StringModel();
  readonly values = new StringModel();
  readonly typeSame = new Flag(2);
  readonly typeflag = new Choice(8);
  readonly numberSame = new Flag(numberFields.length * 2);
  readonly numberLast = new Flag(numberFields.length * 2);
  readonly numbers = new NumberModel(numberFields.length);
  readonly nameSame = new Flag(nameFields.length * 2);
  readonly recentNames = { uname: new RecentValues(this.values), gname: new RecentValues(this.values), style: new RecentValues(this.values) };
  readonly timeHow = new Choice(3, 64);
  readonly timeNumbers = new SignedModel(2);
  readonly timePlace = new NumberModel();
  readonly nanosHow = new Choice(2, 4);
  readonly nanos = new NumberModel();
  readonly linkHow = new Choice(2, 8);
  readonly linkPrefix = new NumberModel();
  readonly paxSame = new Flag(2);
  readonly paxDerived = new Flag(2);
  readonly paxValueSame = new Flag(2);
  readonly paxKeys = new RecentValues(this.values);
  readonly residueSame = new Flag(2);
  readonly paddingUsual = new Flag();
  readonly contentHow = new Choice(3, 64);
  readonly contentJump = new SignedModel(2);
  readonly contentBack = new NumberModel(2);
  readonly sizeDifference = new SignedModel(2);
  readonly sourcesSame = new Flag();
  readonly sourceFrom = new Flag(2);
  readonly expanded = new Flag();
  /** 0, or which kind of list of checksums the first source is, from 1. */
  readonly checksumList = new Choice(2);
  readonly rangeNumbers = new NumberModel(11);
  readonly zlibLevels = new Choice(4, 2);
}
