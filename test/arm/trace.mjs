import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { deviceAddon } from '../../dist/core/native.js';
import { applyDelta } from '../../dist/delta/apply.js';
import { openDeltaFile } from '../../dist/server/delta-file.js';
import { openImage } from '../../dist/server/sources.js';
import { unpackPair } from '../../dist/server/unpack.js';

// What a decoder is asked while a delta is applied, on record for `replay.cc`. The file `calls` holds, little-endian:
//   'P' u8 profile (0 small, 1 fast)                 a new decoder
//   'S' u32 size, bytes                              a segment
//   'B' u64 size, u32 count of sources, for each:    a file, read to its end
//       u32 count of extents, for each: u64 offset in `content`, u64 length
//   'E'                                              the end
//   'R' u8 profile, u32 size, bytes                  a segment that a new decoder must refuse

/** Old content begins there, behind a hole: beyond what 32 bits can count. */
const contentStart = 5 * 2 ** 30;
const profiles = ['small', 'fast'];

function u32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

/** Writes all of `bytes`, at `position` or, with null, after what was written last. */
function write(file, bytes, position) {
  for (let done = 0; done < bytes.length;) done += writeSync(file.fd, bytes, done, bytes.length - done, position === null ? null : position + done);
}

/** Passes calls on to this machine's decoder and keeps them, and the content that they name. */
class RecordingDecoder {
  /** Of each file: its size in bytes, and what this machine decoded, as sha256. */
  files = [];
  #calls;
  #content;
  #decoder;
  #at = contentStart;
  #hash = null;
  #pending = [];
  #last = { sources: null, place: Buffer.alloc(0) };

  constructor(profile, calls, content) {
    this.#decoder = new (deviceAddon().PatchDecoder)({ profile });
    this.#calls = calls;
    this.#content = content;
    this.#pending.push(Buffer.from([0x50, profiles.indexOf(profile)]));
  }

  segment(streams) {
    this.#pending.push(Buffer.from('S'), u32(streams.length), Buffer.from(streams));
    this.#decoder.segment(streams);
  }

  begin(file) {
    this.#endFile();
    this.#hash = createHash('sha256');
    this.files.push({ sizeBytes: file.sizeBytes, sha256: '' });
    this.#pending.push(Buffer.from('B'), u64(file.sizeBytes), { sources: file.sources });
    this.#decoder.begin(file);
  }

  async next(out) {
    this.#flush();
    return this.#decoded(out, await this.#decoder.next(out));
  }

  nextNow(out) {
    this.#flush();
    return this.#decoded(out, this.#decoder.nextNow(out));
  }

  end() {
    this.#endFile();
    // A decoder that was asked for nothing has nothing to end.
    if (this.files.length === 0) return;
    this.#decoder.end();
    this.#pending.push(Buffer.from('E'));
    this.#flush();
    this.#decoder.close();
  }

  #decoded(out, count) {
    this.#hash.update(out.subarray(0, count));
    return count;
  }

  #endFile() {
    const file = this.files.at(-1);
    if (this.#hash !== null) file.sha256 = this.#hash.digest('hex');
    this.#hash = null;
  }

  #flush() {
    for (const part of this.#pending.splice(0)) write(this.#calls, Buffer.isBuffer(part) ? part : this.#keep(part.sources), null);
  }

  /** The sources as the recording names them; their bytes are kept. The parts of a file have the same ones. */
  #keep(sources) {
    if (sources === this.#last.sources) return this.#last.place;
    const place = [u32(sources.length)];
    for (const { fd, extents } of sources) {
      place.push(u32(extents.length / 2));
      for (let index = 0; index < extents.length; index += 2) {
        place.push(u64(this.#at), u64(extents[index + 1]));
        this.#copy(fd, extents[index], extents[index + 1]);
      }
    }
    this.#last = { sources, place: Buffer.concat(place) };
    return this.#last.place;
  }

  #copy(fd, from, lengthBytes) {
    const piece = Buffer.alloc(Math.min(lengthBytes, 2 ** 20));
    for (let done = 0; done < lengthBytes;) {
      const bytesRead = readSync(fd, piece, 0, Math.min(piece.length, lengthBytes - done), from + done);
      if (bytesRead === 0) throw new Error('old content ends early');
      write(this.#content, piece.subarray(0, bytesRead), this.#at);
      this.#at += bytesRead;
      done += bytesRead;
    }
  }
}

/** Takes what is decoded, and gives the target's own content where a later entry wants it. */
function nullSink(target) {
  const nothing = () => Promise.resolve();
  return { beginLayer: nothing, copyEntry: nothing, writeEntry: nothing, endEntry: nothing, endLayer: nothing, openContent: (layer, entry) => target.openContent(layer, entry) };
}

/** A segment whose lengths are 2^32 more than those of its streams: shifted out of sight where a length has 32 bits. */
function tooLong(profile) {
  const length = Buffer.from([0x80, 0x80, 0x80, 0x80, 0x10]);
  const bytes = Buffer.concat([length, length, length]);
  return Buffer.concat([Buffer.from([0x52, profiles.indexOf(profile)]), u32(bytes.length), bytes]);
}

/**
 * Applies the delta at `deltaPath` from `basis` to `target` (`oci:DIR:TAG`) and puts the calls and the content on record below
 * `folder`. Gives the paths of both, and the files that were decoded, in order.
 */
export async function record({ deltaPath, basis, target, folder }) {
  const paths = { calls: join(folder, 'calls'), content: join(folder, 'content') };
  const delta = await openDeltaFile(deltaPath);
  const images = [await openImage(basis, {}), await openImage(target, {})];
  const pair = await unpackPair({ basis: images[0].input, target: images[1].input, directory: folder });
  const [calls, content] = [await open(paths.calls, 'w'), await open(paths.content, 'w')];
  try {
    const { index } = delta;
    write(calls, tooLong(index.profile), null);
    const codec = new RecordingDecoder(index.profile, calls, content);
    await applyDelta({ index, data: delta.openData(), basis: pair.basis, sink: nullSink(pair.target), scratchDir: folder, observer: { codec } });
    codec.end();
    return { ...paths, files: codec.files };
  } finally {
    await Promise.all([calls.close(), content.close(), pair.close(), delta.close(), ...images.map((image) => image.close())]);
  }
}
