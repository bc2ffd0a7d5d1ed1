import { WhittleError } from '../core/errors.js';

/** A JSON object from outside: nothing is known of its values. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** Deepest nesting of arrays and objects that `parseJsonObject` accepts. */
const maxJsonDepth = 64;

function invalid(what: string, problem: string, cause?: unknown): WhittleError {
  return new WhittleError('IMAGE_INVALID', `${what}: ${problem}`, { cause });
}

/** Throws when brackets outside of strings nest deeper than allowed; the text need not be valid JSON. */
function checkDepth(text: string, what: string): void {
  let depth = 0;
  let inString = false;
  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (inString) {
      if (char === 0x5c) at++;
      else if (char === 0x22) inString = false;
    } else if (char === 0x22) {
      inString = true;
    } else if (char === 0x7b || char === 0x5b) {
      if (++depth > maxJsonDepth) throw invalid(what, `JSON nests deeper than ${String(maxJsonDepth)} levels`);
    } else if (char === 0x7d || char === 0x5d) {
      depth--;
    }
  }
}

/** True for a JSON object, false for arrays, null and the rest. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Parses one JSON object from untrusted bytes. `what` names the document in messages.
 * Throws LIMIT_EXCEEDED above `maxBytes`, IMAGE_INVALID for anything that is not one object in UTF-8.
 */
export function parseJsonObject(bytes: Uint8Array, what: string, maxBytes: number): JsonObject {
  if (bytes.length > maxBytes) {
    throw new WhittleError('LIMIT_EXCEEDED', `${what}: ${String(bytes.length)} bytes, the limit is ${String(maxBytes)}`);
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw invalid(what, 'not UTF-8', error);
  }
  checkDepth(text, what);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw invalid(what, 'not JSON', error);
  }
  if (!isJsonObject(value)) throw invalid(what, 'not a JSON object');
  return value;
}

/** Reads typed fields of an untrusted JSON object; every complaint is IMAGE_INVALID and names the field. */
export class JsonFields {
  constructor(
    readonly object: JsonObject,
    readonly what: string,
  ) {}

  #get(name: string): unknown {
    return Object.hasOwn(this.object, name) ? this.object[name] : undefined;
  }

  /** Throws IMAGE_INVALID, naming the field. */
  fail(name: string, problem: string): never {
    throw invalid(this.what, `${name} ${problem}`);
  }

  /** True when the field is there and not null. */
  has(name: string): boolean {
    return (this.#get(name) ?? undefined) !== undefined;
  }

  /** A string of at most `maxLength` UTF-16 units. */
  string(name: string, maxLength = 4096): string {
    const value = this.#get(name);
    if (typeof value !== 'string') return this.fail(name, 'is not a string');
    if (value.length > maxLength) return this.fail(name, `is longer than ${String(maxLength)} characters`);
    return value;
  }

  /** A text of at most `maxLength` characters, or undefined for a field that is missing or null. */
  optionalString(name: string, maxLength = 4096): string | undefined {
    return this.has(name) ? this.string(name, maxLength) : undefined;
  }

  /** A safe integer of at least 0. */
  size(name: string): number {
    const value = this.#get(name);
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) return this.fail(name, 'is not a size');
    return value;
  }

  /** An object. */
  fields(name: string): JsonFields {
    const value = this.#get(name);
    if (!isJsonObject(value)) return this.fail(name, 'is not an object');
    return new JsonFields(value, `${this.what}: ${name}`);
  }

  /** An object, or undefined for a field that is missing or null. */
  optionalFields(name: string): JsonFields | undefined {
    return this.has(name) ? this.fields(name) : undefined;
  }

  /** An array of at most `maxCount` values; a missing or null field is an empty one. */
  array(name: string, maxCount: number): readonly unknown[] {
    const value = this.#get(name) ?? [];
    if (!Array.isArray(value)) return this.fail(name, 'is not an array');
    if (value.length > maxCount) return this.fail(name, `has ${String(value.length)} entries, the limit is ${String(maxCount)}`);
    return value as unknown[];
  }

  /** An array of objects of at most `maxCount` entries. */
  objects(name: string, maxCount: number): readonly JsonFields[] {
    return this.array(name, maxCount).map((value, at) => {
      const path = `${name}[${String(at)}]`;
      return isJsonObject(value) ? new JsonFields(value, `${this.what}: ${path}`) : this.fail(path, 'is not an object');
    });
  }

  /** An array of strings of at most `maxCount` entries. */
  strings(name: string, maxCount: number): readonly string[] {
    return this.array(name, maxCount).map((value, at) => (typeof value === 'string' ? value : this.fail(`${name}[${String(at)}]`, 'is not a string')));
  }

  /** A map of strings, without a prototype; a missing or null field is an empty one. */
  stringMap(name: string, maxCount: number): Readonly<Record<string, string>> {
    const result = Object.create(null) as Record<string, string>;
    const map = this.optionalFields(name);
    if (map === undefined) return result;
    const entries = Object.entries(map.object);
    if (entries.length > maxCount) return this.fail(name, `has ${String(entries.length)} entries, the limit is ${String(maxCount)}`);
    for (const [key, value] of entries) {
      if (typeof value !== 'string') return this.fail(name, `has a value that is not a string under ${JSON.stringify(key.slice(0, 80))}`);
      result[key] = value;
    }
    return result;
  }
}
