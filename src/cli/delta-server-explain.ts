import { resolve } from 'node:path';
import { WhittleError } from '../core/errors.js';
import { formatBytes, formatExact, formatList, shortDigest } from '../core/format.js';
import { bufferBlob } from '../registry/blob-input.js';
import { checkPlace, replaceFile } from '../registry/new-file.js';
import { kindLabels, partKinds, type DeltaAccount, type LayerAccount } from '../server/explain/account.js';
import { openDeltaFile } from '../server/delta-file.js';
import { explainDelta } from '../server/explain/explain.js';
import { accountPage } from '../server/explain/page.js';
import { openImage } from '../server/sources.js';
import { withWorkDirectory } from '../server/work-directory.js';
import { parseCount } from './delta-server-compute.js';
import { bytes, filesTable, share } from './explain-files.js';
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
      output.print(reportOf(account));
      if (account.complete) printFiles(account, top, output);
      if (page !== null) output.print(`\nwritten  ${page}`);
      if (!account.complete) output.note('\nTo see every file, name the image that the delta starts from: --basis SOURCE');
    } finally {
      await basis?.close();
    }
  } finally {
    await delta.close();
  }
}

/** Where no terminal says how wide it is: the same in every file and pipe. */
const usualWidth = 100;

function printFiles(account: DeltaAccount, top: number, output: Output): void {
  const { text, without } = filesTable(account, top, process.stdout.isTTY && process.stdout.columns > 0 ? process.stdout.columns : usualWidth);
  output.print(`\n${text}`);
  if (without.length > 0) output.note(`\nNo room for ${formatList(without, '')}: --json and --html have everything`);
}

function reportOf(account: DeltaAccount): string {
  const { deltaBytes, manifestBytes, indexBytes, dataBytes, frames } = account;
  const kinds = partKinds.map((kind) => ({ label: kindLabels[kind], sizeBytes: account.totals[kind] ?? 0 }));
  kinds.push({ label: 'not told apart without the basis', sizeBytes: account.unknownBytes });
  const kindRows = kinds.filter((kind) => kind.sizeBytes > 0).sort((a, b) => b.sizeBytes - a.sizeBytes).map((kind) => [kind.label, bytes(kind.sizeBytes), share(kind.sizeBytes, deltaBytes)]);
  const sections = [
    formatTable([
      ['delta', `${formatExact(deltaBytes)} bytes  (${formatBytes(deltaBytes)})`],
      ['made of', `manifest ${formatExact(manifestBytes)} + index ${formatExact(indexBytes)} + data ${formatExact(dataBytes)}`],
      ['data', `${String(frames)} ${frames === 1 ? 'frame' : 'frames'}, profile ${account.profile}`],
      ['from', `manifest ${shortDigest(account.basis.manifestDigest) || 'none'}, image ${shortDigest(account.basis.configDigest) || 'none'}`],
      ['to', `manifest ${shortDigest(account.target.manifestDigest)}, image ${shortDigest(account.target.configDigest)}`],
    ]),
    formatTable([['what for', 'bytes', 'share'], ...kindRows, ['all', bytes(deltaBytes), '100.0%']], { header: true }),
    formatTable([['layer', 'diffID', 'how', 'bytes', 'share', 'tar bytes', 'entries'], ...account.layers.map((layer) => layerRow(layer, deltaBytes))], { header: true }),
  ];
  return sections.join('\n\n');
}

function layerRow(layer: LayerAccount, deltaBytes: number): string[] {
  const known = layer.files !== null;
  return [
    String(layer.layer), shortDigest(layer.diffId), layer.how === 'basis' ? 'kept' : 'rebuilt', known ? bytes(layer.deltaBytes) : '?', known ? share(layer.deltaBytes, deltaBytes) : '?',
    layer.tarBytes === null ? '' : formatExact(layer.tarBytes), layer.how === 'delta' && layer.files !== null ? formatExact(layer.files.length) : '',
  ];
}
