import { isWhittleError, WhittleError } from '../../core/errors.js';
import { maxLayerTarBytes, tarLimits } from '../../core/limits.js';
import { gunzip } from '../../registry/index.js';
import { isSparse, LayerMetaBuilder, type LayerMeta } from '../../tar/index.js';

/** Bounds of a tar-split file. */
const tarSplitLimits = {
  /** Longest line: the headers of one entry in base64, or all padding after the last entry, which older engines keep in one. */
  lineBytes: 96 * 1024 * 1024,
  /** Most bytes of a file when unpacked. */
  unpackedBytes: 4 * 1024 ** 3,
  /** Most lines: two for each entry, and one for each kilobyte of padding at the end. */
  lines: 2 * tarLimits.maxEntries + 1024 * 1024,
} as const;

/** What a line stands for: an entry of the tar, whose content is elsewhere, or bytes of the tar itself. */
const lineTypes = { file: 1, segment: 2 } as const;

interface Line {
  readonly type: number;
  /** Of a file: bytes of content. */
  readonly size: number;
  /** Of a segment: its bytes in base64. */
  readonly payload: string;
  readonly position: number;
}

const lineFeed = 0x0a;

/**
 * The metadata of a layer from its tar-split: what Docker (`layerdb/sha256/<chainID>/tar-split.json.gz`) and
 * containers-storage (`overlay-layers/<id>.tar-split.gz`) keep of a layer's tar beside its extracted files: gzip of JSON
 * lines, either bytes of the tar or the place of an entry's content. `packed` is that file's bytes from the beginning.
 *
 * The result is what the tar itself would give, but the digests of contents are null, for a tar-split has none, and
 * `diffId` is the one that was passed: `proveLayer` reads the contents, proves it and fills in the digests. Headers and
 * sparse entries are read by our own scanner, so that sizes which the file claims are checked against the tar's headers.
 * Throws BASIS_DAMAGED for a file that is malformed, ends early, is above a limit or does not fit together.
 */
export async function readTarSplit(packed: AsyncIterable<Buffer>, diffId: string): Promise<LayerMeta> {
  const what = `the tar-split of layer ${diffId}`;
  try {
    const joiner = new Joiner(what);
    for await (const line of linesOf(gunzip(packed, what), what)) joiner.add(parseLine(line, what));
    return joiner.finish(diffId);
  } catch (error) {
    if (!isWhittleError(error) || !['TAR_CORRUPT', 'LIMIT_EXCEEDED', 'IMAGE_INVALID'].includes(error.code)) throw error;
    throw new WhittleError('BASIS_DAMAGED', `${what} is damaged: ${error.message}`, { cause: error, data: { layers: diffId } });
  }
}

/** Gives the scanner what the lines hold of the tar, and passes over the contents. */
class Joiner {
  readonly #builder = new LayerMetaBuilder();
  #lines = 0;
  #tarBytes = 0;

  constructor(private readonly what: string) {}

  add(line: Line): void {
    if (line.position !== this.#lines) throw malformed(this.what, `line ${String(this.#lines)} says that it is number ${String(line.position)}`);
    if (++this.#lines > tarSplitLimits.lines) throw malformed(this.what, `more than ${String(tarSplitLimits.lines)} lines`);
    if (line.type === lineTypes.segment) this.#segment(line);
    else this.#file(line);
    if (this.#tarBytes > maxLayerTarBytes) throw malformed(this.what, `a tar of more than ${String(maxLayerTarBytes)} bytes (maxLayerTarBytes)`);
  }

  finish(diffId: string): LayerMeta {
    if (this.#lines === 0) throw malformed(this.what, 'it is empty');
    return this.#builder.finishAs(diffId);
  }

  #segment({ payload }: Line): void {
    const bytes = Buffer.from(payload, 'base64');
    // Node skips what is no base64; bytes that went missing so would be found only by the diffID.
    if (bytes.length !== decodedBytes(payload)) throw malformed(this.what, `line ${String(this.#lines - 1)} is no base64`);
    if (this.#builder.contentLeft > 0) throw malformed(this.what, `line ${String(this.#lines - 1)} stands where an entry's content is due`);
    this.#tarBytes += bytes.length;
    this.#builder.write(bytes);
  }

  /**
   * Entries without content have a line too, also some that are none for our scanner, such as global PAX headers. Of a
   * sparse file the line tells the size of the whole file, not that of its data in the tar.
   */
  #file({ size }: Line): void {
    const due = this.#builder.contentLeft;
    const header = this.#builder.lastHeader;
    if (due !== size && !(due > 0 && header !== undefined && isSparse(header))) {
      throw malformed(this.what, `line ${String(this.#lines - 1)} has an entry of ${String(size)} bytes where the tar's header says ${String(due)}`);
    }
    this.#tarBytes += due;
    this.#builder.skipContent();
  }
}

function malformed(what: string, how: string): WhittleError {
  return new WhittleError('BASIS_DAMAGED', `${what} is malformed: ${how}`);
}

function decodedBytes(base64: string): number {
  if (base64.length % 4 !== 0) return -1;
  return (base64.length / 4) * 3 - (base64.endsWith('==') ? 2 : base64.endsWith('=') ? 1 : 0);
}

/** Lines without their line feeds; views that are valid until the next is asked for. */
async function* linesOf(chunks: AsyncIterable<Buffer>, what: string): AsyncGenerator<Buffer, void, undefined> {
  let held: Buffer[] = [];
  let heldBytes = 0;
  let totalBytes = 0;
  for await (const chunk of chunks) {
    totalBytes += chunk.length;
    if (totalBytes > tarSplitLimits.unpackedBytes) throw malformed(what, `it unpacks to more than ${String(tarSplitLimits.unpackedBytes)} bytes`);
    let at = 0;
    for (let end = chunk.indexOf(lineFeed); end >= 0; end = chunk.indexOf(lineFeed, at)) {
      const last = chunk.subarray(at, end);
      yield heldBytes === 0 ? last : Buffer.concat([...held, last]);
      held = [];
      heldBytes = 0;
      at = end + 1;
    }
    if (at === chunk.length) continue;
    heldBytes += chunk.length - at;
    if (heldBytes > tarSplitLimits.lineBytes) throw malformed(what, `a line of more than ${String(tarSplitLimits.lineBytes)} bytes`);
    held.push(Buffer.from(chunk.subarray(at)));
  }
  if (heldBytes > 0) throw malformed(what, 'it ends within a line');
}

/** Reads one line; only what is needed of it. */
function parseLine(bytes: Buffer, what: string): Line {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch (cause) {
    throw new WhittleError('BASIS_DAMAGED', `${what} is malformed: a line is not JSON`, { cause });
  }
  if (typeof value !== 'object' || value === null) throw malformed(what, 'a line is not an object');
  const { type, size, payload, position } = value as Readonly<Record<string, unknown>>;
  const isFile = type === lineTypes.file;
  if (!isFile && type !== lineTypes.segment) throw malformed(what, 'a line has an unknown type');
  const line = { type, size: isFile ? (size ?? 0) : 0, payload: isFile ? '' : payload, position };
  if (!isCount(line.size) || !isCount(line.position) || typeof line.payload !== 'string') throw malformed(what, 'a line has a field of the wrong kind');
  return { type, size: line.size, payload: line.payload, position: line.position };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}
