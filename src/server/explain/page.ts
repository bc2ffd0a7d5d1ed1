import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { formatBytes, formatExact, shortDigest } from '../../core/format.js';
import { kindLabels, partKinds, type DeltaAccount } from './account.js';
import { visibleName } from './visible.js';

const assets = new URL('../../../assets/explain/', import.meta.url);

/**
 * An account as one page of HTML that needs nothing else: a map to click through (delta, layer, directory, file, kind of
 * bytes) and a table. `file` is what the account is of. Names out of images are data in it, never markup, and a content
 * security policy lets nothing run or load but the page's own script and style.
 */
export async function accountPage(account: DeltaAccount, file: string): Promise<string> {
  const [script, style] = await Promise.all([readFile(new URL('page.js', assets), 'utf8'), readFile(new URL('page.css', assets), 'utf8')]);
  const name = visibleName(Buffer.from(basename(file)));
  const data = { account, file: name, kinds: partKinds, labels: kindLabels };
  const { deltaBytes, manifestBytes, indexBytes, dataBytes } = account;
  const image = (digest: string): string => (digest === '' ? 'nothing' : `image ${shortDigest(digest)}`);
  const incomplete = account.complete ? '' : '\n<p>This page was made without the basis, so single files are not told apart. For all of them: <code>delta-server explain --basis SOURCE --html PAGE</code></p>';
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '${hashOf(script)}'; style-src '${hashOf(style)}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(name)} · where the bytes go</title>
<style>${style}</style>
<h1>Where the ${formatExact(deltaBytes)} bytes of ${escapeHtml(name)} go</h1>
<p class="soft">From ${image(account.basis.configDigest)} to ${image(account.target.configDigest)}, profile ${account.profile}: ${formatBytes(deltaBytes)}; manifest ${formatExact(manifestBytes)}, index ${formatExact(indexBytes)}, data ${formatExact(dataBytes)}.</p>${incomplete}
<nav id="crumbs" aria-label="Place in the delta"></nav>
<div id="map" role="group" aria-label="Map of the delta: the larger, the more bytes. Arrow keys move, Enter opens, Escape goes up."></div>
<ul id="legend" aria-label="What the bytes are for"></ul>
<dl id="facts"></dl>
<div class="scroll" id="list">
<table>
<thead><tr><th scope="col">name</th><th scope="col" class="number">bytes</th><th scope="col" class="number">share</th><th scope="col">what for</th><th scope="col" class="number">file size</th><th scope="col">compared with, and why</th></tr></thead>
<tbody id="rows"></tbody>
</table>
</div>
<p class="soft">Click, or press Enter, to go into a part; Escape goes up. Shares of a byte come from the probabilities that the decoder gave each bit.</p>
<noscript><p>The map needs JavaScript. The same facts as text: <code>delta-server explain</code></p></noscript>
<script type="application/json" id="account">${escapeJson(data)}</script>
<script>${script}</script>
</html>
`;
}

/** JSON that cannot end the element that holds it. */
function escapeJson(value: unknown): string {
  return JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${String(character.charCodeAt(0))};`);
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}
