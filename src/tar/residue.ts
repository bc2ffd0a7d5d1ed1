import { ByteReader, ByteWriter } from '../core/bytes.js';
import { blockBytes, fieldPlaces, noBytes, tarCorrupt } from './block.js';
import { render, sealChecksums, type HeaderFields, type Rendered } from './render.js';
import type { Style } from './style.js';

/*
 * A residue says how raw header bytes differ from what `render` gives. It is empty when they do not; else:
 *   u8 flags: 1 PAX and long-name headers are all in `before`; 2 has `before`; 4 has `after`; 8 has `patches`; 16 has `sealed` patches
 *   before, after: blob (varint length, bytes), put in front of and behind the rendered bytes
 *   patches: applied to the rendered bytes before checksums are made; sealed: applied after.
 *   Patches are varint count, then per patch: varint bytes to skip, blob of replacing bytes.
 */
const flags = { metasInBefore: 1, before: 2, after: 4, patches: 8, sealed: 16, all: 31 } as const;

/** Bytes that differ and are nearer than this are one patch. */
const patchGapBytes = 3;

function writePatches(out: ByteWriter, from: Buffer, to: Buffer): void {
  const found: { at: number; end: number }[] = [];
  for (let at = 0; at < from.length; at++) {
    if (from[at] === to[at]) continue;
    const last = found[found.length - 1];
    if (last !== undefined && at - last.end < patchGapBytes) last.end = at + 1;
    else found.push({ at, end: at + 1 });
  }
  out.varint(found.length);
  let done = 0;
  for (const { at, end } of found) {
    out.varint(at - done).blob(to.subarray(at, end));
    done = end;
  }
}

function applyPatches(reader: ByteReader, bytes: Buffer): void {
  const count = reader.varint(bytes.length);
  let at = 0;
  for (let index = 0; index < count; index++) {
    at += reader.varint(bytes.length - at);
    const patch = reader.blob(bytes.length - at);
    patch.copy(bytes, at);
    at += patch.length;
  }
}

function clearChecksums(bytes: Buffer, rendered: Rendered): Buffer {
  const copy = Buffer.from(bytes);
  for (const { offset } of rendered.blocks) {
    const from = offset + fieldPlaces.checksum.offset;
    copy.fill(0, from, from + fieldPlaces.checksum.widthBytes);
  }
  return copy;
}

function residueOf(raw: Buffer, mainOffset: number, fields: HeaderFields, style: Style, withMetas: boolean): Buffer | null {
  const rendered = render(fields, style, withMetas);
  const beforeBytes = mainOffset - rendered.mainOffset;
  if (beforeBytes < 0) return null;
  const middle = raw.subarray(beforeBytes, mainOffset + blockBytes);
  const cleared = clearChecksums(middle, rendered);
  const patched = !cleared.equals(rendered.bytes);
  const out = new ByteWriter();
  const patches = new ByteWriter();
  if (patched) {
    writePatches(patches, rendered.bytes, cleared);
    cleared.copy(rendered.bytes);
  }
  sealChecksums(rendered);
  const sealed = !middle.equals(rendered.bytes);
  if (sealed) writePatches(patches, rendered.bytes, middle);
  const after = raw.subarray(mainOffset + blockBytes);
  const bits = (withMetas ? 0 : flags.metasInBefore) | (beforeBytes > 0 ? flags.before : 0) | (after.length > 0 ? flags.after : 0) |
    (patched ? flags.patches : 0) | (sealed ? flags.sealed : 0);
  out.u8(bits);
  if (beforeBytes > 0) out.blob(raw.subarray(0, beforeBytes));
  if (after.length > 0) out.blob(after);
  return out.bytes(patches.finish()).finish();
}

/** The smallest residue that turns what `render` gives for `fields` and `style` into `raw`; no bytes if there is no difference. */
export function makeResidue(raw: Buffer, mainOffset: number, fields: HeaderFields, style: Style): Buffer {
  const usual = render(fields, style, true);
  sealChecksums(usual);
  if (usual.bytes.equals(raw)) return noBytes;
  const whole = residueOf(raw, mainOffset, fields, style, true);
  if (whole !== null && whole.length < blockBytes / 4) return whole;
  const literal = residueOf(raw, mainOffset, fields, style, false);
  if (literal === null) throw tarCorrupt('headers end too early');
  return whole !== null && whole.length <= literal.length ? whole : literal;
}

/** The raw header bytes for `fields`, `style` and `residue`, any of which may be hostile. Throws `TAR_CORRUPT`. */
export function applyResidue(fields: HeaderFields, style: Style, residue: Buffer): Buffer {
  if (residue.length === 0) {
    const rendered = render(fields, style, true);
    sealChecksums(rendered);
    return rendered.bytes;
  }
  const reader = new ByteReader(residue, (what) => tarCorrupt(`header residue ${what}`));
  const bits = reader.u8();
  if (bits > flags.all) reader.fail('has unknown flags');
  const rendered = render(fields, style, (bits & flags.metasInBefore) === 0);
  const before = (bits & flags.before) === 0 ? noBytes : reader.blob(residue.length);
  const after = (bits & flags.after) === 0 ? noBytes : reader.blob(residue.length);
  if ((bits & flags.patches) !== 0) applyPatches(reader, rendered.bytes);
  sealChecksums(rendered);
  if ((bits & flags.sealed) !== 0) applyPatches(reader, rendered.bytes);
  reader.end();
  return before.length === 0 && after.length === 0 ? rendered.bytes : Buffer.concat([before, rendered.bytes, after]);
}
