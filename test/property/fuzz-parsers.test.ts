import { createHash } from 'node:crypto';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync, gzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { isWhittleError } from '../../src/core/errors.js';
import { applyDelta } from '../../src/delta/apply.js';
import { BitDecoder } from '../../src/delta/bits.js';
import { computeDelta } from '../../src/delta/encode/compute.js';
import { deflateBytes, findStreams } from '../../src/delta/encode/find-streams.js';
import { inflateStream } from '../../src/delta/encode/streams.js';
import { parseDeltaIndex, type DeltaIndex } from '../../src/delta/index-blob.js';
import { MetaCoder } from '../../src/delta/meta-coder.js';
import { parseConfig, parseIndex, parseManifestOrIndex } from '../../src/oci/index.js';
import { ArchiveIndex } from '../../src/registry/archive-index.js';
import { decodeLayerMeta, encodeLayerMeta, TarScanner } from '../../src/tar/index.js';
import { png, zip } from '../support/compressed.js';
import { MemorySink } from '../support/delta-images.js';
import { makeTar, noise } from '../support/images.js';
import { tarBasis, type TarBasis } from '../support/tar-basis.js';

/**
 * Everything that reads bytes from outside is fed with spoilt ones: real inputs, mutated by what their formats are made of
 * (docs/fuzzing.md). WHITTLE_FUZZ_ROUNDS and WHITTLE_SEED choose how many and which: `npm run fuzz`.
 */
const rounds = Number(process.env['WHITTLE_FUZZ_ROUNDS'] ?? 500);
const seed = Number(process.env['WHITTLE_SEED'] ?? 1);
const text = (from: number): string => Array.from({ length: 800 }, (_, line) => `line ${String((line + from) * 7919)}\n`).join('');
const picture = (from: number): Buffer => png(deflateSync(text(from), { level: 6 }), 1000);

/** A parser that takes longer for one small input is hanging, or as good as that. */
const slowMs = 10_000;

let folder: string;
let basis: TarBasis;
let index: Buffer;
let data: Buffer;
let parsed: DeltaIndex;
let tars: { readonly old: Buffer; readonly now: Buffer };

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'whittle-fuzz-'));
  const old = await makeTar([{ path: 'bin/' }, { path: 'bin/a', content: noise(6000, 1), mode: 0o755 }, { path: 'doc.gz', content: gzipSync(text(0)) }, { path: 'pic.png', content: picture(0) }, { path: 'l', type: 'symlink', linkPath: 'bin/a' }, { path: `long/${'n'.repeat(150)}`, content: 'x' }]);
  const now = await makeTar([
    { path: 'bin/' }, { path: 'bin/a', content: Buffer.concat([noise(3000, 1), noise(400, 2), noise(2000, 1)]), mode: 0o755, mtimeSec: 1_800_000_000 },
    { path: 'doc.gz', content: gzipSync(text(3)) }, { path: 'pic.png', content: picture(3) }, { path: 'copy', content: noise(6000, 1) }, { path: 'h', type: 'link', linkPath: 'bin/a' }, { path: `long/${'n'.repeat(150)}`, content: 'y', pax: { 'SCHILY.xattr.user.k': 'v' } },
  ]);
  tars = { old, now };
  basis = tarBasis(folder, [old]);
  const target = tarBasis(folder, [now]);
  const image = { manifestDigest: `sha256:${'1'.repeat(64)}`, configDigest: `sha256:${'2'.repeat(64)}` };
  const made = await computeDelta({ basis, target, basisImage: image, targetImage: image, profile: 'fast', dataPath: join(folder, 'data') });
  target.close();
  index = made.index;
  parsed = parseDeltaIndex(index);
  const file = await open(join(folder, 'data'));
  data = await file.readFile();
  await file.close();
}, 60_000);

afterAll(async () => {
  basis.close();
  await rm(folder, { recursive: true, force: true });
});

/** Numbers from a seed, the same everywhere. */
class Random {
  #state: number;
  constructor(text: string) {
    this.#state = createHash('sha256').update(text).digest().readUInt32LE(0) | 1;
  }

  below(limit: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % Math.max(1, limit);
  }
}

/** Values at which numbers break, in the forms that formats write them. */
const tokens = [
  Buffer.alloc(8), Buffer.alloc(8, 0xff), Buffer.from('80808080808080807f', 'hex'), Buffer.from('ffffffffffffff0f', 'hex'), Buffer.from('77777777777\0'), Buffer.from('-1'), Buffer.from('9007199254740993'), Buffer.from('1e309'),
  Buffer.from('80000000ffffffffffffffff', 'hex'), Buffer.from('{"a":'), Buffer.from('[[[[[[[[[[[['), Buffer.from('"__proto__":{"x":1},'), Buffer.from('\\ud800'), Buffer.from('sha256:'), Buffer.from('../../'), Buffer.from('999999999 path=x\n'), Buffer.from('ustar\0'), Buffer.alloc(512), Buffer.from('xLKgS'),
];

/** Changes an input in 1 to 6 places: bits, bytes, numbers, stretches that go, come, are doubled, or come from another input. */
function mutate(input: Buffer, other: Buffer, random: Random): Buffer {
  let bytes: Buffer = Buffer.from(input);
  for (let count = 1 + random.below(6); count > 0; count--) {
    const at = random.below(bytes.length);
    const end = Math.min(bytes.length, at + 1 + random.below(random.below(4) === 0 ? 2000 : 16));
    const token = tokens[random.below(tokens.length)] ?? Buffer.alloc(1);
    const cut = random.below(other.length);
    const insert = (middle: Uint8Array, from = at): Buffer => Buffer.concat([bytes.subarray(0, at), middle, bytes.subarray(from)]);
    switch (random.below(9)) {
      case 0: if (bytes.length > 0) bytes[at]! ^= 1 << random.below(8); break;
      case 1: if (bytes.length > 0) bytes[at] = random.below(256); break;
      case 2: bytes = insert(token); break;
      case 3: token.copy(bytes, at); break;
      case 4: bytes = bytes.subarray(0, at); break;
      case 5: bytes = insert(Buffer.alloc(0), end); break;
      case 6: bytes = insert(bytes.subarray(at, end)); break;
      case 7: bytes = insert(other.subarray(cut, cut + 1 + random.below(600))); break;
      default: bytes.fill(random.below(2) * 255, at, end);
    }
  }
  return bytes;
}

/** What a search gives that found nothing. */
const nothing = Symbol('nothing');

/** Runs a parser over mutants. It returns or throws a WhittleError that is no INTERNAL; anything else is a defect, shown with the input. */
async function campaign(name: string, inputs: readonly Buffer[], share: number, parse: (bytes: Buffer, random: Random) => unknown): Promise<void> {
  const random = new Random(`${name}/${String(seed)}`);
  const outcomes = new Map<string, number>();
  for (let round = 0; round < Math.ceil(rounds * share); round++) {
    const input = inputs[random.below(inputs.length)] ?? Buffer.alloc(0);
    const bytes = round < inputs.length ? (inputs[round] ?? input) : mutate(input, inputs[random.below(inputs.length)] ?? input, random);
    const startedMs = performance.now();
    let outcome = 'accepted';
    try {
      if ((await parse(bytes, random)) === nothing) outcome = 'nothing found';
    } catch (error) {
      if (!isWhittleError(error) || error.code === 'INTERNAL') throw new Error(`${name}, seed ${String(seed)}, round ${String(round)}: ${String(error)}\n${bytes.subarray(0, 20_000).toString('base64')}`, { cause: error });
      outcome = error.code;
    }
    expect(performance.now() - startedMs).toBeLessThan(slowMs);
    // The unspoilt inputs are understood, or the campaign would only knock at the door.
    if (round < inputs.length) expect([round, outcome]).toEqual([round, 'accepted']);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  expect(outcomes.size).toBeGreaterThan(1);
}

const digest = `sha256:${'a'.repeat(64)}`;
const descriptor = { mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', digest, size: 123 };
const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json', config: { ...descriptor, mediaType: 'application/vnd.oci.image.config.v1+json' }, layers: [descriptor, descriptor], annotations: { a: 'b' }, subject: { ...descriptor, mediaType: 'application/vnd.oci.image.manifest.v1+json' } }));
const list = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [{ ...descriptor, mediaType: 'application/vnd.oci.image.manifest.v1+json', artifactType: 'application/vnd.whittle.delta.v1', annotations: { 'dev.whittle.basis.config': digest }, platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } }] }));
const config = Buffer.from(JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [digest, digest] }, config: { Env: ['A=b'] }, history: [] }));

test('compressed streams in a file', () => {
  const parts = [gzipSync(text(1)), picture(2), zip([{ name: 'a', content: Buffer.from(text(3)), level: 6 }, { name: 'b', content: noise(50, 1), level: 0 }]), deflateSync(text(4))];
  return campaign('streams', [...parts, Buffer.concat(parts)], 1, (bytes) => {
    const found = findStreams(bytes);
    // Those of a zip's directory alone are not looked into yet.
    for (const stream of found) if (stream.isEmbedded) expect(inflateStream(deflateBytes(bytes, stream))).not.toBeNull();
    return found.length === 0 ? nothing : found;
  });
}, 600_000);
test('delta index', () => campaign('delta index', [index], 8, (bytes) => parseDeltaIndex(bytes)), 600_000);
test('manifests, indexes and lists of referrers', () => campaign('manifests', [manifest, list], 6, (bytes) => parseManifestOrIndex(bytes, 'fuzzed')), 600_000);
test('image configs', () => campaign('configs', [config], 4, (bytes) => parseConfig(bytes)), 600_000);
test('lists of referrers', () => campaign('referrers', [list], 4, (bytes) => parseIndex(bytes, 'fuzzed')), 600_000);

test('tar scanner, in pieces of any size', () => campaign('tar scanner', [tars.old, tars.now], 1, (bytes, random) => {
  const scanner = new TarScanner({ entry: () => undefined, content: () => undefined, endContent: () => undefined, trailer: () => undefined });
  for (let at = 0; at < bytes.length;) {
    const end = at + 1 + random.below(random.below(2) === 0 ? 20 : 5000);
    scanner.write(bytes.subarray(at, end));
    at = end;
  }
  scanner.end();
}), 600_000);

test('stored layer metadata', () => campaign('layer metadata', basis.layers.map((layer) => encodeLayerMeta(layer)), 3, (bytes) => [...decodeLayerMeta(bytes).entries].length), 600_000);

test('plans, tar metadata and expansions of a delta', () => {
  const sizes = metaBlock();
  return campaign('delta metadata', [data.subarray(sizes.start, sizes.end)], 1, (bytes) => new MetaCoder(basis.layers).layer(new BitDecoder(bytes), 0, parsed.layers[0]?.diffId ?? ''));
}, 600_000);

/** Where the first block of tar metadata stands in the data: after its size. */
function metaBlock(): { start: number; end: number } {
  let size = 0;
  let start = 0;
  for (let byte = 0x80; byte >= 0x80; start++) {
    byte = data[start] ?? 0;
    size += (byte & 127) * 128 ** start;
  }
  return { start, end: start + size };
}

test('the data of a delta: plans, segments, expansions, as a device applies them', () => campaign('delta data', [data], 0.15, async (bytes) => {
  async function* chunks(): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes.length; at += 3000) yield await Promise.resolve(bytes.subarray(at, at + 3000));
  }
  const sink = new MemorySink();
  sink.openTarget = (layer, entry) => Promise.reject(new Error(`content of ${String(layer)}/${String(entry)}`));
  await applyDelta({ index: parsed, data: chunks(), basis, sink, scratchDir: folder });
}), 600_000);

test('archives', () => campaign('archives', [tars.old, tars.now], 0.3, async (bytes) => {
  const path = join(folder, 'archive.tar');
  await writeFile(path, bytes);
  const file = await open(path);
  try {
    await ArchiveIndex.read(file, path);
  } finally {
    await file.close();
  }
}), 600_000);
