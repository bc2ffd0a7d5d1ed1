import { tarCorrupt } from './block.js';
import type { PaxRecord, TarHeader } from './types.js';

/** How a writer prints the fraction of a time: none when zero and no trailing zeros; at least one digit; always nine. */
export const timeForms = { shortest: 0, oneDigit: 1, nineDigits: 2 } as const;

const knownKeys = new Map<string, Buffer>();

/** One shared Buffer per short key, so that thousands of equal keys cost one. */
function internKey(bytes: Buffer): Buffer {
  const text = bytes.toString('latin1');
  const known = knownKeys.get(text);
  if (known !== undefined) return known;
  const copy = Buffer.from(bytes);
  if (bytes.length <= 64 && knownKeys.size < 256) knownKeys.set(text, copy);
  return copy;
}

/**
 * Parses the data of a PAX header into records, in order. `canonical` tells whether formatting the records gives the
 * same bytes. Throws `TAR_CORRUPT` unless the data is a sequence of "length key=value\n".
 */
export function parsePax(data: Buffer): { records: PaxRecord[]; canonical: boolean } {
  const records: PaxRecord[] = [];
  let canonical = true;
  for (let at = 0; at < data.length; ) {
    let lengthBytes = 0;
    let cursor = at;
    for (; cursor < data.length; cursor++) {
      const byte = data[cursor] ?? 0;
      if (byte === 0x20) break;
      if (byte < 0x30 || byte > 0x39 || cursor - at >= 9) throw tarCorrupt('PAX record has no length');
      lengthBytes = lengthBytes * 10 + (byte - 0x30);
    }
    const end = at + lengthBytes;
    if (cursor === at || end > data.length || lengthBytes < cursor - at + 3) throw tarCorrupt('PAX record has a wrong length');
    if (data[at] === 0x30) canonical = false;
    if (data[end - 1] !== 0x0a) throw tarCorrupt('PAX record does not end with a newline');
    const equals = data.indexOf(0x3d, cursor + 1);
    if (equals < 0 || equals >= end || equals === cursor + 1) throw tarCorrupt('PAX record has no key');
    records.push({ key: internKey(data.subarray(cursor + 1, equals)), value: Buffer.from(data.subarray(equals + 1, end - 1)) });
    at = end;
  }
  return { records, canonical };
}

/** Length of "length key=value\n", its own digits included. */
function recordBytes(record: PaxRecord): number {
  const rest = record.key.length + record.value.length + 3;
  let total = rest + String(rest).length;
  if (rest + String(total).length !== total) total = rest + String(total).length;
  return total;
}

/** The data of a PAX header that holds `records`. */
export function formatPax(records: readonly PaxRecord[]): Buffer {
  let total = 0;
  for (const record of records) total += recordBytes(record);
  const out = Buffer.allocUnsafe(total);
  let at = 0;
  for (const record of records) {
    at += out.write(`${String(recordBytes(record))} `, at, 'latin1');
    at += record.key.copy(out, at);
    out[at++] = 0x3d;
    at += record.value.copy(out, at);
    out[at++] = 0x0a;
  }
  return out;
}

/** A PAX time as whole seconds (floor) and nanoseconds; digits beyond nanoseconds are cut. Throws `TAR_CORRUPT`. */
export function parsePaxTime(value: Buffer): { sec: number; nsec: number } {
  const match = /^([+-]?\d+)(?:\.(\d*))?$/.exec(value.toString('latin1'));
  const whole = match?.[1];
  if (whole === undefined) throw tarCorrupt('PAX time is not a number');
  const sec = Number(whole);
  const nsec = Number((match?.[2] ?? '').slice(0, 9).padEnd(9, '0'));
  if (!Number.isSafeInteger(sec) || !Number.isSafeInteger(sec - 1)) throw tarCorrupt('PAX time is too large');
  // "+ 0" turns -0 into 0.
  if (nsec === 0 || !whole.startsWith('-')) return { sec: sec + 0, nsec };
  return { sec: sec - 1, nsec: 1_000_000_000 - nsec };
}

/** The text of a time as writers with the given `timeForms` form print it. */
export function formatPaxTime(sec: number, nsec: number, form: number): string {
  const negative = sec < 0;
  const whole = negative && nsec > 0 ? sec + 1 : sec;
  const fraction = negative && nsec > 0 ? 1_000_000_000 - nsec : nsec;
  const nine = String(fraction).padStart(9, '0');
  const sign = negative && whole === 0 ? '-' : '';
  if (form === timeForms.nineDigits) return `${sign}${String(whole)}.${nine}`;
  const digits = nine.replace(/0+$/, '');
  if (digits === '') return form === timeForms.oneDigit ? `${sign}${String(whole)}.0` : `${sign}${String(whole)}`;
  return `${sign}${String(whole)}.${digits}`;
}

/** A PAX decimal integer. Throws `TAR_CORRUPT` unless it is a safe one. */
export function parsePaxInteger(value: Buffer, what: string): number {
  const text = value.toString('latin1');
  const number = Number(text);
  if (!/^[+-]?\d+$/.test(text) || !Number.isSafeInteger(number)) throw tarCorrupt(`PAX ${what} is not a number`);
  return number + 0;
}

/** The fields that PAX records may repeat. */
export type PaxFields = Pick<TarHeader, 'path' | 'linkPath' | 'uid' | 'gid' | 'sizeBytes' | 'mtimeSec' | 'mtimeNsec' | 'uname' | 'gname'>;

/**
 * What a record of `key` (latin1) holds if it merely repeats the header's fields, or null for other keys. `timeForm`
 * is the writer's way to print times.
 */
export function paxValueFromFields(fields: PaxFields, key: string, timeForm: number): Buffer | null {
  switch (key) {
    case 'path': return fields.path;
    case 'linkpath': return fields.linkPath;
    case 'uname': return fields.uname;
    case 'gname': return fields.gname;
    case 'uid': return Buffer.from(String(fields.uid), 'latin1');
    case 'gid': return Buffer.from(String(fields.gid), 'latin1');
    case 'size': return Buffer.from(String(fields.sizeBytes), 'latin1');
    case 'mtime': return Buffer.from(formatPaxTime(fields.mtimeSec, fields.mtimeNsec, timeForm), 'latin1');
    default: return null;
  }
}

/** The value of the last record with `key` that is not empty (an empty value takes the record back), or undefined. */
export function paxValue(records: readonly PaxRecord[], key: string): Buffer | undefined {
  for (let index = records.length - 1; index >= 0; index--) {
    const record = records[index];
    if (record !== undefined && record.key.length === key.length && record.key.toString('latin1') === key) {
      return record.value.length === 0 ? undefined : record.value;
    }
  }
  return undefined;
}

