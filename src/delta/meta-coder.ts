import { WhittleError } from '../core/errors.js';
import { derivePaxValue, PackedEntries } from '../tar/index.js';
import type { LayerEntry, LayerMeta, PaxRecord, TarHeader } from '../tar/types.js';
import type { BitPort } from './bits.js';
import { EntryCatalog } from './catalog.js';
import { checksumListKinds, type ChecksumList } from './checksum-list.js';
import { ExpansionCoder } from './expansion-coder.js';
import { deltaLimits } from './limits.js';
import { MetaModels, nameFields, numberFields, type NameField, type NumberField } from './meta-models.js';
import type { ContentPlan, ContentRef, LayerPlan } from './plan.js';
import { applyRename, renameRule, whiteoutOf, type RenameRule } from './rename-rule.js';

const none = Buffer.alloc(0);
const blankHeader: TarHeader = {
  path: none, linkPath: none, typeflag: 0x30, mode: 0o644, uid: 0, gid: 0, sizeBytes: 0, mtimeSec: 0, mtimeNsec: 0,
  uname: none, gname: none, devMajor: 0, devMinor: 0, pax: [], style: none, residue: none,
};

const noRecords: readonly PaxRecord[] = [];
const noContent: ContentPlan = { kind: 'none' };

/** How a path is coded. The numbers are part of the format. */
const pathHow = { next: 0, jump: 1, nextRenamed: 2, jumpRenamed: 3, jumpExplicit: 4, explicit: 5, whiteout: 6 } as const;
const timeHow = { same: 0, previous: 1, recent: 2, afterPrevious: 3, shifted: 4, afterReference: 5 } as const;
const nanosHow = { zero: 0, previous: 1, same: 2, explicit: 3 } as const;
const linkHow = { same: 0, renamed: 1, explicit: 2 } as const;
const contentHow = { same: 0, none: 1, basis: 2, target: 3, patch: 4 } as const;

const recentTimes = 32;

/** What an encoder wants coded: the plan, and for each entry the basis ordinal that its header is predicted from, or -1. */
export interface LayerInput {
  readonly plan: LayerPlan;
  readonly bases: Int32Array;
}

/** A layer's plan; `entries` are those of its metadata, whose digests the decoder still has to set. */
export interface CodedLayer extends LayerPlan {
  readonly entries: PackedEntries;
}

interface Time {
  readonly sec: number;
  readonly nsec: number;
}

/** A `T` that is being filled in. */
type Filling<T> = { -readonly [key in keyof T]: T[key] };

interface EntryInput {
  readonly record: LayerEntry;
  readonly content: ContentPlan;
  readonly base: number;
}

/**
 * Codes the tar metadata of a target's layers, in order, against the basis layers' metadata: every header is
 * predicted from a basis entry (usually the one after the last one used) or from the entry before, field by
 * field. The same code encodes and decodes (see BitPort). One coder per delta; not reusable after an error.
 */
export class MetaCoder {
  readonly #models = new MetaModels();
  readonly #basis = new EntryCatalog();
  readonly #target = new EntryCatalog();
  readonly #byType = new Map<number, TarHeader>();
  readonly #times: Time[] = [];
  readonly #expansions = new ExpansionCoder(this.#models);
  #previous = blankHeader;
  #cursor = 0;
  #rule: RenameRule | null = null;
  #timeShift = 0;
  #pathHistory = 0;
  #timeHistory = 0;
  #contentHistory = 0;
  #textBytes = 0;
  #checksumListBytes = 0;

  constructor(basis: readonly LayerMeta[]) {
    basis.forEach((meta, layer) => { this.#basis.add(layer, meta); });
  }

  /** Entries of the basis, counted through. */
  get basis(): EntryCatalog {
    return this.#basis;
  }

  /** Codes target layer `layer`; returns its plan (`input`'s own when encoding). Throws DELTA_CORRUPT when decoding garbage. */
  layer(port: BitPort, layer: number, diffId: string, input?: LayerInput): CodedLayer {
    const entries = new PackedEntries();
    const content: ContentPlan[] = [];
    const wanted = input?.plan.meta;
    this.#textBytes = 0;
    port.enter?.('layer');
    const count = this.#models.count.code(port, wanted?.entries.length ?? 0, 0);
    if (count > deltaLimits.entries) fail('too many tar entries');
    this.#target.add(layer, { diffId, sizeBytes: 0, entries, trailerZeroBytes: 0, trailer: null });
    for (let index = 0; index < count; index++) {
      const coded = this.#entry(port, entryInput(input, index));
      entries.push(coded.record);
      content.push(coded.content);
      this.#target.grow();
    }
    port.enter?.('layer');
    const trailerZeroBytes = this.#models.count.code(port, wanted?.trailerZeroBytes ?? 0, 1);
    const trailer = this.#models.paddingUsual.code(port, wanted?.trailer == null) ? null : this.#string(this.#models.values.code(port, wanted?.trailer ?? none, deltaLimits.metaTextBytes));
    const sizeBytes = this.#models.count.code(port, wanted?.sizeBytes ?? 0, 2);
    return { meta: { diffId, sizeBytes, entries, trailerZeroBytes, trailer }, content, entries };
  }

  #entry(port: BitPort, input: EntryInput | undefined): { record: LayerEntry; content: ContentPlan } {
    overrunCheck(port);
    port.enter?.('name');
    const wanted = input?.record.header ?? blankHeader;
    const { base, path } = this.#path(port, wanted.path, input?.base ?? -1);
    const baseHeader = base < 0 ? undefined : this.#basis.at(base)?.record.header;
    port.enter?.('attributes');
    const typeflag = this.#typeflag(port, wanted.typeflag, baseHeader);
    const reference = baseHeader ?? this.#byType.get(typeflag) ?? this.#previous;
    const predicted = baseHeader === undefined ? 1 : 0;
    port.enter?.('plan');
    const { content, sizeBytes, digest } = this.#content(port, input, base, reference);
    port.enter?.('attributes');
    // One literal: V8 makes objects that are spread into others, or grow, ten times more slowly, and there is one for every entry.
    const { mode, uid, gid, devMajor, devMinor } = this.#numbers(port, wanted, reference, predicted);
    const uname = this.#name(port, 'uname', wanted, reference, predicted);
    const gname = this.#name(port, 'gname', wanted, reference, predicted);
    const style = this.#name(port, 'style', wanted, reference, predicted);
    const linkPath = this.#linkPath(port, wanted.linkPath, reference, predicted);
    const { sec: mtimeSec, nsec: mtimeNsec } = this.#time(port, wanted, reference, predicted);
    const header: Filling<TarHeader> = { path, linkPath, typeflag, mode, uid, gid, sizeBytes, mtimeSec, mtimeNsec, uname, gname, devMajor, devMinor, pax: noRecords, style, residue: none };
    header.pax = this.#pax(port, wanted, header, reference, predicted);
    const sameResidue = this.#models.residueSame.code(port, isSame(port, wanted.residue, reference.residue), predicted);
    header.residue = sameResidue ? reference.residue : this.#string(this.#models.values.code(port, wanted.residue, deltaLimits.stringBytes));
    this.#previous = header;
    this.#byType.set(typeflag, header);
    return { record: { header, digest, padding: this.#padding(port, input?.record.padding ?? null) }, content };
  }

  #path(port: BitPort, wanted: Buffer, wantedBase: number): { base: number; path: Buffer } {
    const how = this.#models.pathHow.code(port, port.decoding ? 0 : this.#choosePath(wanted, wantedBase), this.#pathHistory);
    this.#pathHistory = ((this.#pathHistory << 3) | how) & 63;
    if (how === pathHow.explicit) return { base: -1, path: this.#explicitPath(port, wanted, this.#previous.path, 0) };
    if (how > pathHow.whiteout) fail('unknown way to code a path');
    const jumps = how !== pathHow.next && how !== pathHow.nextRenamed;
    const base = this.#cursor + (jumps ? this.#models.jump.code(port, wantedBase - this.#cursor, 0) : 0);
    const basePath = this.#basis.at(base)?.record.header.path ?? fail('a header is predicted from an entry that the basis has not');
    this.#cursor = base + 1;
    if (how === pathHow.whiteout) return { base: -1, path: this.#string(whiteoutOf(basePath)) };
    if (how === pathHow.next || how === pathHow.jump) return { base, path: basePath };
    if (how !== pathHow.jumpExplicit) return { base, path: this.#string(applyRename(this.#rule, basePath)) };
    const path = this.#explicitPath(port, wanted, basePath, 1);
    this.#rule = renameRule(basePath, path) ?? this.#rule;
    return { base, path };
  }

  #choosePath(wanted: Buffer, base: number): number {
    if (base < 0) return pathHow.explicit;
    const basePath = this.#basis.at(base)?.record.header.path ?? none;
    if (basePath.equals(wanted)) return base === this.#cursor ? pathHow.next : pathHow.jump;
    if (applyRename(this.#rule, basePath)?.equals(wanted) === true) return base === this.#cursor ? pathHow.nextRenamed : pathHow.jumpRenamed;
    return whiteoutOf(basePath)?.equals(wanted) === true ? pathHow.whiteout : pathHow.jumpExplicit;
  }

  /** A path as what it shares with `like` at its start (and, with context 1, at its end), and the bytes between. */
  #explicitPath(port: BitPort, wanted: Buffer, like: Buffer, context: 0 | 1): Buffer {
    const head = this.#models.prefix.code(port, sharedHead(wanted, like), context);
    if (head > like.length) fail('a name shares more than there is');
    const tail = context === 0 ? 0 : this.#models.suffix.code(port, sharedTail(wanted, like, head));
    if (head + tail > like.length) fail('a name shares more than there is');
    const between = this.#string(this.#models.names.code(port, wanted.subarray(head, wanted.length - tail), deltaLimits.stringBytes));
    return this.#string(Buffer.concat([like.subarray(0, head), between, like.subarray(like.length - tail)]));
  }

  #typeflag(port: BitPort, wanted: number, base: TarHeader | undefined): number {
    const likely = (base ?? this.#previous).typeflag;
    const context = base === undefined ? 1 : 0;
    return this.#models.typeSame.code(port, wanted === likely, context) ? likely : this.#models.typeflag.code(port, wanted);
  }

  #numbers(port: BitPort, wanted: TarHeader, reference: TarHeader, predicted: number): Pick<TarHeader, NumberField> {
    const result = { mode: 0, uid: 0, gid: 0, devMajor: 0, devMinor: 0 };
    for (let index = 0; index < numberFields.length; index++) {
      const field = numberFields[index] ?? 'mode';
      const context = index * 2 + predicted;
      if (this.#models.numberSame.code(port, wanted[field] === reference[field], context)) result[field] = reference[field];
      else if (this.#models.numberLast.code(port, wanted[field] === this.#previous[field], context)) result[field] = this.#previous[field];
      else result[field] = this.#models.numbers.code(port, wanted[field], index);
    }
    return result;
  }

  #name(port: BitPort, field: NameField, wanted: TarHeader, reference: TarHeader, predicted: number): Buffer {
    const same = this.#models.nameSame.code(port, isSame(port, wanted[field], reference[field]), nameFields.indexOf(field) * 2 + predicted);
    return same ? reference[field] : this.#string(this.#models.recentNames[field].code(port, wanted[field], deltaLimits.stringBytes));
  }

  #linkPath(port: BitPort, wanted: Buffer, reference: TarHeader, predicted: number): Buffer {
    const how = this.#models.linkHow.code(port, port.decoding ? 0 : this.#chooseLink(wanted, reference.linkPath), predicted);
    if (how === linkHow.same) return reference.linkPath;
    if (how === linkHow.renamed) return this.#string(applyRename(this.#rule, reference.linkPath));
    const head = this.#models.linkPrefix.code(port, sharedHead(wanted, reference.linkPath));
    if (head > reference.linkPath.length) fail('a link target shares more than there is');
    const rest = this.#string(this.#models.links.code(port, wanted.subarray(head), deltaLimits.stringBytes));
    return Buffer.concat([reference.linkPath.subarray(0, head), rest]);
  }

  #chooseLink(wanted: Buffer, reference: Buffer): number {
    if (wanted.equals(reference)) return linkHow.same;
    return applyRename(this.#rule, reference)?.equals(wanted) === true ? linkHow.renamed : linkHow.explicit;
  }

  #time(port: BitPort, wanted: TarHeader, reference: TarHeader, predicted: number): Time {
    port.enter?.('time');
    const how = this.#models.timeHow.code(port, port.decoding ? 0 : this.#chooseTime(wanted, reference), (this.#timeHistory & 15) * 2 + predicted);
    this.#timeHistory = (this.#timeHistory << 2) | Math.min(how, 3);
    let time = { sec: reference.mtimeSec, nsec: reference.mtimeNsec };
    if (how === timeHow.previous) time = { sec: this.#previous.mtimeSec, nsec: this.#previous.mtimeNsec };
    else if (how === timeHow.recent) {
      const place = this.#models.timePlace.code(port, this.#times.findIndex((known) => known.sec === wanted.mtimeSec && known.nsec === wanted.mtimeNsec));
      time = this.#times[place] ?? fail('a time is not among the recent ones');
    } else if (how !== timeHow.same) {
      const sec = this.#newSeconds(port, how, wanted, reference);
      time = { sec, nsec: this.#nanos(port, wanted.mtimeNsec, reference.mtimeNsec) };
    }
    this.#timeShift = time.sec - reference.mtimeSec;
    this.#remember(time);
    port.enter?.('attributes');
    return time;
  }

  /** Puts `time` in front of the recent ones. */
  #remember(time: Time): void {
    const place = this.#times.findIndex((known) => known.sec === time.sec && known.nsec === time.nsec);
    if (place === 0) return;
    if (place > 0) this.#times.splice(place, 1);
    this.#times.unshift(time);
    if (this.#times.length > recentTimes) this.#times.pop();
  }

  #chooseTime(wanted: TarHeader, reference: TarHeader): number {
    const is = (sec: number, nsec: number): boolean => wanted.mtimeSec === sec && wanted.mtimeNsec === nsec;
    if (is(reference.mtimeSec, reference.mtimeNsec)) return timeHow.same;
    if (is(this.#previous.mtimeSec, this.#previous.mtimeNsec)) return timeHow.previous;
    if (this.#times.some((known) => is(known.sec, known.nsec))) return timeHow.recent;
    if (wanted.mtimeSec === reference.mtimeSec + this.#timeShift) return timeHow.shifted;
    const fromPrevious = Math.abs(wanted.mtimeSec - this.#previous.mtimeSec);
    return fromPrevious <= Math.abs(wanted.mtimeSec - reference.mtimeSec) ? timeHow.afterPrevious : timeHow.afterReference;
  }

  #newSeconds(port: BitPort, how: number, wanted: TarHeader, reference: TarHeader): number {
    if (how === timeHow.shifted) return reference.mtimeSec + this.#timeShift;
    if (how !== timeHow.afterPrevious && how !== timeHow.afterReference) fail('unknown way to code a time');
    const from = how === timeHow.afterPrevious ? this.#previous.mtimeSec : reference.mtimeSec;
    const sec = from + this.#models.timeNumbers.code(port, wanted.mtimeSec - from, how === timeHow.afterPrevious ? 0 : 1);
    return Number.isSafeInteger(sec) ? sec : fail('a time is out of range');
  }

  #nanos(port: BitPort, wanted: number, reference: number): number {
    const choice = wanted === 0 ? nanosHow.zero : wanted === this.#previous.mtimeNsec ? nanosHow.previous : wanted === reference ? nanosHow.same : nanosHow.explicit;
    const how = this.#models.nanosHow.code(port, choice);
    if (how === nanosHow.zero) return 0;
    if (how === nanosHow.previous) return this.#previous.mtimeNsec;
    if (how === nanosHow.same) return reference;
    const nsec = this.#models.nanos.code(port, wanted);
    return nsec < 1e9 ? nsec : fail('a time is out of range');
  }

  #content(port: BitPort, input: EntryInput | undefined, base: number, reference: TarHeader): { content: ContentPlan; sizeBytes: number; digest: Buffer | null } {
    const how = this.#models.contentHow.code(port, input === undefined ? 0 : this.#chooseContent(input, base), (this.#contentHistory & 15) * 2 + (base < 0 ? 1 : 0));
    this.#contentHistory = (this.#contentHistory << 2) | Math.min(how, 3);
    if (how === contentHow.none) return { content: noContent, sizeBytes: 0, digest: null };
    if (how === contentHow.patch) {
      const wanted = input?.content.kind === 'patch' ? input.content : undefined;
      const sources = this.#sources(port, wanted?.sources, base);
      const expected = sources.length > 0 ? this.#record(sources[0] ?? fail('no source')).header.sizeBytes : reference.sizeBytes;
      const sizeBytes = expected + this.#models.sizeDifference.code(port, (input?.record.header.sizeBytes ?? 0) - expected, sources.length > 0 ? 0 : 1);
      if (sizeBytes <= 0 || !Number.isSafeInteger(sizeBytes)) fail('a patched file has no size');
      port.enter?.('expansion');
      const expansion = this.#expansions.code(port, wanted?.expansion ?? null, sizeBytes, sources.map((ref) => this.#record(ref).header.sizeBytes));
      const checksums = expansion === null && sources.length > 0 ? this.#checksums(port, wanted?.checksums ?? null, expected) : null;
      return { content: { kind: 'patch', sources, expansion, checksums }, sizeBytes, digest: input?.record.digest ?? null };
    }
    const wanted = input?.content.kind === 'copy' ? input.content.origin : undefined;
    const origin = how === contentHow.same ? this.#basisRef(base) : how === contentHow.basis || how === contentHow.target ? this.#ref(port, how === contentHow.basis, wanted, base) : fail('unknown way to code content');
    const record = this.#record(origin);
    if (record.header.sizeBytes === 0 && how === contentHow.same) return { content: noContent, sizeBytes: 0, digest: null };
    return { content: { kind: 'copy', origin }, sizeBytes: record.header.sizeBytes, digest: record.digest };
  }

  #checksums(port: BitPort, wanted: ChecksumList | null, sourceBytes: number): ChecksumList | null {
    const number = this.#models.checksumList.code(port, wanted === null ? 0 : checksumListKinds.indexOf(wanted.kind) + 1);
    const kind = checksumListKinds[number - 1];
    if (kind === undefined) return null;
    this.#checksumListBytes += sourceBytes;
    const isTooMuch = sourceBytes > deltaLimits.checksumListBytes || this.#checksumListBytes > deltaLimits.checksumListTotalBytes;
    return isTooMuch ? fail('lists of checksums are too large') : { kind };
  }

  #chooseContent(input: EntryInput, base: number): number {
    const { content } = input;
    const baseRecord = this.#basis.at(base);
    if (content.kind === 'none') return baseRecord?.record.header.sizeBytes === 0 ? contentHow.same : contentHow.none;
    if (content.kind === 'patch') return contentHow.patch;
    if (content.origin.from === 'target') return contentHow.target;
    return baseRecord?.layer === content.origin.layer && baseRecord.entry === content.origin.entry ? contentHow.same : contentHow.basis;
  }

  #sources(port: BitPort, wanted: readonly ContentRef[] | undefined, base: number): ContentRef[] {
    const baseRef = this.#basis.at(base);
    const first = wanted?.[0];
    const onlyBase = wanted?.length === 1 && first?.from === 'basis' && first.layer === baseRef?.layer && first.entry === baseRef.entry;
    if (this.#models.sourcesSame.code(port, onlyBase)) return [this.#basisRef(base)];
    const count = this.#models.count.code(port, wanted?.length ?? 0, 3);
    if (count > deltaLimits.sources) fail('a file has too many sources');
    const sources: ContentRef[] = [];
    for (let index = 0; index < count; index++) {
      const fromBasis = this.#models.sourceFrom.code(port, wanted?.[index]?.from === 'basis');
      sources.push(this.#ref(port, fromBasis, wanted?.[index], base));
    }
    return sources;
  }

  #ref(port: BitPort, fromBasis: boolean, wanted: ContentRef | undefined, base: number): ContentRef {
    const catalog = fromBasis ? this.#basis : this.#target;
    const near = fromBasis ? (base < 0 ? this.#cursor : base) : this.#target.size;
    const ordinal = wanted === undefined ? 0 : catalog.ordinal(wanted.layer, wanted.entry);
    const coded = fromBasis ? near + this.#models.contentJump.code(port, ordinal - near) : near - 1 - this.#models.contentBack.code(port, near - 1 - ordinal);
    const found = catalog.at(coded);
    if (found === undefined || found.record.header.sizeBytes === 0) return fail('content is taken from an entry that has none');
    return { from: fromBasis ? 'basis' : 'target', layer: found.layer, entry: found.entry };
  }

  #basisRef(ordinal: number): ContentRef {
    const found = this.#basis.at(ordinal) ?? fail('content is taken from an entry that the basis has not');
    return { from: 'basis', layer: found.layer, entry: found.entry };
  }

  #record(ref: ContentRef): LayerEntry {
    const catalog = ref.from === 'basis' ? this.#basis : this.#target;
    return catalog.at(catalog.ordinal(ref.layer, ref.entry))?.record ?? fail('content is taken from nowhere');
  }

  #pax(port: BitPort, wanted: TarHeader, header: Omit<TarHeader, 'pax' | 'residue'>, reference: TarHeader, predicted: number): readonly PaxRecord[] {
    const sameKeys = !port.decoding && wanted.pax.length === reference.pax.length && wanted.pax.every((record, index) => reference.pax[index]?.key.equals(record.key) === true);
    const like = this.#models.paxSame.code(port, sameKeys, predicted);
    const count = like ? reference.pax.length : this.#models.count.code(port, wanted.pax.length, 3);
    if (count > deltaLimits.paxRecords) fail('an entry has too many PAX records');
    if (count === 0) return noRecords;
    const records: PaxRecord[] = [];
    for (let index = 0; index < count; index++) {
      overrunCheck(port);
      const record = wanted.pax[index];
      const key = like ? (reference.pax[index]?.key ?? none) : this.#string(this.#models.paxKeys.code(port, record?.key ?? none, deltaLimits.stringBytes));
      const known = reference.pax.find((other) => other.key.equals(key))?.value;
      records.push({ key, value: this.#paxValue(port, record?.value ?? none, derivePaxValue(header, key), known, predicted) });
    }
    return records;
  }

  #paxValue(port: BitPort, wanted: Buffer, derived: Buffer | null, known: Buffer | undefined, predicted: number): Buffer {
    if (derived !== null && this.#models.paxDerived.code(port, derived.equals(wanted), predicted)) return derived;
    if (known !== undefined && this.#models.paxValueSame.code(port, known.equals(wanted), predicted)) return known;
    return this.#string(this.#models.values.code(port, wanted, deltaLimits.stringBytes));
  }

  #padding(port: BitPort, wanted: Buffer | null): Buffer | null {
    if (this.#models.paddingUsual.code(port, wanted === null)) return null;
    return this.#string(this.#models.values.code(port, wanted ?? none, deltaLimits.stringBytes));
  }

  /** Counts decoded text against its limit, so that a small hostile delta cannot fill memory. */
  #string(value: Buffer | null): Buffer {
    if (value === null) return fail('a string is too long');
    this.#textBytes += value.length;
    if (this.#textBytes > deltaLimits.metaTextBytes) fail('names are too long in all');
    return value;
  }
}

function entryInput(input: LayerInput | undefined, index: number): EntryInput | undefined {
  const record = input?.plan.meta.entries.at(index);
  const content = input?.plan.content[index];
  return record === undefined || content === undefined ? undefined : { record, content, base: input?.bases[index] ?? -1 };
}

/** What an encoder asks; a decoder is told. */
function isSame(port: BitPort, wanted: Buffer, known: Buffer): boolean {
  return !port.decoding && wanted.equals(known);
}

function overrunCheck(port: BitPort): void {
  if (port.overrun === true) fail('tar metadata ends too early');
}

function sharedHead(a: Buffer, b: Buffer): number {
  let count = 0;
  while (count < a.length && count < b.length && a[count] === b[count]) count++;
  return count;
}

function sharedTail(a: Buffer, b: Buffer, head: number): number {
  let count = 0;
  while (count < a.length - head && count < b.length - head && a[a.length - 1 - count] === b[b.length - 1 - count]) count++;
  return count;
}

function fail(what: string): never {
  throw new WhittleError('DELTA_CORRUPT', `the delta's tar metadata is malformed: ${what}`);
}
