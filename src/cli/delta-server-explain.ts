import { resolve } from 'node:path';
import { WhittleError } from '../core/errors.js';
import { formatBytes, formatExact, shortDigest } from '../core/format.js';
import { bufferBlob } from '../registry/blob-input.js';
import { checkPlace, replaceFile } from '../registry/new-file.js';
import { kindLabels, partKinds, sumParts, type DeltaAccount, type FileAccount, type LayerAccount, type PartKind, type Parts } from '../server/explain/account.js';
import { openDeltaFile } from '../server/delta-file.js';
import { explainDelta } from '../server/explain/explain.js';
import { accountPage } from '../server/explain/page.js';
import { openImage } from '../server/sources.js';
import { withWorkDirectory } from '../server/work-directory.js';
import { parseCount } from './delta-server-compute.js';
import { formatTable, type Output } from './output.js';

/** Flags of `delta-server explain` as commander gives them. */
export interface ExplainFlags {
  readonly basis?: string;
  readonly top: string;
  readonly html?: string;
  readonly platform?: string;
  readonly creds?: string;
}

/** `delta-server explain`: tells where the bytes of a `.delta` file go, as a table, as JSON and as a page. */
export async function runExplain(file: string, flags: ExplainFlags, output: Output, signal: AbortSignal): Promise<void> {
  const top = parseCount(flags.top, '--top', 999_999);
  if (flags.html === '-') throw new WhittleError('USAGE', '--html -: standard output has the table', { hint: 'Name a file for the page: --html PAGE.' });
  const page = flags.html === undefined ? null : resolve(flags.html);
  if (page !== null) await checkPlace(page);
  const delta = await openDeltaFile(file);
  try {
    const basis = flags.basis === undefined ? null : await openImage(flags.basis, { platform: flags.platform, creds: flags.creds, signal });
    try {
      const account = await withWorkDirectory((directory) => explainDelta({ delta, basis: basis?.input ?? null, directory, signal }));
      if (page !== null) await replaceFile(page, bufferBlob('text/html', Buffer.from(await accountPage(account, file))).open());
      output.json({ file, page, ...account });
      output.print(reportOf(account, top));
      if (page !== null) output.print(`\nwritten  ${page}`);
      if (!account.complete) output.note('\nTo see every file, name the image that the delta starts from: --basis SOURCE');
    } finally {
      await basis?.close();
    }
  } finally {
    await delta.close();
  }
}

function reportOf(account: DeltaAccount, top: number): string {
  const { deltaBytes, manifestBytes, indexBytes, dataBytes, frames } = account;
  const kinds = partKinds.map((kind) => ({ label: kindLabels[kind], sizeBytes: account.totals[kind] ?? 0 }));
  kinds.push({ label: 'not told apart without the basis', sizeBytes: account.unknownBytes });
  const kindRows = kinds.filter((kind) => kind.sizeBytes > 0).sort((a, b) => b.sizeBytes - a.sizeBytes).map((kind) => [kind.label, bytes(kind.sizeBytes), share(kind.sizeBytes, deltaBytes)]);
  const sections = [
    formatTable([
      ['delta', `${formatExact(deltaBytes)} bytes  (${formatBytes(deltaBytes)})  manifest ${formatExact(manifestBytes)} + index ${formatExact(indexBytes)} + data ${formatExact(dataBytes)}`],
      ['made of', `${String(frames)} ${frames === 1 ? 'frame' : 'frames'}, profile ${account.profile}`],
      ['from', `manifest ${shortDigest(account.basis.manifestDigest) || 'none'}, image ${shortDigest(account.basis.configDigest) || 'none'}`],
      ['to', `manifest ${shortDigest(account.target.manifestDigest)}, image ${shortDigest(account.target.configDigest)}`],
    ]),
    formatTable([['what for', 'bytes', 'share'], ...kindRows, ['all', bytes(deltaBytes), '100.0%']], { header: true }),
    formatTable([['layer', 'diffID', 'how', 'bytes', 'share', 'tar bytes', 'entries'], ...account.layers.map((layer) => layerRow(layer, deltaBytes))], { header: true }),
  ];
  if (account.complete) sections.push(filesTable(account, top));
  return sections.join('\n\n');
}

function layerRow(layer: LayerAccount, deltaBytes: number): string[] {
  const known = layer.files !== null;
  return [
    String(layer.layer), shortDigest(layer.diffId), layer.how === 'basis' ? 'kept' : 'rebuilt', known ? bytes(layer.deltaBytes) : '?', known ? share(layer.deltaBytes, deltaBytes) : '?',
    layer.tarBytes === null ? '' : formatExact(layer.tarBytes), layer.how === 'delta' && layer.files !== null ? formatExact(layer.files.length) : '',
  ];
}

const metadataKinds: readonly PartKind[] = ['names', 'times', 'attributes', 'plan', 'expansion', 'framing'];

function filesTable(account: DeltaAccount, top: number): string {
  const files = account.layers.flatMap((layer) => (layer.files ?? []).map((file) => ({ layer: layer.layer, file })));
  files.sort((a, b) => b.file.deltaBytes - a.file.deltaBytes);
  const shown = files.slice(0, top);
  const rest = files.slice(top);
  const row = (label: readonly string[], sizes: readonly Parts[], size: string): string[] => {
    const sum = (kinds: readonly PartKind[]): number => sizes.reduce((total, parts) => total + kinds.reduce((part, kind) => part + (parts[kind] ?? 0), 0), 0);
    const all = sizes.reduce((total, parts) => total + sumParts(parts), 0);
    return [...label, bytes(all), share(all, account.deltaBytes), bytes(sum(['literals'])), bytes(sum(['residue'])), bytes(sum(['ops'])), bytes(sum(metadataKinds)), size];
  };
  const rows = shown.flatMap(({ layer, file }) => [[...row([shortPath(file.path), String(layer)], [file.parts], formatExact(file.sizeBytes)), sourceOf(file)]]);
  if (rest.length > 0) {
    const size = rest.reduce((sum, { file }) => sum + file.sizeBytes, 0);
    rows.push([...row([`${formatExact(rest.length)} more`, ''], rest.map(({ file }) => file.parts), formatExact(size)), '']);
  }
  return formatTable([['file', 'layer', 'bytes', 'share', 'new', 'differences', 'copies', 'metadata', 'file size', 'from'], ...rows], { header: true });
}

const longestPath = 80;
const keptStart = 20;

/** One path of a thousand characters would push the numbers of every line off the screen: of a long one its beginning and end. */
function shortPath(path: string): string {
  const letters = Array.from(path);
  if (letters.length <= longestPath) return path;
  return `${letters.slice(0, keptStart).join('')}…${letters.slice(keptStart + 1 - longestPath).join('')}`;
}

function sourceOf(file: FileAccount): string {
  const from = file.sources.map((source) => source.path).filter((path) => path !== file.path);
  return from.length === 0 ? file.why : `${file.why}: ${from.slice(0, 2).map(shortPath).join(', ')}${from.length > 2 ? ' …' : ''}`;
}

function bytes(sizeBytes: number): string {
  return sizeBytes >= 100 || Number.isInteger(sizeBytes) ? formatExact(sizeBytes) : sizeBytes.toFixed(1);
}

function share(sizeBytes: number, ofBytes: number): string {
  return `${((sizeBytes / Math.max(1, ofBytes)) * 100).toFixed(1)}%`;
}
