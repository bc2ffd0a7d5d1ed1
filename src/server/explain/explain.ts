import type { Basis } from '../../delta/basis.js';
import type { DeltaIndex } from '../../delta/index.js';
import type { ContentRef } from '../../delta/plan.js';
import type { LayerEntry } from '../../tar/types.js';
import type { ImageInput } from '../image-input.js';
import { unpackPair } from '../unpack.js';
import { addPart, addParts, sumParts, type AccountSource, type DeltaAccount, type FileAccount, type LayerAccount, type Parts } from './account.js';
import type { DeltaFile } from '../delta-file.js';
import type { DeltaMeter, MeteredLayer } from './meter.js';
import { deltaFrameDigestBytes, outlineData } from './outline.js';
import { whyContent, type SourceEntry } from './reasons.js';
import { replayDelta } from './replay.js';
import { visibleName } from './visible.js';

/** Which delta is explained, and with what. */
export interface ExplainOptions {
  readonly delta: DeltaFile;
  /** The image that the delta was made against; null: only what the file itself tells. */
  readonly basis: ImageInput | null;
  /** An empty directory for temporary files without a name. */
  readonly directory: string;
  readonly signal?: AbortSignal;
}

/**
 * Tells what the bytes of a delta are for. With its basis (or when it needs none) the delta is applied, and told apart
 * entry by entry; otherwise as far as it can be read without. Throws what `applyDelta` and reading the basis throw.
 */
export async function explainDelta({ delta, basis, directory, signal }: ExplainOptions): Promise<DeltaAccount> {
  const { index } = delta;
  if (basis === null && index.basisLayers.length > 0) return outlined(delta);
  const wanted = new Set(index.basisLayers);
  const image = basis === null ? nothing : { ...basis, layers: basis.layers.filter((layer) => wanted.has(layer.diffId)) };
  const pair = await unpackPair({ basis: image, target: { ...image, layers: [] }, directory, ...(signal && { signal }) });
  try {
    const meter = await replayDelta({ delta, basis: pair.basis, directory, ...(signal && { signal }) });
    return metered(delta, meter, pair.basis, basis ?? nothing);
  } finally {
    await pair.close();
  }
}

const nothing: ImageInput = { manifest: { mediaType: '', digest: '', sizeBytes: 0 }, configDigest: '', layers: [], openLayer: () => { throw new RangeError('an empty image has no layers'); } };

/** An account with the parts that lie outside the data blob. */
function accountOf(delta: DeltaFile, layers: readonly LayerAccount[], rest: { readonly own: Parts; readonly unknownBytes: number; readonly complete: boolean }): DeltaAccount {
  const { index } = delta;
  const [manifestBytes, indexBytes, dataBytes] = [delta.descriptor.size, delta.indexBlob.size, delta.data.size];
  const own: Parts = {};
  addPart(own, 'manifest', manifestBytes);
  addPart(own, 'frames', deltaFrameDigestBytes * index.frames.length);
  addPart(own, 'index', indexBytes - deltaFrameDigestBytes * index.frames.length);
  addParts(own, rest.own);
  const totals: Parts = { ...own };
  for (const layer of layers) {
    addParts(totals, layer.own);
    for (const file of layer.files ?? []) addParts(totals, file.parts);
  }
  return {
    profile: index.profile, basis: index.basis, target: index.target, deltaBytes: manifestBytes + indexBytes + dataBytes, manifestBytes, indexBytes, dataBytes,
    frames: index.frames.length, complete: rest.complete, unknownBytes: rest.unknownBytes, own, totals, layers,
  };
}

async function outlined(delta: DeltaFile): Promise<DeltaAccount> {
  const { own, unknownBytes } = await outlineData(delta);
  const layers = delta.index.layers.map(({ diffId, how }, layer): LayerAccount => ({ layer, diffId, how, tarBytes: null, deltaBytes: 0, own: {}, files: null }));
  return accountOf(delta, layers, { own, unknownBytes, complete: false });
}

function metered(delta: DeltaFile, meter: DeltaMeter, basis: Basis, image: ImageInput): DeltaAccount {
  const records = new Records(delta.index, meter, basis, image);
  const layers = delta.index.layers.map(({ diffId, how }, layer): LayerAccount => {
    const found = meter.layers.get(layer);
    if (found === undefined) return { layer, diffId, how, tarBytes: null, deltaBytes: 0, own: {}, files: [] };
    const files = [...found.plan.meta.entries].map((record, entry) => fileOf(found, entry, record, records));
    const deltaBytes = files.reduce((sum, file) => sum + file.deltaBytes, sumParts(found.own));
    return { layer, diffId, how, tarBytes: found.plan.meta.sizeBytes, deltaBytes, own: found.own, files };
  });
  const own: Parts = {};
  addPart(own, 'framing', delta.data.size - meter.accountedBytes);
  return accountOf(delta, layers, { own, unknownBytes: 0, complete: true });
}

function fileOf(layer: MeteredLayer, entry: number, record: LayerEntry, records: Records): FileAccount {
  const plan = layer.plan.content[entry] ?? { kind: 'none' };
  const parts = layer.entries[entry] ?? {};
  const refs = plan.kind === 'none' ? [] : plan.kind === 'copy' ? [plan.origin] : plan.sources;
  const sources = refs.flatMap((ref) => records.find(ref) ?? []);
  return {
    path: visibleName(record.header.path), type: typeOf(record.header.typeflag), sizeBytes: record.header.sizeBytes, deltaBytes: sumParts(parts),
    how: plan.kind, sources: sources.map((source) => source.account), why: whyContent(record, plan, sources), parts,
  };
}

const types: Readonly<Record<string, FileAccount['type']>> = { '0': 'file', '\0': 'file', '7': 'file', 'S': 'file', '1': 'link', '2': 'symlink', '5': 'directory' };

function typeOf(typeflag: number): FileAccount['type'] {
  return types[String.fromCharCode(typeflag)] ?? 'special';
}

/** The entries that a delta's plans name. */
class Records {
  constructor(private readonly index: DeltaIndex, private readonly meter: DeltaMeter, private readonly basis: Basis, private readonly image: ImageInput) {}

  find(ref: ContentRef): (SourceEntry & { readonly account: AccountSource }) | undefined {
    const diffId = this.index.basisLayers[ref.layer];
    const meta = ref.from === 'target' ? this.meter.layers.get(ref.layer)?.plan.meta : this.basis.layers.find((layer) => layer.diffId === diffId);
    const record = meta?.entries.at(ref.entry);
    if (record === undefined) return undefined;
    const layer = ref.from === 'target' ? ref.layer : this.image.layers.findIndex((each) => each.diffId === diffId);
    return { from: ref.from, record, account: { image: ref.from, layer, path: visibleName(record.header.path) } };
  }
}
