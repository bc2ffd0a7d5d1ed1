import { formatExact, formatRatio, shortDigest } from '../core/format.js';
import { deltaFormatVersion } from '../delta/format.js';
import { tabulateDeltas, type DeltaTable, type ListedDelta } from '../server/publish/deltas.js';
import { openRepository } from '../server/publish/repository.js';
import { formatTable, oneLine, type Output } from './output.js';

/** Flags of `delta-server deltas` as commander gives them. */
export interface DeltasFlags {
  readonly platform?: string;
  readonly creds?: string;
}

/** `delta-server deltas`: a table of the deltas that a registry has to an image. */
export async function runDeltas(image: string, flags: DeltasFlags, output: Output, signal: AbortSignal): Promise<void> {
  const where = openRepository(image.startsWith('docker://') ? image : `docker://${image}`, 'deltas', { creds: flags.creds, onRetry: (error) => { output.note(`trying again: ${error.message}`); } });
  try {
    const table = await tabulateDeltas(where, { platform: flags.platform, signal });
    output.json(table);
    output.note(`deltas to ${table.image} (image ${shortDigest(table.configDigest)}), from ${table.listedBy === 'api' ? 'the referrers API' : 'the fallback tag'}`);
    output.print(tableOf(table));
  } finally {
    await where.client.close();
  }
}

function tableOf({ deltas, image }: DeltaTable): string {
  if (deltas.length === 0) return oneLine(`${image}: no deltas`);
  const rows = deltas.map((delta) => [basisName(delta), shortDigest(delta.basisConfig), formatExact(delta.deltaBytes), delta.layerPullBytes === null ? '?' : formatExact(delta.layerPullBytes), saving(delta), shortDigest(delta.digest)]);
  return formatTable([['BASIS', 'IMAGE', 'DELTA', 'LAYERS', 'SAVING', 'MANIFEST'], ...rows], { header: true });
}

function basisName({ basisTags }: ListedDelta): string {
  if (basisTags.length === 0) return '(no tag)';
  return oneLine(basisTags.length > 3 ? `${basisTags.slice(0, 3).join(',')},…` : basisTags.join(','));
}

function saving({ deltaBytes, formatVersion, layerPullBytes }: ListedDelta): string {
  if (formatVersion !== deltaFormatVersion) return `(format ${String(formatVersion)})`;
  return layerPullBytes === null ? '?' : formatRatio(layerPullBytes, deltaBytes);
}
