import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { projectRoot } from '../../../bench/process.js';
import { parseCommand } from '../../../src/cli/device-command.js';
import { searchLimits } from '../../../src/applier/pull/search-limits.js';
import { containerdLimits } from '../../../src/applier/engines/containerd/limits.js';
import { staleStageMs, storeLimits } from '../../../src/applier/store/limits.js';
import { pullCommand } from '../../../src/cli/device-pull.js';
import { exitCodes } from '../../../src/core/error-codes.js';
import { deltaFormatVersion, deltaMediaTypes } from '../../../src/delta/format.js';
import { deltaLimits } from '../../../src/delta/limits.js';
import { defaultRegistryLimits } from '../../../src/registry/limits.js';
import { httpLimits } from '../../../src/server/http/listen.js';

test('the units in the docs call the programs as they are', async () => {
  const text = await readFile(join(projectRoot, 'docs/services.md'), 'utf8');
  const commands = [...text.matchAll(/^ExecStart=\/usr\/bin\/env (\S+) (.*)$/gm)].map(([, name = '', words = '']) => [name, ...words.split(' ')]);
  expect(commands.map(([name, command]) => `${name ?? ''} ${command ?? ''}`)).toEqual(['delta-server serve', 'device pull']);
  expect(parseCommand(pullCommand, commands[1]?.slice(2) ?? []).has('delta')).toBe(true);
  expect(text).toContain(`SuccessExitStatus=${String(exitCodes.interrupted)}\n`);
});

test('the page for programs has every event of a pull with its fields, and no other', async () => {
  const read = (path: string): Promise<string> => readFile(join(projectRoot, path), 'utf8');
  const rows = [...(await read('docs/json.md')).matchAll(/^\| `([a-z]+)` \| (.*?) \| [^|]*\|$/gm)].map(([, event = '', fields = '']) => [event, fields] as const);
  const source = await read('src/applier/pull/events.ts');
  const type = source.slice(source.indexOf('export type PullEvent ='));
  const members = type.split(/(?=readonly event: ')/).slice(1);
  const name = (member: string): string => /^readonly event: '([a-z]+)'/.exec(member)?.[1] ?? '';
  expect(rows.map(([event]) => event)).toEqual(members.map(name));
  for (const [at, member] of members.entries()) {
    for (const [, field = ''] of member.matchAll(/readonly ([a-zA-Z]+)\??:/g)) if (field !== 'event') expect(`${name(member)}: ${rows[at]?.[1] ?? ''}`).toContain(`\`${field}\``);
  }
  const figures = source.slice(source.indexOf('export interface DownloadedBytes'), source.indexOf('export type PlanStep')).matchAll(/^ {2}readonly ([a-zA-Z]+):/gm);
  for (const [, field = ''] of figures) if (!['digest', 'heldBytes', 'downloadBytes'].includes(field)) expect(rows.at(-1)?.[1]).toContain(`\`${field}\``);
});

const exact = (count: number): string => count.toLocaleString('en-US');
/** Bytes as the pages write them: whole KiB, MiB or TiB. */
function size(sizeBytes: number): string {
  const [unit, factor] = ([['TiB', 2 ** 40], ['MiB', 2 ** 20], ['KiB', 2 ** 10]] as const).find((each) => sizeBytes % each[1] === 0) ?? ['bytes', 1];
  return `${exact(sizeBytes / factor)} ${unit}`;
}
const seconds = (ms: number): string => `${exact(ms / 1000)} s`;
const days = (ms: number): number => ms / 86_400_000;

const [d, s] = [deltaLimits, searchLimits];
test.each<[page: string, ...phrases: string[]]>([
  ['format.md', `index ${size(d.indexBytes)}`, `${exact(d.layers)} layers each of basis and target`, `frames of ${size(d.frameBytes)}`, `data ${size(d.dataBytes)}`,
    `declared decoder memory ${size(d.memoryBytes)}`, `metadata block ${size(d.metaBytes)}`, `${exact(d.entries)} entries and ${size(d.metaTextBytes)} of names a layer`,
    `a name ${size(d.stringBytes)}`, `${exact(d.paxRecords)} PAX records`, `${exact(d.sources)} sources a file`, `${exact(d.expandedRanges)} compressed streams and ${size(d.expandedBytes)} of them inflated a file`,
    `${size(d.brotliBytes)} inflated of one brotli stream that is compressed again and ${size(d.brotliTotalBytes)} of all`, `${size(d.decidedBytes)} of a stream that is made of decisions and ${size(d.decidedTotalBytes)} of all`,
    `a segment ${size(d.segmentBytes)} and ${exact(d.segmentParts)} parts`, `format version | varint, ${String(deltaFormatVersion)}.`, `\`${deltaMediaTypes.index}\``, `\`${deltaMediaTypes.data}\``],
  ['protocol.md', `${String(s.chainLength)} deltas in a chain, ${String(s.referrersPerImage)} entries and ${size(s.listBytes)} of a list`, `${String(s.idlePages)} pages of it in a row without a delta`,
    `${String(s.directManifests)} manifests of deltas from images that are here and ${String(s.chainManifests)} others, ${String(s.imagesExplored)} images between, ${size(s.chainBytes)}`,
    `Request line and headers: ${size(httpLimits.headerBytes)}`, `the headers: ${seconds(httpLimits.headersTimeoutMs)}, for the whole request: ${seconds(httpLimits.requestTimeoutMs)}`,
    `nothing moves for ${seconds(httpLimits.idleTimeoutMs)} is cut`, `${String(httpLimits.connections)} connections`, `"${deltaMediaTypes.index}"`, `"${deltaMediaTypes.data}"`],
  ['registries.md', `chunks of ${size(defaultRegistryLimits.uploadChunkBytes)}`, `never more than ${size(s.chainBytes)}`],
  ['engines.md', `after ${String(days(staleStageMs))} days`, `expires after ${String(days(containerdLimits.leaseLifetimeMs))} days`],
  ['format-store.md', `a part above ${String(storeLimits.maxNameBytes)} bytes and a path above ${String(storeLimits.maxPathBytes)} bytes`, `at most ${String(storeLimits.maxSymlinkHops)} of them`],
])('the limits in docs/%s are those of the code', async (page, ...phrases) => {
  const text = (await readFile(join(projectRoot, 'docs', page), 'utf8')).replace(/\s+/g, ' ');
  expect(phrases.filter((phrase) => !text.includes(phrase))).toEqual([]);
});
