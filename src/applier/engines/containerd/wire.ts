import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { isWhittleError, WhittleError } from '../../../core/errors.js';

/** How one field of a message is written and read. Absent fields read as `empty()`; what is equal to it need not be written. */
export interface Field<T> {
  readonly no: number;
  empty(): T;
  write(writer: BinaryWriter, value: T): void;
  /** Takes one occurrence; `before` is what earlier ones gave, `empty()` at first: this message's own, so that lists and maps may be added to. */
  read(reader: BinaryReader, before: T): T;
  readonly wireType: WireType;
}

type Fields = Readonly<Record<string, Field<unknown>>>;

/** The value of a message with these fields. */
export type MessageOf<F> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };

/** The shape of a message in protocol buffers' binary form (proto3). Unknown fields are skipped. */
export class MessageType<F extends Fields> {
  readonly #byNumber: ReadonlyMap<number, readonly [string, Field<unknown>]>;

  constructor(private readonly fields: F) {
    this.#byNumber = new Map(Object.entries(fields).map(([name, field]) => [field.no, [name, field]]));
  }

  /** The message's bytes; fields left out are not written. */
  encode(value: Partial<MessageOf<F>>): Buffer {
    const writer = new BinaryWriter();
    const given = value as Readonly<Record<string, unknown>>;
    for (const [name, field] of Object.entries(this.fields)) if (given[name] !== undefined) field.write(writer, given[name]);
    return Buffer.from(writer.finish());
  }

  /** Reads a message. Throws ENGINE_FAILED for malformed bytes. */
  decode(bytes: Uint8Array): MessageOf<F> {
    const value: Record<string, unknown> = {};
    for (const [name, field] of Object.entries(this.fields)) value[name] = field.empty();
    try {
      const reader = new BinaryReader(bytes);
      while (reader.pos < reader.len) {
        const [no, wireType] = reader.tag();
        const known = this.#byNumber.get(no);
        if (known?.[1].wireType === wireType) value[known[0]] = known[1].read(reader, value[known[0]]);
        else reader.skip(wireType, no);
      }
    } catch (cause) {
      if (isWhittleError(cause)) throw cause;
      throw new WhittleError('ENGINE_FAILED', 'containerd sent a message that is malformed', { cause });
    }
    return value as MessageOf<F>;
  }
}

/** A field of text. */
export function text(no: number): Field<string> {
  return {
    no, wireType: WireType.LengthDelimited, empty: () => '',
    write: (writer, value) => { writer.tag(no, WireType.LengthDelimited).string(value); },
    read: (reader) => reader.string(),
  };
}

/** A field of bytes. */
export function bytes(no: number): Field<Uint8Array> {
  return {
    no, wireType: WireType.LengthDelimited, empty: () => new Uint8Array(0),
    write: (writer, value) => { writer.tag(no, WireType.LengthDelimited).bytes(value); },
    read: (reader) => reader.bytes(),
  };
}

/** A signed 64-bit integer that a number holds; others throw ENGINE_FAILED. */
export function integer(no: number): Field<number> {
  return {
    no, wireType: WireType.Varint, empty: () => 0,
    write: (writer, value) => { writer.tag(no, WireType.Varint).int64(value); },
    read: (reader) => {
      const value = Number(reader.int64());
      if (!Number.isSafeInteger(value)) throw new WhittleError('ENGINE_FAILED', 'containerd sent a number above 2^53');
      return value;
    },
  };
}

/** A truth value. */
export function flag(no: number): Field<boolean> {
  return {
    no, wireType: WireType.Varint, empty: () => false,
    write: (writer, value) => { writer.tag(no, WireType.Varint).bool(value); },
    read: (reader) => reader.bool(),
  };
}

/** Any number of texts. */
export function texts(no: number): Field<readonly string[]> {
  const field: Field<string[]> = {
    no, wireType: WireType.LengthDelimited, empty: () => [],
    write: (writer, value) => { for (const each of value) writer.tag(no, WireType.LengthDelimited).string(each); },
    read: (reader, before) => {
      before.push(reader.string());
      return before;
    },
  };
  return field;
}

/** A message, undefined when it is absent. */
export function nested<F extends Fields>(no: number, type: MessageType<F>): Field<MessageOf<F> | undefined> {
  return {
    no, wireType: WireType.LengthDelimited, empty: () => undefined,
    write: (writer, value) => { if (value !== undefined) writer.tag(no, WireType.LengthDelimited).bytes(type.encode(value)); },
    read: (reader) => type.decode(reader.bytes()),
  };
}

/** Any number of messages. */
export function nestedList<F extends Fields>(no: number, type: MessageType<F>): Field<MessageOf<F>[]> {
  return {
    no, wireType: WireType.LengthDelimited, empty: () => [],
    write: (writer, value) => { for (const each of value) writer.tag(no, WireType.LengthDelimited).bytes(type.encode(each)); },
    read: (reader, before) => {
      before.push(type.decode(reader.bytes()));
      return before;
    },
  };
}

const pair = new MessageType({ key: text(1), value: text(2) });

/** A map from text to text. */
export function textMap(no: number): Field<ReadonlyMap<string, string>> {
  const field: Field<Map<string, string>> = {
    no, wireType: WireType.LengthDelimited, empty: () => new Map(),
    write: (writer, value) => { for (const [key, each] of value) writer.tag(no, WireType.LengthDelimited).bytes(pair.encode({ key, value: each })); },
    read: (reader, before) => {
      const { key, value } = pair.decode(reader.bytes());
      return before.set(key, value);
    },
  };
  return field;
}
